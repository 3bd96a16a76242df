"""Reward functions in TRL's form as verifiers: what they get, what counts as right, and what is told of broken ones."""

import asyncio
import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import flsim
from experiments.command import judge as judge_command
from flsim.config.schema import ConfigError
from flsim.problems.judging import called, explain, verifier, verifier_of
from flsim.problems.rewards import RewardVerifier
from flsim.sandbox.helper import VerifierError
from flsim.tasks.load import load
from flsim.tasks.stream import stream_of
from tests.flsim.tasks.own_sets import config_of, write_sums, write_votes
from tests.tiny import TinyRun

TINY = ("client.path=clients.sft:Sft",)
REWARDS = '''
def near(prompts, completions, answer, **kwargs) -> list[float | None]:
    """1 for the number, less the further off, None where the answer is no number."""
    return [
        None if not a.isdigit() else 1 / (1 + abs(int(a) - int(c))) if c.strip().isdigit() else 0.0
        for c, a in zip(completions, answer, strict=True)
    ]


def exact(completions, answer):
    return [c == a for c, a in zip(completions, answer, strict=True)]


def odd_only(completions, label, answer, **kwargs):
    return [None if kind == "even" else float(c == a) for c, a, kind in zip(completions, answer, label, strict=True)]


def by_digits(prompts, completions, digits, kind, **kwargs):
    assert all(prompt.startswith("Go.\\n\\n") for prompt in prompts)
    return [float(len(c) == d and k in ("odd", "even")) for c, d, k in zip(completions, digits, kind, strict=True)]


def chatty(completions: list[list[dict[str, str]]], **kwargs):
    said = [completion[0] for completion in completions]
    return [float(one["content"] == "yes" and one["role"] == "assistant") for one in said]


async def later(completions, answer, **kwargs):
    import asyncio

    await asyncio.sleep(0)
    return [float(c == a) for c, a in zip(completions, answer, strict=True)]


class Form:
    """An object that can be called, as some of TRL's own are."""

    def __call__(self, completions, **kwargs):
        return [float(c.startswith("<think>")) for c in completions]


form = Form()


def fails(completions, answer, **kwargs):
    return [int(c) / int(a) for c, a in zip(completions, answer, strict=True)]


def brittle(completions, answer, **kwargs):
    if completions != answer:  # which it is tried on before the run
        raise RuntimeError("the judge is away")
    return [1.0] * len(completions)


def short(completions, **kwargs):
    return [1.0]


def words(completions, **kwargs):
    return ["good"] * len(completions)


def nothing(completions, **kwargs):
    return None


def trainers(completions, completion_ids, **kwargs):
    return [1.0] * len(completions)


def needs(completions, colour, **kwargs):
    return [1.0] * len(completions)


def logs(completions, log_extra, log_metric, **kwargs):
    log_extra("x", completions)
    log_metric("y", 1.0)
    return [float("nan")] * len(completions)
'''


@pytest.fixture
def rewards(tmp_path: Path) -> str:
    """The path of a file of reward functions, up to the function."""
    (tmp_path / "rewards.py").write_text(REWARDS)
    return f"{tmp_path / 'rewards.py'}:"


def judged(path: str, *pairs: tuple[str, str], **settings: Any) -> list[bool]:
    """Verdicts of (answer, completion)."""
    found = verifier_of(path, **settings)
    assert isinstance(found, RewardVerifier)
    return found.verdicts([(found.reference_of("?", {"answer": answer, "solution": answer}), c) for answer, c in pairs])


@given(st.lists(st.tuples(st.integers(0, 20), st.integers(0, 20)), max_size=30), st.floats(0.01, 1))
def test_right_is_a_reward_from_the_threshold_on(pairs: list[tuple[int, int]], threshold: float) -> None:
    def closeness(completions: list[str], answer: list[str], **_: Any) -> list[float]:
        return [1 / (1 + abs(int(a) - int(c))) for c, a in zip(completions, answer, strict=True)]

    found = RewardVerifier("closeness", closeness, threshold=threshold)
    told = [(found.reference_of("?", {"answer": str(a)}), str(c)) for a, c in pairs]
    assert found.verdicts(told) == [1 / (1 + abs(a - c)) >= threshold for a, c in pairs]
    assert found.verdicts(told) == [found.verdicts([one])[0] for one in told]


def test_numbers_by_hand(rewards: str) -> None:
    pairs = ("4", "4"), ("4", "5"), ("4", "7"), ("4", "four"), ("who", "4")
    assert judged(rewards + "near", *pairs) == [True, False, False, False, False]
    assert judged(rewards + "near", *pairs, threshold=0.5) == [True, True, False, False, False]
    assert judged(rewards + "exact", *pairs) == [True, False, False, False, False]
    assert judged(rewards + "later", *pairs) == [True, False, False, False, False]
    assert judged(rewards + "form", ("", "<think>"), ("", "no")) == [True, False]
    assert judged(rewards + "chatty", ("", "yes"), ("", "no")) == [True, False]
    assert judged(rewards + "logs", ("", "yes")) == [False]


def test_a_coroutine_is_run_also_within_a_loop(rewards: str) -> None:
    async def notebook() -> list[bool]:
        return judged(rewards + "later", ("4", "4"), ("4", "5"))

    assert asyncio.run(notebook()) == [True, False]


def test_chat_messages_are_given_to_whoever_is_said_to_read_them(rewards: str) -> None:
    with pytest.raises(VerifierError, match=r"chatty raised TypeError: string indices"):
        judged(rewards + "chatty", ("", "yes"), chat=False)
    assert verifier_of(rewards + "chatty", chat=True).verdicts([("", "yes")]) == [True]


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("fails", r"fails raised ValueError: invalid literal .* for the completion 'x' of '\?'; mend it, or let it"),
        ("short", r"short returned 1 rewards; it must return one number, or None, for each of the 2 completions"),
        ("words", r"words returned 'good' as a reward; it must"),
        ("nothing", r"nothing returned None; it must"),
        ("needs", r"needs the column 'colour'; items have: answer, solution\. Keep it by .*keep=\[colour\]"),
    ],
)
def test_what_a_broken_one_does_is_told(rewards: str, name: str, message: str) -> None:
    with pytest.raises(VerifierError, match=message):
        judged(rewards + name, ("4", "4"), ("4", "x"))


def test_what_only_a_trainer_has_is_refused(rewards: str) -> None:
    with pytest.raises(ConfigError, match="trainers needs completion_ids, which only TRL's trainer has"):
        verifier_of(rewards + "trainers")


def test_a_set_is_judged_by_it(rewards: str, tmp_path: Path) -> None:
    """Items that it does not apply to are left out and told; references hold what it needs; solutions stay."""
    write_votes(write_sums(tmp_path))
    config = config_of(tmp_path, f"data.sums.verifier={rewards}odd_only", phases="[[sums]]")
    (task,) = stream_of(config).data
    assert {item.label for item in task.source.items} == {"odd"}
    assert len(task.source.items) == 200
    assert any("left out 190 items to whose own solutions the reward function" in said for said in task.told)
    problem = task.problem(task.source.items[0])
    assert problem.right_text == str(sum(map(int, problem.question.rstrip("=").split("+"))))
    assert explain(problem.verifier, problem.answer, problem.right_text).right
    assert not explain(problem.verifier, problem.answer, "1").right


def test_columns_that_were_kept_are_given_by_name(rewards: str, tmp_path: Path) -> None:
    write_votes(write_sums(tmp_path))
    keep = "data.sums.settings.keep=[digits, kind]"
    more = f"data.sums.verifier={rewards}by_digits", "data.sums.instruction=Go.", keep
    (task,) = stream_of(config_of(tmp_path, *more, phases="[[sums]]")).data
    item = next(item for item in task.source.items if item.level == 2)
    assert item.extra == f'{{"digits": 2, "kind": "{item.label}"}}'
    problem = task.problem(item)
    assert problem.prompt.startswith("Go.\n\n")
    assert verifier(problem.verifier).verdicts([(problem.answer, "12"), (problem.answer, "1")]) == [True, False]
    with pytest.raises(ConfigError, match=r"sums\.jsonl, row 1: there is no column 'colour'; the columns are: q, a"):
        stream_of(config_of(tmp_path, *more[:2], "data.sums.settings.keep=[colour]", phases="[[sums]]"))
    with pytest.raises(ConfigError, match="keep: a reward function gets prompts of the run"):
        load("files", tmp_path, files={"all": "sums.jsonl"}, columns={"question": "q", "answer": "a"}, keep=["prompts"])


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["data.sums.verifier={}fails"], r"data\.sums: the verifier .*fails cannot be used: .*raised ValueError"),
        (["data.sums.verifier={}needs"], r"needs the column 'colour'; items have: answer, solution, label, level"),
        (["data.sums.verifier={}trainers"], "needs completion_ids"),
        (["data.sums.verifier={}exact", "data.sums.verifier_settings.treshold=1"], "unexpected keyword .*treshold"),
        (["data.votes.verifier={}exact"], "row 1 has a score_label, and the reward function"),
    ],
)
def test_what_cannot_work_is_refused_before_a_run(rewards: str, tmp_path: Path, more: list[str], message: str) -> None:
    write_votes(write_sums(tmp_path))
    (tmp_path / "sums.jsonl").write_text((tmp_path / "sums.jsonl").read_text().replace('"a": "2"', '"a": "0.5"'))
    with pytest.raises(ConfigError, match=message):
        stream_of(config_of(tmp_path, *(text.replace("{}", rewards) for text in more)))


def test_one_that_costs_money_is_not_tried_before(rewards: str, tmp_path: Path) -> None:
    write_votes(write_sums(tmp_path))
    more = f"data.sums.verifier={rewards}odd_only", "data.sums.verifier_settings.check=false"
    (task,) = stream_of(config_of(tmp_path, *more, phases="[[sums]]")).data
    assert len(task.source.items) == 390
    assert task.source.verifier == called(f"{rewards}odd_only", {"check": False})


def test_the_command_judges_by_it(rewards: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert judge_command.main(["4", "5", "--verifier", rewards + "near"]) == 1
    assert capsys.readouterr().out == "wrong: said a reward of 0.5; wanted at least 1\n"
    assert judge_command.main(["4", "5", "--verifier", rewards + "near", "--settings", "threshold=0.5"]) == 0


def test_a_run_learns_from_it(
    rewards: str, tiny_run: TinyRun, tmp_path: Path, no_report: None, one_thread: None
) -> None:
    write_sums(tmp_path)
    more = [
        "stream.phases=[[sums]]",
        "data.sums.kind=files",
        f"data.sums.root={tmp_path}",
        "data.sums.settings={files: {all: sums.jsonl}, columns: {question: q, answer: a, label: kind, level: digits}}",
        f"data.sums.verifier={rewards}near",
        "data.sums.verifier_settings.threshold=0.01",
    ]
    rows = flsim.run(tiny_run("run", *more), progress=False).rows
    assert not (rows["name"] == "set_aside").any()
    right, bought = (rows[rows["name"] == name]["total"].sum() for name in ("reward", "cloud_purchases"))
    assert right == bought > 0  # an oracle says the solution, and that is right


def test_one_that_fails_in_a_run_sets_the_device_aside(
    rewards: str, tiny_run: TinyRun, tmp_path: Path, no_report: None, one_thread: None
) -> None:
    """It is never taken for a wrong answer, and the log says what it failed on."""
    write_sums(tmp_path)
    columns = "{question: q, answer: a, label: kind, level: digits}"
    more = [
        "stream.phases=[[sums]]",
        "data.sums.kind=files",
        f"data.sums.root={tmp_path}",
        f"data.sums.settings={{files: {{all: sums.jsonl}}, columns: {columns}}}",
        f"data.sums.verifier={rewards}brittle",
    ]
    run = flsim.run(tiny_run("run", *more), progress=False)
    assert set(run.rows[run.rows["name"] == "set_aside"]["device"]) == {"device-000", "device-001"}
    log = (run.folder / "run.log").read_text()
    assert re.search(r"brittle raised RuntimeError: the judge is away for the completion '.*' of '\d+\+\d+='", log)


def test_the_function_of_the_page_does_what_the_page_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    page = (Path(__file__).parents[3] / "docs" / "data.md").read_text().split("## Reward functions")[1]
    (code, *_) = re.findall(r"```python\n(.*?)```", page, flags=re.DOTALL)
    (tmp_path / "my_rewards.py").write_text(code)
    monkeypatch.chdir(tmp_path)
    assert judge_command.main(["4", "5", "--verifier", "my_rewards.py:near"]) == 1
    assert capsys.readouterr().out.strip() in page
    assert judge_command.main(["4", "5", "--verifier", "my_rewards.py:near", "--settings", "threshold=0.5"]) == 0


@pytest.mark.parametrize("threshold", ["high", True, float("nan")])
def test_a_threshold_is_a_number(threshold: Any) -> None:
    with pytest.raises(ConfigError, match="is no number"):
        RewardVerifier("mine", lambda prompts, completions: [1.0], threshold=threshold)
