"""What the scores of a rule are worth: accuracy at any budget, the AUC of the need, and whether its claims come true.

These are the points of APGR and CPT, the users' AUCs, and the sums of the reliability curve
(`flsim/metrics/offloading.py`, `flsim/metrics/auc.py`, `flsim/metrics/calibration.py`).
"""

import math

import numpy as np

from clients.asking.rule import Choice, Flags, Scores
from clients.asking.threshold import neediest_first
from flsim.metrics.auc import auc
from flsim.metrics.calibration import claim_rows

SHARES = tuple(range(10, 100, 10))
"""In percent of the test prompts."""


def accuracy_curve(choice: Choice, helped: Flags, ties: Scores) -> dict[str, Scores]:
    """What is right in the end, `(N,)`, if the floor(s N) prompts with the highest scores were sent, for each s.

    Args:
        choice: of one device.
        helped: whether the cloud is right, `(N,)`.
        ties: order of equal scores, `(N,)`.

    Returns:
        By name, `accuracy_sending_10` to `accuracy_sending_90`.
    """
    order = neediest_first(choice.scores, ties)
    right = {}
    for share in SHARES:
        sent = order[: math.floor(share * len(order) / 100 + 1e-9)]
        final = choice.alone.astype(np.float64)  # (N,)
        final[sent] = helped[sent]
        right[f"accuracy_sending_{share}"] = final
    return right


def asking_auc(choice: Choice, helped: Flags) -> tuple[float, float]:
    """AUC of the scores for "alone is wrong and the cloud right" times N, and N; (0, 0) if all prompts are alike."""
    return _weighed(auc(choice.scores, helped & ~choice.alone), len(helped))


def wish_rows(choice: Choice) -> dict[str, tuple[float, float]]:
    """What is known of the wish without the cloud, as (total, weight) by the name of the row.

    `wrong_auc`: AUC of the scores for "alone is wrong" times N, and N; (0, 0) if all prompts are alike in that. And of
    a rule that claims chances the sums of its reliability curve.
    """
    found = {"wrong_auc": _weighed(auc(choice.scores, ~choice.alone), len(choice.alone))}
    return found if choice.claims is None else found | claim_rows(choice.claims, ~choice.alone)


def _weighed(value: float, count: int) -> tuple[float, float]:
    return (0.0, 0.0) if math.isnan(value) else (value * count, float(count))
