"""Data sets as tasks: whose questions a device meets, in which split, how often, and what is refused."""

import json
import shutil
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from random import Random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from flsim.cloud.builtin import Oracle
from flsim.config.load import differences, load_config, to_yaml
from flsim.config.schema import ALL, Config, ConfigError
from flsim.devices import device_name
from flsim.loop.checks import check
from flsim.problems.code import NoSandboxError, sandbox_in_use
from flsim.problems.families import relative_difficulty
from flsim.problems.judging import are_right, verifier_of
from flsim.problems.problem import SPLITS, Problem
from flsim.tasks.partition import Assignment
from flsim.tasks.sets import DataSource, DataTask
from flsim.tasks.stream import TaskStream, proxy_problems, stream_of
from tests.flsim.tasks.own_sets import config_of, write_sums, write_votes

DEVICES = [device_name(index) for index in range(3)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_votes(write_sums(tmp_path_factory.mktemp("own")))


@pytest.fixture(scope="module")
def config(folder: Path) -> Config:
    return config_of(folder)


@pytest.fixture(scope="module")
def stream(config: Config) -> TaskStream:
    return stream_of(config)


def group(stream: TaskStream, name: str) -> DataTask:
    return next(own for own in stream.data if own.name == name)


def met(stream: TaskStream, device: str, split: str) -> set[str]:
    """All questions of `sums` that a device can meet in a split."""
    return {problem.question for problem in stream.evaluation_problems(device, split, per_task=400)["sums"]}


def test_a_device_only_meets_its_own_items(stream: TaskStream) -> None:
    for split in SPLITS:
        own = [met(stream, device, split) for device in DEVICES]
        assert all(own)
        assert len(set.union(*own)) == sum(map(len, own))
    for device in DEVICES:
        trained = {
            problem.question
            for round_ in range(1, 20)
            for problem in stream.training_problems(device, round_, 0, count=50, seed=0)
            if problem.task == "sums"
        }
        assert trained <= met(stream, device, "train")


def test_no_question_is_in_two_splits(stream: TaskStream) -> None:
    everywhere = [set.union(*(met(stream, device, split) for device in DEVICES)) for split in SPLITS]
    assert all(not one & other for one in everywhere for other in everywhere if one is not other)


@given(st.integers(0, 200), st.sampled_from(DEVICES), st.sampled_from(SPLITS))
def test_a_test_set_holds_no_item_twice(stream: TaskStream, count: int, device: str, split: str) -> None:
    """It is as large as asked for or as the device has items; a larger set begins with the smaller one."""

    def drawn(most: int | str) -> list[str]:
        found = stream.evaluation_problems(device, split, per_task=1, items=most)["sums"]
        return [problem.question for problem in found]

    held = stream.items_held(device, split)["sums"]
    assert len(drawn(count)) == len(set(drawn(count))) == min(count, held)
    assert drawn(count + 7)[:count] == drawn(count)
    assert set(drawn(ALL)) == met(stream, device, split)
    assert len(drawn(ALL)) == held
    by_default = stream.evaluation_problems(device, split, per_task=count)
    assert [problem.question for problem in by_default["sums"]] == drawn(count)
    assert len(by_default["lists"]) == count


def test_every_item_is_as_likely_to_be_sampled(stream: TaskStream) -> None:
    """Of 4 items, the first 2 of 600 draws: each item comes 300 times, give or take four standard errors (49)."""
    own = group(stream, "sums")
    items = [problem.question for problem in own.draw_set(0, "test", 4, Random(0))]
    few = DataSource(
        [i for i in own.source.items if i.question in items],
        Assignment(np.zeros(4, dtype=np.int32), np.full(4, SPLITS.index("test"), dtype=np.int8), ("one",)),
        own.source.verifier,
        needs=("test",),
    )
    drawn = Counter(
        problem.question
        for seed in range(600)
        for problem in replace(own, source=few).draw_set(0, "test", 2, Random(seed))
    )
    assert set(drawn) == set(items)
    assert all(abs(times - 300) < 49 for times in drawn.values())


def test_draws_are_a_pure_function_of_config_and_files(config: Config, folder: Path, tmp_path: Path) -> None:
    """Read anew, as another worker does, and from another place."""
    elsewhere = tmp_path / "elsewhere"
    shutil.copytree(folder, elsewhere)
    one, other = stream_of(config), stream_of(config_of(elsewhere))
    assert one != other
    for device in DEVICES:
        assert one.training_problems(device, 1, 0, count=30, seed=5) == other.training_problems(
            device, 1, 0, count=30, seed=5
        )
        tests = [s.evaluation_problems(device, "test", per_task=9) for s in (one, other)]
        assert tests[0] == tests[1]


def test_equal_configs_share_what_was_read(config: Config) -> None:
    assert stream_of(config) == stream_of(replace(config, seed=9))
    assert hash(stream_of(config)) == hash(stream_of(config))
    assert stream_of(config).data[0] is stream_of(replace(config, rounds=7)).data[0]
    assert stream_of(config).data[0] is not stream_of(replace(config, stream=replace(config.stream, seed=1))).data[0]


def test_a_data_set_among_them_changes_no_question_of_the_built_in_world(stream: TaskStream) -> None:
    """The test questions of a built-in group are those that it has alone, wherever it stands."""
    alone = TaskStream(replace(stream.config, phases=(("lists",),)), 2)
    for device in DEVICES:
        mixed = stream.evaluation_problems(device, "test", per_task=12)
        assert mixed["lists"] == alone.evaluation_problems(device, "test", per_task=12)["lists"]
        assert tuple(mixed) == stream.tasks == ("sums", "votes", "lists")


def test_the_phases_need_no_data(folder: Path, tmp_path: Path) -> None:
    """A comparison reads a run's config where its data are not."""
    gone = config_of(tmp_path)  # where no file is
    bare = TaskStream(gone.stream, gone.rounds)
    assert bare.tasks == ("sums", "votes", "lists")
    assert [phase.tasks for phase in bare.phases] == [("sums",), ("votes", "lists")]
    assert set(bare.mixture("device-000", 2)) == set(bare.tasks)
    with pytest.raises(ConfigError, match=r"^data\.sums: files: the all file is not there; looked for .*sums\.jsonl"):
        stream_of(gone)


def test_an_item_becomes_a_problem(stream: TaskStream) -> None:
    """Levels 1 and 2 are the easiest and the hardest of `sums`; `votes` has a label to score, and no level."""
    sums = stream.evaluation_problems("device-000", "test", per_task=40)["sums"]
    one = next(problem for problem in sums if problem.level == 1)
    two = next(problem for problem in sums if problem.level == 2)
    assert (relative_difficulty(one), relative_difficulty(two)) == (0.0, 1.0)
    assert (one.verifier, one.instruction, one.score_label, one.prompt) == ("exact", "", None, one.question)
    assert one.answer == str(eval(one.question.removesuffix("=")))
    assert one.family in ("odd", "even")
    votes = stream.evaluation_problems("device-001", "test", per_task=40)["votes"]
    assert {(problem.answer, problem.score_words, problem.score_label) for problem in votes} == {
        ("b", ("a", "b"), 1),
        ("a", ("a", "b"), 0),
    }
    assert {relative_difficulty(problem) for problem in votes} == {0.0}


def test_score_labels_may_be_of_more_than_two_classes(tmp_path: Path) -> None:
    """Each class is one answer; a class that has two, or that no item has, is refused."""
    words = ("low", "mid", "high")
    rows = [{"q": f"{n}+1=", "a": words[n % 3], "class": n % 3} for n in range(90)]
    (tmp_path / "sizes.jsonl").write_text("\n".join(map(json.dumps, rows)))
    columns = "columns: {question: q, answer: a, score_label: class}"
    file = tmp_path / "own.yaml"
    file.write_text(
        "fleet: {devices: 2}\nstream: {phases: [[sizes]]}\ndata:\n  sizes:\n    kind: files\n    partition: evenly\n"
        f"    root: {tmp_path}\n    settings: {{files: {{all: sizes.jsonl}}, {columns}}}\n"
    )
    problems = stream_of(load_config(file)).evaluation_problems("device-000", "train", per_task=90)["sizes"]
    assert {problem.score_words for problem in problems} == {words}
    assert {(problem.score_label, problem.answer) for problem in problems} == set(enumerate(words))
    (tmp_path / "sizes.jsonl").write_text("\n".join(json.dumps(row) for row in rows if row["class"] != 1))
    with pytest.raises(ConfigError, match="sizes: no item has score_label 1, though one has 2; number them from 0"):
        stream_of(load_config(file, ["stream.seed=1"]))


def test_proxy_questions_are_those_of_the_split_and_no_more_than_there_are(stream: TaskStream) -> None:
    sets = {
        split: proxy_problems(["sums", "lists"], split, count=60, rng=Random(0), data=stream.data) for split in SPLITS
    }
    for split, problems in sets.items():
        questions = [problem.question for problem in problems]
        assert len(questions) == len(set(questions)) == 60
        own = [problem.question for problem in problems if problem.task == "sums"]
        assert len(own) == 30
        source = group(stream, "sums").source
        there = zip(source.items, source.assignment.split.tolist(), strict=True)
        assert set(own) <= {item.question for item, number in there if SPLITS[number] == split}
    only = proxy_problems(["sums"], "test", count=1000, rng=Random(0), data=stream.data)
    assert len(only) == len({problem.question for problem in only}) < 200


def test_the_mixture_over_groups_is_the_streams(stream: TaskStream) -> None:
    """By hand: of 4,000 questions in round 2 each group has its share of the mixture, within 3 standard deviations."""
    shares = stream.mixture("device-001", 2)
    drawn = Counter(problem.task for problem in stream.training_problems("device-001", 2, 0, count=4000, seed=0))
    for name in stream.tasks:
        assert abs(drawn[name] / 4000 - shares[name]) <= 3 * (shares[name] * (1 - shares[name]) / 4000) ** 0.5
    assert shares["sums"] == drawn["sums"] == 0


def test_leaf_gives_every_device_one_user(tmp_path: Path) -> None:
    users = {f"w{number}": [f"{number}{at}+{at}=" for at in range(30)] for number in range(5)}
    for split, chosen in (("train", slice(0, 24)), ("test", slice(24, 30))):
        data = {user: {"x": asked[chosen], "y": ["1"] * len(asked[chosen])} for user, asked in users.items()}
        (tmp_path / split).mkdir()
        content = {"users": list(users), "num_samples": [len(own["x"]) for own in data.values()], "user_data": data}
        (tmp_path / split / "all.json").write_text(json.dumps(content))
    settings = [
        "stream.phases=[[leaf]]",
        "data.leaf.kind=leaf",
        "data.leaf.partition=user",
        "data.leaf.keep_user_ids=true",
        f"data.leaf.root={tmp_path}",
    ]
    stream = stream_of(load_config(None, [*settings, "fleet.devices=5", "rounds=1"]))
    names = stream.data[0].source.assignment.names
    assert set(names) == set(users)
    for device, user in enumerate(names):
        for split in SPLITS:
            tests = stream.evaluation_problems(device_name(device), split, per_task=24)["leaf"]
            assert {problem.question for problem in tests} <= set(
                users[user][24:] if split == "test" else users[user][:24]
            )


def test_the_same_words_for_devices_and_cloud(folder: Path) -> None:
    """The verifier's own words unless the config has others, and its settings travel in its name."""
    (own, *_) = stream_of(config_of(folder, "data.sums.verifier=numeric", phases="[[sums]]")).data
    problem = own.draw(0, "test", Random(0))
    assert problem.prompt == f"{verifier_of('numeric').instruction}\n\n{problem.question}"
    more = ["data.sums.verifier=maths", "data.sums.verifier_settings.wall_s=9.0", "data.sums.instruction=Add."]
    pytest.importorskip("math_verify")
    (own, *_) = stream_of(config_of(folder, *more, phases="[[sums]]")).data
    problem = own.draw(0, "test", Random(0))
    assert (problem.prompt, problem.verifier) == (f"Add.\n\n{problem.question}", 'maths {"wall_s": 9.0}')
    assert are_right(
        [(problem, problem.right_text), (problem, f"It is\n\\boxed{{{problem.answer}}}"), (problem, "0")]
    ) == [
        True,
        True,
        False,
    ]


def test_what_no_completion_could_meet_is_left_out_and_told(tmp_path: Path) -> None:
    rows = [{"q": f"{n}+1=", "a": str(n + 1) if n % 5 else "who knows"} for n in range(300)]
    (tmp_path / "sums.jsonl").write_text("\n".join(map(json.dumps, rows)))
    more = ["data.sums.verifier=numeric", "data.sums.partition=evenly"]
    more += ["data.sums.settings.columns={question: q, answer: a}"]
    write_votes(tmp_path)
    text = to_yaml(config_of(tmp_path, *more, phases="[[sums]]"))
    text = "\n".join(line for line in text.splitlines() if line.strip() not in ("label: kind", "level: digits"))
    (tmp_path / "without.yaml").write_text(text)
    (own, *_) = stream_of(load_config(tmp_path / "without.yaml")).data
    assert len(own.source.items) == 240
    (said,) = own.told
    assert "data.sums: left out the items of 1 references" in said
    assert "verifier numeric, such as 'who knows'" in said


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["stream.phases=[[sums, sumz]]"], r"phases\[0\] names 'sumz'.*arithmetic.*and those of data: sums, votes"),
        (["data.lists.kind=files"], r"data\.lists: 'lists' is a task of the built-in world"),
        (["data.all.kind=files"], r"data\.all: 'all' is a task of"),
        (["data.sums.kind=gsm9k"], r"data\.sums\.kind='gsm9k' is not known; choose one of: gsm8k"),
        (["data.new.root=x"], r"data\.new\.kind is missing; choose one of: gsm8k"),
        (["data.sums.alpha=-1"], r"data\.sums\.alpha=-1\.0 must be at least 0"),
        (["data.sums.alpha=.nan"], r"data\.sums\.alpha=.\.nan. in the overrides must be a number"),
        (["data.votes.alpha=2"], r"data\.votes\.alpha=2\.0 has no effect with partition=user; it belongs to dirichlet"),
        (["data.sums.least=2"], r"data\.sums\.least=2 has no effect with partition=dirichlet"),
        (["data.sums.partition=iid"], r"sums\.partition='iid' is not known; choose one of: dirichlet, user, evenly"),
        (["data.sums.over=mood"], r"data\.sums\.over='mood' is not known; choose one of: label, level, user"),
        (["data.sums.splits=random"], r"data\.sums\.splits='random' is not known; choose one of: official, hash"),
        (["data.sums.verifier=guess"], r"data\.sums\.verifier='guess' is not known; choose one of: exact, numeric"),
        (["data.sums.verifier=gym"], r"data\.sums\.verifier='gym' does not fit kind=files"),
        (["data.sums.quantity_sigma=inf"], r"data\.sums\.quantity_sigma=inf must be at least 0 and finite"),
        (["data.sums.alhpa=1"], r"unknown key .data\.sums\.alhpa. in the overrides; did you mean data\.sums\.alpha"),
        (["data.a b.kind=leaf"], r"the name 'a b' must begin with a letter"),
    ],
)  # fmt: skip
def test_wrong_settings_are_refused_with_the_mend(folder: Path, more: list[str], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        check(config_of(folder, *more))


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["data.sums.root=nowhere"], r"data\.sums: files: the all file is not there; looked for nowhere/sums\.jsonl"),
        (["data.sums.settings.column=x"], r"data\.sums: files was given .*unexpected keyword argument 'column'"),
        (["data.sums.partition=user"], r"data\.sums: partition: .*sums\.jsonl, row 1 .* has no user; it has: label"),
        (["fleet.devices=7"], r"data\.votes: partition by user: 7 devices of 1 user\(s\) each, but there are 6 users"),
        (["fleet.devices=60", "data.sums.partition=evenly"],
         r"sums: 17 of 60 devices have no test .*; the data set has 43\. fleet\.devices=43 is the most that fits$"),
        (["data.sums.settings.columns.answer=kind", "data.sums.verifier=numeric"],
         r"data\.sums: no item is left: by the verifier numeric no completion could meet"),
        (["data.sums.verifier=exact", "data.sums.verifier_settings.wall_s=1"],
         r"data\.sums: the verifier exact .* cannot be used: .*ExactVerifier"),
        (["data.sums.settings.columns.score_label=digits"], "sums: no item has score_label 0, though one has 2"),
        (["data.sums.settings.columns.user=true"], r"columns: user is True, not the name of a column"),
        (["data.votes.settings.columns.answer=ask"],
         r"data\.votes: the items with score_label 0 have \d+ different answers"),
    ],
)  # fmt: skip
def test_data_that_cannot_be_used_are_refused_with_the_mend(folder: Path, more: list[str], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        stream_of(config_of(folder, *more))


def test_a_verifier_that_cannot_work_here_is_told_with_the_mend(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("flsim.problems.maths.find_spec", lambda _: None)
    more = ["data.sums.verifier=maths", "data.sums.verifier_settings.wall_s=7.5"]  # not made before in this process
    with pytest.raises(ConfigError, match=r"data\.sums: the verifier maths .*not installed: pip install"):
        stream_of(config_of(folder, *more))


def test_unequal_quantities(folder: Path) -> None:
    equal, unequal = (
        [group(stream_of(config_of(folder, *more)), "sums").source.size(device, "train") for device in range(3)]
        for more in (["data.sums.partition=evenly"], ["data.sums.partition=evenly", "data.sums.quantity_sigma=1"])
    )
    assert max(equal) - min(equal) <= 1
    assert max(unequal) > 2 * min(unequal)
    assert sum(equal) == sum(unequal)


def test_a_config_with_data_is_written_and_read_back(config: Config, folder: Path, tmp_path: Path) -> None:
    (tmp_path / "again.yaml").write_text(to_yaml(config))
    again = load_config(tmp_path / "again.yaml", ["name=own"])
    assert again == config
    assert differences(config, config_of(folder, "data.sums.alpha=inf")) == ["data.sums.alpha: 1.0 -> inf"]
    assert differences(config, config_of(folder, "data.sums.root=elsewhere")) == []


REFERENCES = {
    "exact": ("b", "b", "c"),
    "numeric": ("18", "so\n#### 18", "#### 17"),
    "maths": ("\\frac{1}{2}", "\\boxed{0.5}", "\\boxed{2}"),
    "choice": ("C", "The answer is (C)", "(D)"),
}


@pytest.mark.parametrize("name", REFERENCES)
def test_a_reference_is_itself_a_right_answer(name: str) -> None:
    """So `Problem.right_text` needs no solution but for code, and a cloud that knows is right."""
    if name == "maths":
        pytest.importorskip("math_verify")
    reference, right, wrong = REFERENCES[name]
    problem = Problem("own", "", 0, "?", reference, verifier=name)
    assert are_right([(problem, text) for text in (problem.right_text, right, wrong)]) == [True, True, False]


def test_the_yaml_of_the_page_is_a_config(tmp_path: Path) -> None:
    page = (Path(__file__).resolve().parents[3] / "docs" / "data.md").read_text()
    (tmp_path / "page.yaml").write_text(page.split("```yaml\n")[1].split("```")[0])
    config = load_config(tmp_path / "page.yaml", ["data.gsm8k.alpha=0.1"])
    assert list(config.data) == ["gsm8k", "mbpp", "mine", "films", "shakespeare"]
    assert config.data["gsm8k"].alpha == 0.1
    assert set(TaskStream(config.stream, config.rounds).tasks) == set(config.data)


def test_an_oracle_of_code_needs_solutions(tmp_path: Path) -> None:
    sandbox_or_skip()
    rows = [{"q": f"Add {n}.", "a": f"assert add(1) == {1 + n}", "s": f"def add(a): return a + {n}"} for n in range(60)]
    (tmp_path / "code.jsonl").write_text("\n".join(map(json.dumps, rows)))
    more = ["rounds=1", "fleet.devices=2", "stream.phases=[[own]]", "cloud.kind=oracle", f"data.own.root={tmp_path}"]
    more += ["data.own.kind=files", "data.own.partition=evenly", "data.own.verifier=code"]
    columns = "question: q, answer: a"
    bare = load_config(None, [*more, f"data.own.settings={{files: {{all: code.jsonl}}, columns: {{{columns}}}}}"])
    with pytest.raises(ConfigError, match=r"data\.own: an oracle knows no right code.*map a column to solution"):
        Oracle().check(stream_of(bare), 1)
    columns += ", solution: s"
    more.append(f"data.own.settings={{files: {{all: code.jsonl}}, columns: {{{columns}}}}}")
    problem = stream_of(load_config(None, more)).data[0].draw(1, "test", Random(0))
    assert are_right([(problem, problem.right_text), (problem, "def add(a): return 0")]) == [True, False]


@pytest.mark.data
def test_real_gsm8k_then_mbpp(real: Callable[[str], Path]) -> None:
    """The sizes of the splits are those that were counted; every device's answers pass their own verifier."""
    sandbox_or_skip()
    roots = [f"data.{name}.{key}" for name in ("gsm8k", "mbpp") for key in (f"kind={name}", f"root={real(name)}")]
    more = ["rounds=2", "fleet.devices=8", "stream.phases=[[gsm8k],[mbpp]]", "data.gsm8k.over=level"]
    stream = stream_of(load_config(None, [*more, *roots]))
    sizes = [Counter(own.source.assignment.split.tolist()) for own in stream.data]
    assert [[size[split] for split in range(3)] for size in sizes] == [[6562, 911, 1319], [384, 90, 500]]
    for device in range(8):
        sets = stream.evaluation_problems(device_name(device), "validation", per_task=3)
        assert all(are_right([(problem, problem.right_text) for own in sets.values() for problem in own]))


def sandbox_or_skip() -> None:
    try:
        sandbox_in_use()
    except NoSandboxError as error:
        pytest.skip(str(error))


def test_users_of_a_seed_are_other_users(folder: Path) -> None:
    asked = "data.votes.keep_user_ids=true"
    names = [
        group(stream_of(config_of(folder, asked, f"stream.seed={seed}")), "votes").source.assignment.names
        for seed in range(4)
    ]
    assert any(one != other for one, other in pairwise(names))
