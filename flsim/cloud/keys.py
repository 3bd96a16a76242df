"""Under which key a cache keeps an answer: the SHA-256 of all that it depends on, the same for devices and server."""

import hashlib
import json
from collections.abc import Sequence

from flsim.cloud.cloud import Cloud
from flsim.config import CloudConfig
from flsim.tasks.families import is_builtin
from flsim.tasks.problem import Problem

_ENTERS = {
    "builtin": (),
    "oracle": ("oracle_error", "oracle_errors"),
    "endpoint": ("url", "model", "system", "max_tokens"),
    "model": ("system", "max_tokens"),
    "replay": (),
}
"""The settings that a kind's answers depend on; files, weights and the like are in the cloud's own `identity`."""


def identity_of(cloud: Cloud, config: CloudConfig) -> list[object]:
    """What all answers of a cloud depend on: its kind, its settings, and its `identity` if it states one."""
    settings = {name: getattr(config, name) for name in _ENTERS[config.kind]}
    return [config.kind, settings, str(getattr(cloud, "identity", ""))]


def key_of(identity: Sequence[object], level: str, problem: Problem, top: int = 0, tokens: Sequence[int] = ()) -> bytes:
    """The key of one request.

    Args:
        identity: of the cloud.
        level: the access that it takes, one of `CLOUD_ACCESS`.
        problem: what is asked.
        top: how many of the likeliest tokens to tell.
        tokens: what to score.
    """
    # a list, as the same words are another question where no notation is explained with them
    asked = problem.prompt if is_builtin(problem) else [problem.prompt]
    return hashlib.sha256(json.dumps([*identity, level, asked, top, list(tokens)], sort_keys=True).encode()).digest()
