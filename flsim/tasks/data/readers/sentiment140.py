"""Sentiment140: 1.6 million tweets of 660,000 users, labelled by their emoticons (Go, Bhayani and Huang 2009).

    "0","1467810369","Mon Apr 06 22:19:45 PDT 2009","NO_QUERY","_TheSpecialOne_","awww, that's a bummer."

No header; polarity (0 negative, 2 neutral, 4 positive), id, date, query, user, text; Latin-1. Users are LEAF's
(Caldas et al. 2018, arXiv 1812.01097). Half of the users have one tweet: `by_user(..., least=...)` leaves them out.
The hand-labelled test file comes from other users and has neutral tweets; it is read only if `files` names it.
"""

from flsim.tasks.data.item import Item
from flsim.tasks.data.known_set import Found, KnownSet
from flsim.tasks.data.rows import Row, csv_rows

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
        for part, paths in found.items()
        for path in paths
        for row in csv_rows(path, names=_COLUMNS, encoding="latin-1")
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
