"""Task files of lm_eval as data sets: questions, targets and verdicts are those of lm_eval itself."""

import json
from pathlib import Path
from typing import Any

import pytest

import flsim
from flsim.config.load import load_config
from flsim.config.schema import ConfigError
from flsim.problems.harness import task_of
from flsim.problems.judging import explain, verifier
from flsim.problems.problem import SPLITS
from flsim.tasks.load import load
from flsim.tasks.stream import stream_of
from tests.tiny import RUN

pytestmark = pytest.mark.ecosystem
pytest.importorskip("lm_eval", reason="task files are read by lm_eval, an extra")

SUMS = """
task: own_sums
dataset_path: json
dataset_kwargs: {data_files: {train: FOLDER/sums-train.jsonl, test: FOLDER/sums-test.jsonl}}
output_type: generate_until
training_split: train
test_split: test
doc_to_text: "Question: {{question}}\\nAnswer:"
doc_to_target: "{{answer}}"
metric_list:
  - {metric: exact_match, aggregation: mean, higher_is_better: true, regexes_to_ignore: [",", "(?s).*#### "]}
generation_kwargs: {until: ["Question:"], do_sample: false}
num_fewshot: 5
filter_list:
  - {name: strict, filter: [{function: regex, regex_pattern: "#### (-?[0-9.,]+)"}, {function: take_first}]}
  - name: flexible
    filter: [{function: regex, group_select: -1, regex_pattern: "(-?[$0-9.,]{2,})|(-?[0-9]+)"}, {function: take_first}]
"""
CAPITALS = """
task: own_capitals
dataset_path: json
dataset_kwargs: {data_files: {train: FOLDER/capitals-train.jsonl, test: FOLDER/capitals-test.jsonl}}
output_type: multiple_choice
training_split: train
test_split: test
process_docs: !function own_code.upper
description: "The following are questions about {{country}}.\\n\\n"
doc_to_text: "Question: {{question}}\\nAnswer:"
doc_to_choice: "{{choices.text}}"
doc_to_target: "{{choices.label.index(key)}}"
metric_list: [{metric: acc, aggregation: mean, higher_is_better: true}]
"""
CODE = """
def upper(docs):
    return docs.map(lambda doc: {"country": doc["country"].upper()})


def verdicts(doc, results):
    return {"found": float(doc["answer"].split()[-1] in results[0])}
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Two task files and their data."""
    import datasets

    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    datasets.disable_progress_bars()
    for split, first in (("train", 0), ("test", 60)):
        numbers = range(first, first + 60)
        sums = [{"question": f"{n}+{n + 1}?", "answer": f"So {n}.\n#### {2 * n + 1}", "kind": n % 3} for n in numbers]
        texts = ["Rome", "Oslo", "Lima"]
        capitals = [
            {
                "question": f"{n}?",
                "country": "no",
                "key": "ABC"[n % 3],
                "choices": {"text": texts, "label": list("ABC")},
            }
            for n in numbers
        ]
        for name, rows in (("sums", sums), ("capitals", capitals)):
            (tmp_path / f"{name}-{split}.jsonl").write_text("\n".join(map(json.dumps, rows)))
    (tmp_path / "own_code.py").write_text(CODE)
    write(tmp_path, "sums", SUMS)
    write(tmp_path, "capitals", CAPITALS)
    return tmp_path


def write(folder: Path, name: str, text: str) -> None:
    (folder / f"{name}.yaml").write_text(text.replace("FOLDER", str(folder)))


def test_texts_and_targets_are_those_of_lm_eval(folder: Path) -> None:
    items = load("lm_eval", folder, task="sums.yaml", columns={"label": "kind"})
    task = task_of(str(folder / "sums.yaml"))
    docs = [*task.training_docs(), *task.test_docs()]
    assert [item.question for item in items] == [task.doc_to_text(doc) for doc in docs]
    assert [item.answer for item in items] == [task.doc_to_target(doc) for doc in docs]
    assert [item.split for item in items] == ["train"] * 60 + ["test"] * 60
    assert [item.label for item in items[:4]] == ["0", "1", "2", "0"]


def test_a_choice_has_its_options_and_a_letter(folder: Path) -> None:
    """By hand, with the description that lm_eval puts before the question and what the task makes of its documents."""
    items = load("lm_eval", folder, task="capitals.yaml")
    assert items[1].question == (
        "The following are questions about NO.\n\nQuestion: 1?\nA. Rome\nB. Oslo\nC. Lima\nAnswer:"
    )
    assert [item.answer for item in items[:4]] == ["A", "B", "C", "A"]
    write(folder, "letters", CAPITALS.replace("{{choices.text}}", "{{choices.label}}"))
    letters = load("lm_eval", folder, task="letters.yaml")
    assert letters[1].question == "The following are questions about NO.\n\nQuestion: 1?\nAnswer:"
    assert letters[1].answer == "B"


def config(folder: Path, task: str, *more: str) -> Any:
    given = [*RUN, "stream.phases=[[own]]", "data.own.kind=lm_eval", f"data.own.root={folder}"]
    return load_config(None, [*given, "data.own.partition=evenly", f"data.own.settings.task={task}", *more])


def test_verdicts_are_those_of_lm_eval(folder: Path) -> None:
    """Of every filter: what its own code says of the same completion, cut where it stops generating."""
    task = task_of(str(folder / "sums.yaml"))
    said = ["#### {}", "It is {}.", "{} #### 7", "#### {}\n\nQuestion: 1+1?\n#### 2", "#### {}0", "", "1,000 is not {}"]
    for number, name in enumerate(("strict", "flexible")):
        (own,) = stream_of(config(folder, "sums.yaml", f"data.own.settings.filter={name}")).data
        assert own.source.verifier == "lm_eval"
        for item in own.source.all(0, "test")[:5]:
            problem = own.problem(item)
            gold = problem.right_text.split()[-1]
            recipe = json.loads(problem.answer)
            doc = task.test_docs()[recipe["at"]]
            for text in (one.format(gold) for one in said):
                found: Any = [[text.split("Question:")[0]]]
                for made in task._filters[number].filters:
                    found = made().apply(found, [doc])
                wanted = task.process_results(doc, list(found))["exact_match"] == 1
                assert explain(problem.verifier, problem.answer, text).right == wanted
            assert verifier(problem.verifier).verdicts([(problem.answer, problem.right_text)]) == [True]
    told = explain("lm_eval", problem.answer, "#### 3 or so")
    assert (told.right, told.said, told.taken_from) == (False, "3", "#### 3 or so")


def test_the_first_filter_that_takes_its_targets_is_taken(folder: Path) -> None:
    """As of tasks whose targets are numbers and whose strict filter wants a sentence."""
    assert json.loads(load("lm_eval", folder, task="sums.yaml")[0].tests or "")["filter"] == "strict"
    write(folder, "bare", SUMS.replace("{{answer}}", "{{answer.split()[-1]}}"))
    assert json.loads(load("lm_eval", folder, task="bare.yaml")[0].tests or "")["filter"] == "flexible"
    write(folder, "none", SUMS.replace("{{answer}}", "nothing"))
    with pytest.raises(ConfigError, match=r"by no filter of 'none\.yaml' \(strict, flexible\) its own targets"):
        load("lm_eval", folder, task="none.yaml")


def test_a_tasks_own_code_judges(folder: Path) -> None:
    own = SUMS.replace("exact_match", "found").replace(', regexes_to_ignore: [",", "(?s).*#### "]', "")
    own = own[: own.index("filter_list")] + "process_results: !function own_code.verdicts\n"
    write(folder, "coded", own)
    (task,) = stream_of(config(folder, "coded.yaml")).data
    problem = task.problem(task.source.items[0])
    assert verifier("lm_eval").verdicts([(problem.answer, "I say 1"), (problem.answer, "No")]) == [True, False]


def test_another_verifier_may_judge_its_targets(folder: Path) -> None:
    (task,) = stream_of(config(folder, "sums.yaml", "data.own.verifier=numeric")).data
    problem = task.problem(task.source.items[2])
    assert verifier(problem.verifier).verdicts([(problem.answer, "It is 5."), (problem.answer, "4")]) == [True, False]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("generate_until", "loglikelihood"), "is of type loglikelihood: it scores a text that is given"),
        (
            ("exact_match, aggregation: mean", "bleu, aggregation: bleu"),
            "has the metric bleu, which is of all documents together",
        ),
        (("task: own_sums", "task: own_sums\nunsafe_code: true"), "runs what was answered without a sandbox"),
        (("sums-train.jsonl", "nowhere.jsonl"), "cannot be loaded .*nowhere"),
        (("dataset_path", "data_set_path"), "cannot be loaded"),
    ],
)
def test_what_is_no_data_set_is_refused_by_name(folder: Path, change: tuple[str, str], message: str) -> None:
    write(folder, "odd", SUMS.replace(*change).replace(', regexes_to_ignore: [",", "(?s).*#### "]', ""))
    with pytest.raises(ConfigError, match=rf"(?s)lm_eval: .*odd\.yaml.*{message}"):
        load("lm_eval", folder, task="odd.yaml")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"task": "sums.yaml", "filter": "lenient"}, "has no filter 'lenient'; it has: strict, flexible"),
        ({"task": "sums.yaml", "metric": "f1"}, "has no metric 'f1'; it has: exact_match"),
        ({"task": "sums.yaml", "columns": {"question": "q"}}, "columns has no field 'question'"),
        ({"task": "capitals.yaml", "filter": "strict"}, "is a multiple choice, judged by its letter"),
        ({"task": "nowhere.yaml"}, "no file .*nowhere.yaml; YAML files beside it: capitals.yaml, sums.yaml"),
    ],
)
def test_settings_that_do_not_fit(folder: Path, settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        load("lm_eval", folder, **settings)


def test_names_that_ship_are_known() -> None:
    """A near miss is told; a group is no task. No data is loaded."""
    with pytest.raises(ConfigError, match=r"there is no task 'arc_eazy'; did you mean arc_easy"):
        load("lm_eval", task="arc_eazy")


def test_a_run_learns_a_task_file(folder: Path, tiny_checkpoint: Path, no_report: None, one_thread: None) -> None:
    settings = ("client.path=clients.sft:Sft", f"model.path={tiny_checkpoint}", f"run_dir={folder / 'run'}")
    for task in ("sums.yaml", "capitals.yaml"):
        made = config(folder, task, *settings)
        rows = flsim.run(made, progress=False).rows
        assert not (rows["name"] == "set_aside").any()
        right, bought = (rows[rows["name"] == name]["total"].sum() for name in ("reward", "cloud_purchases"))
        assert right == bought > 0
        assert set(rows[rows["name"] == "accuracy"]["split"]) <= set(SPLITS)
        settings = (*settings[:2], f"run_dir={folder / 'second'}")
