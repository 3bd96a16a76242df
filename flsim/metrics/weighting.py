"""What a user weighs in a mean over users, `sum_u w_u x_u / sum_u w_u`: one concept, four names, in every table.

By hand, three users; of the first two the tests are a sample, or all that they have:

    user  accuracy  test items  traffic  requests     by examples  (300 * 0.9 + 7 * 0.5 + 20 * 0) / 327 = 0.836
    a          0.9         300      100         0     by traffic   (100 * 0.9 + 50 * 0.5 + 50 * 0) / 200 = 0.575
    b          0.5           7       50        30     by requests  (0 * 0.9 + 30 * 0.5 + 10 * 0) / 40    = 0.375
    c          0.0          20       50        10     uniform      (0.9 + 0.5 + 0) / 3                   = 0.467

Percentiles, the worst tenth, Gini, Jain and who is harmed are statements about users, and count each of them once.
"""

from dataclasses import dataclass
from difflib import get_close_matches

import numpy as np
import pandas as pd

from flsim.config.schema import ConfigError


@dataclass(frozen=True)
class Weighting:
    """One way to weigh users."""

    name: str
    """As it is given."""
    title: str
    """In tables."""
    meaning: str
    """In a sentence or two."""


EXAMPLES = Weighting(
    "examples",
    "by examples",
    "A user counts as often as it has examples of the measure: of a test all its own items, also where a sample is "
    "tested; of training all its responses. A generated task has no end, and there every user has the same number.",
)
TRAFFIC = Weighting(
    "traffic", "by traffic", "A user counts as often as its stream brings a prompt, if it takes part in every round."
)
REQUESTS = Weighting(
    "requests", "by requests", "A user counts as often as it asked the cloud while training, granted or refused."
)
UNIFORM = Weighting("uniform", "uniform over users", "Every user counts once.")
WEIGHTINGS = {one.name: one for one in (EXAMPLES, TRAFFIC, REQUESTS, UNIFORM)}
"""All of them by name, in the order in which tables show them."""


def weighting_of(given: str | Weighting) -> Weighting:
    """The weighting that a caller named.

    Raises:
        ConfigError: for a name that there is not.
    """
    if isinstance(given, Weighting):
        return given
    if given not in WEIGHTINGS:
        near = ", ".join(get_close_matches(given, WEIGHTINGS, n=1)) or "one of " + ", ".join(WEIGHTINGS)
        raise ConfigError(f"weighting={given!r} is not known; did you mean {near}?")
    return WEIGHTINGS[given]


def mean_by(values: pd.Series, weights: pd.Series | None) -> float | None:
    """Mean over users by a weight of each.

    Laws: equal weights give the plain mean; one factor on all weights changes nothing; a user with weight 0 counts as
    if it were not there.

    Args:
        values: by device, as `flsim.metrics.users.per_user` gives.
        weights: by device, at least 0; a device that is not in it weighs 0. None if nobody's is known.

    Returns:
        None if no weight is known, or all are 0.
    """
    if weights is None:
        return None
    own = weights.reindex(values.index).fillna(0.0).to_numpy(dtype=float)  # (U,)
    return float(np.average(values.to_numpy(dtype=float), weights=own)) if own.sum() > 0 else None
