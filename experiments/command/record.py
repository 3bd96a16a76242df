"""Ask a cloud every question of some data sets once, and keep its answers as a table that runs can use for a cloud.

Examples:
  flsim record my_config.yaml --out answers.jsonl.gz
  flsim record my_config.yaml budget.fleet.money_total=2 --note "Qwen2.5 7B, FP8, vLLM 0.11"
  flsim run my_config.yaml cloud.path=flsim.cloud.recorded:Recorded cloud.file=answers.jsonl.gz

The config names the cloud and the data sets (stream.phases; of all splits). budget.fleet.calls_total, tokens_total and
money_total bound what is spent. What a cache holds already is not bought again (cloud.cache), and after a kill the
same command goes on where it was: nothing is paid twice. A table that is there is never overwritten.

The status is 0 if the table was written, 1 if some questions have no answer yet: the same command asks those again.
"""

import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from tqdm import tqdm

import flsim
from experiments.command.terminal import Parser
from flsim.cloud.answer_table import Line, is_answer_table, write_table
from flsim.cloud.make import cache_of, make_cloud
from flsim.cloud.protocol import NOTHING, Basket
from flsim.cloud.recording import Asked, Recording, forget, questions_of
from flsim.config.schema import Config, ConfigError
from flsim.loop.lock import RunLock
from flsim.problems.problem import SPLITS
from flsim.tasks.stream import TaskStream, stream_of
from flsim.text import aligned, amount, percent, seconds


def main(arguments: list[str]) -> int:
    """The command line; returns the exit status."""
    parser = Parser("record", __doc__, settings=True)
    parser.add_argument("config", metavar="CONFIG", help="a name (flsim list configs) or a YAML file of your own")
    parser.add_argument("settings", nargs="*", metavar="key=value", help="settings that go over the file's")
    parser.add_argument("--out", metavar="FILE", type=Path, help="the table (default: NAME-answers.jsonl.gz)")
    parser.add_argument("--note", metavar="TEXT", help="what else the table is to say of the model: revision, server")
    parser.add_argument(
        "--leave-out", action="store_true", help="write the table without questions that have no answer"
    )
    args = parser.parse_intermixed_args(arguments)
    config = flsim.load_config(args.config, args.settings)
    return recorded(config, args.out or Path(f"{config.name}-answers.jsonl.gz"), args.note, leave_out=args.leave_out)


def recorded(config: Config, out: Path, note: str | None, *, leave_out: bool) -> int:
    """Record; returns the exit status.

    Raises:
        ConfigError: for a table that is there, or anything wrong in the settings, before anything is asked.
    """
    _refuse(out)
    cloud, stream = make_cloud(config.cloud), stream_of(config)
    questions = questions_of(stream)
    cloud.check(stream, 1)
    cache = cache_of(config.cloud.cache) if cloud.costs != NOTHING else None
    if cache is not None:
        cache.check()
    folder = out.with_name(f"{out.name}.part")
    with RunLock(folder):
        recording = Recording(cloud, config.cloud, cache, config.budget.of_server, folder)
        lines = _asked(recording, questions, folder)
        found = [line for line in lines if line is not None]
        print(_told(found, recording))
        lacking = len(questions) - len(found)
        if lacking and not (leave_out and found):
            print(_why_not(lacking, len(questions), recording, folder), file=sys.stderr)
            return 1
        write_table(out, _about(config, stream, note), found)
    forget(folder)
    left_out = f" ({lacking} of {len(questions)} questions are left out)" if lacking else ""
    print(f"\nwrote {out}{left_out}; a run takes it by cloud.path=flsim.cloud.recorded:Recorded cloud.file={out}")
    return 0


def _refuse(out: Path) -> None:
    """Refuse a table that is there, or one that could never be written.

    Raises:
        ConfigError: naming the file, and the mend.
    """
    if out.exists() or out.is_symlink():
        raise ConfigError(f"{out} is there already, and a recording never overwrites; give another name by --out")
    if not is_answer_table(str(out)):
        raise ConfigError(f"--out {out} must end in .jsonl or .jsonl.gz: by that a run knows a table of answers")
    if not out.absolute().parent.is_dir():
        raise ConfigError(f"--out {out} lies in a folder that is not there; make {out.absolute().parent} first")


def _asked(recording: Recording, questions: Sequence[Asked], folder: Path) -> list[Line | None]:
    """All answers, with a bar that says how far it is, how long it will take, and what it has come to."""
    lines: list[Line | None] = []
    often_s = 0.5 if sys.stderr.isatty() else 60.0  # a log need not have every step
    try:
        with tqdm(total=len(questions), unit="question", mininterval=often_s) as bar:
            for some in recording.answers(questions):
                lines += some
                bar.set_postfix_str(_so_far(lines, recording.basket), refresh=False)
                bar.update(len(some))
    except KeyboardInterrupt:
        print(f"\nwhat came is kept in {folder}; the same command goes on from there", file=sys.stderr)
        raise
    return lines


def _so_far(lines: Sequence[Line | None], basket: Basket) -> str:
    answered = [line for line in lines if line is not None]
    right = percent(sum(bool(line.right) for line in answered) / len(answered)) if answered else "-"
    return f"{right} right, bought {amount(basket.bought.calls)} for {amount(basket.bought.money)}"


def _told(lines: Sequence[Line], recording: Recording) -> str:
    """Accuracy by family and split, and what was paid."""
    rows = [["task", "family", "right", *SPLITS, "questions", "seconds"]]
    groups = dict[tuple[str, str], list[Line]]()
    for line in lines:
        groups.setdefault((line.task, line.family), []).append(line)
    for (task, family), own in groups.items():
        times = [line.seconds for line in own if line.seconds is not None]
        shares = [_share_right(own), *(_share_right([one for one in own if one.split == split]) for split in SPLITS)]
        rows.append([task, family, *shares, str(len(own)), seconds(sum(times) / len(times)) if times else "-"])
    account, lost = recording.basket.charged, recording.lost
    paid = f"charged {amount(account.calls)} calls, {amount(account.tokens)} tokens, {amount(account.money)} money"
    gone = f"; earlier attempts spent {amount(lost.calls)} more on what is not in it" if lost.calls else ""
    bought = f"{amount(recording.basket.bought.calls)} of them bought for it"
    return "\n".join([*aligned(rows), "", f"{paid}; {bought}{gone}"])


def _share_right(lines: Sequence[Line]) -> str:
    return percent(sum(bool(line.right) for line in lines) / len(lines)) if lines else "-"


def _why_not(lacking: int, asked: int, recording: Recording, folder: Path) -> str:
    refused = recording.basket.charged.refused
    why = f"the caps of budget.fleet refused {refused}" if refused else "the cloud gave none"
    return (
        f"{lacking} of {asked} questions have no answer, as {why}; no table is written. What came is kept in {folder}: "
        f"the same command asks for the others again, and --leave-out writes a table without them"
    )


def _about(config: Config, stream: TaskStream, note: str | None) -> dict[str, Any]:
    """What the table says of itself: who was asked, how, and when."""
    settings = {name: value for name, value in config.cloud.settings.items() if value is not None}
    return {
        "cloud": config.cloud.path,
        "model": settings.get("model"),
        "settings": settings,
        "instructions": {data.name: data.instruction for data in stream.data},
        "note": note,
        "date": datetime.now(UTC).date().isoformat(),
    }
