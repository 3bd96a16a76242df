"""What a strategy returned, looked at before it reaches a device."""

import inspect
from collections.abc import Mapping
from typing import Any

import numpy as np

from flsim.models.adapter import Adapter, mismatch


class StrategyError(ValueError):
    """A strategy returned what cannot be the next adapter; the message names its file and the mend."""


def next_adapter(strategy: object, returned: Any, *, like: Adapter) -> Adapter:
    """What a strategy returned, in float32, looked at before it reaches a device: one NaN would ruin the whole fleet.

    Args:
        strategy: who returned it.
        returned: tensors by name.
        like: the adapter that it was given.

    Raises:
        StrategyError: if it is no adapter, has other names or shapes, or holds NaN or infinity.
    """
    try:
        return _looked_at(returned, like)
    except StrategyError as error:  # only now: to find the class's line takes 10 ms
        raise StrategyError(f"{_where(strategy)} {error}") from error.__cause__


def _looked_at(returned: Any, like: Adapter) -> Adapter:
    if not isinstance(returned, Mapping):
        raise StrategyError(
            f"returned {_shown(returned)} instead of the next adapter; return a dict of tensors with the names "
            f"of `adapter`, or `adapter` itself to leave it as it is"
        )
    try:
        tensors = {str(name): np.asarray(tensor, dtype=np.float32) for name, tensor in returned.items()}
    except (TypeError, ValueError) as error:
        raise StrategyError(f"returned tensors that are no numbers: {error}; return NumPy arrays") from error
    wrong = mismatch(tensors, like)
    if wrong is not None:
        raise StrategyError(
            f"returned another adapter than it was given: {wrong}; return a tensor of the same shape for every "
            f"name in `adapter`"
        )
    for name, tensor in tensors.items():
        if not np.isfinite(tensor).all():
            raise StrategyError(
                f"returned NaN or infinity, first in {name}; the updates that it got were finite, so look for "
                f"a division by zero or a step that is too large"
            )
    return {name: tensors[name] for name in like}


def _where(strategy: object) -> str:
    """The strategy's class with file and line, as an editor can open it."""
    kind = type(strategy)
    try:
        file, line = inspect.getsourcefile(kind), inspect.getsourcelines(kind)[1]
    except (OSError, TypeError):
        return kind.__name__
    return f"{kind.__name__} ({file}:{line})"


def _shown(value: Any) -> str:
    return "None" if value is None else f"a {type(value).__name__}"
