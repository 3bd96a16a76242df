"""Do the runs that are missing, several side by side, each in a process of its own; never one that is finished."""

import logging
import multiprocessing
import os
import signal
import sys
import threading
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing import resource_tracker
from multiprocessing.connection import Connection, wait
from multiprocessing.context import ForkServerProcess
from pathlib import Path

from experiments.command.ending import status_of
from experiments.study.progress import Progress
from experiments.study.shared import Training, begun, trainings_of
from flsim.config.schema import Config, ConfigError
from flsim.files import log_to
from flsim.live.queue import queued
from flsim.loop.checks import check
from flsim.loop.folder import open_again

_FORKS = multiprocessing.get_context("forkserver")
_FORKS.set_forkserver_preload(["experiments.study.shared", "flsim.report.finish"])  # imported once, not per run
_THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
_LOOK_S = 2.0  # between two looks at the rounds of what is running
_STOP_S = 10.0  # for a run to end that is told to
_LONGEST = 2000  # letters of an error, so that a pipe takes them all at once


@dataclass(frozen=True)
class Failure:
    """A run that ended with an error."""

    folder: Path
    error: str
    """In one line or a few."""
    runs: int = 1
    """How many runs it was the training of."""

    def __str__(self) -> str:
        """What went wrong, and where more is said of it."""
        log = self.folder / "run.log"
        return f"{self.folder}: {self.error}" + (f"\n  log: {log}" if log.is_file() else "")


def is_begun(config: Config) -> bool:
    """Whether there is a run to go on with."""
    return begun(config.folder) is not None


def is_finished(config: Config) -> bool:
    """Whether the run is there with its summary.

    Raises:
        ConfigError: if its folder holds a run of other settings.
    """
    if is_begun(config):
        open_again(config.folder, config)
    return (config.folder / "summary.json").is_file()


def do_all(configs: Sequence[Config], jobs: int) -> list[Failure]:
    """Run what is not finished yet, in this order, with a line that says how much time is left.

    Runs that differ in the rule for asking alone are trained once (`experiments/study/shared.py`).

    A run that fails does not stop the others. If this process ends, by Ctrl-C or a kill, the runs end with it, and
    the next call goes on with them.

    Args:
        configs: the runs, each with a folder of its own.
        jobs: at most so many at once, each on one thread.

    Returns:
        What failed.

    Raises:
        ConfigError: if a run's settings cannot work or its folder holds a run of others; then none has been started.
    """
    missing = [config for config in configs if not is_finished(config)]
    for config in missing:
        check(config)
    trainings = trainings_of(missing)
    waiting, running, failures = deque(trainings), list[_Work](), list[Failure]()
    progress = Progress(len(configs), [training.config for training in trainings])

    def show() -> None:
        todo = sum(len(training.configs) for training in (*waiting, *(work.training for work in running)))
        progress.show(
            [work.training.config for work in running],
            done=len(configs) - todo - sum(failure.runs for failure in failures),
            failed=[failure.folder for failure in failures],
        )

    try:
        with queued({config.folder: config.rounds for config in missing}):
            while waiting or running:
                while waiting and len(running) < jobs:
                    running.append(_start(waiting.popleft()))
                show()
                wait([work.process.sentinel for work in running], timeout=_LOOK_S)
                for work in [work for work in running if not work.process.is_alive()]:
                    running.remove(work)
                    error, runs = work.error(), len(work.training.configs)
                    failures += [Failure(work.training.config.folder, error, runs)] if error else []
            show()
    finally:
        for work in running:
            work.stop()
        progress.close()
    return failures


def exit_status(work: Callable[[], int]) -> int:
    """The status that `work` returns, or that of a wrong setting (2) or of a signal, with a line that says so."""
    try:
        return work()
    except ConfigError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt as stop:
        print("stopped; the same command goes on", file=sys.stderr)
        return status_of(stop)


@dataclass(frozen=True)
class _Work:
    """A training in its process."""

    training: Training
    process: ForkServerProcess
    report: Connection
    """On which it says what went wrong."""

    def error(self) -> str | None:
        """Why the process ended; None if all went well."""
        if self.process.exitcode == 0:
            return None
        try:
            return str(self.report.recv())
        except EOFError:  # it had no time to say
            code = self.process.exitcode or 0
            return f"its process was ended by signal {-code}" if code < 0 else f"its process ended with status {code}"

    def stop(self) -> None:
        """End it; what it committed stays."""
        self.process.terminate()
        self.process.join(_STOP_S)
        self.process.kill()
        self.process.join()


def _start(training: Training) -> _Work:
    report, sender = _FORKS.Pipe(duplex=False)
    with _one_thread(), _deaf_to_ctrl_c():  # both hold for the server too, which the first start begins
        process = _FORKS.Process(target=_run, args=(training, sender, dict(os.environ)))
        process.start()
    sender.close()
    return _Work(training, process, report)


def _run(training: Training, sender: Connection, environment: Mapping[str, str]) -> None:
    """What the process does; the server that it comes from may be older than the environment."""
    os.environ.update(environment)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    try:
        training.run()
    except Exception as error:
        sender.send(f"{type(error).__name__}: {error}"[:_LONGEST])
        config = training.config
        log = log_to(config.folder) if is_begun(config) else logging.getLogger(__name__)
        log.exception("the run failed")
        raise SystemExit(1) from error


def _end_with_parent() -> None:
    """A run left alone by a kill of its parent would meet the next sweep in its own folder."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)


@contextmanager
def _deaf_to_ctrl_c() -> Iterator[None]:
    """For processes that are started here: Ctrl-C reaches all of a terminal's, and it is the parent who ends them."""
    resource_tracker.ensure_running()  # before, as whoever starts it is open to Ctrl-C again
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


@contextmanager
def _one_thread() -> Iterator[None]:
    """One thread for each process that is started here; with more, the processes would hinder each other."""
    before = {name: os.environ.get(name) for name in _THREADS}
    os.environ.update(dict.fromkeys(_THREADS, "1"))
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value
