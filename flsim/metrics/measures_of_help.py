"""Measures of how devices are helped: what a test question takes on its way to the cloud and back, and what of drafts.

All are of a test question of any kind, granted or not, so that modes of help are compared at equal budgets; those of
drafts are of the users who had any (docs/collaboration.md).
"""

from flsim.metrics.formulas import AtEnd, MeanUser, Trained
from flsim.metrics.measure import Measure
from flsim.metrics.offloading import cost_per_correct


def share(part: float, whole: float) -> float:
    """Part of a whole; nan of nothing."""
    return part / whole if whole > 0 else float("nan")


def tokens_per_request(accepted: float, requests: float) -> float:
    """Tokens of an answer for each request that verifies a draft: those accepted, and one of the cloud's own.

    It is what `E(a, k) = (1 - a^(k + 1)) / (1 - a)` says of drafts of k tokens, each accepted with the chance a
    (Leviathan et al. 2023, arXiv 2211.17192). An answer that ends with an accepted token has one less. By hand: 6
    accepted in 3 requests are 3 tokens for each.
    """
    return 1 + accepted / requests if requests > 0 else float("nan")


def _per_right(taken: str) -> MeanUser:
    return MeanUser((taken, "accuracy"), lambda v: cost_per_correct(v[0], v[1]))


OF_HELP = (
    Measure("trips", "requests", "index", "Requests to the cloud for a test question, granted or not, at the end.",
            AtEnd("cloud_test_trips"), "help", higher_is_better=False),
    Measure("cloud_test_tokens", "cloud tokens", "tokens",
            "Tokens of the cloud, prompt and completion, for a test question, granted or not, at the end.",
            AtEnd("cloud_test_tokens"), "help", higher_is_better=False),
    Measure("question_bytes", "bytes", "bytes",
            "Bytes to and from the cloud for a test question, granted or not, at the end: texts, ids of tokens, hidden "
            "states; what a request carries beside is system.cloud.request_bytes.",
            AtEnd("cloud_test_bytes"), "help", higher_is_better=False),
    *(Measure(f"{name}_per_right", f"{title} per right answer", unit,
              f"{said} for a test question over accuracy, of the mean user.", _per_right(of), "help")
      for name, of, title, unit, said in (
          ("trips", "trips", "requests", "index", "Requests to the cloud"),
          ("cloud_tokens", "cloud_test_tokens", "cloud tokens", "tokens", "Tokens of the cloud"),
          ("bytes", "question_bytes", "bytes", "bytes", "Bytes to and from the cloud"))),
    Measure("drafted", "drafted", "tokens", "Tokens that a device drafts for a test question, at the end.",
            AtEnd("drafted_tokens"), "help"),
    Measure("accepted", "accepted", "tokens", "Those of them that the cloud would have said as well.",
            AtEnd("accepted_tokens"), "help"),
    Measure("acceptance", "acceptance", "share", "accepted over drafted, of the mean user.",
            MeanUser(("accepted", "drafted"), lambda v: share(v[0], v[1])), "help"),
    Measure("tokens_per_request", "tokens per verification", "index",
            "1 + accepted over requests, of the mean user: tokens of an answer for each request that verifies a draft.",
            MeanUser(("accepted", "trips"), lambda v: tokens_per_request(v[0], v[1])), "help"),
    Measure("computed_again", "computed again", "index",
            "Places of a test question that the cloud computed again, alone, since rounding might have decided them.",
            AtEnd("computed_again"), "help", higher_is_better=False),
    Measure("training_acceptance", "acceptance in training", "share",
            "Share of the tokens drafted while training that were accepted, over the whole run, per user.",
            Trained("accepted_tokens"), "help", followed=True),
)  # fmt: skip
