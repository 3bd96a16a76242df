r"""The whole path from a checkpoint on disk to a federated run with a cloud behind an API, with stand-ins for both.

  flsim standins                           # 34 questions of our own
  flsim standins --data ../shared/data     # GSM8K and MBPP, in the folders gsm8k and mbpp of this one
  flsim standins rounds=8 client.lr=0.003  # settings over experiments/configs/real.yaml

1. Tries the verifiers: math-verify in a process of its own, code in the sandbox that this machine offers. 2. Writes a
   tiny checkpoint (SmolLM2's architecture, chat template and end tokens) and teaches it to answer in the right form,
   mostly wrongly, and to ask now and then. 3. Starts a server that speaks OpenAI's API and knows most answers. 4. Runs
   two devices through maths, then code, on Ray workers. 5. Loads what was learned with peft.
"""

import argparse
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from peft import PeftModel
from transformers.utils import logging as transformers_logging

from experiments.command.terminal import Parser
from experiments.real.checkpoint import write_checkpoint
from experiments.real.lessons import in_form, teach
from experiments.real.server import serving
from flsim import Config, ConfigError, Run, run
from flsim.config.load import load_config
from flsim.models.adapter import quiet_peft
from flsim.models.base import load_base
from flsim.problems.code import sandbox_in_use
from flsim.problems.judging import are_right
from flsim.problems.problem import SPLITS, Problem
from flsim.report.table import end_table
from flsim.seeding import python_random
from flsim.tasks.sets import DataTask, data_tasks

CONFIG = Path(__file__).parents[1] / "configs" / "real.yaml"
ITEMS = Path(__file__).parent / "items"
"""Questions of our own, in the formats of GSM8K and MBPP."""
CLOUD_ERRS = 0.1
"""Share of the questions that the stand-in for a cloud does not know."""
_TAUGHT = 200  # questions of a task that lessons are about: more would not be learned in a minute
_TRIED = 20  # questions of a task that its verifier is tried on


def main(arguments: list[str] | None = None) -> int:
    """The command line; returns the exit status."""
    args = _arguments(arguments)
    try:
        finished = whole_path(args.out, args.data, args.overrides, lessons=args.lessons)
    except ConfigError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(end_table(finished.summary))
    print(f"report: {finished.report}")
    return 0


def whole_path(out: Path, data: Path | None, overrides: Sequence[str], *, lessons: int) -> Run:
    """All five steps.

    Args:
        out: folder of checkpoint, run and the cloud's answers.
        data: folder with `gsm8k` and `mbpp`; None takes the questions beside this file.
        overrides: `key=value` over the config.
        lessons: steps of teaching the checkpoint.

    Raises:
        ConfigError: for what cannot be read, judged or used, before anything long.
    """
    began = time.perf_counter()
    transformers_logging.disable_progress_bar()

    def say(words: str) -> None:
        print(f"[{time.perf_counter() - began:5.1f} s] {words}", flush=True)

    with serving({}) as server:
        config = _config(out, data, server.url, overrides)
        groups = data_tasks(config.stream, config.data, config.fleet.devices)
        say(f"questions: {', '.join(f'{group.name} {len(group.source.items):,}' for group in groups)}")
        train, every = ({group.name: _problems(group, splits) for group in groups} for splits in (SPLITS[:1], SPLITS))
        _try_verifiers(every, say)
        loss = _write_and_teach(Path(config.model.path), train, lessons, config.seed)
        say(f"checkpoint: {config.model.path}, of SmolLM2's kind, {loss:.2f} nats per token after {lessons} lessons")
        server.answers = _book(every, config.seed)
        say(f"cloud: {server.url}, which knows {len(server.answers):,} answers")
        finished = run(config)
        say(f"run: {finished.folder}; the server saw {server.asked} requests")
    adapter = finished.folder / "adapter"
    with quiet_peft():
        PeftModel.from_pretrained(load_base(config.model.path).as_transformers(), str(adapter))
    say(f"adapter: {adapter} loads with PeftModel.from_pretrained")
    return finished


def _config(out: Path, data: Path | None, url: str, overrides: Sequence[str]) -> Config:
    roots = [f"data.{name}.root={(data or ITEMS) / name}" for name in ("gsm8k", "mbpp")]
    places = [f"model.path={out / 'checkpoint'}", f"run_dir={out / 'run'}", f"cloud.cache={out / 'answers'}"]
    return load_config(CONFIG, [*places, f"cloud.url={url}", "cloud.model=stand-in", *roots, *overrides])


def _problems(group: DataTask, splits: Sequence[str]) -> list[Problem]:
    """All that the devices may meet of some splits."""
    devices = range(group.source.assignment.devices)
    return [group.problem(item) for split in splits for device in devices for item in group.source.all(device, split)]


def _try_verifiers(problems: dict[str, list[Problem]], say: Callable[[str], None]) -> None:
    """Right answers must pass and others must not, here as in the run."""
    for name, own in problems.items():
        tried = own[:_TRIED]
        right = are_right([(problem, in_form(problem, problem.right_text)) for problem in tried])
        others = [*tried[1:], tried[0]]
        wrong = are_right([(p, in_form(p, o.right_text)) for p, o in zip(tried, others, strict=True)])
        where = f", in the sandbox {sandbox_in_use()}" if tried[0].verifier.startswith("code") else ""
        say(f"verifier of {name}: {sum(right)} of {len(right)} right answers pass, {sum(wrong)} of others'{where}")


def _write_and_teach(folder: Path, problems: dict[str, list[Problem]], lessons: int, seed: int) -> float:
    """The checkpoint; questions of every task alike, however many there are."""
    taught = [problem for own in problems.values() for problem in own[:_TAUGHT]]
    texts = [text for problem in taught for text in (problem.prompt, in_form(problem, problem.right_text))]
    write_checkpoint(folder, "smollm2", seed=seed, spread=0.05, width=96, layers=3, texts=texts, pieces=1500)
    return teach(folder, taught, steps=lessons, seed=seed)


def _book(problems: dict[str, list[Problem]], seed: int) -> dict[str, str]:
    """What the stand-in for a cloud knows: the right answer to most questions."""
    rng = python_random(seed, "book")
    every = [problem for own in problems.values() for problem in own]
    return {p.prompt: in_form(p, p.right_text) for p in every if rng.random() >= CLOUD_ERRS}


def _arguments(arguments: list[str] | None) -> argparse.Namespace:
    parser = Parser("standins", __doc__, settings=True)
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="settings over experiments/configs/real.yaml")
    parser.add_argument("--data", type=Path, help="folder with gsm8k and mbpp (default: 34 questions of our own)")
    parser.add_argument("--out", type=Path, default=Path("runs/real"), help="folder (default %(default)s)")
    parser.add_argument("--lessons", type=int, default=100, help="steps of teaching (default %(default)s)")
    return parser.parse_intermixed_args(arguments)


if __name__ == "__main__":
    sys.exit(main())
