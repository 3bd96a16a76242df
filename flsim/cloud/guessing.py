"""Greedy answers by way of guesses: a model that would say what somebody guesses is read once, and not token by token.

This is speculative decoding (Leviathan et al. 2023, arXiv 2211.17192) with guesses that cost nothing: a simulated cloud
stands beside the right answer. All tokens of a guess are read in one pass; up to the first that the model would not
have said, they are its own. There it says another, and what it thinks of the rest is the next guess (Jacobi decoding;
Santilli et al. 2023, arXiv 2305.10427). So an answer is the model's own whatever was guessed; only the time differs.
"""

from collections.abc import Sequence

import torch

from flsim.models.base import BaseModel
from flsim.models.decoding import Reading, given
from flsim.models.scoring import top_logprobs

CLEAR = 1e-3
"""By how many nats a token must be likelier than the next, a hundred times what rounding moved; what is closer
is decoded token by token."""
_PASSES = 6  # after which the few that are still open are decoded token by token as well


@torch.no_grad()
def by_guesses(
    base: BaseModel, reading: Reading, guesses: Sequence[Sequence[int]], longest: int
) -> list[list[int] | None]:
    """The tokens that a model says to each prompt, greedily and without asking, the ending one included.

    Law: the same for any guesses.

    Args:
        base: the model.
        reading: P prompts, of one device.
        guesses: the tokens of each answer as far as somebody knows them, without an ending one.
        longest: most tokens of an answer.

    Returns:
        One answer per prompt; None where two tokens were too close, or the guesses too far off: decode it.
    """
    found: list[list[int] | None] = [None] * len(guesses)
    drafts = {place: _ended(base, guess, longest) for place, guess in enumerate(guesses)}
    most = len(guesses)  # and later half of them: where most guesses are wrong, they cost more than they save
    for _ in range(_PASSES):
        if not drafts or len(drafts) > most:
            break
        part = reading if len(drafts) == len(guesses) else reading.of([list(drafts)])
        best, logprobs = top_logprobs(base, part, given(base, [list(drafts.values())]), 2)  # (1, P, 1, T, 2) each
        clear = (logprobs[0, :, 0, :, 0] - logprobs[0, :, 0, :, 1] > CLEAR).tolist()  # [P][T]
        open_: dict[int, list[int]] = {}
        for (place, draft), said, sure in zip(drafts.items(), best[0, :, 0, :, 0].tolist(), clear, strict=True):
            own = next((at for at, token in enumerate(draft) if said[at] != token), len(draft))  # tokens that are its
            if not all(sure[: min(own + 1, len(draft))]):
                continue
            if own == len(draft):
                found[place] = draft
            else:
                open_[place] = _ended(base, [*draft[:own], *said[own : len(draft)]], longest)
        drafts, most = open_, len(guesses) // 2
    return found


def _ended(base: BaseModel, tokens: Sequence[int], longest: int) -> list[int]:
    """Up to the first ending token, which is put where there is none; the limit ends an answer as well."""
    ends = base.ends(torch.tensor(tokens, dtype=torch.long)).tolist()  # (T,)
    until = ends.index(True) if True in ends else len(tokens)
    return [*tokens[:until], *(tokens[until : until + 1] or [base.eos_id])][:longest]
