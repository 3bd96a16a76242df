"""What drafting for a cloud takes, and when it pays: tokens per verification, seconds per token, what is billed.

A device drafts k tokens in `k t_d`, sends them, and the cloud verifies all in one step of t_v; a trip takes rtt. The
other way is to let the cloud stream, a token each t_v once the stream runs. So drafting pays if and only if

    rtt < t_v E(a, k) - k t_d - t_v - 8 bytes / R

with a the chance that a token is accepted (arXiv 2606.25091 compares the two over distances). By hand: a = 0.8 and
t_d = 20 ms give at most 4 ms of rtt for t_v = 30 ms (k = 1), and 176 ms for t_v = 100 ms (k = 7).
"""

from collections.abc import Sequence
from dataclasses import dataclass

ID_BYTES = 3
"""Of a drafted token on its way up: enough for 16 million ids."""
CHANCE_BYTES = 2
"""Of the probability of one token on its way up."""
DOWN_BYTES = 4
"""Of what comes down of a verification: an id, and how many were accepted."""


def expected_tokens(acceptance: float, drafted: int) -> float:
    """E(a, k) = (1 - a^(k+1)) / (1 - a): tokens that a verification gives in the mean (arXiv 2211.17192, eq. 1).

    Args:
        acceptance: a, in [0, 1], the same and independent at every place.
        drafted: k, at least 0.
    """
    return float(sum(acceptance**place for place in range(drafted + 1)))


@dataclass(frozen=True)
class Pace:
    """How fast device, cloud and link are."""

    draft_s: float
    """t_d, of the device for a token."""
    verify_s: float
    """t_v, of the cloud for a token or a verification."""
    rtt_s: float
    """Of a trip."""
    sent_s: float = 0.0
    """8 bytes / R, of what a verification sends, beyond the trip."""

    def per_token(self, acceptance: float, drafted: int) -> float:
        """Seconds per token of drafting, `(k t_d + t_v + rtt + 8 bytes / R) / E(a, k)`."""
        taken = drafted * self.draft_s + self.verify_s + self.rtt_s + self.sent_s
        return taken / expected_tokens(acceptance, drafted)

    def longest_rtt(self, acceptance: float, drafted: int) -> float:
        """The trip below which drafting pays, `t_v E(a, k) - k t_d - t_v - 8 bytes / R`; negative where it never does.

        At this trip both ways take `verify_s` per token.
        """
        gained = self.verify_s * expected_tokens(acceptance, drafted)
        return gained - drafted * self.draft_s - self.verify_s - self.sent_s

    def pays(self, acceptance: float, drafted: int) -> bool:
        """Whether drafting gives a token sooner than a stream of the cloud."""
        return self.rtt_s < self.longest_rtt(acceptance, drafted)

    def best_length(self, acceptance: float, longest: int) -> int:
        """K of 0 to `longest` with the fewest seconds per token, the shortest of equals.

        It grows about as the logarithm of the trip (arXiv 2606.20591). By hand: a = 0.8, 20 and 30 ms, and trips of 10,
        50, 100 and 200 ms give 2, 3, 5 and 6.
        """
        return min(range(longest + 1), key=lambda drafted: self.per_token(acceptance, drafted))


@dataclass(frozen=True)
class Turn:
    """One verification, in tokens."""

    drafted: int
    accepted: int
    own: int
    """1, or 0 where an accepted token ended the answer."""

    @property
    def gained(self) -> int:
        """How many tokens the answer is longer after it."""
        return self.accepted + self.own


def billed(prompt: int, turns: Sequence[Turn], *, stateless: bool) -> tuple[int, int]:
    """Tokens that the cloud bills as read and as said.

    In a session it keeps what it has read: the prompt and all drafted tokens, once each. Without state every
    verification sends all that stands before the draft again. By hand, for a prompt of 100 and 4 turns of 4 accepted
    and 1 own: 116 and 4 in a session, 446 and 4 without state; asking the whole question is 100 and 20.

    Args:
        prompt: its tokens.
        turns: in order.
        stateless: whether the cloud forgets between verifications.
    """
    read, before = 0, 0
    for number, turn in enumerate(turns):
        read += turn.drafted + (prompt + before if stateless or number == 0 else 0)
        before += turn.gained
    return read, sum(turn.own for turn in turns)


def fewest_accepted(longest: int, most: int) -> list[Turn]:
    """The turns of an answer of `longest` tokens of which no drafted one is accepted: no exchange takes more.

    Args:
        longest: of the answer, the ending token included.
        most: drafted at once; no more than have room before the cloud's own.
    """
    return [Turn(room_for(longest, said, most), 0, 1) for said in range(longest)]


def room_for(longest: int, said: int, most: int) -> int:
    """How many tokens to draft after `said` ones: the cloud adds one of its own to all that it accepts."""
    return max(0, min(most, longest - said - 1))
