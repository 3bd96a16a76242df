"""A pack's rollouts: sample groups of responses, let the asking ones share one cloud query per prompt, and judge them.

A query that the ledger refuses, or at which the cloud fails, is answered locally. Where the model asks after its drafts
(`ModelConfig.drafts`), each response that asked is then its own draft and earns what that earns. For responses without
a draft the device tries alone, with asking disabled, once for the prompt. Only tokens that the policy itself sampled
enter the loss, so neither the cloud's words nor the forced attempt are ever reinforced as tokens.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from clients.device.answering import Problems, seeded
from clients.device.buying import NO_DRAFTS, Drafts, Help, ask_cloud, buy_answers
from clients.device.counts import count_drawing, count_reading
from clients.device.device import Device
from clients.device.weighing import Weights, taken_weights
from clients.device.world import World
from flsim.cloud.protocol import Answer
from flsim.models.decoding import Completions, Prompts, Reading, encode, generate, read
from flsim.models.hint import go_on
from flsim.problems.judging import are_right
from flsim.problems.problem import Problem
from flsim.seeding import seed_for
from flsim.timing import spend

_LEAST = 1e-6  # what responses that could ask count, if there are any


@dataclass(frozen=True)
class Rollout:
    """Groups of responses to a pack's prompts, with what they earned and cost."""

    reading: Reading
    """The prompts, read with gradient if adapters are being learned."""
    completions: Completions
    right_alone: Tensor
    """1 where the response itself is the right answer, `(K, P, G)`; 0 where it asked."""
    right: Tensor
    """1 where the final answer is right, whoever gave it, `(K, P, G)`."""
    asked: Tensor
    """1 where the response asked for help, granted or not, `(K, P, G)`."""
    open: Tensor
    """True at real prompts where a response could ask, `(K, P)`."""
    right_draft: Tensor
    """1 where what the response itself said is right, whether it asked afterwards or not, `(K, P, G)`; 0 where it said
    nothing, unless a head asked after it."""
    help: Help
    """What came from the cloud."""
    explored: Tensor | None = None
    """True at prompts that were sent although no response could ask, to see what asking would have gained, `(K, P)`;
    they are not `open`. None where nothing is explored."""
    weighing: Weights | None = None
    """What a request counts at each prompt in `budget.unit`; None where all count 1."""

    @property
    def weights(self) -> Tensor:
        """What a request counts at each prompt, `(K, P)`."""
        return self._ones if self.weighing is None else self.weighing.each

    @property
    def expected(self) -> Tensor:
        """What it was expected to count before help came, `(K, P)`."""
        return self._ones if self.weighing is None else self.weighing.expected

    @property
    def whole(self) -> Tensor:
        """What asking the whole question counts, `(K, P)`."""
        return self._ones if self.weighing is None else self.weighing.whole

    @property
    def _ones(self) -> Tensor:
        return torch.ones_like(self.open, dtype=self.asked.dtype)  # (K, P)

    @property
    def costs(self) -> Tensor:
        """c, what each response's request counts, `(K, P, G)`; 0 where it asked for none."""
        return self.asked * self.weights[..., None]  # (K, P, G)

    @property
    def prompts(self) -> Prompts:
        """What was asked of each device."""
        return self.reading.prompts

    @property
    def usage(self) -> Tensor:
        """J, the share of a device's responses that asked, of those that could, `(K,)`; each by its prompt's weight.

        It is of what asking the whole question would count at all of them. An explored prompt was sent as if all its
        responses had asked.
        """
        group = self.asked.shape[-1]
        asked = (self.asked * (self.open * self.weights)[..., None]).sum((1, 2))  # (K,)
        all_ = (self.open * self.whole).sum(-1)  # (K,)
        if self.explored is not None:
            forced = (self.explored * self.weights).sum(-1)  # (K,)
            asked, all_ = asked + forced * group, all_ + (self.explored * self.whole).sum(-1)  # (K,) each
        return asked / (all_ * group).clamp(min=_LEAST)  # (K,)

    def gain(self, reward: float) -> Tensor:
        """What the cloud's answer, worth `reward` if it is right, is worth more than the mean draft, `(K, P)`."""
        return reward * self.help.right.to(self.right_draft.device) - self.right_draft.mean(-1)  # (K, P)


Wishes = Callable[[Completions, Prompts], Tensor]
"""True where a device asks after a draft to a prompt, `(K, P, G)`."""


@dataclass(frozen=True)
class Sampling:
    """How responses are drawn."""

    group_size: int
    """G, for each prompt."""
    temperature: float
    max_new_tokens: int
    """Longest response, the ending token included."""
    may_ask: bool = True
    """Without it the help request is ruled out."""
    surprise: float = 0.0
    """kappa, by which a draft's surprise raises the help request; 0 does not."""


def roll_out(
    world: World,
    devices: Sequence[Device],
    problems: Problems,
    sampling: Sampling,
    *,
    step: int,
    help_bias: Tensor | None = None,
    wishes: Wishes | None = None,
    explored: Tensor | None = None,
    weighing: Weights | None = None,
) -> Rollout:
    """Sample, ask, judge; the adapters in use are the pack's.

    Args:
        world: the worker's.
        devices: K of them.
        problems: of each device; their numbers may differ.
        sampling: how responses are drawn.
        step: of the round, for the seeds.
        help_bias: added to the logit of the help request, `(K, P)`, where -inf rules it out; None for no bias.
        wishes: says which drafts are followed by a request, where the responses themselves may hold none; None is none.
        explored: True at prompts that are sent whatever is said, and whose responses cannot ask, by `help_bias`,
            `(K, P)`; None is none.
        weighing: what a request counts at each prompt; None is 1.
    """
    with spend("rollout"):
        reading = read(world.base, encode(world.base, world.base.prompts(problems)))
        count_reading(devices, reading.prompts)
        completions = _sampled(world, devices, reading, sampling, step, help_bias)
        if wishes is not None:
            completions = replace(
                completions, asked=wishes(completions, reading.prompts) & reading.prompts.real[..., None]
            )
    with spend("reward"):
        right_draft, said = _judge(problems, completions, all_=wishes is not None)  # (K, P, G) each
    asked = completions.asked.float()  # (K, P, G)
    right_draft = right_draft.to(asked.device)  # (K, P, G)
    right_alone = right_draft * (1 - asked)  # (K, P, G)
    wants = completions.asked.cpu() & reading.prompts.real.cpu()[..., None]  # (K, P, G)
    drafted = wants & said & (wishes is not None or world.config.model.drafts)  # (K, P, G)
    tries = (wants & ~drafted).any(-1)  # (K, P)
    sent = wants if explored is None else wants | explored.cpu()[..., None]  # (K, P, G)
    drafts = _first_drafts(completions, sent) if world.words_questions or world.goes_on else NO_DRAFTS
    open_ = reading.prompts.real  # (K, P)
    if help_bias is not None:
        open_ = open_ & ~help_bias.isneginf()  # (K, P)
    if world.hint is not None:
        answers = buy_answers(world, devices, problems, wants.any(-1), drafts, step=step)
        whole, endings, help_ = _gone_on(world, devices, problems, sampling, reading, completions, answers, step=step)
        count_drawing(devices, whole)
        right = right_alone + asked * endings  # (K, P, G)
        return Rollout(reading, whole, right_alone, right, asked, open_, right_draft, help_, weighing=weighing)
    count_drawing(devices, completions)
    help_ = ask_cloud(
        world,
        devices,
        problems,
        sent.any(-1),
        tries,
        drafts=drafts,
        max_new_tokens=sampling.max_new_tokens,
        step=step,
    )
    kept = (drafted & ~help_.came[..., None]).to(asked.device)  # (K, P, G)
    right = right_alone + asked * torch.where(kept, right_draft, help_.right.to(asked.device)[..., None])  # (K, P, G)
    weighing = taken_weights(devices, weighing, help_.shares)
    parts = right_alone, right, asked, open_, right_draft, help_, explored, weighing
    return Rollout(reading, completions, *parts)


def _sampled(
    world: World,
    devices: Sequence[Device],
    reading: Reading,
    sampling: Sampling,
    step: int,
    help_bias: Tensor | None,
) -> Completions:
    """The responses as each device draws them; `help_bias` as of `roll_out`."""
    return generate(
        world.base,
        reading,
        group_size=sampling.group_size,
        max_new_tokens=sampling.max_new_tokens,
        temperature=sampling.temperature,
        generators=[seeded(seed_for(world.seed, "rollout", d.name, d.round, step)) for d in devices],
        may_ask=sampling.may_ask,
        help_bias=help_bias if sampling.may_ask else None,
        surprise=sampling.surprise,
        traced=world.head is not None,
    )


def _gone_on(
    world: World,
    devices: Sequence[Device],
    problems: Problems,
    sampling: Sampling,
    reading: Reading,
    said: Completions,
    answers: Mapping[tuple[int, int], Answer],
    *,
    step: int,
) -> tuple[Completions, Tensor, Help]:
    """Whole responses, 1 where what was said after a request is right `(K, P, G)`, and what came from the cloud.

    All responses of a group that asked get one and the same hint, or, where no answer came, none.
    """
    assert world.hint is not None, "only devices that are given hints go on"
    with spend("rollout"):
        whole, texts = go_on(
            world.base,
            reading.prompts,
            said,
            {place: world.hint.of(world.base, answer.text) for place, answer in answers.items()},
            max_new_tokens=sampling.max_new_tokens,
            temperature=sampling.temperature,
            generators=[seeded(seed_for(world.seed, "hint", d.name, d.round, step)) for d in devices],
        )
    right = torch.zeros(said.asked.shape)  # (K, P, G)
    with spend("reward"):
        verdicts = are_right([(problems[k][p], text) for (k, p, _), text in texts.items()])
        by_cloud = are_right([(problems[k][p], answer.text) for (k, p), answer in answers.items()])
    for place, verdict in zip(texts, verdicts, strict=True):
        right[place] = float(verdict)
    helped, came = torch.zeros(right.shape[:2]), torch.zeros(right.shape[:2], dtype=torch.bool)  # (K, P) each
    for at, verdict in zip(answers, by_cloud, strict=True):
        helped[at], came[at] = float(verdict), True
    return whole, right.to(said.asked.device), Help(helped, came, {})


def _judge(problems: Problems, completions: Completions, *, all_: bool) -> tuple[Tensor, Tensor]:
    """1 where what a response itself said is right, and True where it said something, both `(K, P, G)`.

    Args:
        problems: of each device.
        completions: the responses.
        all_: whether also empty ones that asked are judged: whole drafts, where a head asked after them, and a recorded
            answer may be none; else they are wrong.
    """
    right = torch.zeros(completions.asked.shape)  # (K, P, G)
    says = torch.zeros(right.shape, dtype=torch.bool)  # (K, P, G)
    asked = completions.asked.tolist()
    said: dict[tuple[int, int, int], tuple[Problem, str]] = {}
    for k, row in enumerate(problems):
        for p, problem in enumerate(row):
            for g, text in enumerate(completions.texts[k][p]):
                says[k, p, g] = bool(text.strip())
                if all_ or text.strip() or not asked[k][p][g]:
                    said[k, p, g] = (problem, text)
    for place, verdict in zip(said, are_right(list(said.values())), strict=True):
        right[place] = float(verdict)
    return right, says


def _first_drafts(completions: Completions, wants: Tensor) -> Drafts:
    """Of each prompt the draft of its first response that asks, by `wants` `(K, P, G)`."""
    first = {(k, p): row.index(True) for k, own in enumerate(wants.tolist()) for p, row in enumerate(own) if any(row)}
    return {(k, p): completions.texts[k][p][g] for (k, p), g in first.items()}
