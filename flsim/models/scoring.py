"""Log-probabilities of completions, and the pull of any loss on the adapters through them, in bounded memory.

A loss of policy optimisation is a function of the log-probabilities of the sampled tokens. On policy these are known
from the sampling, so its gradient with respect to them is known before any second forward pass; `pull_back` carries it
on to the adapters, some completions at a time: one forward and one backward in all, however the loss looks.

A loss that looks at whole distributions, as those of distillation do, is a sum of one number per token, which a
`Readout` takes from the logits: `per_token` gives these numbers, and `pull_back_readouts` their pull.
"""

from collections.abc import Callable, Iterator
from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import Tensor

from flsim.models.base import BaseModel
from flsim.models.decoding import Completions, Reading, given
from flsim.models.forward import Next
from flsim.models.forward import Readout as AnyReadout
from flsim.models.memory import LOGITS, bytes_kept
from flsim.models.sampling import CALM, cooled
from flsim.models.stacked_lora import StackedLora

TOKENS = 2**15
"""Most tokens of completions in one forward pass, unless one completion per prompt has more."""

_MOST = -1e-12  # of a log-probability whose odds are taken, so that they are finite

Readout = Callable[[Tensor, Tensor], Tensor]
"""One number `(n,)` for each of n tokens, from the logits that they were drawn by `(n, V)` and their places `(n,)` in
the flattened completions `(K, P, G, T)`."""


def score(
    base: BaseModel,
    reading: Reading,
    completions: Completions,
    *,
    temperature: float,
    tokens: int = TOKENS,
    may_ask: bool = True,
    help_bias: Tensor | None = None,
) -> Tensor:
    """Log-probabilities `(K, P, G, T)` of the completions' tokens, with gradient if any; zero after the end."""
    readout = _logprob_of(base, completions, temperature, may_ask, help_bias)
    return per_token(base, reading, completions, readout, tokens=tokens)


def per_token(
    base: BaseModel, reading: Reading, completions: Completions, readout: Readout, *, tokens: int = TOKENS
) -> Tensor:
    """What `readout` gives for the completions' tokens, `(K, P, G, T)`, with gradient if any; zero after the end."""
    parts = _parts(completions, tokens)
    return torch.cat([_per_token(base, reading, completions, part, _of_logits(readout)) for part in parts], 2)


def top_logprobs(
    base: BaseModel, reading: Reading, completions: Completions, top: int, *, tokens: int = TOKENS
) -> tuple[Tensor, Tensor]:
    """The likeliest tokens at every place of the completions, and their log-probabilities, both `(K, P, G, T, k)`.

    Under the distribution of a model that may not ask for help, and without gradient.

    Args:
        base: the model, with the adapters of `reading` in use.
        reading: the prompts.
        completions: whose places are meant; after their ends the result is zero.
        top: k; no more than all tokens but the help request.
        tokens: most tokens of completions in one forward pass.
    """
    k = min(top, reading.logits.shape[-1] - 1)
    of = unaided(base, completions)
    shape, device = (*completions.tokens.shape, k), completions.tokens.device
    ids = torch.zeros(shape, dtype=torch.long, device=device)  # (K, P, G, T, k)
    logprobs = torch.zeros(shape, device=device)  # (K, P, G, T, k)

    def readout(logits: Tensor, places: Tensor) -> Tensor:
        best = of(logits, places).topk(k, -1)  # (n, k) each
        ids.view(-1, k)[places], logprobs.view(-1, k)[places] = best.indices, best.values
        return best.values[:, 0]

    with torch.no_grad():
        per_token(base, reading, completions, readout, tokens=tokens)
    return ids * completions.mask[..., None], logprobs * completions.mask[..., None]


def unaided(base: BaseModel, completions: Completions) -> Readout:
    """Log-probabilities with the help request ruled out, what `generate(may_ask=False)` draws from.

    Returns:
        A function of logits `(n, V)` and their places `(n,)` in the flattened completions; it gives `(n, V)`.
    """
    closing = base.help.closing(completions.tokens)[..., :-1].flatten()  # (K P G T,)

    def logprobs(logits: Tensor, places: Tensor) -> Tensor:
        return torch.log_softmax(base.help.ruled_out(logits.float(), closing[places]), -1)

    return logprobs


@torch.no_grad()
def rest_of_request(base: BaseModel, reading: Reading) -> Tensor:
    """Log-probability `(K, P)` of the help request's other tokens after its first, as the beginning of a response.

    Zero where it is one token; what no prompt stands for is zero, too.
    """
    rest = base.help.ids[1:]
    if not rest:
        return torch.zeros(reading.prompts.ids.shape[:2], device=reading.logits.device)  # (K, P)
    asking = given(base, [[base.help.ids] * count for count in reading.prompts.counts])  # (K, P, 1, m)
    return _as_they_are(base, reading, asking)[:, :, 0, 1:].sum(-1)  # (K, P)


@torch.no_grad()
def request_after(base: BaseModel, reading: Reading, said: Completions, *, surprise: float = 0.0) -> Tensor:
    """Log-probability `(K, P)` of the help request after what was said, in place of its end or its request.

    Read as the model has it, wherever the request may stand; what no prompt stands for is zero.

    Args:
        base: the model, with the adapters of `reading` in use.
        reading: the prompts.
        said: one completion of each, `(K, P, 1, T)`.
        surprise: kappa of `flsim.models.decoding.generate`, by which the draft's surprise raises the request; 0 does
            not.
    """
    draft = said.mask & ~base.ends(said.tokens) & ~base.help.held_by(said.tokens)  # (K, P, 1, T)
    draft = draft if said.stopped is None else draft & ~said.stopped  # (K, P, 1, T)
    lengths = draft.sum(-1)[:, :, 0].tolist()
    rows = [
        [[*row[0][: lengths[k][p]], *base.help.ids] for p, row in enumerate(own[:count])]
        for k, (own, count) in enumerate(zip(said.tokens.tolist(), reading.prompts.counts, strict=True))
    ]
    asking = given(base, rows)  # (K, P, 1, T + m)
    starts = draft.sum(-1)  # (K, P, 1)
    later = torch.arange(asking.tokens.shape[-1], device=starts.device) >= starts  # (K, P, T + m)
    if not surprise:
        return (_as_they_are(base, reading, asking)[:, :, 0] * later).sum(-1)  # (K, P)
    each = _request_apart(base, reading, asking, later)  # (K, P, T + m)
    mean = -(each * ~later).sum(-1) / starts[..., 0].clamp(min=1)  # (K, P)
    offset = surprise * (mean - CALM) * (starts[..., 0] > 0)  # (K, P)
    first = each.gather(-1, starts.clamp(max=each.shape[-1] - 1))[..., 0]  # (K, P)
    raised = (each * later).sum(-1) - first + raised_logprob(first, offset)  # (K, P)
    return raised * asking.mask.any(-1)[..., 0]  # (K, P)


def raised_logprob(logprob: Tensor, offset: Tensor) -> Tensor:
    """Log-probability of a token whose logit is raised, in float64, so that near 1 its order is kept.

    Args:
        logprob: as it is, of any shape.
        offset: by how much the logit is raised, of the same shape.
    """
    logprob = logprob.double()
    odds = logprob - torch.log(-torch.expm1(logprob.clamp(max=_MOST)))
    return F.logsigmoid(odds + offset)


def _request_apart(base: BaseModel, reading: Reading, asking: Completions, later: Tensor) -> Tensor:
    """Log-probabilities `(K, P, T)` of drafts and requests, the drafts' with the request ruled out, in float64.

    Args:
        base: the model.
        reading: the prompts.
        asking: a draft and the request of each, `(K, P, 1, T)`.
        later: True from the request on, `(K, P, T)`.
    """
    tokens, of_request, alone = asking.tokens.flatten(), later.flatten(), unaided(base, asking)

    def readout(logits: Tensor, places: Tensor) -> Tensor:
        plain, without = torch.log_softmax(logits.float(), -1), alone(logits, places)  # (n, V) each
        own = torch.where(of_request[places][:, None], plain, without)  # (n, V)
        return own.gather(-1, tokens[places][:, None])[:, 0]  # (n,)

    return per_token(base, reading, asking, readout)[:, :, 0].double()  # (K, P, T)


def _as_they_are(base: BaseModel, reading: Reading, completions: Completions) -> Tensor:
    """The model's own log-probabilities of completions, whatever rules hold for the request, `(K, P, G, T)`."""
    tokens = completions.tokens.flatten()

    def readout(logits: Tensor, places: Tensor) -> Tensor:
        return torch.log_softmax(logits.float(), -1).gather(-1, tokens[places][:, None])[:, 0]  # (n,)

    return per_token(base, reading, completions, readout)


def pull_back(
    base: BaseModel,
    lora: StackedLora,
    reading: Reading,
    completions: Completions,
    pull: Tensor,
    *,
    temperature: float,
    tokens: int = TOKENS,
    may_ask: bool = True,
    help_bias: Tensor | None = None,
    states: Tensor | None = None,
) -> Tensor:
    """The gradient `(K, n)` of a loss from its gradient `pull` `(K, P, G, T)` with respect to the log-probabilities.

    Args:
        base: the model; `lora.attach(..., train=True)` was called with the pack's adapters before `reading` was made.
        lora: the pack's adapters.
        reading: the prompts, read with gradient; its graph is used up.
        completions: what the log-probabilities belong to.
        pull: gradient of the summed per-device losses; what it holds after the end of a completion is ignored.
        temperature: of the sampling.
        tokens: most tokens of completions in one forward pass; fewer need less memory.
        may_ask: as they were sampled; False rules the help request out before the softmax.
        help_bias: as they were sampled, `(K, P)`; None is no bias.
        states: the gradient of another loss with respect to the hidden state that each completion's last token was
            drawn from, scaled to unit mean square, `(K, P, G, D)`; None is no such loss.
    """
    readout = _logprob_of(base, completions, temperature, may_ask, help_bias)
    if states is None:
        return pull_back_readouts(base, lora, reading, completions, readout, pull, tokens=tokens)
    last = _last(completions)  # (K, P, G, T)
    weights, ending = pull.flatten(), last.flatten()  # (K P G T,) each
    longest, of_each = completions.tokens.shape[-1], states.flatten(0, 2)  # (K P G, D)

    def both(following: Next, places: Tensor) -> Tensor:
        logprobs = readout(following.logits, places) * weights[places]  # (n,)
        scaled = F.rms_norm(following.states.float(), following.states.shape[-1:])  # (n, D)
        return logprobs + ending[places] * (scaled * of_each[places // longest]).sum(-1)  # (n,)

    pulls = pulled(completions, pull, states)  # (K, P, G, T)
    return _pulled_back(base, lora, reading, completions, both, pulls.to(pull.dtype), tokens)


def pulled(completions: Completions, pull: Tensor, states: Tensor | None = None) -> Tensor:
    """True at the tokens that pull at all, `(K, P, G, T)`; `pull` and `states` as of `pull_back`."""
    found = (pull != 0) & completions.mask  # (K, P, G, T)
    return found if states is None else found | (_last(completions) & (states != 0).any(-1, keepdim=True))


def _last(completions: Completions) -> Tensor:
    """True at the last token of each, `(K, P, G, T)`."""
    return completions.mask & (completions.mask.long().cumsum(-1) == completions.mask.sum(-1, keepdim=True))


def pull_back_readouts(
    base: BaseModel,
    lora: StackedLora,
    reading: Reading,
    completions: Completions,
    readout: Readout,
    pull: Tensor,
    *,
    tokens: int = TOKENS,
) -> Tensor:
    """The same for a loss that weighs the numbers of a `readout` by `pull` `(K, P, G, T)` and sums them."""
    return _pulled_back(base, lora, reading, completions, _of_logits(readout), pull, tokens)


def _pulled_back(
    base: BaseModel,
    lora: StackedLora,
    reading: Reading,
    completions: Completions,
    readout: AnyReadout,
    pull: Tensor,
    tokens: int,
) -> Tensor:
    read = [*reading.past.tensors, reading.logits, reading.states]
    # the prompts' graph is walked once, at the end; keys below the first adapter have none
    leaves = [tensor.detach().requires_grad_(tensor.requires_grad) for tensor in read]
    shared = Reading(reading.prompts, reading.past.of(tuple(leaves[:-2])), *leaves[-2:])
    pull = pull * completions.mask  # (K, P, G, T)
    silent = (pull == 0).all(-1, keepdim=True)  # (K, P, G, 1): all of a unanimous group, for instance
    completions = replace(completions, mask=completions.mask & ~silent)  # they pull nothing, so they need no pass
    for part in _parts(completions, min(tokens, _most(base))):
        _per_token(base, shared, completions, part, readout).backward(pull[:, :, part])
    used = [(tensor, leaf.grad) for tensor, leaf in zip(read, leaves, strict=True) if leaf.grad is not None]
    torch.autograd.backward([tensor for tensor, _ in used], [gradient for _, gradient in used])
    return lora.gradient()


def _most(base: BaseModel) -> int:
    """Tokens of a forward pass that memory allows."""
    by_logits: int = LOGITS // base.model.config.get_text_config().vocab_size
    if base.graph is None:
        return by_logits
    return min(by_logits, base.graph // bytes_kept(base.model, checkpointing=base.checkpointing))


def _parts(completions: Completions, tokens: int) -> Iterator[slice]:
    """Which completions of every prompt to judge together."""
    k, p, g, t = completions.tokens.shape
    size = max(1, min(g, tokens // (k * p * t)))
    return (slice(start, start + size) for start in range(0, g, size))


def _of_logits(readout: Readout) -> AnyReadout:
    return lambda following, places: readout(following.logits, places)


def _per_token(base: BaseModel, reading: Reading, completions: Completions, part: slice, readout: AnyReadout) -> Tensor:
    """The readouts `(K, P, g, T)` on g completions of every prompt."""
    ids, mask = completions.tokens[:, :, part], completions.mask[:, :, part]  # (K, P, g, T)
    k, p, g, t = ids.shape
    places = torch.arange(completions.tokens.numel(), device=ids.device).view(completions.tokens.shape)[:, :, part]
    later = places[..., 1:].flatten()  # of what follows each token but the last
    seen = mask if completions.resumed is None else completions.read[:, :, part] & mask.any(-1, keepdim=True)
    first = Next(*(of.repeat_interleave(g, 0) for of in (reading.logits, reading.states)))  # K P g rows
    begun = readout(first, places[..., 0].flatten()).view(k, p, g, 1) * mask[..., :1]
    if t == 1:
        return begun
    known, counts = ids[..., :-1].flatten(1, 2), seen[..., 1:].flatten(1, 2)  # (K, P g, T - 1): read if one follows
    rest = base.forward.follow(
        known, counts, reading.prompts.seen, reading.past, lambda following, of: readout(following, later[of])
    )
    each = torch.cat([begun, rest.view(k, p, g, t - 1)], -1)  # (K, P, g, T)
    return each if completions.resumed is None else each.masked_fill(~mask, 0.0)


def _logprob_of(
    base: BaseModel, completions: Completions, temperature: float, may_ask: bool, help_bias: Tensor | None
) -> Readout:
    """The log-probability of the completions' own tokens, as they were drawn."""
    tokens = completions.tokens.flatten()
    of_a_prompt, longest = completions.tokens[0, 0].numel(), completions.tokens.shape[-1]
    closing = base.help.closing(completions.tokens)[..., :-1].flatten()  # (K P G T,)
    offsets = None if completions.offsets is None else completions.offsets.flatten()  # (K P G T,)
    later = None
    if completions.resumed is not None:
        into = torch.arange(longest, device=tokens.device) - completions.resumed[..., None]  # (K, P, G, T)
        later = ((into >= 0) & (completions.resumed > 0)[..., None]).flatten()  # (K P G T,)
        fresh = into.flatten() >= len(base.help.ids) - 1  # (K P G T,): what was put in is no beginning of a request
        closing = closing & (~later | fresh)  # (K P G T,)

    def readout(logits: Tensor, places: Tensor) -> Tensor:
        bias = None if help_bias is None else help_bias.flatten()[places // of_a_prompt]  # (n,)
        bias = bias if bias is None or later is None else bias.masked_fill(later[places], 0.0)  # (n,)
        within = places % longest  # (n,)
        logits = base.help.biased(logits.float(), bias, within)  # (n, V)
        logits = base.help.raised(logits, None if offsets is None else offsets[places])  # (n, V)
        barred = base.help.barred(closing[places], bias, within, may_ask=may_ask)  # (n,)
        if later is not None:  # nobody asks a second time
            again = closing[places] & later[places]  # (n,)
            barred = again if barred is None else barred | again  # (n,)
        logits = logits if barred is None else base.help.ruled_out(logits, barred)  # (n, V)
        return torch.log_softmax(cooled(logits, temperature), -1).gather(-1, tokens[places][:, None])[:, 0]  # (n,)

    return readout
