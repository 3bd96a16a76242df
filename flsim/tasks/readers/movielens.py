"""MovieLens: will this user like the next film, given the last ones? (Harper and Konstan 2015, doi 10.1145/2827872).

    196<TAB>242<TAB>3<TAB>881250949          100k: u.data, films in u.item (bar-separated, Latin-1)
    1::1193::5::978300760                    1M: ratings.dat, films in movies.dat (the same separator, Latin-1)
    userId,movieId,rating,timestamp          latest-small, 20M and later: ratings.csv, films in movies.csv

A file's first line says which of the three it is, so that ratings of one go with films of another. A rating of `like`
or more is a like. A user's ratings are put in order of time (ties by film); every rating with `history` ratings before
it is an item. The split is chronological within the user: the last 12 % of the items test, the 12 %
before validate, so nothing is learned from a user's own future. Other users' ratings are not cut at that time.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pacsv
from numpy.typing import NDArray

from flsim.config.schema import ConfigError
from flsim.problems.problem import SPLITS
from flsim.tasks.data_file import DataFile
from flsim.tasks.item_table import NONE, Column, Indices, ItemTable
from flsim.tasks.known_set import Found, KnownSet
from flsim.tasks.tables import Row, csv_rows, separated_rows

HELD_OUT = 0.12  # share of a user's items that validate, and that test: the shares of flsim.problems.problem
_COLUMNS = ("userId", "movieId", "rating", "timestamp")
_GENRES = (
    "unknown",
    "Action",
    "Adventure",
    "Animation",
    "Children",
    "Comedy",
    "Crime",
    "Documentary",
    "Drama",
    "Fantasy",
    "Film-Noir",
    "Horror",
    "Musical",
    "Mystery",
    "Romance",
    "Sci-Fi",
    "Thriller",
    "War",
    "Western",
)
_ITEM_COLUMNS = ("movieId", "title", "release", "video", "url", *_GENRES)
_WORDS = ("dislike", "like")
_DOUBLE = "::"


@dataclass(frozen=True, eq=False)
class Ratings:
    """R ratings as columns, in the order of the files."""

    users: Sequence[str]
    """The users, in the order in which they come up."""
    user: Indices
    """Whose each is, an index into `users`, shape `(R,)`."""
    films: Sequence[str]
    """The films that are rated."""
    film: Indices
    """Which film, an index into `films`, `(R,)`."""
    stars: NDArray[np.float64]
    """`(R,)`."""
    time: Indices
    """In seconds, `(R,)`."""


def movielens(found: Found, *, history: int = 10, like: float = 4.0) -> ItemTable:
    """Items of all users.

    Args:
        found: the files `ratings` and `films`, any number of each.
        history: ratings that a question tells; a user with no more than these has no item.
        like: least number of stars that is a like.

    Raises:
        ConfigError: for a bad row, a rating of a film that is not in the list of films, or users of so few ratings that
            none of them has an item to test on.
    """
    if history < 1:
        raise ConfigError(f"movielens: history is {history}; it must be at least 1")
    films = dict(film for file in found["films"] for film in _films(file))
    ratings = _read(found["ratings"], films)
    titles, genres = zip(*(films[film] for film in ratings.films), strict=True)
    kinds = list(dict.fromkeys(genres))
    kind = np.array([kinds.index(genre) for genre in genres])  # of each film
    places = {film: place for place, film in enumerate(sorted(ratings.films))}
    by_name = np.array([places[film] for film in ratings.films])[ratings.film]  # (R,), ties go by the film's id
    order = np.lexsort((ratings.stars, by_name, ratings.time, ratings.user))  # (R,)
    film, liked = ratings.film[order], (ratings.stars >= like)[order]  # (R,), (R,)
    counts = np.bincount(ratings.user, minlength=len(ratings.users))  # (U,)
    position = np.arange(len(order)) - np.repeat(np.cumsum(counts) - counts, counts)  # (R,), within the user
    asked = np.flatnonzero(position >= history)  # (N,)
    _refuse_few(counts.max(), history)
    lines = np.zeros((len(asked), history + 2), dtype=np.int32)  # (N, H + 2); line 0 opens every question
    for back in range(1, history + 1):
        past = asked - back
        lines[:, history + 1 - back] = 1 + 2 * film[past] + liked[past]
    lines[:, -1] = 1 + 2 * len(titles) + film[asked]
    told = [f"{title}: {word}" for title in titles for word in _WORDS]
    questions = [f"Will the user like {title}? Answer like or dislike." for title in titles]
    user = ratings.user[order][asked]  # (N,)
    verdict = liked[asked]  # (N,)
    return ItemTable(
        np.arange(len(asked) + 1) * (history + 2),
        _column(lines.ravel(), ["The user's last films:", *told, *questions]),
        {
            "answer": _column(verdict, _WORDS),
            "user": _column(user, ratings.users),
            "label": _column(kind[film[asked]], kinds),
            "split": _column(_splits(position[asked] - history, counts[user] - history), SPLITS),
            "score_label": _column(verdict, ("0", "1")),
            "place": _column(np.zeros(len(asked)), ("",)),
            **{name: _column(np.full(len(asked), NONE), ()) for name in ("tests", "solution", "extra", "level")},
        },
        np.full(len(asked), NONE, dtype=np.int64),
        {},
    )


def chronological_split(position: int, count: int) -> str:
    """Split of a user's item by its place in time: of 25 items, 0 to 18 train, 19 to 21 validate, 22 to 24 test."""
    return SPLITS[int(_splits(np.array([position]), np.array([count]))[0])]


def _splits(position: Indices, count: Indices) -> Indices:
    """Indices into `SPLITS` of items by their places among as many, `(N,)` each."""
    held_out = np.where(count >= 3, np.maximum(1, np.rint(HELD_OUT * count)), 0)  # (N,)
    found: Indices = (position >= count - 2 * held_out).astype(np.int64) + (position >= count - held_out)
    return found


def _refuse_few(most: int, history: int) -> None:
    if most < history + 3:
        raise ConfigError(
            f"movielens: with history={history} a user needs {history + 3} ratings, so that there is an item of train, "
            f"validation and test; the user with the most has {most}: take a smaller history, or more ratings"
        )


def _column(codes: NDArray[np.generic], values: Sequence[str]) -> Column:
    return Column(codes.astype(np.int32), pa.array(list(values), pa.large_string()))


# Ratings. A file of plain numbers is read as columns; whatever is not so plain, by its rows, which names what is wrong.


def _read(files: Sequence[DataFile], films: dict[str, tuple[str, str]]) -> Ratings:
    parts = [_at_once(file, films) or _by_rows(file, films) for file in files]
    table = pa.concat_tables(parts).combine_chunks()
    user, film = (table.column(name).combine_chunks().dictionary_encode() for name in _COLUMNS[:2])
    return Ratings(
        user.dictionary.to_pylist(),
        user.indices.to_numpy().astype(np.int64),
        film.dictionary.to_pylist(),
        film.indices.to_numpy().astype(np.int64),
        table.column("rating").to_numpy(),
        table.column("timestamp").to_numpy(),
    )


def _at_once(file: DataFile, films: dict[str, tuple[str, str]]) -> pa.Table | None:
    """The ratings of a file of ASCII without quotes, holes or films that are not known; None if it is no such file."""
    raw = file.raw()
    form = _form(file)
    if not raw.isascii() or b'"' in raw or b"\0" in raw or (form == _DOUBLE and b"\t" in raw):
        return None
    raw = raw.replace(_DOUBLE.encode(), b"\t") if form == _DOUBLE else raw
    names = {"autogenerate_column_names": False, "column_names": None if form == "," else _COLUMNS}
    reading = pacsv.ReadOptions(use_threads=False, **names)
    parsing = pacsv.ParseOptions(delimiter="," if form == "," else "\t", quote_char=False)
    as_text = pacsv.ConvertOptions(column_types=dict.fromkeys(_COLUMNS, pa.string()), strings_can_be_null=False)
    try:
        table = pacsv.read_csv(pa.BufferReader(raw), reading, parsing, as_text)
        if len(set(table.column_names)) < len(table.column_names):
            return None
        table = table.select(_COLUMNS)
        stars, times = table.column("rating").cast(pa.float64()), table.column("timestamp").cast(pa.int64())
    except (pa.ArrowInvalid, pa.ArrowKeyError, KeyError):
        return None
    ids = [pc.unique(table.column(name)).to_pylist() for name in _COLUMNS[:2]]
    if (
        not len(table)
        or not all(one.strip() for own in ids for one in own)
        or any(film not in films for film in ids[1])
    ):
        return None
    return pa.table([table.column("userId"), table.column("movieId"), stars, times], names=_COLUMNS)


def _by_rows(file: DataFile, films: dict[str, tuple[str, str]]) -> pa.Table:
    found: list[tuple[str, str, float, int]] = []
    for row in _rating_rows(file):
        user, film = row.text("userId"), row.text("movieId")
        if film not in films:
            raise row.error(f"film {film!r} is not in the list of films")
        stars, time = row.text("rating"), row.text("timestamp")
        try:
            found.append((user, film, float(stars), int(np.int64(int(time)))))
        except (ValueError, OverflowError) as error:
            raise row.error(f"rating or timestamp is no number ({error})") from None
    types = (pa.string(), pa.string(), pa.float64(), pa.int64())
    columns = zip(*found, strict=True)
    return pa.table([pa.array(own, kind) for own, kind in zip(columns, types, strict=True)], names=_COLUMNS)


def _rating_rows(file: DataFile) -> Iterator[Row]:
    form = _form(file)
    if form == _DOUBLE:
        return separated_rows(file, _COLUMNS, _DOUBLE)
    return csv_rows(file, names=None if form == "," else _COLUMNS, delimiter=form)


def _form(file: DataFile) -> str:
    """What separates the values of a file: a comma in one that is called `.csv`, else what its first line has."""
    if file.format == ".csv":
        return ","
    with file.text(encoding="latin-1") as lines:
        first = next((line for line in lines if line.strip()), "")
    return next((sign for sign in (_DOUBLE, "\t", "|") if sign in first), "," if "," in first else "\t")


def _films(file: DataFile) -> Iterator[tuple[str, tuple[str, str]]]:
    """Film -> title and first genre."""
    form = _form(file)
    if form == "|":
        for row in csv_rows(file, names=_ITEM_COLUMNS, delimiter="|", encoding=_encoding(file), quoted=False):
            yield row.text("movieId"), (row.text("title"), _first_genre(row))
        return
    of_1m = form == _DOUBLE
    rows = (
        separated_rows(file, ("movieId", "title", "genres"), form, encoding=_encoding(file))
        if of_1m
        else csv_rows(file, delimiter=form)
    )
    for row in rows:
        yield row.text("movieId"), (row.text("title"), row.text("genres").split("|")[0])


def _encoding(file: DataFile) -> str:
    """Latin-1, as GroupLens wrote its older sets, unless somebody has converted the file: no such text is UTF-8."""
    try:
        file.raw().decode()
    except UnicodeDecodeError:
        return "latin-1"
    return "utf-8"


def _first_genre(row: Row) -> str:
    return next((genre for genre in _GENRES if row[genre] == "1"), "unknown")


MOVIELENS = KnownSet(
    name="movielens",
    files={"ratings": ("u.data", "ratings.csv", "ratings.dat"), "films": ("u.item", "movies.csv", "movies.dat")},
    read=movielens,
    verifier="exact",
    source="Get ml-100k, ml-1m or ml-latest-small from https://grouplens.org/datasets/movielens.",
    licence="GroupLens: research use, no redistribution without permission, cite the paper",
    columns=(*_COLUMNS, "title", "genres"),
    in_parts=True,
    tells_the_past=True,
)
"""MovieLens: ratings by users, liked or not (Harper and Konstan 2015)."""
