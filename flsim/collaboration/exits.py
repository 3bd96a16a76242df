"""When a model may stop at one of its lower layers, and how sure one can be that this changes few answers.

A threshold on the confidence of the lower layer is calibrated by Learn then Test (Angelopoulos et al. 2021, arXiv
2110.01052), as CALM does (Schuster et al. 2022, arXiv 2207.07061): thresholds are tried from the safest on, each is a
hypothesis that answers differ too often, and the last one in a row that is rejected is taken (fixed-sequence testing).
Then, with probability 1 - delta over the calibration questions, no more than the share `risk` of answers differ.
"""

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

NEVER = 1.0
"""A threshold that no confidence is above."""
GRID = tuple(place / 100 for place in range(99, -1, -1))
"""The thresholds that are tried, in this order."""


def last_doubt(confidences: Sequence[float], agrees: Sequence[bool]) -> float:
    """The threshold from which on a lower layer leaves an answer as it is, from T of its tokens; 0 for any at all.

    At a threshold below it, the first token that it would have said otherwise is said by the lower layer, and the
    answer is another one. At or above it each token is the same, and so is all that the next one is made of. Hence one
    reading of the answer tells for every threshold whether it stays.

    Args:
        confidences: of the lower layer at each token, the top probability (CALM, section 3.5: softmax response).
        agrees: whether it would have said that token.
    """
    return max((sure for sure, same in zip(confidences, agrees, strict=True) if not same), default=0.0)


def binomial_p(errors: int, count: int, risk: float) -> float:
    """P(Bin(n, risk) <= errors): a p-value of the hypothesis that answers differ with a chance above `risk`, exact.

    Args:
        errors: of n calibration questions, those whose answer differs.
        count: n.
        risk: in (0, 1).
    """
    logs = (
        math.log(math.comb(count, k)) + k * math.log(risk) + (count - k) * math.log1p(-risk) for k in range(errors + 1)
    )
    return min(1.0, math.fsum(math.exp(log) for log in logs))


def hoeffding_bentkus_p(loss: float, count: int, risk: float) -> float:
    """A p-value of the hypothesis that the mean of losses in [0, 1] is above `risk`; for losses that are no 0 or 1.

    min(exp(-n h(min(loss, risk), risk)), e P(Bin(n, risk) <= ceil(n loss))), with h the relative entropy of two coins
    (Bates et al. 2021, arXiv 2101.02703, theorem 3; CALM, equation 8).

    Args:
        loss: the mean of n losses.
        count: n.
        risk: in (0, 1).
    """
    low = min(loss, risk)
    entropy = (low * math.log(low / risk) if low else 0.0) + (1 - low) * math.log((1 - low) / (1 - risk))
    bentkus = math.e * binomial_p(math.ceil(count * loss - 1e-9), count, risk)
    return min(1.0, math.exp(-count * entropy), bentkus)


def calibrated(doubts: NDArray[np.float64], risk: float, delta: float, grid: Sequence[float] = GRID) -> float:
    """The lowest threshold of a grid that keeps the risk; `NEVER` if not even its first does.

    Args:
        doubts: `last_doubt` of calibration questions, `(n,)`.
        risk: the share of answers that may differ, in (0, 1).
        delta: the chance that more do, in (0, 1).
        grid: thresholds that fall.
    """
    found = NEVER
    for threshold in grid:
        errors = int((doubts > threshold).sum())
        if binomial_p(errors, len(doubts), risk) > delta:
            break
        found = threshold
    return found


def uploads(prompt: int, decided: Sequence[bool]) -> tuple[int, ...]:
    """How many hidden states go up in each message, where a lower layer decides some of an answer's T tokens.

    The cloud needs the states of all tokens before the one that it is to say, as its keys and values are of them all;
    so those of decided tokens go along with the next undecided one. Nobody reads the last token.

    Args:
        prompt: tokens of the prompt, L; the first token of the answer is said from the last of them.
        decided: of each token of the answer, whether the lower layer said it.
    """
    waiting, sent = prompt, []
    for alone in decided:
        if not alone:
            sent.append(waiting)
            waiting = 0
        waiting += 1
    return tuple(sent)
