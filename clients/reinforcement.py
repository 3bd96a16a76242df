"""Learning from groups of one's own responses: sample, judge, weigh, and step along the gradient of the method's loss.

A method says what a response is worth (`advantage`), and where it differs from the plain policy gradient: how tokens
become one number (`aggregation`) or the whole `loss`, which prompts count (`kept`), and what else moves (`after`).
"""

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from clients.device.device import Device
from clients.device.pack import Pack
from clients.device.rollout import Problems, Rollout, Sampling, roll_out
from clients.device.world import World
from clients.learner import Learner
from flsim.learning.losses import LEVELS, Clipping, PolicyLoss
from flsim.models.decoding import Reading, read
from flsim.models.scoring import pull_back, score
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

    @property
    def mask(self) -> Tensor:
        """True at sampled tokens, `(K, P, G, T)`."""
        return self.rollout.completions.mask


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
    kl: float = 0.0
    """beta, the weight of the k3 estimate of the KL to the adapters that the round began with; 0 is none."""

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
        if self.kl < 0:
            raise ValueError(f"kl={self.kl} must be at least 0: it is the weight of a divergence")
        if not (0 <= self.clip_low <= 1 and self.clip_high >= 0):
            raise ValueError(f"clip_low={self.clip_low} must be in [0, 1] and clip_high={self.clip_high} at least 0")
        if self.ratio not in LEVELS:
            raise ValueError(f"ratio={self.ratio!r} must be one of: {', '.join(LEVELS)}")

    @property
    def responses(self) -> int:
        """Sampled for each prompt."""
        return self.group_size

    @property
    def sampling(self) -> Sampling:
        """How its responses are drawn."""
        return Sampling(self.group_size, self.temperature, self.max_new_tokens, self.may_ask)

    @property
    def keeps_start(self) -> bool:
        """For the KL."""
        return self.kl > 0

    @abstractmethod
    def advantage(self, pack: Pack, rollout: Rollout) -> Tensor:
        """What each response is worth to the policy, `(K, P, G)`."""

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

    def after(self, pack: Pack, rollout: Rollout) -> None:
        """What else a step moves, such as a dual variable."""

    def learn(self, pack: Pack, problems: Problems, step: int) -> None:
        """One step: sample, judge, move."""
        bias = self._biases(pack, problems)  # (K, P)
        pack.attach()
        rollout = self._roll_out(pack.world, pack.devices, problems, step, bias)
        with spend("train"):
            advantage = self.advantage(pack, rollout)  # (K, P, G)
            reference = self._under_start(pack, rollout, bias)  # (K, P, G, T)
            kept = self.kept(pack, rollout)  # (K, P)
            judged = Judged(rollout, advantage, rollout.completions.logprobs, reference, kept, bias)
            for update in range(self.updates):
                pack.move(self._gradient(pack, judged, update), self.adam)
            self.after(pack, rollout)
        for k, note in enumerate(pack.notes):
            note.add(k, problems[k], rollout, advantage)

    def _biases(self, pack: Pack, problems: Problems) -> Tensor | None:
        """On the logit of the help request, `(K, P)`: each device's own, and -inf at the prompts practised alone."""
        own = [self.help_bias(dual) for dual in pack.dual.tolist()]
        if not any(own) and not self.alone_share:
            return None
        alone = torch.tensor([int(self.alone_share * len(row)) for row in problems])[:, None]  # (K, 1)
        places = torch.arange(max(len(row) for row in problems))  # (P,)
        biases = torch.tensor(own)[:, None].masked_fill(places < alone, -torch.inf)  # (K, P)
        return biases.to(pack.theta.device)

    def _roll_out(
        self, world: World, devices: Sequence[Device], problems: Problems, step: int, bias: Tensor | None = None
    ) -> Rollout:
        return roll_out(world, devices, problems, self.sampling, step=step, help_bias=bias)

    def _under_start(self, pack: Pack, rollout: Rollout, bias: Tensor | None) -> Tensor | None:
        if not self.kl:
            return None
        pack.attach_start()
        with torch.no_grad():
            reading = read(pack.world.base, rollout.prompts)
        return self._score(pack, rollout, reading, bias)  # (K, P, G, T)

    def _gradient(self, pack: Pack, judged: Judged, update: int) -> Tensor:
        """`(K, n)`; on policy the sampling's own log-probabilities are all that the loss needs."""
        rollout = judged.rollout
        reading, logprobs = rollout.reading, judged.old  # (K, P, G, T)
        if update or judged.reference is not None:  # the adapters were moved or taken off since the sampling
            pack.attach()
            reading = read(pack.world.base, rollout.prompts)
        if update:
            logprobs = self._score(pack, rollout, reading, judged.help_bias)  # (K, P, G, T)
        logprobs = logprobs.detach().clone().requires_grad_()
        (pull,) = torch.autograd.grad(self.loss(logprobs, judged).sum(), logprobs)  # (K, P, G, T)
        return pull_back(
            pack.world.base,
            pack.world.lora,
            reading,
            rollout.completions,
            pull,
            temperature=self.temperature,
            tokens=self.micro_batch,
            may_ask=self.may_ask,
            help_bias=judged.help_bias,
        )

    @torch.no_grad()
    def _score(self, pack: Pack, rollout: Rollout, reading: Reading, bias: Tensor | None) -> Tensor:
        """Log-probabilities of the responses under the adapters that are on, `(K, P, G, T)`."""
        parts = pack.world.base, reading, rollout.completions
        return score(
            *parts, temperature=self.temperature, tokens=self.micro_batch, may_ask=self.may_ask, help_bias=bias
        )
