"""MyStrategy: say here in a sentence what is new about it; docs/strategies.md says what else a strategy may do.

flsim run demo rounds=4 strategy.path=my_strategy.py:MyStrategy strategy.step=0.5 run_dir=runs/my_strategy
"""

from collections.abc import Sequence

from flsim.models.adapter import Adapter
from strategies.base import DeltaStrategy, Update


class MyStrategy(DeltaStrategy):
    """The adapter moves a part of the way to the plain mean of the devices' adapters."""

    def __init__(self, *, step: float = 1.0) -> None:
        """Choose the settings, which a config sets by `strategy.step=...`.

        Args:
            step: how far to go: 1 goes all the way to the mean, 0 stays.
        """
        super().__init__()
        self.step = step

    def aggregate(self, adapter: Adapter, updates: Sequence[Update]) -> Adapter:
        """The next adapter; this is the whole question that a strategy answers.

        Args:
            adapter: the current one: arrays by the name of their tensor.
            updates: one per device that has learned, with `delta` (what it changed, by the same names), `num_examples`,
                `reward`, `device` and more.
        """
        mean = {name: sum(update.delta[name] for update in updates) / len(updates) for name in adapter}
        return {name: adapter[name] + self.step * mean[name] for name in adapter}
