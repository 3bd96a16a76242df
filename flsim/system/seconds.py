"""Seconds of a device's round: pure functions of counts, a class, a link and the shape of the model.

Decoding is bound by memory bandwidth, reading and learning by arithmetic; each takes the longer of the two. Seconds are
worked out once, from integers, in Python floats, and become integer microseconds before they are added or compared.
"""

from dataclasses import dataclass

from flsim.config.system import CloudTimesConfig
from flsim.system.classes import DeviceClass, Link
from flsim.system.shapes import Shape
from flsim.system.work import Work

MICROSECONDS = 1_000_000
_MBIT = 1_000_000


@dataclass(frozen=True)
class Spans:
    """Where the seconds of a round go, each in microseconds."""

    down: int
    """Until the adapter has come."""
    compute: int
    """Reading, sampling and learning."""
    cloud: int
    """Until the cloud's answers have come."""
    up: int
    """Until the update has been sent."""
    overlap: bool = False
    """Whether the device computes on while it waits for the cloud."""

    @property
    def total(self) -> int:
        """From the first byte to the last."""
        middle = max(self.compute, self.cloud) if self.overlap else self.compute + self.cloud
        return self.down + middle + self.up

    @property
    def waiting(self) -> int:
        """Of the cloud's, those in which the device only waits."""
        return max(0, self.cloud - self.compute) if self.overlap else self.cloud


def micro(seconds: float) -> int:
    """Microseconds, rounded once."""
    return round(seconds * MICROSECONDS)


def read_seconds(shape: Shape, of: DeviceClass, *, prompts: int, tokens: int) -> float:
    """Reading prompts of equal length, one after the other: `n max((2 P L + attention) / F, W / B)`."""
    if not prompts:
        return 0.0
    length = tokens / prompts
    operations = 2 * shape.multiplied * length + shape.attention * length * length / 2
    return prompts * max(operations / of.flops, shape.weights / of.bandwidth)


def sample_seconds(shape: Shape, of: DeviceClass, *, tokens: int, steps: int, context: float) -> float:
    """Sampling tokens in so many steps: `S max((2 P g + attention) / F, (W + g kv c) / B)`, with g tokens at once.

    Args:
        shape: of the model.
        of: the class.
        tokens: of all responses.
        steps: in which they are sampled; as many as tokens where responses are sampled one by one.
        context: tokens before a token, in the mean.
    """
    if not steps:
        return 0.0
    at_once = tokens / steps
    operations = at_once * (2 * shape.multiplied + shape.attention * context)
    read = shape.weights + at_once * shape.cache * context
    return steps * max(operations / of.flops, read / of.bandwidth)


def compute_seconds(shape: Shape, of: DeviceClass, work: Work, *, at_once: bool) -> float:
    """Reading, sampling and learning of a round; `at_once`: whether a group is sampled at once."""
    learned = (work.learned_tokens + work.learned_examples) * shape.learned / of.flops
    read = read_seconds(shape, of, prompts=work.prompts, tokens=work.read_tokens)
    steps = work.decode_steps if at_once else work.sampled_tokens
    sampled = sample_seconds(shape, of, tokens=work.sampled_tokens, steps=steps, context=_context(work))
    return read + sampled + learned


def transfer_seconds(size: float, mbit: float, rtt_ms: float) -> float:
    """One transfer of so many bytes: `rtt + 8 bytes / rate`."""
    return rtt_ms / 1000 + 8 * size / (mbit * _MBIT)


def served_seconds(cloud: CloudTimesConfig, *, trips: int, prompt: int, completion: int) -> float:
    """What the cloud itself takes: `queue + L / prefill + T / decode`, for each request after the other."""
    return trips * cloud.queue_s + prompt / cloud.prefill_per_s + completion / cloud.decode_per_s


def asked_bytes(cloud: CloudTimesConfig, work: Work) -> tuple[int, int]:
    """What goes up to the cloud and comes down from it, texts and all else, in bytes."""
    beside = work.cloud_trips * cloud.request_bytes
    return work.cloud_up_bytes + beside, work.cloud_down_bytes + beside


def cloud_seconds(cloud: CloudTimesConfig, link: Link, work: Work) -> float:
    """From the first request to the last answer: a round trip, both transfers and the service of each."""
    if not work.cloud_trips:
        return 0.0
    up, down = asked_bytes(cloud, work)
    moved = 8 * up / (link.up_mbit * _MBIT) + 8 * down / (link.down_mbit * _MBIT)
    prompt, completion = work.cloud_prompt_tokens, work.cloud_completion_tokens
    served = served_seconds(cloud, trips=work.cloud_trips, prompt=prompt, completion=completion)
    return work.cloud_trips * link.rtt_ms / 1000 + moved + served


def _context(work: Work) -> float:
    """Tokens before a sampled token, in the mean: its prompt, and half of its response."""
    prompt = work.read_tokens / work.prompts if work.prompts else 0.0
    return prompt + (work.sampled_tokens / work.responses / 2 if work.responses else 0.0)
