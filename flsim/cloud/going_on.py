"""Going on by a model on this machine with what somebody else began to say, with the bits of one question at a time."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from flsim.cloud.more_help import Continuation
from flsim.cloud.protocol import Answer
from flsim.models.base import BaseModel, one_thread
from flsim.models.decoding import Completions, generate, prompts_of, read


@torch.no_grad()
def go_on(
    base: BaseModel, beginnings: Sequence[tuple[str, str]], tokens: int, *, batch_size: int, sure: float
) -> list[Continuation]:
    """The greedy next tokens after each beginning.

    Args:
        base: the model.
        beginnings: prompts, each with what its answer begins with.
        tokens: how many at most, the ending one included.
        batch_size: how many are read at once; nothing depends on it.
        sure: where each token has more than this probability, no rounding of a batch can have chosen another one; what
            has less is said again alone, as `flsim.cloud.checkpoint` does.
    """
    begun = [_spelt(base, said) for _, said in beginnings]
    ids = [[*base.tokenizer(prompt)["input_ids"], *own] for (prompt, _), own in zip(beginnings, begun, strict=True)]
    found: list[tuple[list[int], bool]] = []
    for start in range(0, len(ids), batch_size):
        some = ids[start : start + batch_size]
        said = _said(base, some, tokens)
        unsure = ~((said.logprobs > math.log(sure)) | ~said.mask).all(-1)[0, :, 0]  # (P,)
        with one_thread():  # whose sums are the same everywhere
            again = {number: _said(base, [some[number]], tokens) for number in _places(unsure)}
        found += [_first(again[number], 0) if number in again else _first(said, number) for number in range(len(some))]
    return [
        Continuation(Answer(_after(base, own, new), len(read_), len(new)), ended)
        for own, read_, (new, ended) in zip(begun, ids, found, strict=True)
    ]


def text_of(base: BaseModel, tokens: Sequence[int]) -> str:
    """The text of an answer's tokens, up to the first that ends it."""
    ended = base.ends(torch.tensor(tokens, dtype=torch.long)).tolist()  # (T,)
    words = list(tokens)[: ended.index(True)] if True in ended else list(tokens)
    return str(base.tokenizer.decode(words, skip_special_tokens=True))


def _spelt(base: BaseModel, said: str) -> list[int]:
    return list(base.tokenizer(said, add_special_tokens=False)["input_ids"]) if said else []


def _said(base: BaseModel, ids: list[list[int]], tokens: int) -> Completions:
    reading = read(base, prompts_of(base, [ids]))
    return generate(base, reading, group_size=1, max_new_tokens=tokens, temperature=0.0, may_ask=False)


def _places(of: Tensor) -> list[int]:
    found: list[int] = of.nonzero()[:, 0].tolist()
    return found


def _first(said: Completions, number: int) -> tuple[list[int], bool]:
    """The tokens of an answer, and whether the last one ends it."""
    count = int(said.mask[0, number, 0].sum())
    new: list[int] = said.tokens[0, number, 0, :count].tolist()
    return new, said.cut is not None and not bool(said.cut[0, number, 0])


def _after(base: BaseModel, begun: Sequence[int], new: Sequence[int]) -> str:
    """The text of new tokens as it stands after the beginning: some tokenizers drop the white space of a first word."""
    before, whole = text_of(base, begun), text_of(base, [*begun, *new])
    return whole[len(before) :] if whole.startswith(before) else text_of(base, new)
