"""Verifiers on real data: GSM8K's answers and MBPP's solutions are right, other ones are not. And on Ray's workers."""

import ast
import json
import os
from pathlib import Path
from typing import Any

import pytest

from flsim.problems.code import CodeVerifier, NoSandboxError
from flsim.problems.judging import verifier_of
from flsim.problems.numbers import NumericVerifier
from flsim.sandbox.asserts import subjects
from flsim.sandbox.trial import FAILED, PASSED, Outcome

DATA = Path(os.environ.get("FLSIM_DATA", Path(__file__).resolve().parents[4] / "shared" / "data"))


def rows(name: str) -> list[dict[str, Any]]:
    if not (DATA / name).is_file():
        pytest.skip(f"there is no {name} in {DATA}, the folder that FLSIM_DATA names")
    return [json.loads(line) for line in (DATA / name).read_text().splitlines()]


def outcomes(pairs: list[tuple[str, str]]) -> list[Outcome]:
    try:
        verifier = CodeVerifier(cpu_s=10, wall_s=60.0)  # one solution of MBPP takes three seconds
    except NoSandboxError as error:
        pytest.skip(str(error))
    found = verifier.outcomes(pairs)
    verifier.close()
    return found


@pytest.mark.data
@pytest.mark.parametrize("name", ["gsm8k/train.jsonl", "gsm8k/test.jsonl"])
def test_gsm8k(name: str) -> None:
    """Each answer is right in three spellings; the next question's answer is right only where the numbers agree."""
    verifier, golds = NumericVerifier(), [row["answer"] for row in rows(name)]
    values = [gold.split("####")[1].strip() for gold in golds]
    assert verifier.unreadable(golds) == []
    for form in ("#### {}", "So it is \\boxed{{{}}}.", "The answer is ${}."):
        assert all(verifier.verdicts([(gold, form.format(value)) for gold, value in zip(golds, values, strict=True)]))
    shifted = values[1:] + values[:1]
    same = [value.replace(",", "") == other.replace(",", "") for value, other in zip(values, shifted, strict=True)]
    assert verifier.verdicts([(gold, f"#### {other}") for gold, other in zip(golds, shifted, strict=True)]) == same


def mbpp(row: dict[str, Any], tests: str = "test_list") -> str:
    return "\n".join([row["test_setup_code"], *row[tests]])


@pytest.mark.data
@pytest.mark.slow
def test_all_solutions_of_mbpp_pass() -> None:
    chosen = rows("mbpp/mbpp.jsonl")
    pairs = [(mbpp(row), row["code"]) for row in chosen]
    pairs += [(mbpp(row, "challenge_test_list"), row["code"]) for row in chosen if row["challenge_test_list"]]
    assert len(pairs) > 974
    assert [
        (pair, outcome) for pair, outcome in zip(pairs, outcomes(pairs), strict=True) if outcome.kind != PASSED
    ] == []


@pytest.mark.data
def test_solutions_of_mbpp_pass_their_own_tests() -> None:
    """Every 20th problem, with its own solution and with functions of the same names that return None."""
    chosen = rows("mbpp/mbpp.jsonl")[::20]
    own = outcomes([(mbpp(row), row["code"]) for row in chosen])
    assert [outcome.kind for outcome in own] == [PASSED] * len(chosen)
    idle = [f"def {name}(*_): pass" for row in chosen for name in subjects(mbpp(row))]
    assert {outcome.kind for outcome in outcomes([(mbpp(row), "\n".join(idle)) for row in chosen])} == {FAILED}


@pytest.mark.data
@pytest.mark.slow
def test_all_solutions_of_sanitized_mbpp_pass() -> None:
    """Its prompts end in a docstring whose indent is not the solution's, so only what stands before it is taken."""
    pairs = []
    for row in rows("mbpp/mbpp_sanitized.jsonl"):
        (check,) = [step for step in ast.parse(row["test"]).body if isinstance(step, ast.FunctionDef)]
        head = row["prompt"][: row["prompt"].index("    '''")]
        pairs.append(("\n".join(ast.unparse(step) for step in check.body), head + row["canonical_solution"]))
    assert [
        (pair, outcome) for pair, outcome in zip(pairs, outcomes(pairs), strict=True) if outcome.kind != PASSED
    ] == []


@pytest.mark.slow
def test_in_a_worker_of_ray_off_its_main_thread() -> None:
    """Where an alarm cannot be set: both helpers have a main thread of their own."""
    ray = pytest.importorskip("ray")
    pytest.importorskip("math_verify")
    ray.init("local", num_cpus=1, include_dashboard=False, log_to_driver=False)
    try:

        class Worker:
            def __init__(self) -> None:
                self.verifiers = {name: verifier_of(name) for name in ("maths", "code")}

            async def verdicts(self, name: str, pairs: list[tuple[str, str]]) -> list[bool]:
                return self.verifiers[name].verdicts(pairs)

        worker = ray.remote(num_cpus=1)(Worker).remote()
        maths = [("1/2", "\\boxed{0.5}"), ("1/2", "\\boxed{2}")]
        code = [("assert f(2) == 4", "def f(n): return n * n"), ("assert f(2) == 4", "import os\nos._exit(0)")]
        assert ray.get(worker.verdicts.remote("maths", maths)) == [True, False]
        assert ray.get(worker.verdicts.remote("code", code)) == [True, False]
    finally:
        ray.shutdown()
