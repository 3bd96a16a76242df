"""Explored prompts: which ones a pack explores, and what is learned there of asking (`flsim/learning/exploration.py`).

A device answers an explored prompt by itself, with the help request ruled out, and buys the cloud's answer as well: so
it sees what asking would have gained, whatever its policy thinks of asking. A purchase is one like any other: under the
ledger, in usage and its price, and learned from where bought answers are.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from clients.device.answering import Problems
from clients.device.counts import count_learning, count_reading
from clients.device.device import Device
from clients.device.pack import Pack
from clients.device.rollout import Rollout
from flsim.learning.exploration import how_many, log_chance, parts_of_odds, push
from flsim.models.base import BaseModel
from flsim.models.decoding import Completions, encode, given, read
from flsim.models.scoring import Readout, per_token, pull_back_readouts
from flsim.seeding import generator


def to_explore(
    devices: Sequence[Device], problems: Problems, share: float, *, alone: float, seed: int, step: int
) -> Tensor:
    """True at the prompts that are explored, `(K, P)`; a device's own draws, whoever shares its pack.

    Args:
        devices: K of them, whose budgets say tau.
        problems: of each device; their numbers may differ.
        share: of tau, so that a device explores `share * tau` of the prompts at which it may ask, in the mean.
        alone: share of a step's prompts, its first, that are practised alone and never explored.
        seed: of training.
        step: of the round.
    """
    chosen = torch.zeros(len(problems), max(len(row) for row in problems), dtype=torch.bool)  # (K, P)
    for k, (device, row) in enumerate(zip(devices, problems, strict=True)):
        first = int(alone * len(row))
        source = generator(seed, "explore", device.name, device.round, step)
        expected = share * device.ledger.budget.tau * (len(row) - first)
        count = min(how_many(expected, float(source.random())), len(row) - first)
        chosen[k, first + source.permutation(len(row) - first)[:count]] = True
    return chosen


def explored_gradient(
    pack: Pack,
    problems: Problems,
    rollout: Rollout,
    gain: Tensor,
    *,
    temperature: float,
    bias: Tensor,
    tokens: int,
) -> Tensor | None:
    """The gradient of `-sum push(gain) z / prompts` over explored prompts, `(K, n)`; None where none was explored.

    z is the log-odds of the whole request where it may stand: at the beginning of a response, or, where the model asks
    after its drafts, after the first draft of the group, which is what a user would get. A prompt counts as much as
    its group does in the policy gradient.

    Args:
        pack: whose adapters have not moved since the sampling, or a step ago.
        problems: of each device.
        rollout: of them.
        gain: what asking was worth more than a draft at each prompt, `(K, P)`; read where the cloud's answer came.
        temperature: of the sampling.
        bias: on the request's logit at each prompt, `(K, P)`.
        tokens: most tokens in one forward pass.
    """
    assert rollout.explored is not None, "a learner that explores says where"
    known = (rollout.explored.cpu() & rollout.help.came).tolist()
    places = [[p for p, flag in enumerate(row) if flag] for row in known]
    if not any(places):
        return None
    base, after = pack.world.base, pack.world.config.model.drafts
    asking, starts = _requests(base, rollout.completions, places, after=after)
    pack.attach()
    words = base.prompts([[problems[k][p] for p in row] for k, row in enumerate(places)])
    reading = read(base, encode(base, words))
    own_bias = torch.zeros(asking.tokens.shape[:2])  # (K, P')
    for k, row in enumerate(places):
        own_bias[k, : len(row)] = bias[k, row]
    readout = _odds_of(base, asking, temperature, own_bias.flatten().to(asking.tokens.device))
    with torch.no_grad():
        odds = per_token(base, reading, asking, readout, tokens=tokens)[:, :, 0]  # (K, P', T)
    own = asking.mask[:, :, 0] & (torch.arange(odds.shape[-1], device=odds.device) >= starts[..., None])  # (K, P', T)
    gains = torch.zeros(own.shape[:2])  # (K, P')
    for k, row in enumerate(places):
        gains[k, : len(row)] = gain[k, row].cpu() / max(1, len(problems[k]))
    pushes = push(gains.to(odds.device).double(), log_chance(odds, own).exp())  # (K, P')
    pull = -(pushes[..., None] * parts_of_odds(odds, own)).to(odds.dtype)[:, :, None]  # (K, P', 1, T)
    count_reading(pack.devices, reading.prompts)
    count_learning(pack.devices, own[:, :, None])
    return pull_back_readouts(base, pack.world.lora, reading, asking, readout, pull, tokens=tokens)  # (K, n)


def _requests(
    base: BaseModel, said: Completions, places: Sequence[Sequence[int]], *, after: bool
) -> tuple[Completions, Tensor]:
    """The requests at those prompts `(K, P', 1, T)`, and where in them each begins `(K, P')`.

    After a draft that did not end, or said nothing, no request could stand: it has no tokens and pulls nothing.
    """
    rows: list[list[list[int]]] = []
    starts = torch.zeros(len(places), max(1, *(len(row) for row in places)), dtype=torch.long)  # (K, P')
    for k, row in enumerate(places):
        own: list[list[int]] = []
        for at, p in enumerate(row):
            draft: list[int] = []
            if after:
                mask = said.mask[k, p, 0]  # (T,)
                ends = base.ends(said.tokens[k, p, 0]) & mask  # (T,)
                ends = ends if said.stopped is None else ends | said.stopped[k, p, 0]  # (T,)
                draft = said.tokens[k, p, 0][mask & ~ends].tolist() if bool(ends.any()) else []
            own.append([*draft, *base.help.ids] if draft or not after else [])
            starts[k, at] = len(draft)
        rows.append(own)
    return given(base, rows), starts.to(said.tokens.device)


def _odds_of(base: BaseModel, asking: Completions, temperature: float, bias: Tensor) -> Readout:
    """Log-odds of each token against all others, as it would be drawn; `bias` `(K P',)` is that on the request."""
    tokens, longest = asking.tokens.flatten(), asking.tokens.shape[-1]

    def readout(logits: Tensor, places: Tensor) -> Tensor:
        within = places % longest  # (n,)
        logits = base.help.biased(logits.float(), bias[places // longest], within) / temperature  # (n, V)
        meant = tokens[places][:, None]  # (n, 1)
        others = logits.scatter(-1, meant, -torch.inf).logsumexp(-1)  # (n,)
        return logits.gather(-1, meant)[:, 0] - others  # (n,)

    return readout
