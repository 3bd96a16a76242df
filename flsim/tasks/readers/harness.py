"""Any task file of lm_eval as a data set: its documents, questions, targets and choices, by its own loader.

    settings: {task: arc_easy}                    a task that ships with lm_eval
    settings: {task: sums.yaml}                   a task file under root

A multiple choice, which lm_eval scores by the log-probabilities of the choices, becomes a question with a line per
choice and a letter to answer; where the choices are letters already, the question stands as it is. A task that is
answered by a text is judged by its own filters and metric (`flsim/problems/harness.py`).
"""

import importlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from flsim.config.schema import ConfigError
from flsim.problems.harness import (
    CHOICES,
    SUFFIXES,
    context_of,
    docs_of,
    filtered,
    filters_of,
    score,
    target_of,
    task_of,
)
from flsim.problems.judging import HARNESS
from flsim.problems.problem import SPLITS
from flsim.tasks.columns import Columns
from flsim.tasks.item import Item
from flsim.tasks.known_set import Reader
from flsim.tasks.readers.choice import LETTERS, choice_question
from flsim.tasks.tables import Row

_FIELDS = ("user", "label", "level")
_QUESTION, _ANSWER = "lm_eval question", "lm_eval answer"  # columns that no document has
_TRIED = 20  # documents whose own targets are judged, before a filter is taken
_MOST_CHOICES = 10  # letters that the verifier reads


def harness(
    root: Path,
    *,
    task: str,
    columns: Mapping[str, str] | None = None,
    filter: str | None = None,
    metric: str | None = None,
) -> list[Item]:
    """Items of a task of lm_eval.

    Args:
        root: folder that a task file is relative to.
        task: its name, or the path of its YAML file.
        columns: `user`, `label` or `level` -> column of its documents, or template, so that they can be dealt by it.
        filter: of a task that is answered by a text: which of its filters; None takes the first by which its own
            targets are right.
        metric: and which of its metrics; None takes the first that is a mean over documents.

    Raises:
        ConfigError: if the task cannot be loaded or answered, or a setting does not fit it.
    """
    named = _named(root, task)
    found = task_of(named)
    unknown = sorted(set(columns or {}) - set(_FIELDS))
    if unknown:
        raise ConfigError(
            f"lm_eval: columns has no field {unknown[0]!r}; it says which column is: {', '.join(_FIELDS)}"
        )
    mapped = Columns({"question": _QUESTION, "answer": _ANSWER, **(columns or {})})
    documents = [(split, at, doc) for split in SPLITS for at, doc in enumerate(docs_of(found, split))]
    if found.OUTPUT_TYPE == CHOICES:
        if filter is not None or metric is not None:
            raise ConfigError(
                f"lm_eval: {task!r} is a multiple choice, judged by its letter; leave filter and metric out"
            )
        recipe = None
    else:
        recipe = {"task": named, **_judged_by(task, found, [doc for _, _, doc in documents], filter, metric)}
    items = []
    for split, at, doc in documents:
        row = Row(dict(doc), f"lm_eval {task}, {split}, row {at + 1}")
        question, answer = (
            _choice(row, found, doc) if recipe is None else (context_of(found, doc), target_of(found, doc))
        )
        item = mapped.item(Row({**doc, _QUESTION: question, _ANSWER: answer}, row.where), split)
        items.append(item if recipe is None else replace(item, tests=json.dumps({**recipe, "split": split, "at": at})))
    return items


def _named(root: Path, task: str) -> str:
    return str(root / task) if task.endswith(SUFFIXES) else task


def _choice(row: Row, task: Any, doc: Mapping[str, Any]) -> tuple[str, str]:
    """The question with its choices below it, and the letter of the right one.

    Raises:
        ConfigError: if there are too many choices, or none of them is right.
    """
    choices = [str(choice).strip() for choice in task.doc_to_choice(doc)]
    right = task.doc_to_target(doc)
    at = choices.index(right.strip()) if isinstance(right, str) and right.strip() in choices else right
    if not isinstance(at, int) or not 0 <= at < len(choices):
        raise row.error(f"the target {right!r} is none of the {len(choices)} choices")
    if len(choices) > _MOST_CHOICES:
        raise row.error(f"has {len(choices)} choices; at most {_MOST_CHOICES} can be told apart by their letters")
    text = context_of(task, doc)
    if choices == list(LETTERS[: len(choices)]):  # which the question explains
        return text, choices[at]
    return choice_question(text.rstrip().removesuffix("Answer:"), choices), LETTERS[at]


def _judged_by(
    task: str, found: Any, documents: Sequence[Mapping[str, Any]], filter: str | None, metric: str | None
) -> dict[str, str]:
    """The filter and the metric that judge an answer.

    Raises:
        ConfigError: if there is none of that name, the metric is no mean of verdicts, or by no filter the task's own
            targets are right, so that nobody who knows the answer could say it.
    """
    mean = importlib.import_module("lm_eval.api.metrics").mean
    metrics = [name for name, over in found._aggregation_list.items() if over is mean]
    others = sorted(set(found._aggregation_list) - set(metrics))
    if metric in others or not metrics:
        raise ConfigError(
            f"lm_eval: {task!r} has the metric {metric or others[0]}, which is of all documents together, and says "
            f"of no answer whether it is right; name another verifier, or one of the metrics: "
            f"{', '.join(metrics) or 'none'}"
        )
    names = list(filters_of(found))
    for key, value, known in (("filter", filter, names), ("metric", metric, metrics)):
        if value is not None and value not in known:
            raise ConfigError(f"lm_eval: {task!r} has no {key} {value!r}; it has: {', '.join(known)}")
    wanted = metric or metrics[0]
    tried = documents[:_TRIED]
    for name in [filter] if filter else names:
        targets = [filtered(found, name, doc, target_of(found, doc)) for doc in tried]
        if filter or all(score(found, doc, said, wanted) >= 1 for doc, said in zip(tried, targets, strict=True)):
            return {"filter": name, "metric": wanted}
    raise ConfigError(
        f"lm_eval: by no filter of {task!r} ({', '.join(names)}) its own targets have the full {wanted}; name a "
        f"filter whose answers you know to be in another form, or another verifier, such as numeric or words"
    )


def reference_of(item: Item) -> str:
    """The recipe of an item with its question and target: all that its judge needs, as JSON.

    Raises:
        ConfigError: if the item is a multiple choice.
    """
    if item.tests is None:
        raise ConfigError(f"{item.where} is a multiple choice; leave the verifier out to take choice")
    return json.dumps({**json.loads(item.tests), "question": item.question, "wanted": item.answer}, ensure_ascii=False)


def as_judged(item: Item) -> Item:
    """The item with its recipe in place of its answer, which is what somebody who knows would say."""
    return replace(item, answer=reference_of(item), solution=item.answer)


def judge_of(root: Path, settings: Mapping[str, Any]) -> str:
    """The verifier of a task."""
    return "choice" if task_of(_named(root, settings["task"])).OUTPUT_TYPE == CHOICES else HARNESS


LM_EVAL = Reader(harness, verifier=HARNESS, judged=as_judged, judge=judge_of)
"""A task of lm_eval, by its name or its YAML file; an extra, `harness`."""
