"""The policy gradient as the papers write it down: what the losses of `flsim.learning` are compared with."""

from torch import Tensor


def policy_gradient_loss(logprobs: Tensor, advantages: Tensor, real: Tensor) -> Tensor:
    """Per-device loss whose gradient is minus the policy gradient: `-mean over responses of A log pi(response)`.

    A response's log-probability is the sum over its own tokens, strictly on policy, without clipping and KL. The mean
    is over the device's own responses, so that devices of a pack cannot weigh on each other.

    Args:
        logprobs: of the sampled tokens, zero after the end, `(K, P, G, T)`, with gradient.
        advantages: `(K, P, G)`.
        real: True at prompts that are not filling, `(K, P)`.

    Returns:
        `(K,)`.
    """
    weight = real[..., None].to(logprobs.dtype)  # (K, P, 1)
    gain = logprobs.sum(-1) * advantages.detach() * weight  # (K, P, G)
    responses = (real.sum(-1) * advantages.shape[-1]).clamp(min=1)  # (K,)
    return -gain.sum((-2, -1)) / responses  # (K,)
