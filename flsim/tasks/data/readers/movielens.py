"""MovieLens: will this user like the next film, given the last ones? (Harper and Konstan 2015, doi 10.1145/2827872).

    196<TAB>242<TAB>3<TAB>881250949                     ml-100k: u.data, films in u.item (bar-separated, Latin-1)
    userId,movieId,rating,timestamp                     ml-latest-small: ratings.csv, films in movies.csv

A rating of `like` or more is a like. A user's ratings are put in order of time (ties by film); every rating with
`history` ratings before it is an item. The split is chronological within the user: the last 12 % of the items test, the
12 % before validate, so nothing is learned from a user's own future. Other users' ratings are not cut at that time.
"""

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from flsim.config import ConfigError
from flsim.tasks.data.item import Item
from flsim.tasks.data.known_set import Found, KnownSet
from flsim.tasks.data.rows import Row, csv_rows

HELD_OUT = 0.12  # share of a user's items that validate, and that test: the shares of flsim.tasks.problem
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


def _ratings(path: Path, films: dict[str, tuple[str, str]]) -> Iterator[Rating]:
    names = None if path.suffix == ".csv" else ("userId", "movieId", "rating", "timestamp")
    for row in csv_rows(path, names=names, delimiter="," if path.suffix == ".csv" else "\t"):
        user, film = row.text("userId"), row.text("movieId")
        if film not in films:
            raise row.error(f"film {film!r} is not in the list of films")
        stars, time = row.text("rating"), row.text("timestamp")
        try:
            yield Rating(user, int(time), film, float(stars))
        except ValueError as error:
            raise row.error(f"rating or timestamp is no number ({error})") from None


def _films(path: Path) -> Iterator[tuple[str, tuple[str, str]]]:
    """Film -> title and first genre."""
    if path.suffix == ".csv":
        for row in csv_rows(path):
            yield row.text("movieId"), (row.text("title"), row.text("genres").split("|")[0])
    else:
        for row in csv_rows(path, names=_ITEM_COLUMNS, delimiter="|", encoding="latin-1", quoted=False):
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
