"""Supervised fine-tuning on the cloud's answers, or sequence distillation (Kim and Rush 2016, arXiv 1606.07947).

In every step the device sends tau of its prompts, drawn at random, and memorises the answers; it samples nothing
itself. It learns what to answer and not when to ask. `group_size` means nothing to it.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from clients.device.answering import Problems
from clients.device.buying import buy_answers
from clients.device.counts import count_learning, count_reading, count_scoring
from clients.device.device import Device
from clients.device.pack import Pack
from clients.device.world import World
from clients.learner import Learner
from flsim.learning.distillation import Target, forward_kl, sequence_loss
from flsim.models.decoding import Completions, Reading, encode, given, read
from flsim.models.scoring import pull_back_readouts, top_logprobs, unaided
from flsim.problems.judging import are_right
from flsim.problems.problem import Problem
from flsim.seeding import generator
from flsim.timing import spend

HELD_TOP = 64  # tokens of the start's distribution that the KL names; the tail holds the others


@dataclass(frozen=True)
class Sft(Learner):
    """The settings of one device's round. The buffer of `replay` keeps questions that were sent, with their answers."""

    verified: bool = True
    """Whether only answers that pass the task's verifier are learned."""
    kl: float = 0.0
    """Weight of the KL from the adapters that the round began with, at the answers' tokens; 0 is none."""

    may_ask: ClassVar[bool] = False

    def __post_init__(self) -> None:
        """Refuse settings that cannot work."""
        super().__post_init__()
        if self.kl < 0:
            raise ValueError(f"kl={self.kl} must be at least 0: it is the weight of a divergence")
        if self.pooled:
            raise ValueError("pooled=true would send the whole fleet's share under one device's ledger; leave it out")

    @property
    def sends(self) -> bool:
        """Tau of its questions."""
        return True

    @property
    def keeps_start(self) -> bool:
        """For the KL."""
        return self.kl > 0

    def learn(self, pack: Pack, problems: Problems, step: int) -> None:
        """One step: send, check, memorise."""
        world, devices = pack.world, pack.devices
        sent = self._to_send(world, devices, problems, step)  # (K, P)
        bought = buy_answers(world, devices, problems, sent, step=step)
        if world.helping.takes_part:  # else a device that samples nothing need not read what it sends
            asked = [[problems[k][p] for at, p in bought if at == k] for k in range(len(devices))]
            count_reading(devices, encode(world.base, world.base.prompts(asked)))
        verdicts = are_right([(problems[k][p], answer.text) for (k, p), answer in bought.items()])
        right = {place for place, readout in zip(bought, verdicts, strict=True) if readout}
        kept = sorted(right) if self.verified else sorted(bought)
        lessons = [[(problems[k][p], bought[k, p].text) for at, p in kept if at == k] for k in range(len(devices))]
        again = [self._kept(world, device, len(problems[k]), step) for k, device in enumerate(devices)]
        for k, device in enumerate(devices):
            self._keep(world, device, step, {p: bought[k, p].text for at, p in kept if at == k})
        with spend("train"):
            pack.move(self._gradient(pack, [a + b for a, b in zip(lessons, again, strict=True)]), self.adam)
        for k, note in enumerate(pack.notes):
            every = [(k, p) for p in range(len(problems[k]))]
            note.add_sent(problems[k], [at in bought for at in every], [at in right for at in every])

    def _to_send(self, world: World, devices: Sequence[Device], problems: Problems, step: int) -> Tensor:
        """True at the prompts to send, `(K, P)`: tau of them in expectation, whole ones in each step."""
        wanted = torch.zeros(len(devices), max(len(row) for row in problems), dtype=torch.bool)  # (K, P)
        for k, (device, row) in enumerate(zip(devices, problems, strict=True)):
            rng = generator(world.seed, "sent", device.name, device.round, step)
            count = int(device.ledger.budget.tau * len(row) + rng.random())
            wanted[k, rng.permutation(len(row))[:count]] = True
        return wanted

    def _met(self, world: World, device: Device, step: int) -> list[Problem]:
        """New questions only: what is met again was answered already."""
        return self._fresh(world, device.name, device.round, step)

    def _gradient(self, pack: Pack, lessons: Sequence[Sequence[tuple[Problem, str]]]) -> Tensor:
        """Of each device's mean over its tokens, `(K, n)`."""
        base = pack.world.base
        spelt = [[base.spell(text, self.max_new_tokens) for _, text in row] for row in lessons]
        questions = [[base.prompt(problem) for problem, _ in row] for row in lessons]
        completions = given(base, spelt)  # (K, P, 1, T)
        held = self._held(pack, questions, completions) if self.kl else None
        pack.attach()
        reading = read(base, encode(base, questions))
        count_reading(pack.devices, reading.prompts)
        tokens, alone = completions.tokens.flatten(), unaided(base, completions)

        def readout(logits: Tensor, places: Tensor) -> Tensor:
            student = alone(logits, places)  # (n, V)
            loss = sequence_loss(student, tokens[places])  # (n,)
            if held is None:
                return loss
            return loss + self.kl * forward_kl(student, Target(held.tokens[places], held.logprobs[places]))  # (n,)

        counts = completions.mask.flatten(1).sum(-1).clamp(min=1)  # (K,)
        pull = completions.mask / counts[:, None, None, None]  # (K, P, 1, T)
        count_learning(pack.devices, completions.mask)
        return pull_back_readouts(base, pack.world.lora, reading, completions, readout, pull, tokens=self.micro_batch)

    @torch.no_grad()
    def _held(self, pack: Pack, questions: list[list[str]], completions: Completions) -> Target:
        """What the adapters of the round's start say at every place of the answers."""
        pack.attach_start()
        reading: Reading = read(pack.world.base, encode(pack.world.base, questions))
        count_reading(pack.devices, reading.prompts)
        count_scoring(pack.devices, completions)
        ids, logprobs = top_logprobs(pack.world.base, reading, completions, HELD_TOP)  # (K, P, 1, T, k) each
        return Target(ids.flatten(0, 3), logprobs.flatten(0, 3))
