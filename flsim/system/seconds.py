"""Seconds of a device's round: pure functions of counts, a class, a link and the shape of the model.

Decoding is bound by memory bandwidth, reading and learning by arithmetic; each takes the longer of the two. Seconds are
worked out once, from integers, in Python floats, and become integer microseconds before they are added or compared.
"""

from dataclasses import dataclass

from flsim.config.ranges import ConfigError
from flsim.config.system import CloudTimesConfig
from flsim.system.classes import DeviceClass, Link
from flsim.system.shapes import Shape
from flsim.system.work import MILLI, Work

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
    helping: int = 0
    """Of the computing, what is done between the requests of one question, which wait for it and it for them."""

    @property
    def total(self) -> int:
        """From the first byte to the last."""
        return self.down + self.compute + self.waiting + self.up

    @property
    def waiting(self) -> int:
        """Of the cloud's, those in which the device only waits."""
        return max(0, self.cloud - (self.compute - self.helping)) if self.overlap else self.cloud


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


def compute_seconds(
    shape: Shape, of: DeviceClass, work: Work, *, at_once: bool = False, cloud: Shape | None = None
) -> float:
    """Reading, sampling and learning of a round, and what is passed through layers of the cloud's model.

    Args:
        shape: of the device's model.
        of: the class.
        work: what it did.
        at_once: whether a group is sampled at once.
        cloud: of the cloud's model, as a device holds it; None where that is not known.

    Raises:
        ConfigError: if the device passed tokens through layers of a model whose size is not known.
    """
    learned = (work.learned_tokens + work.learned_examples) * shape.learned / of.flops
    read = read_seconds(shape, of, prompts=work.prompts, tokens=work.read_tokens)
    steps = work.decode_steps if at_once else work.sampled_tokens
    sampled = sample_seconds(shape, of, tokens=work.sampled_tokens, steps=steps, context=_context(work))
    return read + sampled + learned + lower_seconds(cloud, of, work)


def helping_seconds(
    shape: Shape, of: DeviceClass, work: Work, *, at_once: bool = False, cloud: Shape | None = None
) -> float:
    """Of `compute_seconds`, with the same arguments, what a mode of help has done between its requests."""
    read = read_seconds(shape, of, prompts=work.prompts, tokens=work.read_tokens)
    steps = work.decode_steps if at_once else work.sampled_tokens
    sampled = sample_seconds(shape, of, tokens=work.sampled_tokens, steps=steps, context=_context(work))
    parts = work.helped_read / max(1, work.read_tokens), work.helped_drawn / max(1, steps)
    return read * parts[0] + sampled * parts[1] + lower_seconds(cloud, of, work)


def lower_seconds(cloud: Shape | None, of: DeviceClass, work: Work) -> float:
    """Passing tokens through some layers of the cloud's model: `2 P n / F` read, `m max(2 P / F, W / B)` said.

    n and m count a token as the part of all layers that it passes through, so that the part enters operations and bytes
    alike. A prompt is bound by arithmetic; attention to earlier tokens, which is small beside, is left out.

    Raises:
        ConfigError: where there is such work, and the size of the cloud's model is not known.
    """
    if not work.lower_read and not work.lower_drawn:
        return 0.0
    if cloud is None:
        raise ConfigError(
            "devices pass tokens through layers of the cloud's model, and system.stands_for.cloud does not say how "
            "large it is; set system.stands_for.cloud to its parameters in billions, such as 1.5"
        )
    token = 2 * cloud.multiplied / of.flops
    drawn = max(token, cloud.weights / of.bandwidth)
    return (work.lower_read * token + work.lower_drawn * drawn) / MILLI


def transfer_seconds(size: float, mbit: float, rtt_ms: float) -> float:
    """One transfer of so many bytes: `rtt + 8 bytes / rate`."""
    return rtt_ms / 1000 + 8 * size / (mbit * _MBIT)


def served_seconds(cloud: CloudTimesConfig, work: Work) -> float:
    """What the cloud itself takes: `queue + L / prefill + T / decode`, for each request after the other.

    One that goes on in a session that is open waits in no queue.
    """
    queued = work.cloud_trips - work.cloud_session_trips
    read = work.cloud_prompt_tokens / cloud.prefill_per_s
    return queued * cloud.queue_s + read + work.cloud_completion_tokens / cloud.decode_per_s


def asked_bytes(cloud: CloudTimesConfig, work: Work) -> tuple[int, int]:
    """What goes up to the cloud and comes down from it, texts and all else, in bytes."""
    beside = (work.cloud_trips - work.cloud_session_trips) * cloud.request_bytes
    return work.cloud_up_bytes + beside, work.cloud_down_bytes + beside


def cloud_seconds(cloud: CloudTimesConfig, link: Link, work: Work) -> float:
    """From the first request to the last answer: a round trip, both transfers and the service of each."""
    if not work.cloud_trips:
        return 0.0
    up, down = asked_bytes(cloud, work)
    moved = 8 * up / (link.up_mbit * _MBIT) + 8 * down / (link.down_mbit * _MBIT)
    return work.cloud_trips * link.rtt_ms / 1000 + moved + served_seconds(cloud, work)


def _context(work: Work) -> float:
    """Tokens before a sampled token, in the mean: its prompt, and half of its response."""
    prompt = work.read_tokens / work.prompts if work.prompts else 0.0
    return prompt + (work.sampled_tokens / work.responses / 2 if work.responses else 0.0)
