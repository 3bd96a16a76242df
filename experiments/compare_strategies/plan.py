"""What is compared: named arms, each a list of settings over one config, in parts with a question each."""

from dataclasses import dataclass

CONFIG = "experiments/configs/strategies.yaml"

_FLEX = "strategy.path=strategies.flex_lora:FlexLora"
_ATTACK = ("client.path=clients.poisoning:Poisoned", "client.poison=flip", "client.poison_share=0.2")
_PRICED = "budget.fleet.share=traffic"


@dataclass(frozen=True)
class Arm:
    """One method under one condition."""

    name: str
    settings: tuple[str, ...]
    """Over `CONFIG`."""


@dataclass(frozen=True)
class Part:
    """Arms that answer one question."""

    name: str
    question: str
    arms: tuple[Arm, ...]
    against: tuple[str, ...]
    """Arms that the others are paired with, user by user."""


def _method(name: str, path: str, *settings: str) -> Arm:
    return Arm(name, (f"strategy.path={path}", *settings))


def _weighed(name: str, weighter: str) -> Arm:
    return Arm(name, (_FLEX, f"strategy.weighter.path=strategies.parts.weighters:{weighter}"))


METHODS = Part(
    "methods",
    "Which aggregation, on unequal ranks?",
    (
        _method("alone", "strategies.local_only:LocalOnly"),
        _method("FedIT", "strategies.fedavg:FedAvg"),
        _method("FlexLoRA, deltas", "strategies.flex_lora:FlexLora"),
        _method("FlexLoRA", "strategies.flex_lora:FlexLora", "strategy.average=adapters"),
        _method("FedEx-LoRA", "strategies.fedex_lora:FedExLora"),
        _method("FedEx-LoRA, decay 0.8", "strategies.fedex_lora:FedExLora", "strategy.decay=0.8"),
        _method("FLoRA", "strategies.flora:Flora"),
        _method("FFA-LoRA", "strategies.ffa_lora:FfaLora"),
        _method("RoLoRA", "strategies.rolora:RoLora"),
        _method("FedSA-LoRA", "strategies.fedsa_lora:FedSaLora"),
        _method("HetLoRA", "strategies.het_lora:HetLora"),
    ),
    ("alone", "FedIT"),
)
EQUAL = Part(
    "equal",
    "Does exact averaging help if all ranks are equal?",
    (
        Arm("FedIT", ("strategy.path=strategies.fedavg:FedAvg", "fleet.ranks=[]")),
        Arm("FlexLoRA", (_FLEX, "fleet.ranks=[]")),
    ),
    ("FedIT",),
)
PARTS = Part(
    "parts",
    "Which weights and which server optimizer, on FlexLoRA's average of deltas?",
    (
        Arm("by examples, average", (_FLEX,)),
        _weighed("uniform", "Uniform"),
        _weighed("effective groups", "EffectiveGroups"),
        _weighed("reward gain", "RewardGain"),
        _weighed("q-fair, q = 1", "QFair"),
        Arm(
            "momentum 0.5",
            (
                _FLEX,
                *(f"strategy.optimizer.{s}" for s in ("path=strategies.parts.server_optimizers:Momentum", "beta=0.5")),
            ),
        ),
        Arm(
            "Adam",
            (_FLEX, *(f"strategy.optimizer.{s}" for s in ("path=strategies.parts.server_optimizers:Adam", "lr=0.01"))),
        ),
    ),
    ("by examples, average",),
)
POISONED = Part(
    "poisoned",
    "Which aggregation, if a fifth of the devices send ten steps backwards for each they learned? (honest users)",
    (
        Arm("alone", ("strategy.path=strategies.local_only:LocalOnly", *_ATTACK)),
        Arm("FedIT", ("strategy.path=strategies.fedavg:FedAvg", *_ATTACK)),
        Arm("FlexLoRA, deltas", (_FLEX, *_ATTACK)),
        Arm("Multi-Krum", ("strategy.path=strategies.robust:MultiKrum", *_ATTACK)),
        Arm("geometric median", ("strategy.path=strategies.robust:GeometricMedian", *_ATTACK)),
        Arm("trimmed mean", ("strategy.path=strategies.robust:TrimmedMean", *_ATTACK)),
        Arm("median", ("strategy.path=strategies.robust:Median", *_ATTACK)),
    ),
    ("alone", "FedIT"),
)
DISTILLATION = Part(
    "distillation",
    "Is money better spent by the devices alone, or 15 % of it by a server that distils?",
    (
        Arm("devices spend all", (_FLEX, _PRICED, "budget.fleet.money_total=0.06")),
        Arm(
            "server distils with 15 %",
            (
                _FLEX,
                _PRICED,
                "budget.fleet.money_total=0.051",
                "server.path=strategies.stages.distillation:Distillation",
                "server.every_rounds=4",
                "server.money_total=0.009",
            ),
        ),
    ),
    ("devices spend all",),
)
BUDGETS = Part(
    "budgets",
    "How should a fleet share a given number of calls?",
    tuple(
        Arm(share, (_FLEX, f"budget.fleet.share={share}", "budget.fleet.calls_total=8000"))
        for share in ("equally", "traffic", "price")
    ),
    ("equally",),
)
ALL = (METHODS, EQUAL, PARTS, POISONED, DISTILLATION, BUDGETS)
