"""Our side of `flsim benchmark gpu`: K devices in one pack.

It samples G completions of T tokens for each of a device's P prompts of L tokens, then carries one given weight per
token back to the adapters and steps Adam. The base has random weights and no tokenizer; nothing ends early, since we
look for the number -1, which no token has.
"""

from collections.abc import Sequence
from typing import Any, cast

import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from experiments.benchmark.card.case import LORA, Case, Seconds
from flsim.learning.adam import Adam, AdamState
from flsim.models.adapter import initial_adapter
from flsim.models.base import BaseModel
from flsim.models.decoding import Completions, Prompts, Reading, generate, read
from flsim.models.scoring import pull_back
from flsim.models.stacked_lora import StackedLora
from flsim.seeding import seed_for

NEVER = -1
"""An id that no token has."""
_OWN = 4  # devices with adapters of their own, which take long to draw; others have the same


class _Mute:
    """Stands where a tokenizer does: sampling asks for texts, and nobody reads them."""

    def batch_decode(self, sequences: Sequence[object], **_: Any) -> list[str]:
        """An empty text for each."""
        return [""] * len(sequences)


class Stacked:
    """Ours: K devices in one pack; with `graphs` by passes of static shapes, which a card captures."""

    def __init__(self, case: Case, devices: int, *, graphs: bool = False) -> None:
        self.case, self.devices = case, devices
        model = case.model()
        tokenizer = cast(PreTrainedTokenizerBase, _Mute())
        self.base = BaseModel(model, tokenizer, pad_id=0, eos_id=NEVER, cuda_graphs=graphs)
        like = initial_adapter(model, LORA, 0)
        self.lora = StackedLora(model, like, LORA.alpha / LORA.rank)
        own = [case.adapter(k, like) for k in range(min(devices, _OWN))]
        self._start = self.lora.stack([own[k % _OWN] for k in range(devices)])  # (K, n)
        ids = torch.stack([case.prompt_ids(k) for k in range(devices)]).to(case.place)  # (K, P, L)
        self.prompts = Prompts(ids, torch.ones_like(ids, dtype=torch.bool), (case.prompts,) * devices)
        pull = torch.stack([case.weights(k) for k in range(devices)])[..., None]  # (K, P, G, 1)
        self._pull = pull.expand(-1, -1, -1, case.new_tokens).to(case.place)  # (K, P, G, T)
        self.begin()

    def begin(self) -> None:
        """Adapters, moments and random numbers as at first."""
        self.theta = self._start.clone()  # (K, n)
        count = torch.zeros(self.devices, device=self.case.place)  # (K,)
        self._moments = AdamState(torch.zeros_like(self.theta), torch.zeros_like(self.theta), count)
        self._sources = [torch.Generator().manual_seed(seed_for(0, "sampling", k)) for k in range(self.devices)]

    def step(self) -> Seconds:
        """Sample and learn once."""
        reading, in_read = self.case.timed(self.read)
        completions, in_generate = self.case.timed(lambda: self.sample(reading))
        _, in_train = self.case.timed(lambda: self._train(reading, completions))
        return Seconds(in_read, in_generate, in_train)

    def read(self) -> Reading:
        """The prompts, with the graph that the gradient needs."""
        self.lora.attach(self.theta, train=True)
        return read(self.base, self.prompts)

    def sample(self, reading: Reading) -> Completions:
        """All completions."""
        case = self.case
        return generate(
            self.base,
            reading,
            group_size=case.group_size,
            max_new_tokens=case.new_tokens,
            temperature=1.0,
            generators=self._sources,
        )

    def gradient(self, reading: Reading, completions: Completions) -> Tensor:
        """`(K, n)`."""
        parts = reading, completions, self._pull
        return pull_back(self.base, self.lora, *parts, temperature=1.0, tokens=self.case.micro_batch)

    def _train(self, reading: Reading, completions: Completions) -> None:
        Adam(lr=1e-4).step(self.theta, self.gradient(reading, completions), self._moments)
