"""Own rules of a model that asks after its drafts: where its wish is read, and what it says without the cloud."""

import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import torch

import clients.asking.policy as policy
from clients.asking.alone import answers_alone, wish_of
from clients.asking.policy import Own
from clients.asking.rule import Examined, right_alone
from clients.device.answering import Problems, answer_alone, reply_alone
from clients.device.world import World, load_world
from clients.evaluate import own_tests
from flsim.models.decoding import Completions, Reading, encode, generate, read
from flsim.models.help_request import HelpRequest
from tests.tiny import tiny_world

pytestmark = pytest.mark.usefixtures("one_thread")

DEVICES = (0, 1)


def world_of(checkpoint: Path, *more: str) -> World:
    world = load_world(tiny_world(checkpoint, "evaluation.prompts_per_task=5", *more))
    world.lora.attach(world.lora.stack([world.first]))
    return world


def in_both_places(world: World) -> World:
    """A model that has learned to ask in both, by its name."""
    return replace(world, config=replace(world.config, model=replace(world.config.model, path="builtin:slm_draft")))


def problems_of(world: World) -> Problems:
    return [own_tests(world, device) for device in DEVICES]


def said(world: World, *, may_ask: bool) -> tuple[Reading, Completions]:
    reading = read(world.base, encode(world.base, world.base.prompts(problems_of(world))))
    most = world.answer_tokens
    return reading, generate(world.base, reading, group_size=1, max_new_tokens=most, temperature=0.0, may_ask=may_ask)


def chance(world: World, question: str, draft: Sequence[int]) -> float:
    """Of the request after a draft, in nats, by a plain forward."""
    prompt = world.base.tokenizer(question)["input_ids"]
    ids = torch.tensor([[*prompt, *draft, *world.base.help.ids]])
    logprobs = torch.log_softmax(world.base.model(input_ids=ids).logits[0], -1)
    start = len(prompt) + len(draft) - 1
    return sum(float(logprobs[start + i, token]) for i, token in enumerate(world.base.help.ids))


@pytest.mark.parametrize("tokens", [1, 2])
def test_the_wish_is_read_where_the_request_may_stand(tiny_checkpoint: Path, tokens: int) -> None:
    """Before: as the beginning. After: in place of the ending token. In both: the chance of one or the other."""
    world = world_of(tiny_checkpoint, "model.request=after")
    ids = (*world.base.help.ids, 9)[:tokens]
    world = replace(world, base=replace(world.base, help=HelpRequest("x", ids, "after")))
    reading, replies = said(world, may_ask=False)
    before = world_of(tiny_checkpoint, "model.request=before")
    before = replace(before, base=world.base)
    both = in_both_places(replace(world, config=world_of(tiny_checkpoint).config))
    found = {
        name: wish_of(one, reading, replies) for name, one in {"after": world, "before": before, "both": both}.items()
    }
    for k, row in enumerate(problems_of(world)):
        for p, problem in enumerate(row):
            answer = replies.tokens[k, p, 0][replies.mask[k, p, 0]].tolist()
            answer = answer[:-1] if answer[-1] == world.base.eos_id else answer
            first, later = chance(world, problem.question, []), chance(world, problem.question, answer)
            either = math.log(math.exp(first) + (1 - math.exp(first)) * math.exp(later))
            assert float(found["before"][k, p]) == pytest.approx(first, abs=1e-4)
            assert float(found["after"][k, p]) == pytest.approx(later, abs=1e-4)
            assert float(found["both"][k, p]) == pytest.approx(either, abs=1e-4)
            assert max(first, later) <= either + 1e-9 <= 1e-9


def test_a_model_that_asks_before_it_answers_wishes_as_ever(tiny_checkpoint: Path) -> None:
    world = world_of(tiny_checkpoint)
    reading, replies = said(world, may_ask=False)
    first = torch.log_softmax(reading.logits.float(), -1)[:, world.base.help.ids[0]].view(replies.mask.shape[:2])
    assert torch.equal(wish_of(world, reading, replies), first)
    assert torch.equal(wish_of(world_of(tiny_checkpoint, "model.request=before"), reading, replies), first)
    for k, own in enumerate(answers_alone(world, problems_of(world))):
        assert torch.equal(torch.tensor(own.wish), first[k].double())


def test_a_draft_is_what_the_device_says_alone(tiny_checkpoint: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is the beginning of its answer with asking disabled, and nothing is decoded again for it."""
    again: list[int] = []

    def noting(world: World, reading: Reading, most: int) -> Completions:
        again.extend(reading.prompts.counts)
        return reply_alone(world, reading, most)

    monkeypatch.setattr(policy, "reply_alone", noting)
    world = world_of(tiny_checkpoint, "model.request=after")
    biases = [8.0, 0.0]  # the first device asks wherever it says a token
    tests = problems_of(world)
    choices = Own().decide(Examined(world, DEVICES, tests, [0.3, 0.3], biases))
    alone = answer_alone(world, tests, world.answer_tokens)
    assert len(tests[0]) > choices[0].wishes.sum() > choices[1].wishes.sum() > 0
    silent = 0
    for choice, row, whole in zip(choices, tests, alone, strict=True):
        assert choice.drafts is not None
        for draft, wish, answer in zip(choice.drafts, choice.wishes, whole, strict=True):
            assert answer.startswith(draft) if wish else draft == answer
        silent += sum(
            bool(wish) and not draft.strip() for draft, wish in zip(choice.drafts, choice.wishes, strict=True)
        )
        told = [draft if draft.strip() else answer for draft, answer in zip(choice.drafts, whole, strict=True)]
        assert choice.alone.tolist() == right_alone(row, told).tolist()
    assert sum(again) == silent < len(tests[0])


def test_without_drafts_who_asks_is_answered_with_asking_disabled(tiny_checkpoint: Path) -> None:
    world = world_of(tiny_checkpoint)
    tests = problems_of(world)
    choices = Own().decide(Examined(world, DEVICES, tests, [0.3, 0.3], [8.0, 0.0]))
    for choice, row, whole in zip(choices, tests, answer_alone(world, tests, world.answer_tokens), strict=True):
        assert choice.drafts is None
        assert choice.alone.tolist() == right_alone(row, whole).tolist()
