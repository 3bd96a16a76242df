"""DA-GRPO: learn the tasks and when to ask the cloud, together (Chen, Fang, Wang, Brinton 2026, arXiv 2602.00166).

Per prompt a group of G responses, some of which ask; one cloud query per prompt, shared by its asking responses; reward
1 if the final answer is right, cost 1 if the response asked. The advantage is `A = A_r - lambda A_c`, the update the
plain on-policy gradient, and lambda rises while usage is above tau and falls while it is below (Algorithm 1). The
paper's plain form is `dual_gain=0, dual_max=inf, cost_baseline=group`; the defaults are the guards that make it settle.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any

import torch
from torch import Tensor

from clients.anchor import Anchor
from clients.app import DeviceApp
from clients.asking.own import OWN
from clients.asking.rule import AskingRule
from clients.device import Device
from clients.notes import Notes
from clients.rollout import Problems, Rollout, roll_out
from flsim.config import Config
from flsim.learning.adam import Adam, AdamState, fresh_state
from flsim.learning.advantage import COST_BASELINES, cost_advantage, policy_gradient_loss, task_advantage
from flsim.learning.dual import DualRule
from flsim.messages import DeviceUpdate
from flsim.models.memory import refuse_too_large
from flsim.models.scoring import TOKENS, pull_back
from flsim.models.stacked_lora import ranks_of
from flsim.plugins import resolve
from flsim.timing import spend
from flsim.world import World


@dataclass(frozen=True)
class DaGrpo:
    """The settings of one device's round."""

    steps: int = 6
    """Local steps per round, each on fresh prompts with fresh rollouts."""
    prompts: int = 8
    """Prompts per step, on average over devices."""
    group_size: int = 8
    """G, responses per prompt."""
    lr: float = 3e-3
    """Learning rate of Adam."""
    clip_norm: float = 1.0
    """Largest gradient norm of a device."""
    keep_optimizer: bool = True
    """Whether a device keeps its Adam moments between rounds."""
    temperature: float = 1.0
    """Of the sampling."""
    max_new_tokens: int = 9
    """Longest response in tokens."""
    micro_batch: int = TOKENS
    """Most tokens of responses in one forward pass of training; lower it where memory is short."""
    help_reward: float = 1.0
    """alpha_c, the reward of a right answer by the cloud; alone it is 1."""
    cost_baseline: str = "batch"
    """`group` (the paper's) or `batch`, which keeps a signal in groups that ask unanimously."""
    dual_init: float = 0.5
    """lambda at the start."""
    dual_lr: float = 0.1
    """eta of the dual ascent."""
    dual_gain: float = 2.0
    """Proportional gain beside the integral; 0 is the paper's form."""
    dual_max: float = 1.0
    """Upper clip of lambda; .inf is the paper's form."""

    def __post_init__(self) -> None:
        """Refuse settings that cannot work."""
        if self.group_size < 2:
            raise ValueError(f"group_size={self.group_size} must be at least 2: a response is compared with its group")
        if self.cost_baseline not in COST_BASELINES:
            raise ValueError(f"cost_baseline={self.cost_baseline!r} must be one of: {', '.join(COST_BASELINES)}")
        for name in ("steps", "prompts", "lr", "clip_norm", "temperature", "max_new_tokens", "micro_batch"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name}={getattr(self, name)} must be above 0")

    def local_update(self, world: World, devices: Sequence[Device]) -> list[DeviceUpdate]:
        """One round of a pack of devices."""
        rule = self._rule(devices)
        adam = Adam(lr=self.lr, clip_norm=self.clip_norm)
        ranks = ranks_of([device.adapter for device in devices])
        scales = world.scales([device.index for device in devices], ranks)
        theta = world.lora.stack([device.adapter for device in devices])  # (K, n)
        anchor = Anchor.of(world.lora, theta, devices)
        moments = self._moments(world, devices, ranks)
        dual = torch.tensor([device.dual for device in devices], device=theta.device)  # (K,)
        tau = torch.tensor([device.ledger.budget.tau for device in devices], device=theta.device)  # (K,)
        notes = [Notes(device) for device in devices]
        for step in range(self.steps):
            problems = self.problems(world, devices, step)
            world.lora.learn(theta, ranks, scales)
            rollout = self._roll_out(world, devices, problems, step)
            usage = rollout.usage  # (K,)
            with spend("train"):
                advantage = self._advantage(rollout, rule.price(dual, usage, tau))  # (K, P, G)
                adam.step(theta, anchor.pull(theta, self._gradient(world, rollout, advantage)), moments)
                anchor.hold(theta)
                dual = rule.ascend(dual, usage, tau)  # (K,)
            for k, note in enumerate(notes):
                note.add(k, problems[k], rollout, advantage)
        self._keep(world, devices, ranks, moments=moments, dual=dual)
        adapters = world.lora.unstack(theta, ranks)
        return [note.update(*pair) for note, pair in zip(notes, zip(devices, adapters, strict=True), strict=True)]

    def _rule(self, devices: Sequence[Device]) -> DualRule:
        """The devices' own rule; under a price of the fleet one that leaves it as it is, equal for all."""
        if any(device.price is not None for device in devices):
            return DualRule(lr=0.0, gain=0.0, maximum=math.inf)
        return DualRule(self.dual_lr, self.dual_gain, self.dual_max)

    def _roll_out(self, world: World, devices: Sequence[Device], problems: Problems, step: int) -> Rollout:
        return roll_out(
            world,
            devices,
            problems,
            step=step,
            group_size=self.group_size,
            temperature=self.temperature,
            max_new_tokens=self.max_new_tokens,
        )

    def _advantage(self, rollout: Rollout, price: Tensor) -> Tensor:
        """`A_r - lambda A_c`, `(K, P, G)`."""
        by_cloud = rollout.right - rollout.right_alone  # (K, P, G)
        rewards = rollout.right_alone + self.help_reward * by_cloud  # (K, P, G)
        costs = cost_advantage(rollout.asked, baseline=self.cost_baseline, real=rollout.prompts.real)  # (K, P, G)
        return task_advantage(rewards) - price[:, None, None] * costs  # (K, P, G)

    def _gradient(self, world: World, rollout: Rollout, advantage: Tensor) -> Tensor:
        """`(K, n)`; on policy the sampling's own log-probabilities are all that the loss needs."""
        logprobs = rollout.completions.logprobs.requires_grad_()  # (K, P, G, T)
        loss = policy_gradient_loss(logprobs, advantage, rollout.prompts.real)  # (K,)
        (pull,) = torch.autograd.grad(loss.sum(), logprobs)  # (K, P, G, T)
        parts = rollout.reading, rollout.completions, pull
        return pull_back(world.base, world.lora, *parts, temperature=self.temperature, tokens=self.micro_batch)

    def problems(self, world: World, devices: Sequence[Device], step: int) -> Problems:
        """What each device meets in one local step."""
        seed = world.config.seed
        return [
            world.stream.training_problems(
                d.name, d.round, step, count=world.stream.prompts_per_step(d.name, self.prompts), seed=seed
            )
            for d in devices
        ]

    def _moments(self, world: World, devices: Sequence[Device], ranks: Sequence[int]) -> AdamState:
        rows = [
            device.optimizer
            if self.keep_optimizer and device.optimizer is not None
            else fresh_state(1, world.lora.size(rank))
            for device, rank in zip(devices, ranks, strict=True)
        ]
        first, second = (
            world.lora.pad(moment, ranks) for moment in zip(*((r.first[0], r.second[0]) for r in rows), strict=True)
        )
        return AdamState(first, second, torch.cat([row.steps for row in rows]).to(first.device))

    def _keep(
        self, world: World, devices: Sequence[Device], ranks: Sequence[int], *, moments: AdamState, dual: Tensor
    ) -> None:
        """Leave with every device what it takes to its next round."""
        first, second = (world.lora.crop(moment.cpu(), ranks) for moment in (moments.first, moments.second))
        steps = moments.steps.cpu()  # (K,)
        for k, device in enumerate(devices):
            device.dual = float(dual[k]) if device.price is None else device.price
            device.optimizer = None
            if self.keep_optimizer:
                device.optimizer = AdamState(first[k][None], second[k][None], steps[k : k + 1])


def client_app(config: Config, mods: Sequence[Any] = (), asking: AskingRule = OWN, **settings: Any) -> DeviceApp:
    """The plug-in that `client.path=clients.da_grpo:client_app` names.

    Args:
        config: of the run.
        mods: Flower's mods around training, as objects or as `module:name`, such as
            `flwr.clientapp.mod:fixedclipping_mod`.
        asking: the rule by which devices ask when they are measured, such as
            `client.asking.path=clients.asking.confidence:Confidence`; by default the policy's own requests.
        settings: the fields of `DaGrpo`.

    Raises:
        ValueError: for a setting that there is not.
    """
    known = [field.name for field in fields(DaGrpo)]
    unknown = sorted(settings.keys() - set(known))
    if unknown:
        raise ValueError(f"there is no setting {', '.join(unknown)}; DA-GRPO takes: {', '.join(known)}")
    algorithm = DaGrpo(**settings)
    own = [name for name in settings if name.startswith("dual_")]
    if own and config.budget.fleet.rule == "price":
        raise ValueError(
            f"{', '.join(own)} would move a device's own dual variable, and budget.fleet.share=price has one for all; "
            f"leave it out, and set budget.fleet.price_init, price_lr, price_gain or price_max"
        )
    prompts = 2 * algorithm.prompts  # quantity skew at most doubles a device's
    refuse_too_large(
        config,
        prompts=prompts,
        responses=prompts * algorithm.group_size,
        new_tokens=algorithm.max_new_tokens,
        micro_batch=algorithm.micro_batch,
    )
    around = [resolve("client.mods", mod) if isinstance(mod, str) else mod for mod in mods]
    return DeviceApp(config, algorithm, around, asking)
