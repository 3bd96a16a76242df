"""What a strategy adds to the devices' frozen base for good: a product per layer, sent along with the adapter."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from flsim.aggregation.low_rank import balanced, truncated
from flsim.aggregation.pairs import Pair, adapter_of, weighted_sum
from flsim.models.adapter import Adapter


@dataclass
class Residual:
    """The sum of what was added so far, kept in factors; exact as long as no rank is set."""

    rank: int | None = None
    """Most directions that are kept per layer, the strongest ones; None keeps all: at most the width of a layer."""
    pairs: dict[str, Pair] = field(default_factory=dict)
    """By layer, scale folded in; empty in the beginning."""
    cut: float = 0.0
    """Share of its squared norm that `rank` left out in the last round."""

    def __post_init__(self) -> None:
        """Refuse a rank that keeps nothing."""
        if self.rank is not None and self.rank < 1:
            raise ValueError(f"residual_rank={self.rank} must be at least 1; leave it out to keep all directions")

    def add(self, terms: dict[str, Sequence[tuple[float, Pair]]], *, decay: float = 1.0) -> None:
        """`decay * residual + sum of weight * product`, layer by layer."""
        whole = left = 0.0
        for layer, added in terms.items():
            old = [(decay, self.pairs[layer])] if layer in self.pairs and decay else []
            pair = weighted_sum([*old, *added])
            most = min(*pair.shape, pair.rank)
            low = truncated(pair, most if self.rank is None else min(most, self.rank), method="qr")
            whole, left = whole + low.energy, left + low.cut
            self.pairs[layer] = balanced(low)
        self.cut = left / whole if whole > 0 else 0.0

    def scaled(self, factor: float) -> None:
        """Multiply all of it."""
        self.pairs = {layer: Pair(factor * pair.b, pair.a) for layer, pair in self.pairs.items()}

    @property
    def adapter(self) -> Adapter | None:
        """Under the adapter's names, with scale 1; None while there is nothing."""
        return adapter_of(self.pairs, 1.0) if self.pairs else None
