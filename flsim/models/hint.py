"""Going on after a help request: something is put in, and the device says its own answer, alone.

What is put in, a hint of the cloud's or nothing, is context: it is read, and no token of it enters a loss, as TRL masks
what tools say. After it the request is ruled out, so that a response asks at most once.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace

import torch
import torch.nn.functional as F

from flsim.models.base import BaseModel
from flsim.models.decoding import Completions, Prompts, generate, prompts_of, read

Place = tuple[int, int, int]
"""Device, prompt and response."""


@torch.no_grad()
def go_on(
    base: BaseModel,
    prompts: Prompts,
    said: Completions,
    hints: Mapping[tuple[int, int], Sequence[int]],
    *,
    max_new_tokens: int,
    temperature: float,
    generators: Sequence[torch.Generator] | None = None,
) -> tuple[Completions, dict[Place, str]]:
    """Let every response that asked go on, one that asked in other tokens than the request's own after its end.

    Args:
        base: the model, with the adapters in use that said it.
        prompts: what was asked.
        said: what it said so far.
        hints: the tokens that are put in after the request, by device and prompt; where there are none, nothing is.
        max_new_tokens: of what follows, the ending token included.
        temperature: of the sampling; 0 means greedy.
        generators: one per device; needed unless greedy.

    Returns:
        The whole responses, of which `texts` is what was said before the request as before; and the answers of those
        that asked.
    """
    ids, starts = prompts.ids.tolist(), (~prompts.mask).sum(-1).tolist()
    own, lengths = said.tokens.tolist(), said.mask.sum(-1).tolist()
    before: list[list[list[int]]] = [[] for _ in prompts.counts]  # [device][response that asked], all that is read
    rows: dict[Place, int] = {}  # its number among the device's that asked
    for k, p, g in said.asked.nonzero().tolist():
        rows[k, p, g] = len(before[k])
        before[k].append([*ids[k][p][starts[k][p] :], *own[k][p][g][: lengths[k][p][g]], *hints.get((k, p), ())])
    if not rows:
        return said, {}
    more = generate(
        base,
        read(base, prompts_of(base, before)),
        group_size=1,
        max_new_tokens=max_new_tokens,
        temperature=temperature,
        generators=generators,
        may_ask=False,
    )
    answers = {(k, p, g): more.texts[k][row][0] for (k, p, g), row in rows.items()}
    return _joined(base, said, hints, more, rows), answers


def _joined(
    base: BaseModel,
    said: Completions,
    hints: Mapping[tuple[int, int], Sequence[int]],
    more: Completions,
    rows: Mapping[Place, int],
) -> Completions:
    """What was said, then what was put in, then what followed, by its row of `more` `(K, R, 1, T)`."""
    first, then = said.mask.sum(-1).cpu(), more.mask[:, :, 0].sum(-1).cpu()  # (K, P, G), (K, R)
    followed, chances = more.tokens[:, :, 0].cpu(), more.logprobs[:, :, 0].cpu()  # (K, R, T) each
    resumed = torch.zeros_like(first)  # (K, P, G)
    for k, p, g in rows:
        resumed[k, p, g] = first[k, p, g] + len(hints.get((k, p), ()))
    ends = [int(resumed[k, p, g] + then[k, row]) for (k, p, g), row in rows.items()]
    room = max(0, max(ends) - said.tokens.shape[-1])
    tokens, mask, logprobs = (
        F.pad(of.cpu(), (0, room), value=value)
        for of, value in ((said.tokens, base.pad_id), (said.mask, False), (said.logprobs, 0.0))
    )  # (K, P, G, T) each
    for (k, p, g), row in rows.items():
        begin, count = int(resumed[k, p, g]), int(then[k, row])
        tokens[k, p, g, int(first[k, p, g]) : begin] = torch.tensor(list(hints.get((k, p), ())), dtype=torch.long)
        tokens[k, p, g, begin : begin + count] = followed[k, row, :count]
        mask[k, p, g, begin : begin + count] = True
        logprobs[k, p, g, begin : begin + count] = chances[k, row, :count]
    place = said.tokens.device
    stopped = None if said.stopped is None else F.pad(said.stopped, (0, room))  # (K, P, G, T)
    cut = None if said.cut is None else said.cut.clone()  # (K, P, G)
    if cut is not None and more.cut is not None:
        for (k, p, g), row in rows.items():
            cut[k, p, g] = more.cut[k, row, 0]
    if stopped is not None and more.stopped is not None:
        for (k, p, g), row in rows.items():
            begin, count = int(resumed[k, p, g]), int(then[k, row])
            stopped[k, p, g, begin : begin + count] = more.stopped[k, row, 0, :count]
    return replace(
        said,
        tokens=tokens.to(place),
        mask=mask.to(place),
        logprobs=logprobs.to(place),
        offsets=None if said.offsets is None else F.pad(said.offsets, (0, room)),
        stopped=stopped,
        cut=cut,
        resumed=resumed.to(place),
        trace=None,
    )
