"""Tasks of lm_eval, EleutherAI's harness, and their verifier: a task's own filters and metric on what was said.

{"task": "data/sums.yaml", "split": "test", "at": 3, "filter": "strict-match", "metric": "exact_match"}

A task is named as lm_eval names it, or by the path of its YAML file. It is loaded by lm_eval's own loader, once in each
process, and its documents are found again by their places. Right is the full score of the metric.
"""

import importlib
import json
from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from functools import lru_cache
from pathlib import Path
from typing import Any

from flsim.config.schema import ConfigError
from flsim.problems.judging import Judgement

CHOICES, TEXTS = "multiple_choice", "generate_until"
"""The kinds of tasks that can be answered; others score a text that is given."""
SUFFIXES = (".yaml", ".yml")
_FAILURES = (ValueError, TypeError, SyntaxError, ArithmeticError, LookupError, AttributeError, RecursionError)
_SHOWN = 8  # tasks of a group that are named


class HarnessVerifier:
    """The judges of lm_eval's tasks that are answered by a text, for references from `reference_of`."""

    instruction = ""

    def verdicts(self, pairs: Sequence[tuple[str, str]]) -> list[bool]:
        """Whether each completion gets the full score of its reference's task.

        Raises:
            ConfigError: as for `task_of`, or if its documents have changed.
        """
        return [self.explain(reference, completion).right for reference, completion in pairs]

    def explain(self, reference: str, completion: str) -> Judgement:
        """The verdict, with what the task's filters have found."""
        recipe = json.loads(reference)
        task = task_of(recipe["task"])
        doc = docs_of(task, recipe["split"])[recipe["at"]]
        if context_of(task, doc) != recipe["question"]:
            raise ConfigError(
                f"lm_eval: document {recipe['at']} of split {recipe['split']} of {recipe['task']} asks another "
                f"question now; its files or lm_eval have changed, so begin a new run"
            )
        said = filtered(task, recipe["filter"], doc, completion)
        right = score(task, doc, said, recipe["metric"]) >= 1.0
        return Judgement(right, said if isinstance(said, str) else str(said), completion, recipe["wanted"])

    def unreadable(self, references: Sequence[str]) -> list[str]:
        """None: a task by whose filters its own targets are wrong is refused as a whole."""
        return []


@lru_cache
def task_of(named: str) -> Any:
    """A task (`lm_eval.api.task.ConfigurableTask`) with its documents, kept.

    Args:
        named: its name, or the path of its YAML file.

    Raises:
        ConfigError: if lm_eval is not installed, there is no such task, it cannot be loaded, or cannot be answered.
    """
    try:
        tasks, api = importlib.import_module("lm_eval.tasks"), importlib.import_module("lm_eval.api.task")
    except ImportError as error:
        raise ConfigError(
            f"lm_eval: the package cannot be imported ({error}); pip install 'flsim-continual[harness]'"
        ) from None
    if named.endswith(SUFFIXES) and not Path(named).is_file():
        there = sorted(file.name for file in Path(named).parent.glob("*") if file.name.endswith(SUFFIXES))
        raise ConfigError(f"lm_eval: there is no file {named}; YAML files beside it: {', '.join(there) or 'none'}")
    manager = tasks.TaskManager(include_defaults=not named.endswith(SUFFIXES))
    if not named.endswith(SUFFIXES) and named not in manager.all_tasks:
        close = get_close_matches(named, manager.all_tasks, n=3)
        meant = f"; did you mean {' or '.join(close)}?" if close else "."
        raise ConfigError(f"lm_eval: there is no task {named!r}{meant} Name one, or the path of its file, NAME.yaml")
    try:
        loaded = manager.load(named)
    except Exception as error:  # whatever the task's own code, `datasets` or a hub raises
        said = " ".join(f"{type(error).__name__}: {error}".split())
        raise ConfigError(f"lm_eval: the task {named!r} cannot be loaded ({said})") from error
    found = list(loaded["tasks"].values())
    if len(found) != 1 or loaded["groups"]:
        parts = ", ".join([*list(loaded["tasks"])[:_SHOWN], *(["..."] if len(found) > _SHOWN else [])])
        raise ConfigError(f"lm_eval: {named!r} is a group of {len(found)} tasks; name one of them: {parts}")
    _refuse_unanswerable(named, found[0], api)
    return found[0]


def _refuse_unanswerable(named: str, task: Any, api: Any) -> None:
    """Refuse tasks that a text cannot answer, or that are judged by what is not judged here.

    Raises:
        ConfigError: naming why.
    """
    why = None
    if not isinstance(task, api.ConfigurableTask):
        why = f"is written in Python ({type(task).__name__}) and not as a YAML file"
    elif task.OUTPUT_TYPE not in (CHOICES, TEXTS):
        why = f"is of type {task.OUTPUT_TYPE}: it scores a text that is given, and nothing is answered"
    elif getattr(task, "MULTIMODAL", False):
        why = "shows pictures or sound"
    elif getattr(task, "UNSAFE_CODE", False):
        why = "runs what was answered without a sandbox; take kind humaneval, mbpp or taco, or the verifier code"
    elif task.multiple_input:
        why = "has its choices within the question, each scored by what follows it"
    elif task.OUTPUT_TYPE == CHOICES and task.multiple_target:
        why = "has several right choices to a question, and an answer here is one letter"
    if why is not None:
        raise ConfigError(f"lm_eval: the task {named!r} {why}; it cannot be a data set here")


@lru_cache
def docs_of(task: Any, split: str) -> Sequence[Mapping[str, Any]]:
    """The documents of one of our splits, as the task makes them ready; none where it has no such split."""
    by = {"train": "training", "validation": "validation", "test": "test"}[split]
    found: Sequence[Mapping[str, Any]] = getattr(task, f"{by}_docs")() if getattr(task, f"has_{by}_docs")() else ()
    return found


def context_of(task: Any, doc: Mapping[str, Any]) -> str:
    """What lm_eval lets a model read of a document, without examples."""
    found: str = task.fewshot_context(doc, num_fewshot=0, gen_prefix=task.doc_to_prefix(doc))
    return found


def target_of(task: Any, doc: Mapping[str, Any]) -> str:
    """The right answer to a document as text; the first where there are several.

    Raises:
        ConfigError: if it has none.
    """
    target = task.doc_to_target(doc)
    target = target[0] if isinstance(target, list) and target else target
    if task.config.doc_to_choice is not None and isinstance(target, int):
        target = task.doc_to_choice(doc)[target]
    if target is None or target == []:
        raise ConfigError(f"lm_eval: a document of the task {task.config.task!r} has no target: {str(doc)[:200]}")
    return str(target)


def filters_of(task: Any) -> dict[str, Any]:
    """The task's filters by name, in its order."""
    return {one.name: one for one in task._filters}


def filtered(task: Any, name: str, doc: Mapping[str, Any], completion: str) -> Any:
    """What a filter finds in a completion, which ends where the task's generation does (`until`)."""
    until = (task.config.generation_kwargs or {}).get("until", [])
    for stop in [until] if isinstance(until, str) else until:
        completion = completion.split(stop)[0] if stop else completion
    found: Any = [[completion]]
    for made in filters_of(task)[name].filters:
        found = made().apply(found, [doc])
    return next(iter(found))


def score(task: Any, doc: Mapping[str, Any], said: Any, metric: str) -> float:
    """The metric of what was said; 0 where the task's code fails on it."""
    try:
        return float(task.process_results(doc, [said])[metric])
    except _FAILURES:
        return 0.0
