"""How one data set becomes a task group: what it is, whose its items are, and how answers to them are judged."""

from dataclasses import dataclass, field
from typing import Any

PARTITIONS = ("dirichlet", "user", "evenly")


@dataclass(frozen=True)
class DataConfig:
    """One data set, under the name that `stream.phases` calls it by; docs/data.md shows some."""

    kind: str = ""
    """A known set (`gsm8k`, `math`, `mbpp`, ...), `files` for one's own, `leaf`, `datasets` or `reasoning_gym`."""
    root: str = "."
    """Folder that its files are relative to, there for every worker."""
    settings: dict[str, Any] = field(default_factory=dict)
    """The reader's own keyword arguments, such as `files`, `columns` or `shown_tests`."""
    splits: str = "official"
    """`official`: the set's own train, validation and test, and a hash of the question for what it lacks; `hash`: the
    hash for all (`flsim/tasks/data/splits.py`)."""
    partition: str = "dirichlet"
    """Whose items are whose: `dirichlet`: every device has its own mixture of `over`; `user`: a device holds the items
    of a user; `evenly`: at random. The draw follows `stream.seed`."""
    over: str = "label"
    """What `dirichlet` mixes: `label`, `level` or `user`."""
    alpha: float = 1.0
    """Sum of the Dirichlet's parameters; inf makes devices equal, 0 gives each one label."""
    quantity_sigma: float = 0.0
    """Sigma of the log-normal number of items per device, for `dirichlet` and `evenly`; 0 makes them equal."""
    users_per_device: int | None = 1
    """For `user`: how many users a device holds; None deals out all users that there are."""
    least: int = 1
    """For `user`: users with fewer items than this in any split are left out."""
    verifier: str | None = None
    """What says whether an answer is right; None: what fits the kind's references."""
    verifier_settings: dict[str, Any] = field(default_factory=dict)
    """Its keyword arguments, such as `wall_s` of `maths` and `code`."""
    instruction: str | None = None
    """What is said before every question, to devices and cloud; None: the form that the verifier reads
    (`flsim/tasks/data/instructions.py`); "" says nothing."""
