"""Processes of a run are killed, stopped, told to end and started twice, at random moments; and its clock jumps."""

import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from random import Random

from experiments.torture.processes import Command, Ending
from experiments.torture.trial import LOCAL, LOST, RAY, SURVIVED, Ground, Trial, refused, resume, run
from flsim.seeding import python_random

_KILLS_OF_A_RUN = 4
_SETTLE_S = 8.0  # a worker that was killed is back by then: a pack is sent once more, and not twice
_STOPPED_S = 3.0
_OF_RAY = ("raylet/raylet", "gcs_server", "ray::DashboardAgent", "ray::RuntimeEnvAgent")
_CLOCK = """\
import random, time
_true, _began, _leaps = time.time, time.time(), random.Random({seed})
_jumps = [_leaps.uniform(-4e6, 4e6) for _ in range(64)]
time.time = lambda: (now := _true()) + _jumps[int(now - _began) % 64]
"""
"""A `sitecustomize.py`: every second the clock is another one, up to 46 days before or after the true one."""


def drivers(ground: Ground) -> Iterator[Trial]:
    """The driver is killed, alone or with all of its processes, four times a run, from its start to its report."""
    for number in range(ground.times(13)):
        engine = RAY if number % 5 else LOCAL
        rng = python_random(ground.seed, "torture", "driver", number)
        folder = ground.root / f"driver-{number}"
        done = [_killed(ground, folder, engine, rng) for _ in range(_KILLS_OF_A_RUN)]
        end = ground.judged("", "", folder, resume(folder, *engine).finish())
        for alone, after, left in done:
            what = f"{'the driver' if alone else 'all processes'} killed after {after:.1f} s, {engine[0]}"
            note = f"{left} processes outlived the driver" if left else end.note
            family = f"kill of the driver, {engine[0].removeprefix('engine.kind=')} engine"
            yield Trial(family, what, LOST if left else end.outcome, note)


def _killed(ground: Ground, folder: Path, engine: tuple[str, ...], rng: Random) -> tuple[bool, float, int]:
    """Start or go on, and kill at a random moment: whether alone, after how many seconds, how many outlived it."""
    command = resume(folder, *engine)
    after, alone = rng.uniform(0.2, ground.seconds(engine)), rng.random() < 0.5
    command.wait(after)
    return alone, after, command.kill(alone=alone)


def workers(ground: Ground) -> Iterator[Trial]:
    """A worker is killed while it trains, twice a run; its pack is done again by another."""
    for number in range(ground.times(5)):
        rng = python_random(ground.seed, "torture", "worker", number)
        folder = ground.root / f"worker-{number}"
        command = run(folder, *RAY, "rounds=6")
        began(command, folder)
        killed = 0
        for _ in range(2):
            time.sleep(rng.uniform(0.0, 2.0))
            victims = command.family("ray::Worker")
            if victims and not _is_trained(folder):
                rng.choice(victims).kill()
                killed += 1
                command.wait(_SETTLE_S)
        end = ground.judged("kill of a worker", "", folder, command.finish())
        yield from (Trial(end.family, f"{folder.name}, kill {n + 1}", end.outcome, end.note) for n in range(killed))


def ray_itself(ground: Ground) -> Iterator[Trial]:
    """A process of Ray's own dies: the run must say so and end, leave nothing behind, and go on later."""
    for number in range(ground.times(8)):
        which = _OF_RAY[number % len(_OF_RAY)]
        rng = python_random(ground.seed, "torture", "raylet", number)
        folder = ground.root / f"raylet-{number}"
        command = run(folder, *RAY)
        began(command, folder)
        time.sleep(rng.uniform(0.0, 3.0))
        for victim in command.family(which):
            victim.kill()
        yield _ended_and_resumed(ground, "kill of a process of Ray's own", which, folder, command.finish(), (1, 2))


def signals(ground: Ground) -> Iterator[Trial]:
    """Ctrl-C, a scheduler or a closed terminal ends the run: at once, without a traceback, to go on later."""
    kinds = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
    for number in range(ground.times(9)):
        kind, engine = kinds[number % 3], (RAY, LOCAL)[number // 3 % 2]
        rng = python_random(ground.seed, "torture", "signal", number)
        folder = ground.root / f"signal-{number}"
        after = rng.uniform(0.5, ground.seconds(engine))
        command = run(folder, *engine)
        command.wait(after)
        if command.runs:
            command.process.send_signal(kind)
        what = f"{kind.name} after {after:.1f} s, {engine[0]}"
        ending = command.finish(60.0)
        yield _ended_and_resumed(ground, "told to end by a signal", what, folder, ending, (128 + kind, -kind))


def _ended_and_resumed(
    ground: Ground, family: str, what: str, folder: Path, ending: Ending, due: tuple[int, ...]
) -> Trial:
    """The trial of a run that was made to end: with a status that is due and a word, and then it goes on."""
    told = ending.status == 0 or "flsim resume" in ending.said or "nothing of a run was written" in ending.said
    if ending.status not in (0, *due) or not told or "Traceback" in ending.said or ending.left:
        return Trial(family, what, LOST, f"status {ending.status}, {ending.left} left behind: {ending.last}")
    return ground.judged(family, what, folder, resume(folder, *LOCAL).finish())


def stopped(ground: Ground) -> Iterator[Trial]:
    """The driver is stopped as by Ctrl-Z while another tries to go on in its folder; or a worker sleeps for a while."""
    for number in range(ground.times(4)):
        engine = (RAY, LOCAL)[number % 2]
        folder = ground.root / f"stopped-{number}"
        command = run(folder, *engine)
        began(command, folder)
        command.process.send_signal(signal.SIGSTOP)
        yield refused("resume of a run that is stopped", engine[0], resume(folder, *LOCAL).finish())
        command.process.send_signal(signal.SIGCONT)
        yield ground.judged("stopped, and continued", f"the driver, {engine[0]}", folder, command.finish())
    for number in range(ground.times(2)):
        folder = ground.root / f"asleep-{number}"
        command = run(folder, *RAY)
        began(command, folder)
        sleepers = command.family("ray::Worker")[:1]
        for sleeper in sleepers:
            sleeper.suspend()
        time.sleep(_STOPPED_S)
        for sleeper in sleepers:
            sleeper.resume()
        yield ground.judged("stopped, and continued", "a worker", folder, command.finish())


def twice(ground: Ground) -> Iterator[Trial]:
    """Two processes want one folder: started in the same moment, or the one while the other runs."""
    for number in range(ground.times(6)):
        folder = ground.root / f"race-{number}"
        both = [run(folder, *LOCAL) for _ in range(2)]
        endings = sorted((command.finish() for command in both), key=lambda ending: ending.status != 0)
        trial = refused("two at once", "two starts in one moment", endings[1])
        same = ground.judged("two at once", trial.what, folder, endings[0])
        yield trial if same.outcome == SURVIVED else same
    for number in range(ground.times(4)):
        folder = ground.root / f"beside-{number}"
        command = run(folder, *(RAY if number % 2 else LOCAL))
        began(command, folder)
        trial = refused("two at once", "resume of a run that runs", resume(folder, *LOCAL).finish())
        same = ground.judged("two at once", trial.what, folder, command.finish())
        yield trial if same.outcome == SURVIVED else same


def clocks(ground: Ground) -> Iterator[Trial]:
    """The clock of driver and workers jumps by weeks, back and forth, every second."""
    for number in range(ground.times(4)):
        engine = (RAY, LOCAL)[number % 2]
        shim = ground.root / f"clock-{number}.shim"
        shim.mkdir()
        (shim / "sitecustomize.py").write_text(_CLOCK.format(seed=ground.seed + number))
        path = os.pathsep.join([str(shim), *filter(None, [os.environ.get("PYTHONPATH")])])
        folder = ground.root / f"clock-{number}"
        ending = run(folder, *engine, environment={"PYTHONPATH": path}).finish()
        yield ground.judged("a clock that jumps", engine[0], folder, ending)


def began(command: Command, folder: Path) -> bool:
    """Wait until the rounds have begun."""
    log = folder / "run.log"
    return command.wait_until(lambda: log.is_file() and " devices on " in log.read_text(errors="replace"))


def _is_trained(folder: Path) -> bool:
    return (folder / "adapter").exists()
