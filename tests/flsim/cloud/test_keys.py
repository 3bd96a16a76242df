"""Keys of the cache: what enters an answer enters its key, and those of the built-in world are what they were."""

import hashlib
import json
from dataclasses import replace

from flsim.cloud.cache import key_of
from flsim.problems.problem import Problem

BUILTIN = Problem("arithmetic", "add", 3, "17+5=", "22")
OWN = replace(BUILTIN, task="mine")


def test_a_key_of_the_built_in_world_is_that_of_the_bare_question() -> None:
    """Written out, so that caches from before data sets stay good."""
    by_hand = hashlib.sha256(json.dumps(["endpoint", {}, "text", "17+5=", 0, []]).encode()).digest()
    assert key_of(["endpoint", {}], "text", BUILTIN) == by_hand


def test_whatever_is_sent_enters_the_key() -> None:
    """The same words are another question where no notation is explained, or under an instruction."""
    asked = [BUILTIN, OWN, replace(OWN, instruction="Add."), replace(OWN, instruction="Sum up."), BUILTIN, BUILTIN]
    tops = [0, 0, 0, 0, 5, 0]
    tokens = [(), (), (), (), (), (7,)]
    keys = [key_of([], "text", *parts) for parts in zip(asked, tops, tokens, strict=True)]
    assert len(set(keys)) == 6
    assert key_of([], "text", replace(OWN, answer="?", task="other")) == key_of([], "text", OWN)
