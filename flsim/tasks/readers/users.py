"""Data with users: MovieLens, Sentiment140, and whatever LEAF has written.

MovieLens asks: will this user like the next film, given the last ones? (Harper and Konstan 2015, doi 10.1145/2827872).

    196<TAB>242<TAB>3<TAB>881250949                     ml-100k: u.data, films in u.item (bar-separated, Latin-1)
    userId,movieId,rating,timestamp                     ml-latest-small: ratings.csv, films in movies.csv

A rating of `like` or more is a like. A user's ratings are put in order of time (ties by film); every rating with
`history` ratings before it is an item. The split is chronological within the user: the last 12 % of the items test, the
12 % before validate, so nothing is learned from a user's own future. Other users' ratings are not cut at that time.
"""

from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from flsim.config.schema import ConfigError
from flsim.tasks.columns import Columns
from flsim.tasks.data_file import DataFile
from flsim.tasks.item import Item
from flsim.tasks.known_set import Found, KnownSet, Reader
from flsim.tasks.readers.own import ALL, own_files
from flsim.tasks.tables import Row, csv_rows, json_document

HELD_OUT = 0.12  # share of a user's items that validate, and that test: the shares of flsim.problems.problem


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


@dataclass(frozen=True, order=True)
class Rating:
    """One rating; ratings sort by user, then time, then film."""

    user: str
    time: int
    film: str
    stars: float


def movielens(found: Found, *, history: int = 10, like: float = 4.0) -> list[Item]:
    """Items of all users.

    Args:
        found: the files `ratings` and `films`.
        history: ratings that a question tells; a user with no more than these has no item.
        like: least number of stars that is a like.

    Raises:
        ConfigError: for a bad row, or a rating of a film that is not in the list of films.
    """
    if history < 1:
        raise ConfigError(f"movielens: history is {history}; it must be at least 1")
    films = dict(_films(found["films"][0]))
    by_user: dict[str, list[Rating]] = defaultdict(list)
    for rating in _ratings(found["ratings"][0], films):
        by_user[rating.user].append(rating)
    return [item for user in by_user for item in _items(sorted(by_user[user]), films, history, like)]


def chronological_split(position: int, count: int) -> str:
    """Split of a user's item by its place in time: of 25 items, 0 to 18 train, 19 to 21 validate, 22 to 24 test."""
    held_out = max(1, round(HELD_OUT * count)) if count >= 3 else 0
    if position >= count - held_out:
        return "test"
    return "validation" if position >= count - 2 * held_out else "train"


def _items(ratings: list[Rating], films: dict[str, tuple[str, str]], history: int, like: float) -> Iterator[Item]:
    count = len(ratings) - history
    for position in range(count):
        past, rated = ratings[position : position + history], ratings[position + history]
        lines = [f"{films[rating.film][0]}: {_verdict(rating, like)}" for rating in past]
        title, genre = films[rated.film]
        told = "\n".join(["The user's last films:", *lines])
        yield Item(
            f"{told}\nWill the user like {title}? Answer like or dislike.",
            _verdict(rated, like),
            user=rated.user,
            label=genre,
            split=chronological_split(position, count),
            score_label=int(rated.stars >= like),
        )


def _verdict(rating: Rating, like: float) -> str:
    return "like" if rating.stars >= like else "dislike"


def _ratings(file: DataFile, films: dict[str, tuple[str, str]]) -> Iterator[Rating]:
    names = None if file.format == ".csv" else ("userId", "movieId", "rating", "timestamp")
    for row in csv_rows(file, names=names, delimiter="," if file.format == ".csv" else "\t"):
        user, film = row.text("userId"), row.text("movieId")
        if film not in films:
            raise row.error(f"film {film!r} is not in the list of films")
        stars, time = row.text("rating"), row.text("timestamp")
        try:
            yield Rating(user, int(time), film, float(stars))
        except ValueError as error:
            raise row.error(f"rating or timestamp is no number ({error})") from None


def _films(file: DataFile) -> Iterator[tuple[str, tuple[str, str]]]:
    """Film -> title and first genre."""
    if file.format == ".csv":
        for row in csv_rows(file):
            yield row.text("movieId"), (row.text("title"), row.text("genres").split("|")[0])
    else:
        for row in csv_rows(file, names=_ITEM_COLUMNS, delimiter="|", encoding="latin-1", quoted=False):
            yield row.text("movieId"), (row.text("title"), _first_genre(row))


def _first_genre(row: Row) -> str:
    return next((genre for genre in _GENRES if row[genre] == "1"), "unknown")


MOVIELENS = KnownSet(
    name="movielens",
    files={"ratings": ("u.data", "ratings.csv"), "films": ("u.item", "movies.csv")},
    read=movielens,
    verifier="exact",
    source="Get ml-100k or ml-latest-small from https://grouplens.org/datasets/movielens.",
    licence="GroupLens: research use, no redistribution without permission, cite the paper",
    columns=("userId", "movieId", "rating", "timestamp", "title", "genres"),
)
"""MovieLens: ratings by users, liked or not (Harper and Konstan 2015)."""


# Sentiment140: 1.6 million tweets of 660,000 users, labelled by their emoticons (Go, Bhayani and Huang 2009).
#
#     "0","1467810369","Mon Apr 06 22:19:45 PDT 2009","NO_QUERY","_TheSpecialOne_","awww, that's a bummer."
#
# No header; polarity (0 negative, 2 neutral, 4 positive), id, date, query, user, text; Latin-1. Users are LEAF's
# (Caldas et al. 2018, arXiv 1812.01097). Half of the users have one tweet: `by_user(..., least=...)` leaves them out.
# The hand-labelled test file comes from other users and has neutral tweets; it is read only if `files` names it.

_COLUMNS = ("target", "id", "date", "flag", "user", "text")


_WORDS = {"0": "negative", "2": "neutral", "4": "positive"}


def sentiment140_item(row: Row, split: str | None) -> Item:
    """One tweet; the answer is `positive` or `negative`, the score label 1 or 0."""
    target = row.text("target")
    if target not in _WORDS:
        raise row.error(f"the target {target!r} is none of: 0 (negative), 2 (neutral), 4 (positive)")
    answer = _WORDS[target]
    question = f"Tweet: {row.text('text').strip()}\nIs its mood positive or negative?"
    score_label = {"0": 0, "4": 1}.get(target)
    return Item(question, answer, user=row.text("user"), label=answer, split=split, score_label=score_label)


def _read(found: Found) -> list[Item]:
    """The whole has no split of its own, so that every user's tweets are split by hash."""
    return [
        sentiment140_item(row, None if part == "all" else part)
        for part, files in found.items()
        for file in files
        for row in csv_rows(file, names=_COLUMNS, encoding="latin-1", strict=False)  # tweets quote as they like
    ]


SENTIMENT140 = KnownSet(
    name="sentiment140",
    files={"all": ("training.1600000.processed.noemoticon.csv",)},
    read=_read,
    item=None,
    verifier="exact",
    source="Get it from http://help.sentiment140.com/for-students (trainingandtestdata.zip).",
    licence="no licence is stated; tweets stay subject to the platform's terms",
    columns=_COLUMNS,
)
"""Sentiment140: tweets by users, happy or not (Go et al. 2009)."""


# LEAF's JSON: users with their own examples (Caldas et al. 2018, arXiv 1812.01097).
#
#     {"users": ["f_00000", ...], "num_samples": [8, ...], "user_data": {"f_00000": {"x": [...], "y": [...]}, ...}}
#
# Made by LEAF (https://github.com/TalwalkarLab/leaf) into `train/` and `test/`, as many files as it likes. What an x
# is differs: 80 characters of Shakespeare, a tweet with its fields (`question="{x[4]}"`), a vector of numbers. A
# template writes a vector as numbers of four digits with spaces between.

FILES = {"train": "train/*.json", "test": "test/*.json"}


COLUMNS = {"question": "{x}", "answer": "y"}


def leaf(
    root: Path,
    *,
    files: Mapping[str, str] | None = None,
    columns: Mapping[str, str] | None = None,
    encoding: str = "utf-8",
) -> list[Item]:
    """Items of LEAF files, each with its user.

    Args:
        root: folder that the files are relative to.
        files: split -> file or pattern; None means LEAF's own `train/*.json` and `test/*.json`.
        columns: field of an item -> `x`, `y`, `user`, or a template of them; None: x is the question, y the answer.
        encoding: of the files that have no byte order mark.

    Raises:
        ConfigError: for a file that is not there, or one that is not LEAF's.
    """
    mapped = Columns({"user": "user", **(COLUMNS if columns is None else columns)})
    return [
        mapped.item(row, None if split == ALL else split)
        for split, found in own_files(root, FILES if files is None else files, encoding).items()
        for file in found
        for row in leaf_rows(file)
    ]


def leaf_rows(file: DataFile) -> Iterator[Row]:
    """Rows with the columns `user`, `x` and `y`, the users in the file's order; a row's place numbers its user from 1.

    Raises:
        ConfigError: if a part of the format is missing, or a user's x and y are of unequal length.
    """
    found = json_document(file)
    missing = {"users", "user_data"} - (found.keys() if isinstance(found, dict) else set())
    if missing:
        raise ConfigError(f"{file}: is no LEAF file; it has no {' and no '.join(sorted(missing))}")
    users, data = found["users"], found["user_data"]
    if not isinstance(users, list) or not isinstance(data, dict):
        raise ConfigError(f"{file}: is no LEAF file; 'users' must be a list, and 'user_data' an object with their data")
    for place, user in enumerate(users, 1):
        where = f"{file}, user {place}"
        own = data.get(user) if isinstance(user, str) else None
        if own is None:
            raise ConfigError(f"{where}: is listed in 'users' and has no 'user_data'")
        x, y = (own.get(name) if isinstance(own, dict) else None for name in "xy")
        if not isinstance(x, list) or not isinstance(y, list) or len(x) != len(y):
            raise ConfigError(f"{where}: needs lists 'x' and 'y' of equal length")
        for number, (one, label) in enumerate(zip(x, y, strict=True), 1):
            yield Row({"user": user, "x": one, "y": label}, f"{where}, row {number}")


LEAF = Reader(leaf)
"""Whatever LEAF has written, by its users (Caldas et al. 2018, arXiv 1812.01097)."""
