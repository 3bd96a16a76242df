"""How the built-in models are made: sizes, data and steps, found by the measurements in docs/results/models.md."""

from dataclasses import dataclass, replace


@dataclass(frozen=True)
class Stage:
    """A stretch of pretraining with its own mixture, warm-up and decay; the optimizers start afresh."""

    steps: int
    group_weights: dict[str, float]
    """Relative frequency of the tasks in the data."""


@dataclass(frozen=True)
class Recipe:
    """How one built-in model is made."""

    name: str
    hidden_size: int
    layers: int
    heads: int
    stages: tuple[Stage, ...]
    """In order; the weights are rounded to half precision between two of them, so that each can go on from a file."""
    slip_shares: dict[str, float]
    """Share of the answers replaced by the careless one, per task."""
    help_share: float = 0.0
    """Share of the answers replaced by a help request, whatever the question."""
    help_after_share: float = 0.0
    """Share of the answers, exact and careless alike, that a help request follows."""
    start: str = ""
    """The built-in model whose weights it goes on from; empty begins from scratch."""
    batch_size: int = 256
    muon_lr: float = 0.02
    adamw_lr: float = 3e-3
    seed: int = 0


SLM = Recipe(
    "slm",
    hidden_size=96,
    layers=3,
    heads=4,
    stages=(Stage(1000, {"arithmetic": 2.0, "strings": 1.0, "numbers": 1.4, "lists": 1.4}),),
    slip_shares={"arithmetic": 0.28, "strings": 0.47, "numbers": 0.44, "lists": 0.43},
    help_share=0.1,
)
SLM_DRAFT = replace(
    SLM,
    name="slm_draft",
    stages=(Stage(250, SLM.stages[0].group_weights),),
    help_share=0.05,
    help_after_share=0.1,
    start="slm",
    muon_lr=0.01,
    adamw_lr=1.5e-3,
)
"""The SLM after a second, short lesson: it may ask before it answers or after its draft, and knows no less."""
CLOUD = Recipe(
    "cloud",
    hidden_size=128,
    layers=6,
    heads=4,
    stages=(  # sums and carries come late and take most of the data first; lists are learned at the end
        Stage(2800, {"arithmetic": 1.8, "strings": 0.8, "numbers": 1.6, "lists": 0.6}),
        Stage(700, {"arithmetic": 1.0, "strings": 0.6, "numbers": 1.0, "lists": 2.4}),
    ),
    slip_shares={"arithmetic": 0.0, "strings": 0.0, "numbers": 0.0, "lists": 0.0},
)
CLEAN = replace(SLM, name="slm_clean", stages=(Stage(500, SLM.stages[0].group_weights),), slip_shares=CLOUD.slip_shares)
"""An SLM that never saw a careless answer, stopped early: what it gets wrong it cannot do, so that there is less for
reinforcement to select. Not shipped; `experiments.study.paper --regimes clean` asks for it."""
