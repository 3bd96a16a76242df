"""What a model takes for each token: arithmetic, bytes of weights and cache, numbers of an adapter."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from flsim.config.system import StandsForConfig

MODULE_FACTOR = 3
"""Forward passes that learning an example of a module takes: one forward, twice as much backward."""


@dataclass(frozen=True)
class Decoder:
    """A decoder of the Llama family; sizes as in its `config.json`."""

    name: str
    hidden: int
    layers: int
    intermediate: int
    heads: int
    kv_heads: int
    head: int
    vocabulary: int = 151_936

    @classmethod
    def read(cls, name: str, config: Mapping[str, Any]) -> "Decoder":
        """That of a `config.json`."""
        heads = config["num_attention_heads"]
        return cls(
            name,
            config["hidden_size"],
            config["num_hidden_layers"],
            config.get("intermediate_size") or 4 * config["hidden_size"],
            heads,
            config.get("num_key_value_heads") or heads,
            config.get("head_dim") or config["hidden_size"] // heads,
            config["vocab_size"],
        )

    @property
    def layer(self) -> int:
        """Parameters of one layer's linear maps."""
        attention = 2 * self.hidden * self.heads * self.head + 2 * self.hidden * self.kv_heads * self.head
        return attention + 3 * self.hidden * self.intermediate

    @property
    def parameters(self) -> int:
        """Of the layers' linear maps and the embeddings, which are the head as well."""
        return self.layers * self.layer + self.vocabulary * self.hidden

    def adapter(self, rank: int) -> int:
        """Parameters of LoRA factors on all seven linear maps of every layer."""
        query, key = self.heads * self.head, self.kv_heads * self.head
        ends = 2 * (self.hidden + query) + 2 * (self.hidden + key) + 3 * (self.hidden + self.intermediate)
        return self.layers * rank * ends

    @property
    def cache(self) -> int:
        """Numbers of keys and values of one token."""
        return 2 * self.layers * self.kv_heads * self.head

    def shape(self, *, rank: int, weight_bytes: float) -> "Shape":
        """What a token of it takes, with adapters of this rank on weights of so many bytes each."""
        return Shape(
            self.name,
            multiplied=self.parameters,
            weights=weight_bytes * self.parameters,
            cache=2 * self.cache,
            attention=4 * self.layers * self.heads * self.head,
            adapter=self.adapter(rank),
            learned=4 * self.parameters + 6 * self.adapter(rank),
            kept=self.layers * self.hidden * 2,
        )


DECODERS = {
    shape.name: shape
    for shape in (
        Decoder("SmolLM2-135M", 576, 30, 1536, 9, 3, 64, 49_152),
        Decoder("Qwen2.5-0.5B", 896, 24, 4864, 14, 2, 64),
        Decoder("Qwen2.5-1.5B", 1536, 28, 8960, 12, 2, 128),
        Decoder("Qwen2.5-3B", 2048, 36, 11008, 16, 2, 128),
    )
}
"""Checkpoints that a small run may stand for, by name."""


@dataclass(frozen=True)
class Shape:
    """What a model takes."""

    name: str
    multiplied: int
    """P, the parameters that a token is multiplied with."""
    weights: float
    """W, bytes that are read for each step of decoding."""
    cache: float = 0.0
    """Bytes of keys and values of one token."""
    attention: float = 0.0
    """Operations of one token for each token before it: 4 layers d."""
    adapter: int = 0
    """Parameters that are learned."""
    learned: float = 0.0
    """Operations for learning one token: `4 P + 6 P_lora`, as a frozen base has no weight gradient; of a module those
    for one example."""
    kept: float = 0.0
    """Bytes that one token keeps for the backward pass, layer inputs only (gradient checkpointing)."""

    @classmethod
    def of_module(cls, name: str, *, parameters: int, operations: float) -> "Shape":
        """That of a torch module.

        Args:
            name: for people.
            parameters: all are learned.
            operations: of one example forward.
        """
        learned = MODULE_FACTOR * operations
        return cls(name, parameters, 4.0 * parameters, adapter=parameters, learned=learned)

    @classmethod
    def of_cloud(cls, stands_for: StandsForConfig) -> "Shape | None":
        """That of the cloud's model, as a device would hold it; None where its size is not given."""
        if stands_for.cloud is None:
            return None
        parameters = round(1e9 * stands_for.cloud)
        return cls("the cloud's model", parameters, stands_for.weight_bytes * parameters)

    def memory(self, tokens: int) -> float:
        """Bytes that training takes where so many tokens are in one pass.

        Weights, the adapter with gradient and two moments in float32, cache, and what tokens keep for the backward.
        """
        return self.weights + 4 * 4 * self.adapter + tokens * (self.cache + self.kept)
