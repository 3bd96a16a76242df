"""Spend a budget over a device's test prompts as they come: a threshold that is set anew at every prompt.

A fixed threshold leaves a share tau of the calibration questions above it; what lies above it among N new prompts
varies around tau N, so that some devices leave requests unused and others have none left for a late prompt, however
needy. Paced, a device that has b requests left for the n prompts to come asks where the score is in the highest b / n
of what it knows. This is the certainty-equivalent policy of online selection, the Bayes selector of Vera and Banerjee
(2019, arXiv 1901.05028). Solved anew at every prompt, it loses against one who knows all prompts in advance no more
than a constant, however many there are, where a fixed threshold loses in sqrt(N) (Arlotto and Gurvich 2019, arXiv
1710.07719, for scores of finitely many values).
"""

import numpy as np

from clients.asking.rule import Flags, Scores


def paced(ranks: Scores, limit: int) -> Flags:
    """Which of N prompts a device asks for, met in their order, `(N,)`.

    Laws: exactly `limit` are asked for; at `limit` = N all are, at 0 none; if ranks are uniform and independent, every
    set of `limit` prompts is equally likely. By hand, 2 of 4 prompts with ranks 0.6, 0.4, 0.3, 0.1: 0.6 > 2/4, it keeps
    the first; 0.4 <= 2/3, it asks; 0.3 <= 1/2, it asks; none is left for the last.

    Args:
        ranks: place of each prompt's need in what is known, 0 for the neediest, in (0, 1], `(N,)`.
        limit: requests in all, 0 to N.
    """
    asked = np.zeros(len(ranks), dtype=bool)  # (N,)
    left = limit
    for place, rank in enumerate(ranks.tolist()):
        asked[place] = rank <= left / (len(ranks) - place)
        left -= int(asked[place])
    return asked


def ranked(scores: Scores, ties: Scores, known: Scores) -> Scores:
    """The share of need above each prompt's among what is known, with itself among it, in (0, 1], `(N,)`.

    Of n known scores g are greater and e are equal: (g + (1 - tie) (e + 1)) / (n + 1). If the prompt is drawn as the
    known ones were, that is uniform exactly, for any n and however many scores are equal, so that the prompt lies among
    the highest q with chance q (a smoothed conformal p-value, Vovk et al. 2005); a quantile of n scores would ask too
    rarely. By hand: known 0.2, 0.5, 0.5, 0.9; a prompt with 0.5 and tie 0.75 has (1 + 0.25 * 3) / 5 = 0.35.

    Args:
        scores: of the prompts, `(N,)`.
        ties: their tie-breaks in [0, 1), higher for first, `(N,)`.
        known: scores of the calibration questions, `(n,)`.
    """
    ordered = np.sort(known)  # (n,)
    below, up_to = np.searchsorted(ordered, scores, "left"), np.searchsorted(ordered, scores, "right")  # (N,) each
    ranks: Scores = (len(known) - up_to + (1 - ties) * (up_to - below + 1)) / (len(known) + 1)  # (N,)
    return ranks
