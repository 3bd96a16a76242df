"""What rows were called in the release before: a run of then is read, resumed and compared under the names of today."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from flsim.metrics.compact import compacted, plain

if TYPE_CHECKING:
    import pandas as pd

RENAMED: dict[tuple[str | None, str | None, str | None], tuple[str | None, str | None, str | None]] = {
    (None, "local", None): (None, "own", None),
    ("server", "server", None): ("fleet", "fleet", None),
    (None, None, "local_accuracy"): (None, None, "alone_accuracy"),
    (None, None, "local_reward"): (None, None, "alone_reward"),
    ("train", None, "cloud_usage"): (None, None, "cloud_requests"),
    ("validation", None, "cloud_usage"): (None, None, "cloud_grants"),
    ("test", None, "cloud_usage"): (None, None, "cloud_grants"),
    (None, None, "allowance_calls"): (None, None, "allotment_calls"),
    (None, None, "allowance_tokens"): (None, None, "allotment_tokens"),
    (None, None, "allowance_money"): (None, None, "allotment_money"),
}
"""What rows were called in the release before: (split, model, name) -> what they are called now.

None stands for any, or for what stays. What SFT bought was `cloud_usage`, too, and is read as `cloud_requests`; all
measures take both alike (`ASKED`).
"""


def as_of_today(compact: pd.DataFrame) -> pd.DataFrame:
    """Rename what the release before called otherwise; a frame that has nothing of it is returned as it is."""
    parts = ("split", "model", "name")
    known = {part: set(compact[part].cat.categories) for part in parts}
    wanted = [[(p, v) for p, v in zip(parts, old, strict=True) if v is not None] for old in RENAMED]
    if not any(all(value in known[part] for part, value in one) for one in wanted):
        return compact
    frame = plain(compact)
    for one, new in zip(wanted, RENAMED.values(), strict=True):
        matches = np.logical_and.reduce([frame[part] == value for part, value in one])  # (rows,)
        for part, value in zip(parts, new, strict=True):
            if value is not None:
                frame.loc[matches, part] = value
    return compacted(frame)
