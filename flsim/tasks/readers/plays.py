"""Plays by who speaks: 80 letters of a speaker ask for the next one, as LEAF's Shakespeare does.

    First Citizen:                                   a block begins with who speaks, and ends with an empty line
    Before we proceed any further, hear me speak.

A speaker's speeches are one text, whose first 76 % train; the next 12 % validate and the last 12 % test, cut before
the windows are made, so that no letter of a test is read in training (Caldas et al. 2018, arXiv 1812.01097).
"""

import re
from collections import defaultdict

from flsim.config.schema import ConfigError
from flsim.tasks.item import Item
from flsim.tasks.known_set import Found, KnownSet
from flsim.tasks.readers.movielens import HELD_OUT

_SPEAKER = re.compile(r"^([A-Z][^\n:]{0,40}):$", re.MULTILINE)
_SPACE = re.compile(r"\s+")


def plays(found: Found, *, window: int = 80, step: int = 5, least: int = 2000) -> list[Item]:
    """Items of all speakers with enough to say.

    Args:
        found: the file `all`.
        window: letters that a question holds.
        step: letters from one question to the next.
        least: fewest letters of a speaker.

    Raises:
        ConfigError: for settings that leave no window, or a file without speakers.
    """
    if min(window, step) < 1 or least * HELD_OUT <= window:
        raise ConfigError(
            f"shakespeare: window={window}, step={step} and least={least} leave no window in {HELD_OUT:.0%} of a "
            f"speaker's letters; lower window or raise least"
        )
    texts: dict[str, list[str]] = defaultdict(list)
    for file in found["all"]:
        parts = _SPEAKER.split(file.path.read_text(file.encoding))
        for speaker, said in zip(parts[1::2], parts[2::2], strict=True):
            texts[speaker].append(said)
    if not texts:
        raise ConfigError(f"shakespeare: {found['all'][0]} has no line with a speaker and a colon, such as ROMEO:")
    items = []
    for speaker, said in texts.items():
        whole = _SPACE.sub(" ", " ".join(said)).strip()
        if len(whole) >= least:
            items += _of_speaker(speaker, whole, window, step)
    if not items:
        raise ConfigError(f"shakespeare: no speaker has {least} letters; lower least")
    return items


def _of_speaker(speaker: str, text: str, window: int, step: int) -> list[Item]:
    first, second = (round(len(text) * (1 - share * HELD_OUT)) for share in (2, 1))
    pieces = {"train": text[:first], "validation": text[first:second], "test": text[second:]}
    return [
        Item(piece[at : at + window], piece[at + window], user=speaker, label=piece[at + window], split=split)
        for split, piece in pieces.items()
        for at in range(0, len(piece) - window, step)
    ]


SHAKESPEARE = KnownSet(
    name="shakespeare",
    files={"all": ("input.txt", "tinyshakespeare.txt")},
    read=plays,
    verifier="exact",
    source="Get it from https://github.com/karpathy/char-rnn (data/tinyshakespeare/input.txt).",
    licence="the text is in the public domain",
    columns=("speaker", "text"),
)
"""Shakespeare's plays by speaker, as far as Tiny Shakespeare holds them."""
