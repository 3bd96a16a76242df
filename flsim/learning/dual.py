"""The dual variable lambda: the price of asking, moved by how far usage is from the budget tau.

The paper's form is the integral alone, `lambda <- max(0, lambda + eta (J - tau))`. Two guards make it settle at the
scale of hundreds of steps, where the plain form is a slow oscillator: lambda is clipped at its natural bound (a request
can gain at most the largest reward, so a higher price changes nothing and only takes long to unwind), and a
proportional term answers at once. `gain=0, maximum=inf` is the plain form.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

_HALVINGS = 50
"""Of an interval as wide as four: what is left is less than what a double tells apart from 1."""


@dataclass(frozen=True)
class DualRule:
    """Projected ascent on the constraint `J - tau <= 0`."""

    lr: float = 0.1
    """eta, the step of the integral."""
    gain: float = 2.0
    """Proportional gain: the price of a step is lambda + gain (J - tau) with its own usage J; 0 turns it off."""
    maximum: float = 1.0
    """Upper clip of lambda and of the price: the largest reward that the cloud can bring."""

    def price(self, dual: Tensor, usage: Tensor, tau: Tensor | float) -> Tensor:
        """What a request costs in this step, `(K,)`, from lambda and usage `(K,)`; tau is `(K,)` or one number."""
        return (dual + self.gain * (usage - tau)).clamp(0.0, self.maximum)  # (K,)

    def ascend(self, dual: Tensor, usage: Tensor, tau: Tensor | float) -> Tensor:
        """The next lambda, `(K,)`."""
        return (dual + self.lr * (usage - tau)).clamp(0.0, self.maximum)  # (K,)


def solved_price(gain: Tensor, most: float, temperature: float, weight: Tensor | None = None) -> float:
    """Lambda at which drafts would ask for so much in the mean: `mean_i w_i sigmoid((b_i - lambda w_i) / T) = most`.

    It is the dual step taken to its end on these drafts, instead of an eta of it: every chance falls with lambda, so
    there is one root. By hand: equal benefits b and weights 1 give `b - T logit(most)`, and it rises by c where all b
    do.

    Args:
        gain: b of each draft, `(n,)`, in [-1, 1]; at least one.
        most: tau times what asking counts after the mean draft; at 0 or below nobody asks at the largest lambda, at the
            mean weight or above everybody at the least.
        temperature: T, above 0.
        weight: w, what a request counts after each draft, at least 0, `(n,)`; None is 1.

    Returns:
        Within [-2, 2] over the least weight above 0, and double precision.
    """
    each = torch.ones_like(gain.double()) if weight is None else weight.double()  # (n,)
    high = 2.0 / float(each[each > 0].min()) if (each > 0).any() else 2.0
    low = -high
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        over = float((each * torch.sigmoid((gain.double() - middle * each) / temperature)).mean()) > most
        low, high = (middle, high) if over else (low, middle)
    return (low + high) / 2
