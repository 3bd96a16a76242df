"""The sides of `experiments/benchmark/real.py` that share a checkpoint: a stacked pack, and peft one device at a time.

Both read the same questions of the config's own stream, say responses of exactly T tokens, whatever these say, carry
the same weight per response back to the adapter, clip, and step Adam. One thread; seconds are per device.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Protocol

import torch
from peft import get_peft_model
from torch import Tensor, nn
from torch.nn.utils import clip_grad_norm_
from transformers import GenerationConfig

from clients.app import DeviceApp
from clients.evaluate import evaluate_pack
from clients.learner import Learner
from experiments.benchmark.devices import fresh_pack
from experiments.benchmark.measuring import seconds_of
from flsim.config.schema import Config, ConfigError
from flsim.devices import device_name
from flsim.flower.contract import client_of
from flsim.learning.adam import fresh_state
from flsim.models.adapter import initial_adapter, quiet_peft
from flsim.models.base import BaseModel, load_model
from flsim.models.decoding import Completions, Reading, encode, generate, read
from flsim.models.help_request import NEVER
from flsim.models.lora_settings import lora_config
from flsim.models.scoring import pull_back
from flsim.models.stop import NO_STOPS
from flsim.problems.problem import Problem
from flsim.seeding import seed_for
from flsim.tasks.stream import TaskStream, stream_of
from flsim.tasks.testing import set_of_tests

NO_END = -1
"""An id that no token has."""


@dataclass(frozen=True)
class Work:
    """What a device does; all sides do the same."""

    config: Config
    questions: int
    """Of a test."""
    rows: int
    """Responses in one forward and backward pass of peft and TRL."""
    clock: str

    @cached_property
    def app(self) -> DeviceApp:
        """The client of the config, with all its settings.

        Raises:
            ConfigError: if it is none of those that ship, whose steps are known.
        """
        app = client_of(self.config)
        if not isinstance(app, DeviceApp) or not isinstance(app.algorithm, Learner):
            path = self.config.client["path"]
            raise ConfigError(f"client.path={path} is no `clients.learner:Learner`, whose steps could be measured")
        return app

    @cached_property
    def stream(self) -> TaskStream:
        """What devices meet."""
        return stream_of(self.config)

    @property
    def learner(self) -> Learner:
        """The method of the config."""
        learner = self.app.algorithm
        assert isinstance(learner, Learner), "`app` has looked"
        return learner

    @property
    def group(self) -> int:
        """G."""
        return max(2, self.learner.responses)

    @property
    def tokens(self) -> int:
        """T, of every response."""
        return self.learner.max_new_tokens

    @property
    def responses(self) -> int:
        """Of a device in one step."""
        return self.learner.prompts * self.group

    def problems(self, device: int, repeat: int) -> list[Problem]:
        """P questions that a device meets in a step."""
        count, seed = self.learner.prompts, self.config.seed
        return self.stream.training_problems(device_name(device), 1 + repeat, 0, count=count, seed=seed)

    def tests(self, device: int) -> list[Problem]:
        """Questions of a device's test."""
        own = set_of_tests(self.stream, self.config.evaluation, device_name(device))
        return list(own[: self.questions])

    def weights(self, device: int) -> Tensor:
        """`(P, G)`, how a device's loss weighs the log-probability of each response's tokens; none is zero."""
        source = torch.Generator().manual_seed(seed_for(0, "weights", device))
        return torch.randn(self.learner.prompts, self.group, generator=source) / self.responses

    def timed(self, work: Callable[[], object]) -> float:
        """Seconds."""
        return seconds_of(work, self.clock)


@dataclass(frozen=True)
class Seconds:
    """Of one device; None is what a side has not got."""

    step: float
    """Of a whole learning step: reading, sampling, forward and backward, update."""
    prefill: float | None = None
    """Of reading every prompt once."""
    decode: float | None = None
    """Of all tokens of all responses but their first."""
    train: float | None = None
    """Of forward and backward over the responses, and update."""
    answers: float | None = None
    """Of greedy answers to the questions of a test, their reading included."""


class Side(Protocol):
    """One way to do the work."""

    @property
    def prompt_tokens(self) -> int:
        """Of a device's prompts, as a user counts them, each whole."""
        ...

    @property
    def model(self) -> nn.Module:
        """With all weights."""
        ...

    def once(self, repeat: int) -> Seconds:
        """Do all of it on the questions of this repeat."""
        ...


def endless(base: BaseModel) -> BaseModel:
    """The same model, with nothing that ends a response before its T tokens."""
    return replace(base, eos_id=NO_END, more_ends=(), stops=NO_STOPS, help=NEVER)


class Stacked:
    """Ours: K devices in one pack."""

    def __init__(self, work: Work, devices: int) -> None:
        self._work, self._devices = work, devices
        self.world = work.app.world
        self.base, self.lora = endless(self.world.base), self.world.lora
        self.model: nn.Module = self.base.model
        self.theta = self.lora.stack([self.world.first] * devices)  # (K, n)
        self._moments = fresh_state(*self.theta.shape)
        pull = torch.stack([work.weights(k) for k in range(devices)])[..., None]  # (K, P, G, 1)
        self._pull = pull.expand(-1, -1, -1, work.tokens)  # (K, P, G, T)
        self.prompt_tokens = 0

    def once(self, repeat: int) -> Seconds:
        """Learn, then answer."""
        work, base = self._work, self.base
        problems = [work.problems(k, repeat) for k in range(self._devices)]
        prompts = encode(base, base.prompts(problems))
        self.prompt_tokens = int(prompts.mask.sum()) // self._devices
        self.lora.attach(self.theta, train=True)
        seconds = []

        def timed(part: Callable[[], Any]) -> Any:
            found: list[Any] = []
            seconds.append(work.timed(lambda: found.append(part())) / self._devices)
            return found[0]

        reading = timed(lambda: read(base, prompts))
        sources = [torch.Generator().manual_seed(seed_for(repeat, "sampling", k)) for k in range(self._devices)]
        how: dict[str, Any] = {"max_new_tokens": work.tokens, "may_ask": False}
        said = timed(lambda: generate(base, reading, group_size=work.group, temperature=1.0, generators=sources, **how))

        def learn() -> None:
            work.learner.adam.step(self.theta, self.gradient(reading, said), self._moments, self.lora.parts)

        timed(learn)
        tests = base.prompts([work.tests(k) for k in range(self._devices)])

        @torch.no_grad()
        def answer() -> None:
            generate(base, read(base, encode(base, tests)), group_size=1, temperature=0.0, **how)

        timed(answer)
        prefill, decode, train, answers = seconds
        return Seconds(prefill + decode + train, prefill, decode, train, answers)

    def gradient(self, reading: Reading, said: Completions) -> Tensor:
        """`(K, n)`."""
        parts = self.base, self.lora, reading, said, self._pull
        return pull_back(*parts, temperature=1.0, tokens=self._work.learner.micro_batch, may_ask=False)

    def round(self) -> float:
        """Seconds per device of a round as the config has it: ends, verdicts, the cloud and all."""
        devices = fresh_pack(self.world, self.world.first, range(self._devices))
        return self._work.timed(lambda: self._work.learner.local_update(self.world, devices)) / self._devices

    def evaluation(self) -> float:
        """Likewise of a test after round 1, each device with an adapter of its own."""
        own = [dict(self.world.first) for _ in range(self._devices)]
        parts = self.world, range(self._devices), own
        asking = self._work.app.asking
        seconds = self._work.timed(lambda: evaluate_pack(*parts, model="global", round_=1, asking=asking))
        return seconds / self._devices


class OneAtATime:
    """peft's LoRA model by transformers' `generate`, a plain forward and backward, and torch's fused Adam."""

    def __init__(self, work: Work) -> None:
        self._work = work
        self._base = load_model(work.config.model)
        seeded = initial_adapter(self._base.model, work.config.model, work.config.seed)
        with quiet_peft():
            self.model: Any = get_peft_model(self._base.as_transformers(), lora_config(work.config.model)).eval()
        for one in (self.model, self._base.model):  # so that nothing ends a response
            vars(one)["generation_config"] = GenerationConfig(pad_token_id=self._base.pad_id)
        for name, parameter in self.model.named_parameters():
            if parameter.requires_grad:
                parameter.data.copy_(torch.from_numpy(seeded[name.replace(".default.", ".")]))
        self._parameters = [part for part in self.model.parameters() if part.requires_grad]
        adam = work.learner.adam
        self._optimizer = torch.optim.Adam(self._parameters, adam.lr, (adam.beta1, adam.beta2), fused=True)
        self._clip = adam.clip_norm
        self.prompt_tokens = 0

    def once(self, repeat: int) -> Seconds:
        """Learn, then answer, as one device."""
        work = self._work
        ids, mask = self.padded(work.problems(0, repeat))  # (P, L) each
        self.prompt_tokens = int(mask.sum())
        rows: list[Tensor] = []
        prefill = work.timed(lambda: self._read(ids, mask))
        first = work.timed(lambda: self._say(ids, mask, 1, work.group))
        said = work.timed(lambda: rows.append(self._say(ids, mask, work.tokens, work.group)))
        train = work.timed(lambda: self._learn(rows[0], mask))
        tests = work.tests(0)
        answers = work.timed(lambda: self._say(*self.padded(tests), work.tokens, 1))
        return Seconds(said + train, prefill, said - first, train, answers)

    def padded(self, problems: Sequence[Problem]) -> tuple[Tensor, Tensor]:
        """Ids and mask, left-padded, `(P, L)` both."""
        tokenizer: Any = self._base.tokenizer  # transformers', of a checkpoint that does not ship
        found = tokenizer(
            [self._base.prompt(problem) for problem in problems],
            return_tensors="pt",
            padding=True,
            padding_side="left",
        )
        return found["input_ids"], found["attention_mask"]

    @torch.no_grad()
    def _read(self, ids: Tensor, mask: Tensor) -> None:
        self.model(input_ids=ids, attention_mask=mask, position_ids=_places(mask), use_cache=True, logits_to_keep=1)

    def _say(self, ids: Tensor, mask: Tensor, tokens: int, group: int) -> Tensor:
        """Prompts and responses, `(P * group, L + tokens)`; greedy ones where there is one of each."""
        drawn: dict[str, Any] = {"do_sample": False} if group == 1 else {"do_sample": True, "top_k": 0, "top_p": 1.0}
        length = {"max_new_tokens": tokens, "min_new_tokens": tokens}
        settings = GenerationConfig(**drawn, **length, num_return_sequences=group, pad_token_id=self._base.pad_id)
        found: Tensor = self.model.generate(input_ids=ids, attention_mask=mask, generation_config=settings)
        return found

    def _learn(self, rows: Tensor, mask: Tensor) -> None:
        """One update."""
        self._optimizer.zero_grad()
        self.pull_back(rows, mask)
        clip_grad_norm_(self._parameters, self._clip)
        self._optimizer.step()

    def pull_back(self, rows: Tensor, mask: Tensor) -> None:
        """Add up the gradients, by as many passes as their rows allow."""
        tokens, size = self._work.tokens, self._work.rows
        whole = torch.cat([mask.repeat_interleave(self._work.group, 0), torch.ones_like(rows[:, -tokens:])], 1)
        of_rows = self._work.weights(0).flatten()  # (P * G,)
        for ids, seen, weight in zip(rows.split(size), whole.split(size), of_rows.split(size), strict=True):
            given = {"input_ids": ids, "attention_mask": seen, "position_ids": _places(seen)}
            logits = self.model(**given, use_cache=False, logits_to_keep=tokens + 1).logits[:, :-1]  # (m, T, V)
            logprobs = torch.log_softmax(logits.float(), -1).gather(-1, ids[:, -tokens:, None])[..., 0]  # (m, T)
            (logprobs.sum(-1) * weight).sum().backward()


def _places(mask: Tensor) -> Tensor:
    """Positions of left-padded tokens, as `mask` `(n, L)`."""
    return (mask.cumsum(1) - 1).clamp(min=0)
