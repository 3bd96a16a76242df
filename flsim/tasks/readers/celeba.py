"""CelebA's attributes as a table: 39 of a photo ask for the 40th, by person (Liu et al. 2015; so LEAF deals it).

    202599                                               list_attr_celeba.txt: how many, the names, a line per photo;
    5_o_Clock_Shadow Arched_Eyebrows ... Young           or list_attr_celeba.csv, with a header and commas
    000001.jpg -1  1 ...  1
    000001.jpg 2880                                      identity_CelebA.txt: who is on it

No picture is read. The question names the attributes that a photo has, a line each. LEAF takes people with 5 photos or
more (9,343 of 10,177). Splits are by a hash of the question: photos with the same attributes stay together.
"""

from collections import Counter
from collections.abc import Iterator

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from flsim.config.schema import ConfigError
from flsim.tasks.data_file import DataFile
from flsim.tasks.item_table import NONE, Column, ItemTable
from flsim.tasks.known_set import Found, KnownSet

_OPENING, _ANSWERS = "A photo of a person shows:", ("no", "yes")
_SIGNS = {"-1": False, "0": False, "1": True}


def celeba(found: Found, *, target: str = "Smiling", least_photos: int = 5) -> ItemTable:
    """Items of all people.

    Args:
        found: the files `attributes` and `people`.
        target: the attribute that is asked for.
        least_photos: people with fewer are left out, as LEAF does with 5.

    Raises:
        ConfigError: for a bad row, an attribute that is not there, or no one with so many photos.
    """
    people = dict(pair for file in found["people"] for pair in _people(file))
    names, photos, has = _attributes(found["attributes"])  # has: (P, A)
    if target not in names:
        raise ConfigError(f"celeba: there is no attribute target={target!r}; it is one of: {', '.join(names)}")
    counts = Counter(people[photo] for photo in photos if photo in people)
    kept = [place for place, photo in enumerate(photos) if counts[people.get(photo, "")] >= least_photos]
    if not kept:
        raise ConfigError(
            f"celeba: nobody has {least_photos} photos with attributes, of {len(counts)} people; take a smaller "
            f"least_photos, or see that both files are of the same photos"
        )
    return _table(names, target, has[kept], [people[photos[place]] for place in kept])


def _table(names: list[str], target: str, has: NDArray[np.bool_], users: list[str]) -> ItemTable:
    asked = names.index(target)
    words = [name.replace("_", " ") for name in names]
    question = f"Is {words[asked]} true of it, too? Answer yes or no."
    shown = has.copy()  # (N, A)
    shown[:, asked] = False
    opening, closing = np.ones((len(has), 1), dtype=bool), np.ones((len(has), 1), dtype=bool)
    which = np.concatenate([opening, shown, closing], axis=1)  # (N, A + 2), the lines that a question has
    known = {user: place for place, user in enumerate(dict.fromkeys(users))}
    answers = has[:, asked]
    none = {name: _column(np.full(len(has), NONE), []) for name in ("split", "tests", "solution", "extra", "level")}
    return ItemTable(
        np.concatenate([[0], np.cumsum(which.sum(axis=1))]),
        _column(np.nonzero(which)[1], [_OPENING, *words, question]),
        {
            "answer": _column(answers, _ANSWERS),
            "user": _column(np.array([known[user] for user in users]), known),
            "label": _column(answers, _ANSWERS),
            "score_label": _column(answers, ("0", "1")),
            "place": _column(np.zeros(len(has)), ("",)),
            **none,
        },
        np.full(len(has), NONE, dtype=np.int64),
        {},
    )


def _column(codes: NDArray[np.generic], values: object) -> Column:
    return Column(codes.astype(np.int32), pa.array(list(values), pa.large_string()))  # type: ignore[call-overload]


def _people(file: DataFile) -> Iterator[tuple[str, str]]:
    """Photo -> person; a first line without a number is a header."""
    for number, cells in _lines(file):
        if len(cells) != 2 or not cells[1].isdigit():
            if number == 1:
                continue
            raise ConfigError(f"{file}, row {number}: holds {' '.join(cells)[:60]!r}; it must be a photo and a number")
        yield cells[0], cells[1]


def _attributes(files: tuple[DataFile, ...]) -> tuple[list[str], list[str], NDArray[np.bool_]]:
    """Names of A attributes, names of P photos, and which photo has which, `(P, A)`."""
    names: list[str] = []
    photos, has = [], []
    for file in files:
        lines = _lines(file)
        header = next((cells for _, cells in lines if len(cells) > 1), [])
        own = header[1:] if header[:1] == ["image_id"] else header
        if not own or (names and own != names):
            raise ConfigError(
                f"{file}: has no line with the names of its attributes, or other names than the file before"
            )
        names = own
        for number, (photo, *cells) in lines:
            signs = [_SIGNS.get(cell) for cell in cells]
            if len(cells) != len(names) or None in signs:
                raise ConfigError(
                    f"{file}, row {number}: has {len(cells)} values for {len(names)} attributes; each must be 1, or -1"
                )
            photos.append(photo)
            has.append(np.array(signs, dtype=bool))
    if not photos:
        raise ConfigError(f"{files[0]}: holds no photo; get it anew")
    return names, photos, np.stack(has)


def _lines(file: DataFile) -> Iterator[tuple[int, list[str]]]:
    """Lines that are not empty with their numbers, parted at commas and white space."""
    with file.text() as lines:
        for number, line in enumerate(lines, 1):
            file.undecoded(line, f"{file}, row {number}")
            if line.strip():
                yield number, line.replace(",", " ").split()


CELEBA = KnownSet(
    name="celeba",
    files={
        "attributes": ("list_attr_celeba.txt", "list_attr_celeba.csv"),
        "people": ("identity_CelebA.txt", "identity_CelebA.csv"),
    },
    read=celeba,
    verifier="exact",
    source="Get Anno/list_attr_celeba.txt and Anno/identity_CelebA.txt from "
    "https://mmlab.ie.cuhk.edu.hk/projects/CelebA.html; no picture is needed.",
    licence="CelebA: non-commercial research only, no redistribution",
    columns=("image_id", "identity"),
    in_parts=True,
)
"""CelebA's attributes by person: is the person smiling? (Liu et al. 2015, arXiv 1411.7766)."""
