"""A data source: the items of a data set, whose they are, and how a device draws one."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from random import Random

from flsim.config import ConfigError
from flsim.tasks.data.item import Item
from flsim.tasks.data.partition import Assignment
from flsim.tasks.problem import SPLITS

_NAMED = 5  # devices that an error names


@dataclass(frozen=True)
class DataSource:
    """One data set, dealt to the devices of a fleet."""

    items: Sequence[Item]
    """All items, dealt or not."""
    assignment: Assignment
    """Which of them are whose."""
    verifier: str
    """Name of the verifier for `Item.answer`."""
    needs: tuple[str, ...] = ("train", "test")
    """Splits that every device must have an item of; checked here, so before the run."""

    def __post_init__(self) -> None:
        """Check that every device can draw.

        Raises:
            ConfigError: if items and assignment do not belong together, or a device has no item of a needed split.
        """
        if len(self.items) != len(self.assignment.device):
            raise ConfigError(f"data: {len(self.items)} items and {len(self.assignment.device)} assignments")
        for split in self.needs:
            empty = [d for d in range(self.assignment.devices) if not self.size(d, split)]
            if empty:
                named = ", ".join(f"{d} ({self.assignment.names[d]})" for d in empty[:_NAMED])
                more = f" and {len(empty) - _NAMED} more" if len(empty) > _NAMED else ""
                held = int((self.assignment.split == SPLITS.index(split)).sum())
                raise ConfigError(
                    f"data: {len(empty)} of {self.assignment.devices} devices have no {split} item: {named}{more}; the "
                    f"data set has {held}. Use fewer devices (fleet.devices), a larger alpha, partition=evenly, users "
                    "with more items (least), or splits=hash if the data set has no such split"
                )

    def size(self, device: int, split: str) -> int:
        """Number of a device's own items of a split."""
        return len(self._own[device, split])

    def draw(self, device: int, split: str, rng: Random) -> Item:
        """One of the device's own items of a split, all equally likely, with replacement.

        Args:
            device: from 0.
            split: `train`, `validation` or `test`.
            rng: the only source of chance; drawn from once.

        Raises:
            ConfigError: if the device has none.
        """
        own = self._own[device, split]
        if not own:
            raise ConfigError(f"data: device {device} ({self.assignment.names[device]}) has no {split} item")
        return self.items[own[rng.randrange(len(own))]]

    def all(self, device: int, split: str) -> list[Item]:
        """A device's own items of a split, in the order of the data set."""
        return [self.items[index] for index in self._own[device, split]]

    @cached_property
    def _own(self) -> dict[tuple[int, str], list[int]]:
        """Indices of items by device and split."""
        found: dict[tuple[int, str], list[int]] = {
            (device, split): [] for device in range(self.assignment.devices) for split in SPLITS
        }
        pairs = zip(self.assignment.device.tolist(), self.assignment.split.tolist(), strict=True)
        for index, (device, split) in enumerate(pairs):
            if device >= 0 and split >= 0:
                found[device, SPLITS[split]].append(index)
        return found
