"""MovieLens in all its forms: the same items whatever file they come in, and no verdict of a test in training."""

from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flsim.config.load import load_config
from flsim.config.schema import ConfigError
from flsim.loop.checks import check
from flsim.problems.problem import SPLITS
from flsim.tasks.item import Item
from flsim.tasks.load import load
from flsim.tasks.readers.movielens import chronological_split
from flsim.tasks.splits import split_items


class Rating(NamedTuple):
    """A rating as the files have it; ratings sort by user, time and the text of the film's id."""

    user: str
    time: int
    film: str
    stars: float


def error_of(root: Path, **settings: Any) -> str:
    with pytest.raises(ConfigError) as found:
        load("movielens", root, **settings)
    return str(found.value)


def test_movielens_tells_the_past_and_asks_for_the_next(tmp_path: Path) -> None:
    """User 7 rates 28 films, one a day; with 3 told, 25 items: 0 to 18 train, 19 to 21 validate, 22 to 24 test."""
    flags = ["0"] * 19
    films = ["|".join([str(n), f'Film "{n}"', "01-Jan-1995", "", "url", *flags]) for n in range(30)]
    films[4] = "|".join(["4", "Fi\xe9vre", "", "", "", *flags[:8], "1", *flags[9:]])
    (tmp_path / "u.item").write_text("\n".join(films), encoding="latin-1")
    ratings = [f"7\t{n}\t{5 if n % 2 else 2}\t{1000 + n}" for n in reversed(range(28))] + ["8\t1\t5\t1"]
    (tmp_path / "u.data").write_text("\n".join(ratings) + "\n")
    items = load("movielens", tmp_path, history=3)
    assert items[1] == Item(
        'The user\'s last films:\nFilm "1": like\nFilm "2": dislike\nFilm "3": like\n'
        "Will the user like Fi\xe9vre? Answer like or dislike.",
        "dislike",
        user="7",
        label="Drama",
        split="train",
        score_label=0,
    )
    assert items[0].answer == "like"
    assert [item.split for item in items] == ["train"] * 19 + ["validation"] * 3 + ["test"] * 3
    assert load("movielens", tmp_path, history=3, like=1.0)[1].answer == "like"
    (tmp_path / "u.data").write_text("7\t1\tfive\t1000\n")
    assert "u.data, row 1: rating or timestamp is no number" in error_of(tmp_path)
    (tmp_path / "u.data").write_text("7\t99\t5\t1000\n")
    assert "row 1: film '99' is not in the list of films" in error_of(tmp_path)
    assert "history is 0" in error_of(tmp_path, history=0)


def test_movielens_latest_has_headers(tmp_path: Path) -> None:
    (tmp_path / "movies.csv").write_text(
        "movieId,title,genres\n" + "".join(f'{n},"Heat, {n}",Crime|Drama\n' for n in range(20))
    )
    (tmp_path / "ratings.csv").write_text(
        "userId,movieId,rating,timestamp\n" + "".join(f"1,{n},{n % 5 + 0.5},{n}\n" for n in range(20))
    )
    items = load("movielens", tmp_path)
    assert len(items) == 10
    assert items[4].label == "Crime"
    assert "Heat, 14? Answer" in items[4].question
    assert items[4].score_label == 1  # film 14: 4.5 stars


@pytest.mark.parametrize("count", [0, 1, 2, 3, 10, 100])
def test_time_never_runs_backwards_over_splits(count: int) -> None:
    splits = [("train", "validation", "test").index(chronological_split(at, count)) for at in range(count)]
    assert splits == sorted(splits)
    assert len(set(splits)) == (3 if count >= 3 else min(count, 1))


FILMS = {str(n): (f"Fi\xe9vre: {n // 2}, The", ("Drama", "Horror", "Comedy")[n % 3]) for n in range(1, 13)}
GENRES = ["unknown", "Action", "Adventure", "Animation", "Children", "Comedy", "Crime", "Documentary", "Drama"]
GENRES += ["Fantasy", "Film-Noir", "Horror", "Musical", "Mystery", "Romance", "Sci-Fi", "Thriller", "War", "Western"]


def write_films(folder: Path, form: str) -> None:
    if form == "u.item":
        flags = {film: "|".join(str(int(genre == own)) for genre in GENRES) for film, (_, own) in FILMS.items()}
        text = "".join(f"{film}|{title}|01-Jan-1995||url|{flags[film]}\n" for film, (title, _) in FILMS.items())
    elif form == "movies.dat":
        text = "".join(f"{film}::{title}::{genre}|War\n" for film, (title, genre) in FILMS.items())
    else:
        rows = "".join(f'{film},"{title}",{genre}|War\n' for film, (title, genre) in FILMS.items())
        text = "movieId,title,genres\n" + rows
    (folder / form).write_text(text, encoding="utf-8" if form == "movies.csv" else "latin-1")


def write_ratings(folder: Path, form: str, ratings: Sequence[Rating]) -> None:
    sign = {"u.data": "\t", "ratings.dat": "::", "ratings.csv": ","}[form]
    lines = [sign.join(map(str, (own.user, own.film, own.stars, own.time))) for own in ratings]
    header = ["userId,movieId,rating,timestamp"] if sign == "," else []
    (folder / form).write_text("\n".join([*header, *lines]) + "\n")


def by_hand(ratings: Sequence[Rating], history: int) -> list[Item]:
    """The items as the page says it, one after the other."""
    by_user: dict[str, list[Rating]] = defaultdict(list)
    for rating in ratings:
        by_user[rating.user].append(rating)
    found = []
    for user, unsorted in by_user.items():
        own = sorted(unsorted)
        words = ["like" if rating.stars >= 4 else "dislike" for rating in own]
        for at in range(history, len(own)):
            told = [f"{FILMS[own[n].film][0]}: {words[n]}" for n in range(at - history, at)]
            title, genre = FILMS[own[at].film]
            question = "\n".join(
                ["The user's last films:", *told, f"Will the user like {title}? Answer like or dislike."]
            )
            split = chronological_split(at - history, len(own) - history)
            liked = int(words[at] == "like")
            found.append(Item(question, words[at], user=user, label=genre, split=split, score_label=liked))
    return found


RATINGS = st.builds(
    Rating,
    st.sampled_from(["7", "70", "8"]),
    st.integers(0, 5),
    st.sampled_from(list(FILMS)),
    st.sampled_from([0.5, 1.0, 3.5, 4.0, 5.0]),
)
FORMS = st.tuples(
    st.sampled_from(["u.data", "ratings.dat", "ratings.csv"]), st.sampled_from(["u.item", "movies.dat", "movies.csv"])
)


@settings(max_examples=30)
@given(st.lists(RATINGS, min_size=20, max_size=40), FORMS, st.integers(1, 3), st.booleans())
def test_any_ratings_with_any_films_are_the_items_by_hand(
    tmp_path_factory: pytest.TempPathFactory, ratings: list[Rating], forms: tuple[str, str], history: int, plain: bool
) -> None:
    """Ties go by film and stars; a file that is read row by row (a space before a number) is read alike."""
    folder = tmp_path_factory.mktemp("ml")
    write_ratings(folder, forms[0], ratings)
    write_films(folder, forms[1])
    if not plain:
        text = (folder / forms[0]).read_text()
        (folder / forms[0]).write_text(text[:-1] + " \n")
    assert list(load("movielens", folder, history=history)) == by_hand(ratings, history)


def test_several_files_of_ratings_are_read_each_in_its_form(tmp_path: Path) -> None:
    ratings = [Rating(str(n % 2), n, str(n % 12 + 1), n % 6) for n in range(30)]
    write_ratings(tmp_path, "ratings.dat", ratings[:17])
    write_ratings(tmp_path, "ratings.csv", ratings[17:])
    write_films(tmp_path, "movies.dat")
    items = load("movielens", tmp_path, files={"ratings": "ratings.*"}, history=3)
    whole = by_hand([*ratings[17:], *ratings[:17]], 3)
    assert list(items) == whole


def test_films_that_files_does_not_name_are_those_of_the_set(tmp_path: Path) -> None:
    ratings = [Rating("1", n, str(n % 12 + 1), 4) for n in range(20)]
    write_ratings(tmp_path, "ratings.dat", ratings)
    (tmp_path / "ratings.dat").rename(tmp_path / "mine.txt")
    looked = error_of(tmp_path, files={"ratings": "mine.txt"})
    assert looked.startswith(f"movielens: no file for 'films'; looked for {tmp_path}/u.item or {tmp_path}/movies.csv")
    assert "files names 'films_'; its files are: ratings, films" in error_of(tmp_path, files={"films_": "x"})
    write_films(tmp_path, "movies.dat")
    assert list(load("movielens", tmp_path, files={"ratings": "mine.txt"})) == by_hand(ratings, 10)
    assert "a user needs 23 ratings" in error_of(tmp_path, files={"ratings": "mine.txt"}, history=20)
    with (tmp_path / "mine.txt").open("a") as file:
        file.write("1::2::4\n")
    assert "mine.txt, row 21: has 3 values for the 4 columns userId" in error_of(
        tmp_path, files={"ratings": "mine.txt"}
    )


def test_no_verdict_of_a_test_stands_in_a_question_of_training(tmp_path: Path) -> None:
    """Counted: every film has a title of its own, so that a line of a question is one rating of one user.

    By the splits in order of time none does; a hash, which the config refuses, would let nearly all.
    """
    films = "".join(f"{n}::Film {n}::Drama\n" for n in range(3000))
    (tmp_path / "movies.dat").write_text(films)
    rng = np.random.default_rng(0)
    own = [rng.permutation(3000)[:120].tolist() for _ in range(8)]
    rows = [f"{user}::{film}::{film % 5 + 1}::{at}\n" for user, seen in enumerate(own) for at, film in enumerate(seen)]
    (tmp_path / "ratings.dat").write_text("".join(rows))
    items = load("movielens", tmp_path)
    leaked = {}
    for rule in ("official", "hash"):
        splits = split_items(items, rule)
        train, test = (np.flatnonzero(splits == SPLITS.index(name)).tolist() for name in ("train", "test"))
        told = {(items[n].user, line) for n in train for line in items[n].question.split("\n")[1:-1]}
        asked = [(items[n].user, items[n].question.split("\n")[-1], items[n].answer) for n in test]
        verdicts = [
            (user, f"{line.removeprefix('Will the user like ').partition('?')[0]}: {word}")
            for user, line, word in asked
        ]
        leaked[rule] = sum(verdict in told for verdict in verdicts) / len(verdicts)
    assert leaked["official"] == 0
    assert leaked["hash"] > 0.95
    given = ["stream.phases=[[films]]", "data.films.kind=movielens", "data.films.splits=hash"]
    with pytest.raises(
        ConfigError, match=r"data\.films\.splits=hash with kind=movielens.*leave data\.films\.splits out"
    ):
        check(load_config(None, given))
