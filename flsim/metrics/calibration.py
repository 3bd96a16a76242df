"""Whether a claimed chance comes true: the reliability curve, and the expected calibration error (ECE).

Kept as sums by tenths of the claim, which add up over users, seeds and runs without any loss. By hand, five prompts:

    claimed        0.1    0.15   0.2    0.8    0.9     tenths that hold any: from 0.1, 0.2, 0.8 and 0.9 on
    came true      no     no     yes    yes    yes
    gap of sums    |0.25 - 0|, |0.2 - 1|, |0.8 - 1|, |0.9 - 1|     ECE = (0.25 + 0.8 + 0.2 + 0.1) / 5 = 0.27
"""

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike, NDArray

if TYPE_CHECKING:
    import pandas as pd

TENTHS = tuple(range(0, 100, 10))
"""Tenths of a claim by their lower edges in percent: 0 to below 10, ..., 90 to 100 included."""


def by_tenths(claims: ArrayLike, wrong: ArrayLike) -> "pd.DataFrame":
    """The sums of claims of any chance, here of being wrong.

    Args:
        claims: in [0, 1], `(N,)`.
        wrong: whether it came true, `(N,)`.

    Returns:
        A line per tenth: `claimed`, the sum of its claims, `wrong`, how many came true, and `prompts`, how many it has.
    """
    import pandas as pd  # not above: workers have no other use for it

    return pd.DataFrame(_sums(claims, wrong), index=pd.Index(TENTHS, name="tenth"))


def _sums(claims: ArrayLike, wrong: ArrayLike) -> dict[str, NDArray[np.float64]]:
    """The columns of `by_tenths`, `(10,)` each."""
    chance, true = np.asarray(claims, dtype=float), np.asarray(wrong, dtype=float)  # (N,) each
    tenth = np.minimum((chance * 10 + 1e-9).astype(int), 9)  # (N,); 0.29 * 100 is 28.999999999999996
    return {
        "claimed": np.bincount(tenth, chance, 10),
        "wrong": np.bincount(tenth, true, 10),
        "prompts": np.bincount(tenth, minlength=10).astype(float),
    }


def expected_calibration_error(gaps: NDArray[np.float64]) -> float:
    """ECE: how far claims are from what comes true, `sum_b n_b / N |wrong_b / n_b - claimed_b / n_b|`.

    With bins of equal width (Guo et al. 2017, arXiv 1706.04599, equation 3). Laws: 0 if every claim is the truth, and
    if all claims are the share that comes true; in [0, 1]. It is above 0 by chance where few prompts fill a bin.

    Args:
        gaps: of each bin, `(claimed_b - wrong_b) / N`, `(B,)`.
    """
    return float(np.abs(gaps).sum())


def row_names(tenth: int) -> tuple[str, str]:
    """The names of a tenth's two rows: (sum of claims, prompts), and (how many came true, prompts)."""
    return f"claimed_{tenth}", f"wrong_claimed_{tenth}"


def claim_rows(claims: ArrayLike, wrong: ArrayLike) -> dict[str, tuple[float, float]]:
    """What rows keep of one device's claims: (total, weight) by name, of the tenths that hold any."""
    found: dict[str, tuple[float, float]] = {}
    columns = (column.tolist() for column in _sums(claims, wrong).values())
    for tenth, claimed, true, prompts in zip(TENTHS, *columns, strict=True):
        if prompts:
            of_claims, of_wrong = row_names(tenth)
            found[of_claims], found[of_wrong] = (claimed, prompts), (true, prompts)
    return found


ROWS = tuple(name for tenth in TENTHS for name in row_names(tenth))
"""All names of `claim_rows`."""


def from_rows(rows: "pd.DataFrame") -> "pd.DataFrame":
    """The sums of every device, from rows of `ROWS`.

    Returns:
        A line per device and tenth that holds any, as `by_tenths`.
    """
    import pandas as pd

    tenth = rows["name"].map({name: tenth for tenth in TENTHS for name in row_names(tenth)}).rename("tenth")
    true = rows["name"].isin([row_names(tenth)[1] for tenth in TENTHS])
    by = [rows["device"], tenth]
    parts = {
        "claimed": rows["total"].where(~true, 0.0).groupby(by).sum(),
        "wrong": rows["total"].where(true, 0.0).groupby(by).sum(),
        "prompts": rows["weight"].where(true, 0.0).groupby(by).sum(),
    }
    return pd.DataFrame(parts)


def of_all(sums: "pd.DataFrame") -> "pd.DataFrame":
    """The sums of all users together, a line per tenth, from those by device and tenth."""
    return sums.groupby("tenth").sum().reindex(list(TENTHS), fill_value=0.0)


def gaps_of_users(sums: "pd.DataFrame") -> "pd.DataFrame":
    """`(claimed_b - wrong_b) / N` of every user, from its sums; their absolute values add up to its ECE.

    Taken of the mean user they give the ECE of all prompts together, where a user's own rests on few.

    Args:
        sums: by device and tenth, as `from_rows`.

    Returns:
        A line per device, a column per tenth; 0 where it has none.
    """
    prompts = sums["prompts"].groupby("device").sum()
    gaps = (sums["claimed"] - sums["wrong"]).unstack("tenth").reindex(columns=list(TENTHS))
    return gaps.fillna(0.0).div(prompts, axis=0)  # (users, 10)
