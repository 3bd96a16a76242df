"""DA-GRPO: learn the tasks and when to ask the cloud, together (Chen, Fang, Wang, Brinton 2026, arXiv 2602.00166).

Per prompt a group of G responses, some of which ask; one cloud query per prompt, shared by its asking responses; reward
1 if the final answer is right, cost 1 if the response asked (in `budget.unit`, the weight of its prompt: 1 in the
mean). The advantage is `A = A_r - lambda A_c`, the update the
plain on-policy gradient, and lambda rises while usage is above tau and falls while it is below (Algorithm 1). That is
`policy=token imitate=0 replay=0`, the paper's plain form with `dual_gain=0, dual_max=inf, cost_baseline=group`, whose
other values are guards that make it settle. By default a benefit head asks in the token's place, after each draft
(`flsim/learning/benefit.py`), and what was bought is learned and kept.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from clients.asking.policy import Own, OwnCalibrated
from clients.asking.rule import AskingRule
from clients.device.device import Device
from clients.device.head import Head, weights_of
from clients.device.pack import Pack
from clients.device.rollout import Rollout
from clients.device.weighing import Weights
from clients.reinforcement import Reinforcement
from flsim.config.budget import CALLS
from flsim.config.schema import Config
from flsim.learning.advantage import COST_BASELINES, cost_advantage, separately_scaled, task_advantage
from flsim.learning.benefit import CLOUD, FEATURES, ask_chance, benefit
from flsim.learning.dual import DualRule, solved_price
from flsim.models.decoding import Prompts

NORMALISATIONS = ("centred", "separately")
POLICIES = ("head", "token")
CREDITS = ("draft", "kept")
DECIDES = ("first", "each")
READS_ONLY = {
    "head": (
        "credit",
        "head_features",
        "head_rate",
        "head_temperature",
        "head_decides",
        "head_gradient",
        "head_ridge",
        "head_fade",
        "dual_solve",
    ),
    "token": ("cost_baseline", "normalise", "dual_gain"),
}
"""Settings that one policy alone reads; `dual_bias`, which only a token does, may be given as 0."""


@dataclass(frozen=True)
class DaGrpo(Reinforcement):
    """The settings of one device's round."""

    imitate: float = 8.0
    """Weight of what was bought: so many further responses of its group. Not 0 as of other methods: a prompt that no
    draft solves teaches nothing by itself, and its answer is paid for. 0 is the paper's form."""
    replay: int = 128
    """Answers of the cloud that a device keeps with their questions; not 0, since what is bought is tau of the prompts,
    too few to be learned from once. 0 is the paper's form; a pooled learner keeps none."""
    replay_share: float = 1.0
    """Of a step's prompts, how many kept answers it learns besides; not a quarter, since they take no prompt's place:
    no group is sampled for them, so that as many as there are prompts cost little."""
    policy: str = "head"
    """Who asks: a benefit `head` after each draft, where what the cloud would gain exceeds lambda; or the model itself
    by its help request, a `token` or text that is learned as all others are (the paper's)."""
    credit: str = "draft"
    """What a draft is worth under a head: its own verdict (`draft`), or what is expected after the head has decided
    (`kept`): (1 - a) right + a (right by the cloud - lambda), with a the chance of a request."""
    head_features: str = "both"
    """What the head sees of a draft: `numbers` (log-probabilities, entropies, length), its last `hidden` state, or
    `both`; or the hidden state with length and tokens of the `question`, where a draft is one token that stands for a
    recorded answer."""
    head_rate: float = 5.0
    """How many times faster the head learns than the adapter."""
    head_temperature: float = 0.1
    """T of the request that is sampled while it learns, in units of the benefit."""
    head_decides: str = "first"
    """Whose draft decides whether a prompt is sent to the cloud while the device learns: the `first` of its group,
    which is what a user would get, so that tau is the share of prompts that are bought; or `each` for itself, as a
    token's requests do, so that a prompt is bought if any of its G drafts asks."""
    head_gradient: float = 0.0
    """Weight of the head's loss in the gradient of the adapter; 0 stops it at the hidden state."""
    head_ridge: float = 0.0
    """Above 0 the head is not learned step by step, but solved in closed form with this penalty, from sums over all
    drafts that any device has made. Of `both` kinds of features the hidden state is held back as if it were as few
    as the numbers beside it."""
    head_fade: float = 1.0
    """What a step leaves of the sums of a solved head. 1 keeps all, for features that stay what they are, as those of a
    reader of recorded outcomes; below 1 drafts of long ago count less, since the adapter has moved on."""
    help_reward: float = 1.0
    """alpha_c, the reward of a right answer by the cloud; alone it is 1."""
    cost_baseline: str = "batch"
    """`group` (the paper's); `batch`, which keeps a signal in groups that ask unanimously; or `budget` (tau), which
    keeps one even where all groups do."""
    normalise: str = "centred"
    """`centred` (the paper's), or `separately`: each part by its own standard deviation in the group, so that neither
    the rewards' nor the costs' spread decides what lambda means (Constrained GRPO, arXiv 2602.05863)."""
    dual_init: float = 0.5
    """lambda at the start."""
    dual_lr: float = 0.5
    """eta of the dual ascent; a head's usage follows lambda at once, a token's after some steps: it wants 0.1."""
    dual_gain: float = 2.0
    """Proportional gain beside the integral; 0 is the paper's form."""
    dual_solve: float = 0.0
    """How much of the way lambda goes, before the requests of a step, to the price at which the step's drafts would ask
    for tau of its prompts by what the head expects. So a head that learns fast, and a switch of tasks, need not be
    found out by overspending. 0 leaves lambda to the dual ascent; 1 follows every step's drafts."""
    dual_max: float = 1.0
    """Upper clip of lambda; .inf is the paper's form."""
    dual_bias: float = 0.0
    """How far lambda itself holds the help request back: its logit is lowered by `dual_bias (lambda - dual_init)`, a
    threshold of the device's own, which no averaging of adapters takes away; 0 is the paper's form."""

    weighs: ClassVar[bool] = True

    def __post_init__(self) -> None:
        """Refuse settings that cannot work."""
        super().__post_init__()
        if not 0 <= self.dual_bias < math.inf:
            raise ValueError(f"dual_bias={self.dual_bias} must be finite and at least 0, in logits per unit of lambda")
        if self.cost_baseline not in COST_BASELINES:
            raise ValueError(f"cost_baseline={self.cost_baseline!r} must be one of: {', '.join(COST_BASELINES)}")
        for name, value, allowed in (
            ("policy", self.policy, POLICIES),
            ("credit", self.credit, CREDITS),
            ("head_features", self.head_features, FEATURES),
            ("head_decides", self.head_decides, DECIDES),
        ):
            if value not in allowed:
                raise ValueError(f"{name}={value!r} must be one of: {', '.join(allowed)}")
        if self.dual_bias and self.policy == "head":
            raise ValueError(
                f"dual_bias={self.dual_bias} has no effect with policy=head, which weighs lambda itself against the "
                f"benefit; leave it out, or set policy=token"
            )
        if not (0 < self.head_rate < math.inf and 0 < self.head_temperature < math.inf):
            raise ValueError(
                f"head_rate={self.head_rate} and head_temperature={self.head_temperature} must be above 0 and finite"
            )
        if not 0 <= self.dual_solve <= 1:
            raise ValueError(f"dual_solve={self.dual_solve} must be in [0, 1]: it is a part of the way")
        if not 0 <= self.head_gradient < math.inf:
            raise ValueError(f"head_gradient={self.head_gradient} must be finite and at least 0; 0 stops it")
        if not 0 <= self.head_ridge < math.inf:
            raise ValueError(f"head_ridge={self.head_ridge} must be finite and at least 0; 0 learns step by step")
        if not 0 < self.head_fade <= 1:
            raise ValueError(f"head_fade={self.head_fade} must be above 0 and at most 1, which keeps all")
        if self.head_fade < 1 and not self.head_ridge:
            raise ValueError(
                f"head_fade={self.head_fade} has no effect without head_ridge, whose sums it lets fade; leave it out, "
                f"or set head_ridge, such as 0.3"
            )
        if self.head_ridge and self.head_gradient:
            raise ValueError(
                f"head_gradient={self.head_gradient} would move the hidden states of drafts that the sums of "
                f"head_ridge={self.head_ridge} hold already; leave one of them out"
            )
        if self.normalise not in NORMALISATIONS:
            raise ValueError(f"normalise={self.normalise!r} must be one of: {', '.join(NORMALISATIONS)}")

    @classmethod
    def check(cls, config: Config, settings: Mapping[str, Any]) -> None:
        """Refuse what the policy does not read, and to move a lambda of a device's own where the fleet has one."""
        super().check(config, settings)
        if settings.get("normalise", cls.normalise) == "separately" and config.budget.unit != CALLS:
            raise ValueError(
                f"normalise=separately takes each group's costs in units of their own deviation, so that "
                f"budget.unit={config.budget.unit} would count for nothing; leave one of them out"
            )
        policy = settings.get("policy", cls.policy)
        for other in READS_ONLY.keys() - {policy}:
            idle = [name for name in READS_ONLY[other] if name in settings]
            if idle and policy in READS_ONLY:
                raise ValueError(
                    f"{', '.join(idle)} would have no effect with policy={policy}; leave it out, or set policy={other}"
                )
        own = [name for name in settings if name.startswith("dual_")]
        if own and config.budget.fleet.rule == "price":
            raise ValueError(
                f"{', '.join(own)} would move a device's own dual variable, and budget.fleet.division=price has one "
                f"for all; leave it out, and set budget.fleet.price_init, price_lr, price_gain or price_max"
            )

    @property
    def first_dual(self) -> float:
        """Lambda of a device that has not learned yet."""
        return self.dual_init

    def help_bias(self, dual: float) -> float:
        """Minus lambda for a head, whose benefit it is compared with.

        For a token `dual_bias (dual_init - lambda)`: none at the start, less than none where asking has become dear.
        """
        return -dual if self.head is not None else self.dual_bias * (self.dual_init - dual)

    @property
    def head(self) -> Head | None:
        """Of the policy that asks by its benefit."""
        if self.policy == "token":
            return None
        return Head(
            self.head_features,
            self.head_rate,
            self.head_temperature,
            self.head_decides,
            self.head_gradient,
            self.head_ridge,
            self.head_fade,
        )

    @property
    def asks(self) -> AskingRule:
        """A head's benefit, in the order of which a device spends what its budget leaves; a token's own wish."""
        return Own() if self.head is None else OwnCalibrated(pacing=True)

    def advantage(self, pack: Pack, rollout: Rollout) -> Tensor:
        """`A_r - lambda A_c`, `(K, P, G)`."""
        if self.head is not None:
            return task_advantage(self._worth(self.head, pack, rollout))  # (K, P, G)
        by_cloud = rollout.right - rollout.right_alone  # (K, P, G)
        rewards = rollout.right_alone + self.help_reward * by_cloud  # (K, P, G)
        price = self._rule(pack.devices).price(pack.dual, rollout.usage, pack.tau)  # (K,)
        if self.normalise == "separately":
            return separately_scaled(rewards, rollout.asked, price)  # (K, P, G)
        costs = cost_advantage(rollout.costs, baseline=self.cost_baseline, real=rollout.open, tau=pack.tau)  # (K, P, G)
        return task_advantage(rewards) - price[:, None, None] * costs  # (K, P, G)

    def gain(self, pack: Pack, rollout: Rollout) -> Tensor:
        """With the price of this step taken off, `(K, P)`."""
        price = self._rule(pack.devices).price(pack.dual, rollout.usage, pack.tau)  # (K,)
        return rollout.gain(self.help_reward) - price[:, None] * rollout.weights  # (K, P)

    def _worth(self, head: Head, pack: Pack, rollout: Rollout) -> Tensor:
        """What a head's drafts are worth, `(K, P, G)`: themselves, or what is expected after it has decided."""
        right = rollout.right_draft  # (K, P, G)
        if self.credit == "draft":
            return right
        weight = weights_of(head, pack.world.lora, pack.theta)  # (K, 2, F)
        both = head.chances(weight, rollout.completions, rollout.prompts)  # (K, P, G, 2)
        came = rollout.help.came.to(right.device)[..., None]  # (K, P, 1)
        cloud = torch.where(came, rollout.help.right.to(right.device)[..., None], both[..., CLOUD])  # (K, P, G)
        known, price = (pack.dual[:, None] * weight for weight in (rollout.expected, rollout.weights))  # (K, P) each
        asks = ask_chance(benefit(both), known.masked_fill(~rollout.open, torch.inf), head.temperature)  # (K, P, G)
        return (1 - asks) * right + asks * (self.help_reward * cloud - price[..., None])  # (K, P, G)

    def offset(
        self, pack: Pack, gain: Tensor, offset: Tensor, prompts: Prompts, weighing: Weights | None = None
    ) -> Tensor:
        """After lambda has gone `dual_solve` of the way to what these drafts call for, `(K, P)`."""
        if not self.dual_solve or self.head is None:
            return offset
        ones = torch.ones_like(offset)  # (K, P)
        weight, whole = (ones, ones) if weighing is None else (weighing.expected, weighing.whole)  # (K, P) each
        before, lambdas = pack.dual, pack.dual.tolist()
        may_ask = prompts.real & ~offset.isneginf()  # (K, P)
        for k, tau in enumerate(pack.tau.tolist()):
            if may_ask[k].any():
                own = gain[k][may_ask[k]]  # (P', G)
                each = weight[k][may_ask[k]][:, None].expand_as(own).flatten()  # (P' G,)
                most = tau * float(whole[k][may_ask[k]].double().mean())
                solved = solved_price(own.flatten(), most, self.head.temperature, weight=each)
                lambdas[k] += self.dual_solve * (min(max(solved, 0.0), self.dual_max) - lambdas[k])
        pack.dual = torch.tensor(lambdas, device=before.device)  # (K,)
        return offset - (pack.dual - before)[:, None] * weight  # (K, P)

    def after(self, pack: Pack, rollout: Rollout) -> None:
        """The dual ascent."""
        pack.dual = self._rule(pack.devices).ascend(pack.dual, rollout.usage, pack.tau)  # (K,)

    def _rule(self, devices: Sequence[Device]) -> DualRule:
        """The devices' own rule; under a price of the fleet one that leaves it as it is, equal for all."""
        if any(device.price is not None for device in devices):
            return DualRule(lr=0.0, gain=0.0, maximum=math.inf)
        return DualRule(self.dual_lr, self.dual_gain, self.dual_max)
