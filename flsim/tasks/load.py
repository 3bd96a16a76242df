"""Load a data set by name: the table of those that are known, and the kinds for one's own.

load("gsm8k", "data/gsm8k")
load("files", "data", files={"all": "questions.csv"}, columns={"question": "prompt", "answer": "gold"})
"""

from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

from flsim.config.schema import ConfigError
from flsim.problems.recorded import RECORDED
from flsim.tasks.item import Item
from flsim.tasks.known_set import KnownSet, located
from flsim.tasks.readers.choice import ARC, MMLU
from flsim.tasks.readers.code import HUMANEVAL, MBPP, TACO
from flsim.tasks.readers.gym import reasoning_gym
from flsim.tasks.readers.maths import GSM8K, MATH
from flsim.tasks.readers.outcomes import REPLAY_CRUX, REPLAY_GSM8K, ROUTER_MMLU, own_outcomes
from flsim.tasks.readers.own import hub, own
from flsim.tasks.readers.users import MOVIELENS, SENTIMENT140, leaf

KNOWN = MappingProxyType(
    {
        known.name: known
        for known in (
            *(GSM8K, MATH, MBPP, HUMANEVAL, TACO, ARC, MMLU, SENTIMENT140, MOVIELENS),
            *(REPLAY_GSM8K, REPLAY_CRUX, ROUTER_MMLU),
        )
    }
)
"""Sets whose files, columns and verifier are known."""
VERIFIERS = MappingProxyType(
    {name: known.verifier for name, known in KNOWN.items()}
    | {"files": "exact", "leaf": "exact", "outcomes": RECORDED, "datasets": "exact", "reasoning_gym": "gym"}
)
"""The verifier that fits a kind's references; `gym` stands for `readers.gym.verdict`."""
KINDS = tuple(VERIFIERS)


def load(kind: str, root: str | Path = ".", **settings: Any) -> list[Item]:
    """Read a data set.

    Args:
        kind: a known set (`gsm8k`, ...), `files` for JSONL, CSV or parquet of one's own, `leaf`, `outcomes` that one
            recorded, `datasets` or `reasoning_gym`.
        root: folder that files are relative to; `datasets` and `reasoning_gym` need none.
        **settings: of a known set: `files`, `hub` (a name for `datasets`, with `config` and `splits`) and its own
            options; else the keyword arguments of the reader, such as `own`.

    Raises:
        ConfigError: if the kind or a setting is unknown, or the reader cannot read; the message says the mend.
    """
    readers: dict[str, Callable[..., list[Item]]] = {"files": own, "leaf": leaf, "outcomes": own_outcomes}
    sourceless: dict[str, Callable[..., list[Item]]] = {"datasets": hub, "reasoning_gym": reasoning_gym}
    if kind not in KINDS:
        raise ConfigError(f"data: there is no kind {kind!r}; it is one of: {', '.join(KINDS)}")
    try:
        if kind in KNOWN:
            return _known(KNOWN[kind], Path(root), **settings)
        items = sourceless[kind](**settings) if kind in sourceless else readers[kind](Path(root), **settings)
    except TypeError as error:
        if "argument" not in str(error):
            raise
        raise ConfigError(f"data: {kind} was given {', '.join(settings) or 'nothing'}: {error}") from error
    return items


def _known(known: KnownSet, root: Path, **settings: Any) -> list[Item]:
    """A known set from its files, or its rows from `datasets`."""
    if "hub" in settings:
        if known.item is None:
            raise ConfigError(f"{known.name}: is read from its files only; leave out hub. {known.source}")
        return hub(settings.pop("hub"), settings.pop("config", None), item=known.item, **settings)
    return known.read(located(known, root, settings.pop("files", None)), **settings)


def missing(root: str | Path, names: Mapping[str, str] | None = None) -> dict[str, str]:
    """What is not there of the known sets.

    Args:
        root: folder with a folder per set.
        names: set -> its folder under the root; None means every known set in the folder of its name.

    Returns:
        Set -> what was looked for and where to get it; sets that are there are left out.
    """
    found = {}
    for name, folder in (names or {name: name for name in KNOWN}).items():
        try:
            located(KNOWN[name], Path(root) / folder)
        except ConfigError as error:
            found[name] = str(error)
    return found
