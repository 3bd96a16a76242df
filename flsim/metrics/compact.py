"""Frames of rows in little memory: a text is kept once, and each row has its place in the list of texts.

A run of 1,000 devices has millions of rows that say the same few words. Compact, a row takes 30 bytes in place of about
130, and rows of a name are found without comparing texts. What is picked from a compact frame (`flsim/metrics/rows.py`)
is plain again: to whoever takes rows, both are the same.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:  # a worker has rows and no frames
    import pandas as pd
    import pyarrow as pa
    from pandas.api.extensions import ExtensionArray

TEXTS = ("device", "task", "split", "model", "name")
"""The columns of rows that hold texts."""


def compacted(frame: pd.DataFrame) -> pd.DataFrame:
    """The same rows, with their texts as categories."""
    return frame.astype(dict.fromkeys(TEXTS, "category"))


def joined(tables: Iterable[pa.Table]) -> pd.DataFrame:
    """Tables under one another as one compact frame.

    Args:
        tables: at least one, with dictionaries as texts; taken one by one, so that few need be there at a time.
    """
    import pandas as pd

    known: dict[str, dict[str, int]] = {column: {} for column in TEXTS}
    parts: dict[str, list[NDArray[Any]]] = {}
    for table in tables:
        for name, column in zip(table.column_names, table.unify_dictionaries().itercolumns(), strict=True):
            values = column.combine_chunks()
            parts.setdefault(name, []).append(_coded(values, known[name]) if name in known else values.to_numpy())
    whole = {}
    for name in list(parts):
        values = np.concatenate(parts.pop(name))  # (rows,)
        texts = pd.Index(list(known.get(name, ())), dtype="str")
        whole[name] = pd.Categorical.from_codes(values, texts) if name in known else values
    return pd.DataFrame(whole, copy=False)


def _coded(texts: pa.DictionaryArray, known: dict[str, int]) -> NDArray[Any]:
    """The place of every text in the list of those known, which grows by those that are not."""
    places = [known.setdefault(text, len(known)) for text in texts.dictionary.to_pylist()]
    codes = np.array(places, dtype=np.min_scalar_type(len(known)))  # (texts,)
    found: NDArray[Any] = codes[texts.indices.to_numpy()]  # (rows,)
    return found


def plain(frame: pd.DataFrame) -> pd.DataFrame:
    """The same rows, with their texts as texts; a frame that is not compact is returned as it is."""
    coded = {column: frame[column].array for column in TEXTS if frame[column].dtype == "category"}
    if not coded:
        return frame
    return frame.assign(**{column: _texts(values) for column, values in coded.items()})


def _texts(column: pd.Categorical) -> ExtensionArray:
    """The text of every row: ten times as fast as `astype("str")`."""
    found: ExtensionArray = column.categories.array.take(column.codes, allow_fill=True)
    return found


def is_among(column: pd.Series, wanted: Collection[str]) -> NDArray[np.bool_]:
    """Of every row whether its text is among those wanted, `(rows,)`."""
    if column.dtype != "category":
        return column.isin(wanted).to_numpy(dtype=bool)
    texts: Any = column.array
    known = np.zeros(len(texts.categories) + 1, dtype=bool)  # (texts + 1,); the last is that of no text
    known[[texts.categories.get_loc(text) for text in wanted if text in texts.categories]] = True
    found: NDArray[np.bool_] = known[texts.codes]  # (rows,)
    return found


def places_by(column: pd.Series) -> dict[str, NDArray[np.int32]]:
    """Where the rows of each text are, in their order."""
    import pandas as pd

    codes, known = pd.factorize(column)  # (rows,)
    order = np.argsort(codes.astype(np.min_scalar_type(len(known))), kind="stable").astype(np.int32)  # (rows,)
    ends = np.cumsum(np.bincount(codes, minlength=len(known)))
    return {str(text): order[start:end] for text, start, end in zip(known, [0, *ends], ends, strict=False)}
