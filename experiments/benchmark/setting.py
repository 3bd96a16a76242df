"""What the sides of the comparison have in common: devices, questions, rounds, learning rate, lengths."""

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Self

from experiments.benchmark.devices import DEMO, TOKEN, CountingDaGrpo
from flsim.config.load import load_config
from flsim.config.schema import Config
from flsim.devices import device_name
from flsim.problems.problem import Problem
from flsim.tasks.stream import stream_of

WORKERS = 2


@dataclass(frozen=True)
class Round:
    """One round to be measured."""

    number: int
    seed: int
    warm_up: bool
    """Whether its time is dropped."""


@dataclass(frozen=True)
class Setting:
    """One cell of the table: everything that a side needs to know; travels as JSON."""

    devices: int
    prompts: int
    """Per step and device."""
    seeds: tuple[int, ...]
    repeats: int
    """Rounds per seed."""
    pack: int | str
    """Devices in a pack of our engine, or `auto`."""
    steps: int = 5

    @cached_property
    def config(self) -> Config:
        """Our run: every device meets all tasks, equally many prompts, and a cloud that costs no time."""
        return load_config(
            DEMO,
            [
                *TOKEN,
                f"fleet.devices={self.devices}",
                f"engine.pack={self.pack}",
                f"engine.workers={WORKERS}",
                f"client.steps={self.steps}",
                f"client.prompts={self.prompts}",
                "stream.phases=[[arithmetic,numbers,strings,lists]]",
                "stream.quantity_sigma=0",
                "cloud.kind=oracle",
            ],
        )

    @cached_property
    def algorithm(self) -> CountingDaGrpo:
        """Our side's algorithm."""
        return CountingDaGrpo(**{key: value for key, value in self.config.client.items() if key != "path"})

    @property
    def rounds(self) -> Iterator[Round]:
        """A warm-up, then each seed's rounds; every side meets the same questions in the same round."""
        yield Round(1, self.seeds[0], True)
        for number in range(len(self.seeds) * self.repeats):
            yield Round(number + 2, self.seeds[number // self.repeats], False)

    def questions(self, device: int, round_: Round) -> list[Problem]:
        """All questions of a device's round, step after step, as our algorithm meets them."""
        stream, name = stream_of(self.config), device_name(device)
        return [
            problem
            for step in range(self.steps)
            for problem in stream.training_problems(name, round_.number, step, count=self.prompts, seed=round_.seed)
        ]

    def to_json(self) -> str:
        """As it travels to another process."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> Self:
        """What `to_json` wrote."""
        values = json.loads(text)
        return cls(**{**values, "seeds": tuple(values["seeds"])})


@dataclass(frozen=True)
class Measured:
    """What one side took for a setting."""

    seconds: tuple[float, ...]
    """Per round, warm-up excluded."""
    tokens: float
    """Generated tokens, all measured rounds together."""
    responses: float
    """Sampled responses."""
    pack: int = 1
    """Devices in a pack."""
