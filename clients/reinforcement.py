"""Learning from groups of one's own responses: sample, judge, weigh, and step along the gradient of the method's loss.

A method says what a response is worth (`advantage`), and where it differs from the plain policy gradient: how tokens
become one number (`aggregation`) or the whole `loss`, which prompts count (`kept`), and what else moves (`after`).
"""

import math
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from clients.device.answering import Problems, seeded
from clients.device.counts import count_learning, count_reading, count_scoring
from clients.device.device import Device
from clients.device.exploration import explored_gradient, to_explore
from clients.device.head import SUMS, Head, weights_of
from clients.device.imitation import Lesson, imitated_gradient
from clients.device.pack import Pack
from clients.device.regression import gathered_sums, regressed
from clients.device.rollout import Rollout, Sampling, Wishes, roll_out
from clients.device.weighing import Weights, request_weights
from clients.device.world import World
from clients.learner import Learner
from flsim.config.schema import Config
from flsim.learning.benefit import benefit
from flsim.learning.losses import LEVELS, Clipping, PolicyLoss
from flsim.models.decoding import Completions, Prompts, Reading, read
from flsim.models.scoring import pull_back, pulled, score
from flsim.problems.problem import Problem
from flsim.seeding import seed_for
from flsim.timing import spend


@dataclass(frozen=True)
class Judged:
    """A pack's responses and what they are worth: all that a loss needs beside the present log-probabilities."""

    rollout: Rollout
    advantage: Tensor
    """`(K, P, G)`."""
    old: Tensor
    """Log-probabilities of the tokens when they were sampled, `(K, P, G, T)`."""
    reference: Tensor | None
    """Those under the adapters that the round began with, `(K, P, G, T)`; None without a KL to them."""
    kept: Tensor
    """True at prompts that count, `(K, P)`."""
    help_bias: Tensor | None
    """On the logit of the help request when they were sampled, `(K, P)`; None for no bias."""
    mask_cut: bool = False
    """Whether responses that were cut are left out."""

    @property
    def mask(self) -> Tensor:
        """True at sampled tokens that count, `(K, P, G, T)`."""
        said = self.rollout.completions
        return said.mask & ~said.cut[..., None] if self.mask_cut and said.cut is not None else said.mask


@dataclass(frozen=True)
class Reinforcement(Learner):
    """Policy optimisation on groups of G responses."""

    temperature: float = 1.0
    """Of the sampling."""
    updates: int = 1
    """Steps of the optimizer on the same responses (TRL's `num_iterations`); more than one clip the ratio."""
    clip_low: float = 0.2
    """The ratio of new to old probability counts down to `1 - clip_low`."""
    clip_high: float = 0.2
    """And up to `1 + clip_high`."""
    ratio: str = "token"
    """Whose ratio counts: each `token`'s, or one of the whole `sequence` (GSPO)."""
    alone_share: float = 0.0
    """Of a step's prompts, how many are practised alone, with the help request ruled out: so what the cloud would
    answer is learned, too, and costs nothing. Usage and its price look at the others. 0, as in the papers: none."""
    imitate: float = 0.0
    """Weight of what was bought: a right answer of the cloud counts as so many further responses of its group, with the
    advantage 1 - the group's share of right drafts, so that what a device cannot do is learned from what it paid for
    (as LUFFY does with another model's traces, arXiv 2504.14945). 0, as in DA-GRPO's paper: only own tokens teach."""
    explore: float = 0.0
    """Of tau, how much goes into exploring the help request: so many prompts are answered alone, with it ruled out, and
    sent all the same, and the request's log-odds, or a head, learn what asking would have gained. So a policy that
    never asks, or always does, comes back. 0.5 where asking may die; 0, as in the papers: nothing is explored."""
    surprise: float = 0.0
    """kappa, by which the model's surprise at its own draft raises its help request, for methods that ask by words: the
    logit after t >= 1 tokens rises by kappa (mean surprise - 0.3), with minus each token's log-probability for its
    surprise, in nats. 0, as in the papers: not at all."""
    kl: float = 0.0
    """beta, the weight of the k3 estimate of the KL to the adapters that the round began with; 0 is none."""
    mask_cut: bool = False
    """Whether a response that was cut at `max_new_tokens` without an ending pulls nothing (overlong filtering of DAPO,
    arXiv 2503.14476): it may have been on a right way. Its reward counts in the group's mean and deviation as before,
    and it counts as a response where a loss is a mean over responses; a mean over tokens is one over those that are
    left. What a head learns of asking looks at cut drafts, too."""

    def __post_init__(self) -> None:
        """Refuse settings that cannot work."""
        super().__post_init__()
        if self.group_size < 2:
            raise ValueError(f"group_size={self.group_size} must be at least 2: a response is compared with its group")
        if not self.temperature > 0:
            raise ValueError(f"temperature={self.temperature} must be above 0: responses of a group must differ")
        if self.updates < 1:
            raise ValueError(f"updates={self.updates} must be at least 1")
        if not 0 <= self.alone_share < 1:
            raise ValueError(f"alone_share={self.alone_share} must be in [0, 1): it is a share of a step's prompts")
        if self.alone_share and not self.may_ask:
            raise ValueError(f"alone_share={self.alone_share} has no effect: this method never asks; leave it out")
        if not 0 <= self.imitate < math.inf:
            raise ValueError(f"imitate={self.imitate} must be finite and at least 0: it is a number of responses")
        if self.imitate and not self.may_ask:
            raise ValueError(f"imitate={self.imitate} has no effect: this method never asks; leave it out")
        if not 0 <= self.explore <= 1:
            raise ValueError(f"explore={self.explore} must be in [0, 1]: it is a share of the budget tau")
        if self.explore and not self.may_ask:
            raise ValueError(f"explore={self.explore} has no effect: this method never asks; leave it out")
        if self.explore and self.given_hint is not None:
            raise ValueError(
                f"explore={self.explore} compares drafts with the cloud's answers, and helping=Hint withholds them; "
                f"set explore=0"
            )
        if not 0 <= self.surprise < math.inf:
            raise ValueError(f"surprise={self.surprise} must be finite and at least 0, in logits per nat")
        if self.surprise and not self.speaks:
            how = "asks by its benefit head" if self.may_ask else "never asks"
            raise ValueError(f"surprise={self.surprise} has no effect: this method {how}; leave it out")
        if self.given_hint is not None and not self.speaks:
            how = "asks by its benefit head after whole answers" if self.may_ask else "never asks"
            raise ValueError(f"helping=Hint has no effect: this method {how}; leave it out")
        if self.given_hint is not None and self.imitate:
            raise ValueError(
                f"imitate={self.imitate} learns the cloud's answers, and helping=Hint withholds them; set imitate=0"
            )
        if self.kl < 0:
            raise ValueError(f"kl={self.kl} must be at least 0: it is the weight of a divergence")
        if not (0 <= self.clip_low <= 1 and self.clip_high >= 0):
            raise ValueError(f"clip_low={self.clip_low} must be in [0, 1] and clip_high={self.clip_high} at least 0")
        if self.ratio not in LEVELS:
            raise ValueError(f"ratio={self.ratio!r} must be one of: {', '.join(LEVELS)}")

    @classmethod
    def check(cls, config: Config, settings: Mapping[str, Any]) -> None:
        """Say what a setting of the last release is called now."""
        if "hint" in settings:
            raise ValueError(
                "hint is a mode of help now: set client.helping.path=clients.helping.hint:Hint, with its share and "
                "longest for hint_share and hint_tokens"
            )
        super().check(config, settings)

    @property
    def responses(self) -> int:
        """Sampled for each prompt."""
        return self.group_size

    @property
    def longest_row(self) -> int:
        """Of a response that asks: what it says before and after, and the hint between."""
        given = self.given_hint
        return self.max_new_tokens if given is None else 2 * self.max_new_tokens + given.longest

    @property
    def sampling(self) -> Sampling:
        """How its responses are drawn."""
        return Sampling(self.group_size, self.temperature, self.max_new_tokens, self.speaks, self.surprise)

    @property
    def keeps_start(self) -> bool:
        """For the KL."""
        return self.kl > 0

    @abstractmethod
    def advantage(self, pack: Pack, rollout: Rollout) -> Tensor:
        """What each response is worth to the policy, `(K, P, G)`."""

    def gain(self, pack: Pack, rollout: Rollout) -> Tensor:
        """What a request was worth more than a draft at explored prompts where the cloud's answer came, `(K, P)`.

        As the method counts, so a price is taken off; elsewhere it is not read.
        """
        return rollout.gain(1.0)  # (K, P)

    @property
    def aggregation(self) -> str:
        """How the loss makes one number of all tokens (`flsim/learning/losses.py`)."""
        return "sum"

    def kept(self, pack: Pack, rollout: Rollout) -> Tensor:
        """The prompts that are learned from, `(K, P)`: all that are not filling."""
        return rollout.prompts.real

    def loss(self, logprobs: Tensor, judged: Judged) -> Tensor:
        """Of each device `(K,)`, from the tokens' present log-probabilities `(K, P, G, T)`."""
        loss = PolicyLoss(
            aggregation=self.aggregation,
            level=self.ratio,
            clipping=Clipping(self.clip_low, self.clip_high),
            beta=self.kl,
            max_length=self.max_new_tokens,
        )
        parts = judged.advantage, judged.mask, judged.kept
        return loss.per_device(logprobs, *parts, old=judged.old, reference=judged.reference)  # (K,)

    def holds(self, update: int) -> bool:
        """Whether the loss pulls at every token in this step on the same responses, to hold the policy where it was."""
        return self.kl > 0

    def offset(
        self, pack: Pack, gain: Tensor, offset: Tensor, prompts: Prompts, weighing: Weights | None = None
    ) -> Tensor:
        """Minus the price of every prompt of a head that asks, `(K, P)`; unless overridden, as before its drafts.

        Args:
            pack: the devices, whose dual variables may move.
            gain: the benefit b of each draft, `(K, P, G)`.
            offset: minus the price as it was, `(K, P)`; -inf where asking is ruled out.
            prompts: that are answered.
            weighing: what a request counts at each of them; None is 1.
        """
        return offset

    def after(self, pack: Pack, rollout: Rollout) -> None:
        """What else a step moves, such as a dual variable."""

    def learn(self, pack: Pack, problems: Problems, step: int) -> None:
        """One step: sample, judge, move."""
        explored = self._explored(pack, problems, step)  # (K, P)
        weighing = request_weights(pack.world, pack.devices, problems)
        bias = self._biases(pack, problems, explored, weighing)  # (K, P)
        pack.attach()
        wishes = None if self.head is None else self._wishes(self.head, pack, problems, step, bias, weighing)
        rollout = self._roll_out(pack.world, pack.devices, problems, step, bias, wishes, explored, weighing)
        with spend("train"):
            advantage = self.advantage(pack, rollout)  # (K, P, G)
            reference = self._under_start(pack, rollout, bias)  # (K, P, G, T)
            kept = self.kept(pack, rollout)  # (K, P)
            judged = Judged(rollout, advantage, rollout.completions.logprobs, reference, kept, bias, self.mask_cut)
            gathered = None if self.head is None else gathered_sums(self.head, pack, rollout)  # (K, 2, F, F + 1)
            taught = None  # (K, n)
            for update in range(self.updates):
                gradient = self._gradient(pack, judged, update)  # (K, n)
                if not update:  # after the gradient, whose graph hangs on the adapters as attached
                    taught = self._taught(pack, problems, rollout, step)  # (K, n)
                pack.move(gradient if taught is None else gradient + taught, self.adam)
            if gathered is not None:  # after the moves, which FedProx pulls back: sums are no parameters
                pack.world.lora.extras(pack.theta)[SUMS].copy_(gathered)
            self.after(pack, rollout)
        for k, note in enumerate(pack.notes):
            note.add(k, problems[k], rollout, advantage)

    def _explored(self, pack: Pack, problems: Problems, step: int) -> Tensor | None:
        """True at the prompts that are explored, `(K, P)`; None where nothing is."""
        if not self.explore:
            return None
        seed, alone = pack.world.seed, self.alone_share
        return to_explore(pack.devices, problems, self.explore, alone=alone, seed=seed, step=step).to(pack.theta.device)

    def _biases(
        self, pack: Pack, problems: Problems, explored: Tensor | None = None, weighing: Weights | None = None
    ) -> Tensor | None:
        """On the wish to ask, `(K, P)`: each device's own, and -inf where it may not ask; None is none.

        It may not at the prompts practised alone, nor at those that are `explored` `(K, P)`. A request that counts more
        is held back as much more.
        """
        own = [self.help_bias(dual) for dual in pack.dual.tolist()]
        if not any(own) and not self.alone_share and explored is None:
            return None
        alone = torch.tensor([int(self.alone_share * len(row)) for row in problems])[:, None]  # (K, 1)
        places = torch.arange(max(len(row) for row in problems))  # (P,)
        closed = places < alone if explored is None else (places < alone) | explored  # (K, P)
        each = torch.tensor(own)[:, None].expand(closed.shape)  # (K, P)
        each = each if weighing is None else each * weighing.expected.cpu()  # (K, P)
        return each.masked_fill(closed, -torch.inf).to(pack.theta.device)

    def _roll_out(
        self,
        world: World,
        devices: Sequence[Device],
        problems: Problems,
        step: int,
        bias: Tensor | None = None,
        wishes: Wishes | None = None,
        explored: Tensor | None = None,
        weighing: Weights | None = None,
    ) -> Rollout:
        parts = world, devices, problems, self.sampling
        return roll_out(*parts, step=step, help_bias=bias, wishes=wishes, explored=explored, weighing=weighing)

    def _wishes(
        self,
        head: Head,
        pack: Pack,
        problems: Problems,
        step: int,
        bias: Tensor | None,
        weighing: Weights | None = None,
    ) -> Wishes:
        """Requests after drafts, each device's own draws."""
        width = max(len(row) for row in problems)
        uniform = torch.ones(len(problems), width, self.group_size)  # (K, P, G)
        for k, (device, row) in enumerate(zip(pack.devices, problems, strict=True)):
            source = seeded(seed_for(pack.world.seed, "request", device.name, device.round, step))
            uniform[k, : len(row)] = torch.rand(len(row), self.group_size, generator=source)
        uniform = uniform.to(pack.theta.device)
        offset = torch.zeros_like(uniform[..., 0]) if bias is None else bias  # (K, P)
        heads = weights_of(head, pack.world.lora, pack.theta)  # (K, 2, F)

        def wishes(drafts: Completions, prompts: Prompts) -> Tensor:
            gain = benefit(head.chances(heads, drafts, prompts))  # (K, P, G)
            return head.ask(gain, self.offset(pack, gain, offset, prompts, weighing), uniform)  # (K, P, G)

        return wishes

    def _under_start(self, pack: Pack, rollout: Rollout, bias: Tensor | None) -> Tensor | None:
        if not self.kl:
            return None
        pack.attach_start()
        with torch.no_grad():
            reading = read(pack.world.base, rollout.prompts)
        count_reading(pack.devices, rollout.prompts)
        count_scoring(pack.devices, rollout.completions)
        return self._score(pack, rollout, reading, bias)  # (K, P, G, T)

    def _gradient(self, pack: Pack, judged: Judged, update: int) -> Tensor:
        """`(K, n)`; on policy the sampling's own log-probabilities are all that the loss needs."""
        rollout = judged.rollout
        reading, logprobs = rollout.reading, judged.old  # (K, P, G, T)
        if update or judged.reference is not None:  # the adapters were moved or taken off since the sampling
            pack.attach()
            reading = read(pack.world.base, rollout.prompts)
        if update:
            count_reading(pack.devices, rollout.prompts)
            logprobs = self._score(pack, rollout, reading, judged.help_bias)  # (K, P, G, T)
        logprobs = logprobs.detach().clone().requires_grad_()
        (pull,) = torch.autograd.grad(self.loss(logprobs, judged).sum(), logprobs)  # (K, P, G, T)
        head = None if self.head is None or self.head.ridge else self.head
        weight, states = (None, None) if head is None else regressed(head, pack, rollout)
        learned = pulled(rollout.completions, pull, states)  # (K, P, G, T)
        if self.holds(update):  # also where that pull is within rounding of 0, which differs between packs
            learned = learned | judged.mask & judged.kept[..., None, None]  # (K, P, G, T)
        count_learning(pack.devices, learned)
        if states is None and not pull.any():  # every group is of one mind, as where a draft is a recorded answer
            gradient = torch.zeros_like(pack.theta)  # (K, n)
        else:
            gradient = pull_back(
                pack.world.base,
                pack.world.lora,
                reading,
                rollout.completions,
                pull,
                temperature=self.temperature,
                tokens=self.micro_batch,
                may_ask=self.speaks,
                help_bias=judged.help_bias if self.speaks else None,
                states=states,
            )  # (K, n)
        if weight is not None:
            gradient[:, pack.world.lora.place_of_extras] += weight.flatten(1)
        return gradient

    def _taught(self, pack: Pack, problems: Problems, rollout: Rollout, step: int) -> Tensor | None:
        """The gradient of what was bought and of what was explored, `(K, n)`; None for neither."""
        imitated = self._imitated(pack, problems, rollout, step) if self.imitate else None  # (K, n)
        if rollout.explored is None or not self.speaks:  # a head learns of explored prompts as of all that it bought
            return imitated
        own = torch.tensor([self.help_bias(dual) for dual in pack.dual.tolist()])[:, None]  # (K, 1)
        bias = own * rollout.expected.cpu()  # (K, P)
        parts = pack, problems, rollout, self.gain(pack, rollout)
        found = explored_gradient(*parts, temperature=self.temperature, bias=bias, tokens=self.micro_batch)  # (K, n)
        return imitated if found is None else found if imitated is None else imitated + found

    def _imitated(self, pack: Pack, problems: Problems, rollout: Rollout, step: int) -> Tensor | None:
        """The gradient of what was bought, now and before, `(K, n)`; None for none.

        Right answers of the cloud are further responses of their groups. Of a kept one no group is sampled again; it
        counts as if half of one were right.
        """
        share = 1.0 - rollout.right_draft.mean(-1).cpu()  # (K, P)
        lessons: list[list[Lesson]] = [
            [
                (problem, rollout.help.answers[k, p], float(share[k, p]))
                for p, problem in enumerate(row)
                if (k, p) in rollout.help.answers
            ]
            for k, row in enumerate(problems)
        ]
        for k, (device, row) in enumerate(zip(pack.devices, problems, strict=True)):
            lessons[k] += [(*kept, 0.5) for kept in self._kept(pack.world, device, len(row), step)]
            said = {p: text for (at, p), text in rollout.help.answers.items() if at == k}
            self._keep(pack.world, device, step, said)
        if not any(lessons):
            return None
        loss = PolicyLoss(aggregation=self.aggregation, max_length=self.max_new_tokens)
        parts = pack, lessons, [len(row) for row in problems], loss
        weight, longest = self.imitate / self.group_size, self.max_new_tokens
        return imitated_gradient(*parts, weight=weight, longest=longest, tokens=self.micro_batch)  # (K, n)

    def _met(self, world: World, device: Device, step: int) -> list[Problem]:
        """New questions only where the buffer keeps answers: what is met again was answered already."""
        if self.imitate:
            return self._fresh(world, device.name, device.round, step)
        return super()._met(world, device, step)

    @torch.no_grad()
    def _score(self, pack: Pack, rollout: Rollout, reading: Reading, bias: Tensor | None) -> Tensor:
        """Log-probabilities of the responses under the adapters that are on, `(K, P, G, T)`."""
        parts = pack.world.base, reading, rollout.completions
        bias = bias if self.speaks else None
        return score(*parts, temperature=self.temperature, tokens=self.micro_batch, may_ask=self.speaks, help_bias=bias)
