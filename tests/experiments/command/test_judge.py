"""`flsim judge` says whether a response is right and what was read in it, one by one and in bulk."""

import io
import json
from pathlib import Path
from typing import Any

import pytest

from experiments.command.__main__ import main
from experiments.command.judge import guessed


def judged(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str]:
    status = main(["judge", *arguments])
    out, err = capsys.readouterr()
    return status, (out + err).strip()


@pytest.mark.parametrize(
    ("arguments", "status", "told"),
    [
        (["20", "20", "--verifier", "numeric"], 0, "right: said 20; wanted 20"),
        (["C", "The answer is **C**."], 0, 'right: said C from "The answer is C."; wanted C'),
        (["C", "Answer: C or D"], 1, 'wrong: said more than one answer in "Answer: C or D"; wanted C'),
        (["C", "Vitamin C"], 1, 'wrong: nothing was read in "Vitamin C"; wanted C'),
        (
            ["C", "It is Paris.", "--options", "London", "Rome", "Paris"],
            0,
            'right: said C from "It is Paris."; wanted C',
        ),
        (["yes", " yes\n"], 0, "right: said yes; wanted yes"),
        (["yes", "Yes", "--verifier", "exact"], 1, "wrong: said Yes; wanted yes"),
    ],
)
def test_the_verdict_and_its_reading_are_one_sentence(
    capsys: pytest.CaptureFixture[str], arguments: list[str], status: int, told: str
) -> None:
    assert judged(capsys, *arguments) == (status, told)


def test_texts_come_from_files_and_standard_input(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "said.md").write_text("Well,\n**(C)**", encoding="utf-8-sig")
    assert judged(capsys, "C", f"@{tmp_path / 'said.md'}") == (0, 'right: said C from "(C)"; wanted C')
    monkeypatch.setattr("sys.stdin", io.StringIO("Well,\nD"))
    assert judged(capsys, "C", "-") == (1, "wrong: said D; wanted C")


def pairs(file: Path, *rows: Any) -> str:
    file.write_text("\n".join(row if isinstance(row, str) else json.dumps(row) for row in rows) + "\n")
    return str(file)


def test_pairs_that_are_judged_otherwise_are_printed_and_all_are_counted(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    rows = [
        {"reference": "C", "response": "C", "right": True},
        {"reference": "C", "response": "D"},
        {"reference": "no", "response": "No", "verifier": "exact", "right": True},
    ]
    file = pairs(tmp_path / "pairs.jsonl", rows[0], "", *rows[1:])
    status, told = judged(capsys, "--pairs", file)
    assert status == 1
    assert told.splitlines() == [
        f"{file}, line 4: expected right, judged wrong: said No; wanted no (exact)",
        "3 pairs: 1 right, 2 wrong; 1 of the 2 that say what they expect are judged otherwise",
    ]
    assert judged(capsys, "--pairs", pairs(tmp_path / "pairs.jsonl", rows[1]))[0] == 0


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ([], "a reference and a response are needed, or --pairs FILE"),
        (["5"], "a reference and a response are needed, or --pairs FILE"),
        (["-", "-"], "only one of REFERENCE and RESPONSE"),
        (["5", "5", "--pairs", "x"], "leave REFERENCE, RESPONSE and --options out"),
    ],
)
def test_a_mistaken_command_is_one_sentence(
    capsys: pytest.CaptureFixture[str], arguments: list[str], told: str
) -> None:
    with pytest.raises(SystemExit) as left:
        main(["judge", *arguments])
    assert left.value.code == 2
    assert told in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["five", "5", "--verifier", "numeric"], 'verifier numeric can read nothing in the reference "five"'),
        (["5", "5", "--verifier", "numbr"], "verifier='numbr' is unknown; there are: exact, numeric"),
        (["5", "@nowhere"], "nowhere cannot be read: No such file or directory"),
        (["C", "C", "--settings", "a"], "--settings 'a' is no KEY=VALUE"),
        (["C", "C", "--settings", "a=1"], 'verifier choice {"a": 1} does not take its settings'),
        (["C", "C", "--options", *"abcdefghijk"], "11 texts; choices are lettered from A to J"),
    ],
)
def test_what_cannot_be_judged_is_one_sentence(
    capsys: pytest.CaptureFixture[str], arguments: list[str], told: str
) -> None:
    status, said = judged(capsys, *arguments)
    assert status == 2
    assert told in said
    assert len(said.splitlines()) == 1


@pytest.mark.parametrize(
    ("rows", "told"),
    [
        ((), "holds no line"),
        (("{",), "line 1: no JSON"),
        (({"reference": "C", "response": "C"}, [1]), "line 2: a list; an object"),
        (({"reference": 5, "response": "C"},), "line 1: reference is 5; it must be a text"),
        (({"reference": "C"},), "line 1: response is null; it must be a text"),
        (({"reference": "C", "response": "C", "right": 1},), "line 1: right is 1; it must be true or false"),
        (({"reference": "five", "response": "5", "verifier": "numeric"},), "line 1: verifier numeric can read nothing"),
    ],
)
def test_a_bad_line_is_named(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, rows: tuple[Any, ...], told: str
) -> None:
    status, said = judged(capsys, "--pairs", pairs(tmp_path / "pairs.jsonl", *rows))
    assert status == 2
    assert told in said


def test_where_no_sandbox_holds_code_is_not_judged(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from flsim.problems import code, judging

    judging._kept.cache_clear()
    code._first_that_holds.cache_clear()
    monkeypatch.setattr("flsim.sandbox.helper.Helper.ask", lambda *_: ["network: connected"])
    status, said = judged(capsys, "assert f() == 1", "def f(): return 1")
    assert (status, "no sandbox holds on this host" in said) == (2, True)


@pytest.mark.parametrize(
    ("reference", "verifier"),
    [
        ("assert f(1) == 2", "code"),
        ('{"inputs": ["1"], "outputs": ["1"]}', "code"),
        ("C", "choice"),
        ("(C)", "choice"),
        ("C. Paris", "choice"),
        ("C\nA. London\nB. Rome\nC. Paris", "choice"),
        ("1,234.5", "numeric"),
        ("3/4", "numeric"),
        ("so #### 5", "numeric"),
        ("-7%", "numeric"),
        ("\\frac{1}{2}", "maths"),
        ("x^2 + 1", "maths"),
        ("yes", "exact"),
        ("Canberra", "exact"),
        ("", "exact"),
    ],
)
def test_a_reference_says_by_its_form_which_verifier_it_is_for(reference: str, verifier: str) -> None:
    assert guessed(reference) == verifier
