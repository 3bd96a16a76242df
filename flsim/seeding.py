"""Every random choice is a pure function of a root seed and names, so no generator state is ever stored or shared."""

import hashlib
import random

import numpy as np


def seed_for(root: int, *names: str | int) -> int:
    """Derive an independent 63-bit seed for one named choice.

    `seed_for(0, "cohort", 3)` is the same number on every machine, in every process and after a resume; changing any
    name gives an unrelated one (SHA-256 of the joined names).

    Args:
        root: the run's seed, or the partition's.
        names: what the choice is for, from general to particular, such as `("rollout", "device-007", 12, 0)`.
    """
    text = "\x1f".join([str(root), *(f"{type(name).__name__}:{name}" for name in names)])
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1


def generator(root: int, *names: str | int) -> np.random.Generator:
    """A NumPy generator seeded by `seed_for`."""
    return np.random.default_rng(seed_for(root, *names))


def seed_globals(root: int, *names: str | int) -> None:
    """Seed Python's and NumPy's global generators, from which Flower's own strategies and mods draw."""
    random.seed(seed_for(root, *names))
    np.random.seed(seed_for(root, *names) % 2**32)


def python_random(root: int, *names: str | int) -> random.Random:
    """A standard-library generator seeded by `seed_for`, for code that draws one small thing at a time."""
    return random.Random(seed_for(root, *names))
