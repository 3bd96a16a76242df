"""What modes of help take on this machine, how long drafts hold, and when drafting on a device beats a cloud's stream.

The built-in pair, as it ships, works on test questions of the built-in tasks, with no link between: every mode once,
all questions together. Then many drafts in one pass beside a pass for each, and drafts of several lengths, greedy:
tokens per verification beside E(a, k), with a the measured chance that a token is accepted, and how often the text is
the cloud's. Then one question at a time: a token of the device (t_d), of the cloud (t_v), and a verification, from
which the round trip follows below which drafting pays:

  rtt < t_v E(a, k) - k t_d - t_v - 8 bytes / R
"""

import argparse
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TypeVar

import torch

from clients.device.answering import answer_alone
from clients.device.world import World, load_world
from clients.evaluate import own_tests
from clients.helping.exit import Exit
from clients.helping.handover import Handover
from clients.helping.helping import ASK, Asked, Caller, Helping, Pair
from clients.helping.split import Split
from clients.helping.verify import Verify
from experiments.benchmark.measuring import Spread, clock_argument, conditions, seconds_of, spread
from experiments.study.drafting import pace_of
from flsim.cloud.builtin import Builtin
from flsim.cloud.exchange import Exchange
from flsim.cloud.more_help import Draft, Verified
from flsim.cloud.protocol import Answer, bytes_sent
from flsim.collaboration.accept import SHARED
from flsim.collaboration.worth import Pace, expected_tokens
from flsim.config.load import load_config
from flsim.config.shipped import FOLDER
from flsim.models.sizes import system_of
from flsim.problems.judging import are_right
from flsim.problems.problem import Problem
from flsim.report.drafting_figure import (
    TRIPS_S,
    Drafted,
    Panel,
    accepted_figure,
    best_lengths,
    drafting_figure,
    longest_trip,
)
from flsim.report.plot import save_if_drawn
from flsim.seeding import seed_for
from flsim.text import data_size, markdown_table, percent, seconds

Found = TypeVar("Found")
TASKS = "stream.phases=[[arithmetic, numbers, strings, lists]]"
SYSTEM = "system={stands_for: {device: Qwen2.5-0.5B, cloud: 3}}"
MODES: dict[str, Helping] = {
    "ask": ASK,
    "handover of 2": Handover(tokens=2),
    "handover of 4": Handover(tokens=4),
    "verify, k = 0": Verify(k=0),
    "verify, k = 4": Verify(k=4),
    "exit at 3 of 6, sure of 90 %": Exit(layer=3, threshold=0.9),
    "exit at 3 of 6, never": Exit(layer=3, threshold=1.0),
    "split at 2 of 6, float32": Split(layer=2, sent="float32"),
    "split at 2 of 6, float16": Split(layer=2, sent="float16"),
    "split at 2 of 6, int8": Split(layer=2, sent="int8"),
    "split at 2 of 6, 32 channels": Split(layer=2, sent="top", channels=32),
}


class Watched(Builtin):
    """The built-in cloud, which keeps how the drafts went that it verified."""

    def __init__(self, length: int) -> None:
        """Of the drafts of `length` tokens, those whose answer went on after them."""
        super().__init__()
        self.length = length
        self.lengths: list[int] = []
        """Accepted tokens of each."""

    def verify(self, drafts: Sequence[Draft], rule: str, temperature: float) -> list[Verified]:
        """As the cloud does."""
        found = super().verify(drafts, rule, temperature)
        both = zip(drafts, found, strict=True)
        self.lengths += [one.accepted for own, one in both if len(own.drafted) == self.length and not one.ended]
        return found


@dataclass(frozen=True)
class Helped:
    """What came of all questions under a mode."""

    seconds: float
    answers: Sequence[Answer]
    problems: Sequence[Problem]

    @property
    def took(self) -> Exchange:
        """All exchanges together."""
        total = Exchange()
        for answer, problem in zip(self.answers, self.problems, strict=True):
            plain = Exchange(trips=1, up_bytes=bytes_sent(problem), down_bytes=len(answer.text.encode()))
            total = total.plus(answer.exchange or plain)
        return total

    @property
    def right(self) -> float:
        """Share of right answers."""
        verdicts = are_right([(problem, one.text) for problem, one in zip(self.problems, self.answers, strict=True)])
        return sum(verdicts) / len(verdicts)

    def same(self, other: "Helped") -> float:
        """Share of answers that are those of another mode."""
        pairs = zip(self.answers, other.answers, strict=True)
        return statistics.mean(one.text == answer.text for one, answer in pairs)


def timed(work: Callable[[], Found], clock: str) -> tuple[float, Found]:
    """Seconds of one call, and what it gave."""
    found = list[Found]()
    return seconds_of(lambda: found.append(work()), clock), found[0]


def helped(mode: Helping, pair: Pair, rows: Sequence[Sequence[Problem]], clock: str) -> Helped:
    """Help with all questions in one go.

    Args:
        mode: how.
        pair: who.
        rows: questions of each device.
        clock: of `seconds_of`.
    """
    mode.check(pair.cloud, None)
    callers = [
        Caller(k, [Asked(one, "", seed_for(0, "benchmark", k, p)) for p, one in enumerate(row)], mode.first_knob)
        for k, row in enumerate(rows)
    ]
    with torch.no_grad():
        took, found = timed(partial(mode.help, pair, callers), clock)
    answers = [one for row in found for one in row]
    assert all(one is not None for one in answers), "the built-in cloud never fails"
    return Helped(took, [one for one in answers if one is not None], [one for row in rows for one in row])


def modes_table(found: dict[str, Helped]) -> str:
    """A line for every mode, of a question in the mean."""
    lines = [["a question", "right", "as asking", "requests", "up", "down", "cloud in", "out", "device", "here"]]
    for label, one in found.items():
        count, took = len(one.answers), one.took
        tokens = [sum(a.prompt_tokens for a in one.answers), sum(a.completion_tokens for a in one.answers)]
        lines.append(
            [
                label,
                percent(one.right),
                percent(one.same(found["ask"])),
                f"{took.trips / count:.2f}",
                *(data_size(sent / count) for sent in (took.up_bytes, took.down_bytes)),
                *(f"{each / count:.1f}" for each in (*tokens, took.read + took.drawn)),
                seconds(one.seconds / count),
            ]
        )
    return markdown_table(lines)


def drafts_table(found: dict[int, tuple[Drafted, Helped]], asked: Helped) -> str:
    """A line for every length of a draft."""
    lines = [["k", "accepted", "a", "tokens a request", "E(a, k)", "requests a question", "again", "the cloud's text"]]
    for length, (drafted, one) in found.items():
        took = one.took
        lines.append(
            [
                str(length),
                percent(took.accepted / took.drafted) if took.drafted else "-",
                percent(drafted.acceptance) if length and drafted.lengths else "-",
                f"{drafted.gained:.3f}" if drafted.lengths else "-",
                f"{expected_tokens(drafted.acceptance, length):.3f}" if length and drafted.lengths else "-",
                f"{took.trips / len(one.answers):.2f}",
                str(took.again),
                percent(one.same(asked)),
            ]
        )
    return markdown_table(lines)


def together_table(problems: Sequence[Problem], counts: Sequence[int], length: int, repeats: int, clock: str) -> str:
    """What one pass over K drafts takes, beside as many passes over one draft each; questions have been read before."""
    cloud = Builtin()
    replies = [cloud.base.spell(answer.text) for answer in cloud.answer(problems)]
    lines = [["K drafts", "in one pass", "one by one", "times faster"]]
    for count in counts:
        own = [
            Draft(problem, (), tuple(said[:length])) for problem, said in zip(problems[:count], replies, strict=False)
        ]
        cloud.verify(own, SHARED, 0.0)  # it keeps what it has read
        runs: list[Callable[[], object]] = [partial(cloud.verify, own, SHARED, 0.0), partial(_each_alone, cloud, own)]
        pairs = [[seconds_of(run, clock) for run in runs] for _ in range(repeats)]  # in turn, so that both see the same
        one, each = (spread(times) for times in zip(*pairs, strict=True))
        gain = f"{each.median / one.median:.1f}"
        lines.append([str(len(own)), *(_milliseconds(both) for both in (one, each)), gain])
    return markdown_table(lines)


def _milliseconds(of: Spread) -> str:
    return f"{Spread(*(1000 * value for value in (of.median, of.low, of.high))).text(1)} ms"


def _each_alone(cloud: Builtin, drafts: Sequence[Draft]) -> None:
    for one in drafts:
        cloud.verify([one], SHARED, 0.0)


def measured_pace(
    world: World, cloud: Builtin, problems: Sequence[Problem], length: int, clock: str
) -> tuple[Pace, float]:
    """Medians over questions, one at a time: t_d and t_v with the reading of the question, a verification without.

    Args:
        world: of the device's model.
        cloud: the other one.
        problems: questions.
        length: of the drafts that are verified.
        clock: of `seconds_of`.
    """
    own, streamed, verified = list[float](), list[float](), list[float]()
    for problem in problems:
        took, ((said,),) = timed(partial(answer_alone, world, [[problem]], world.answer_tokens), clock)
        tokens = world.base.spell(said)
        own.append(took / len(tokens))
        took, (answer,) = timed(partial(cloud.answer, [problem]), clock)
        streamed.append(took / answer.completion_tokens)
        cloud.verify([Draft(problem, (), ())], SHARED, 0.0)  # it keeps what it has read
        draft = Draft(problem, (), tuple(tokens[:length]))
        verified.append(seconds_of(partial(cloud.verify, [draft], SHARED, 0.0), clock))
    middle = [statistics.median(times) for times in (own, streamed, verified)]
    return Pace(middle[0], middle[1], 0.0), middle[2]


def trips_table(pace: Pace, chance: float) -> str:
    """Best length of a draft by round trip, at the measured chance and pace."""
    lengths, gains = best_lengths(pace, TRIPS_S, (chance,))
    lines = [["round trip", "best k", "a token", "as fast as the stream"]]
    for trip, length, gain in zip(TRIPS_S, lengths[0], gains[0], strict=True):
        lines.append([seconds(trip), str(length), seconds(pace.verify_s / gain), f"{gain:.2f} times"])
    return markdown_table(lines)


def arguments(parser: argparse.ArgumentParser) -> None:
    """The command line."""
    parser.add_argument("--devices", type=int, default=4, help="devices that ask together (default %(default)s)")
    parser.add_argument("--questions", type=int, default=16, help="of each task and device (default %(default)s)")
    parser.add_argument("--lengths", type=int, nargs="+", default=[0, 1, 2, 3, 4, 6, 8], help="of drafts")
    parser.add_argument("--together", type=int, nargs="+", default=[1, 4, 16, 64], help="drafts of one pass")
    parser.add_argument("--repeats", type=int, default=15, help="of each pass (default %(default)s)")
    parser.add_argument("--out", type=Path, default=Path("runs/collaboration"), help="pictures (default %(default)s)")
    clock_argument(parser, of="this machine's seconds")


def main(args: argparse.Namespace) -> None:
    """Measure, print and draw."""
    settings = [TASKS, SYSTEM, f"fleet.devices={args.devices}", f"evaluation.prompts_per_task={args.questions}"]
    config = load_config(FOLDER / "demo.yaml", settings)
    world = load_world(config)
    world.lora.attach(None)
    rows = [own_tests(world, device) for device in range(args.devices)]
    pair = Pair(world.base, Builtin(), world.answer_tokens, world.system)
    print(conditions(f"{sum(map(len, rows))} questions of {args.devices} devices", "built-in models as they ship"))
    found = {label: helped(mode, pair, rows, args.clock) for label, mode in MODES.items()}
    print(f"\n{modes_table(found)}")
    drafts = dict[int, tuple[Drafted, Helped]]()
    for length in args.lengths:
        watched = Watched(length)
        one = helped(Verify(k=length), replace(pair, cloud=watched), rows, args.clock)
        drafts[length] = Drafted(length, watched.lengths), one
    print(f"\n{drafts_table(drafts, found['ask'])}")
    every = list(dict.fromkeys(one for row in rows for one in row))
    print(f"\n{together_table(every, args.together, 4, args.repeats, args.clock)}")
    some = {length: drafted for length, (drafted, _) in drafts.items() if length and drafted.lengths}
    typical = min(some, key=lambda length: abs(length - 4))
    chance = some[typical].acceptance
    pace, verification = measured_pace(world, Builtin(), rows[0], typical, args.clock)
    print(
        f"\nhere a token of the device takes {seconds(pace.draft_s)}, of the cloud {seconds(pace.verify_s)}, a "
        f"verification of {typical} tokens {seconds(verification)}; a = {percent(chance)}: drafting pays below a round "
        f"trip of {seconds(max(0.0, longest_trip(pace, chance)))}\n\n{trips_table(pace, chance)}"
    )
    _draw(some, world, args.out)


def _draw(some: dict[int, Drafted], world: World, out: Path) -> None:
    """How long drafts hold, and the map of phones before a cloud as the system has them."""
    assert world.config.system is not None, "the benchmark's settings have a system"
    system = system_of(world.config.system, world.config.model, 0)
    panels = []
    for _, of in system.fleet.classes:
        pace = pace_of(system, of)
        panels.append(Panel(f"{of.name}: {seconds(pace.draft_s)} a token", pace))
    figures = {"accepted.png": partial(accepted_figure, some), "drafting.png": partial(drafting_figure, panels)}
    for name, draw in figures.items():
        if save_if_drawn(draw, out / name):
            print(f"\npicture: {out / name}")
