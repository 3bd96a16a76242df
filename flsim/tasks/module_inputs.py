"""What a torch module reads of problems, which answers are its classes, and how it is made for them.

A module that has a method `inputs(problems) -> Tensor` says itself what it reads of `N` problems, such as the tokens of
their texts; any other reads their features (`flsim.tasks.item.Item.features`), bytes as numbers in [0, 1].
"""

from collections.abc import Mapping, Sequence
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
from torch import Tensor, nn

from flsim.config.plugins import resolve
from flsim.config.schema import ConfigError
from flsim.problems.problem import Problem
from flsim.seeding import seed_for
from flsim.tasks.item_table import table_of
from flsim.tasks.stream import TaskStream


@runtime_checkable
class Reads(Protocol):
    """A module that reads texts, or makes something else of problems."""

    def inputs(self, problems: Sequence[Problem]) -> Tensor:
        """What `forward` takes, `(N, ...)`, of the same widths for any problems."""
        ...


def classes_of(stream: TaskStream) -> tuple[str, ...]:
    """All answers of a stream's data sets, sorted: the classes, from 0.

    Raises:
        ConfigError: for a task without examples of its own.
    """
    data = {task.name: task for task in stream.data}
    generated = [task for task in stream.tasks if task not in data]
    if generated:
        raise ConfigError(
            f"stream.phases names {generated[0]!r} of the built-in world, whose questions have no end and no classes; "
            f"a supervised client learns from data sets: list them in data, and name those"
        )
    return tuple(sorted({answer for task in stream.data for answer in table_of(task.source.items).of_field("answer")}))


def module_of(key: str, path: str, settings: Mapping[str, Any], *, classes: int, seed: int) -> nn.Module:
    """A module as it is at first, the same for equal seeds.

    Args:
        key: where the config names it, such as `client.model`.
        path: of its class, as `module:Name` or `my_file.py:Name`.
        settings: its keyword arguments.
        classes: how many answers there are, its argument as well.
        seed: of its first weights.

    Raises:
        ConfigError: if there is none, it refuses its settings, or is no `torch.nn.Module`.
    """
    named = resolve(key, path)
    try:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed_for(seed, "module" if key == "client.model" else key))
            made = named(classes=classes, **settings)
    except (TypeError, ValueError) as error:
        given = f"{key}_settings={dict(settings)}"
        raise ConfigError(f"{path} refused classes={classes} and {given}: {error}") from error
    if not isinstance(made, nn.Module):
        raise ConfigError(f"{key}={path!r} gives {made!r}, which is no torch.nn.Module")
    return made


def read_by(module: nn.Module, problems: Sequence[Problem]) -> Tensor:
    """What a module reads of problems, `(N, ...)`, as it is kept; `read` makes of it what `forward` takes.

    Raises:
        ValueError: if it reads features, and they have none.
    """
    if isinstance(module, Reads):
        return module.inputs(problems)
    features = [problem.features for problem in problems if problem.features is not None]
    if len(features) < len(problems):
        raise ValueError(
            "its items are texts without features; take a module that reads texts, such as "
            "flsim.models.encoder:Encoder, or a reader of pictures, such as kind=images"
        )
    return torch.from_numpy(np.stack(features)) if features else torch.zeros(0)


def read(inputs: Tensor) -> Tensor:
    """Inputs as a module takes them: bytes as numbers in [0, 1]."""
    return inputs.float() / 255 if inputs.dtype == torch.uint8 else inputs
