"""What a benefit head learns of a step: from the verdicts on all drafts, and on the cloud's answers that came."""

from dataclasses import dataclass

import torch
from torch import Tensor

from clients.device.head import Head, weights_of
from clients.device.pack import Pack
from clients.device.rollout import Rollout
from flsim.learning.benefit import chances, head_gradient, regression_pull


@dataclass(frozen=True)
class Seen:
    """What there is to learn from."""

    phi: Tensor
    """Features of the drafts, `(K, P, G, F)`."""
    labels: Tensor
    """Whether draft and cloud were right, 0 or 1, `(K, P, G, 2)`."""
    known: Tensor
    """1 where there is a label, else 0, `(K, P, G, 2)`."""


def seen_in(head: Head, rollout: Rollout) -> Seen:
    """The features and verdicts of a step."""
    phi = head.features(rollout.completions, rollout.prompts)  # (K, P, G, F)
    alone, place = rollout.right_draft, phi.device  # (K, P, G)
    cloud = (rollout.help.right.to(place)[..., None]).expand_as(alone)  # (K, P, G)
    real, came = rollout.prompts.real, rollout.help.came.to(place)  # (K, P) each
    known = torch.stack([real, came & real], -1)[:, :, None].expand(*alone.shape, 2)  # (K, P, G, 2)
    return Seen(phi, torch.stack([alone, cloud], -1), known.float())


def regressed(head: Head, pack: Pack, rollout: Rollout) -> tuple[Tensor, Tensor | None]:
    """The gradient of the head's weights `(K, 2, F)`, and with respect to the hidden states `(K, P, G, D)`.

    None for the states where the adapter does not learn from the head.
    """
    weight, seen = weights_of(head, pack.world.lora, pack.theta), seen_in(head, rollout)
    pull = regression_pull(chances(weight, seen.phi), seen.labels, seen.known)
    states = head.gradient * head.state_pull(weight, pull) if head.gradient else None  # (K, P, G, D)
    return head_gradient(pull, seen.phi), states


def gathered_sums(head: Head, pack: Pack, rollout: Rollout) -> Tensor | None:
    """The sums of a head that is solved with what a step saw, `(K, 2, F, F + 1)`; None of any other."""
    if not head.ridge:
        return None
    seen = seen_in(head, rollout)
    return head.gathered(pack.world.lora.extras(pack.theta), seen.phi, seen.labels, seen.known)
