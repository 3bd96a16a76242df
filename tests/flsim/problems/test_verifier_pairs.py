"""Pairs of reference and response from public reports, with the verdict that people expect: nearly all are met.

The reports are issues and tests of lm-eval, verl, Math-Verify, simple-evals and others; `source` names which.
"""

import json
from pathlib import Path
from typing import Any

import pytest

from flsim.problems.judging import explain, verifier_of

PAIRS = [json.loads(line) for line in (Path(__file__).parent / "verifier_pairs.jsonl").read_text("utf-8").splitlines()]
KNOWN: dict[tuple[str, str, str], str] = {}
"""Verifier, reference and response of each pair that is misjudged, with a sentence that says why."""


def of(verifier: str) -> list[dict[str, Any]]:
    return [pair for pair in PAIRS if pair["verifier"] == verifier]


@pytest.mark.parametrize("verifier", sorted({pair["verifier"] for pair in PAIRS}))
def test_at_most_one_pair_in_fifty_is_misjudged_and_each_of_them_is_known(verifier: str) -> None:
    if verifier == "maths":
        pytest.importorskip("math_verify")
    pairs = of(verifier)
    verdicts = verifier_of(verifier).verdicts([(pair["reference"], pair["response"]) for pair in pairs])
    wrong = {
        (verifier, pair["reference"], pair["response"])
        for pair, verdict in zip(pairs, verdicts, strict=True)
        if verdict != pair["right"]
    }
    assert wrong == {known for known in KNOWN if known[0] == verifier}
    assert 50 * len(wrong) <= len(pairs)


def test_an_explanation_has_the_verdict() -> None:
    for verifier in ("exact", "numeric", "choice"):
        for pair in of(verifier):
            asked = pair["reference"], pair["response"]
            assert explain(verifier, *asked).right == verifier_of(verifier).verdicts([asked])[0]
