"""A device's round run again is the run's to the bit: early, in the middle, last, on every engine, after a resume."""

import hashlib
import shutil
from collections.abc import Sequence
from pathlib import Path

import pytest

import flsim
from flsim.cloud.builtin import Oracle
from flsim.cloud.protocol import MONEY, Answer, RefusedError
from flsim.config.schema import Config, ConfigError
from flsim.loop.before import state_before
from flsim.loop.rerun import Rerun, differences, rerun
from flsim.metrics.rows import Row, read_rows, rows_frame, rows_path, write_rows
from flsim.problems.problem import Problem
from tests.tiny import TinyRun, without_report

pytestmark = pytest.mark.usefixtures("no_report")

TINY = (  # four devices in packs of two, a residual in the base, and allotments that follow what was spent
    "rounds=3",
    "fleet.devices=4",
    "fleet.cohort=3",
    "stream.phases=[[arithmetic],[strings]]",
    "strategy.path=strategies.fedex_lora:FedExLora",
    "budget.fleet.calls_total=9",
    "budget.fleet.division=traffic",
    "evaluation.own=always",
    "engine.pack=2",
    *(f"client.{key}" for key in ("steps=2", "group_size=3", "lr=0.01")),
)


@pytest.fixture(scope="module")
def config(tiny_runs: TinyRun) -> Config:
    """Of a run that was stopped after its second round and went on."""
    config = tiny_runs("resumed")
    with without_report():
        flsim.run(config, until=2, progress=False)
        flsim.run(resume=config.folder, progress=False)
    return config


def of_cohort(folder: Path, round_: int) -> list[int]:
    """The devices that learned in a round."""
    rows = read_rows(folder)
    names = rows.loc[(rows["round"] == round_) & (rows["name"] == "uplink_bytes"), "device"]
    return sorted(int(name.removeprefix("device-")) for name in names)


def again(folder: Path, round_: int, device: int, *settings: str) -> Rerun:
    return rerun(state_before(folder, round_), device, settings, progress=False)


def contents(folder: Path) -> dict[str, str]:
    """What lies in a run's folder beside its replays."""
    files = (path for path in folder.rglob("*") if path.is_file() and "replays" not in path.parts)
    return {str(path): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def same(found: Rerun, *names: str) -> bool:
    """Whether all is equal, and rows of these names are among what was compared."""
    assert found.differences == []
    assert {"reward", "cloud_calls", "dual_variable", "downlink_bytes", *names} <= set(found.compared[0]["name"])
    return found.earlier == ()


def test_the_last_round_is_replayed_from_what_the_run_keeps(config: Config) -> None:
    """With it the state that the device left; nobody runs a round for it, and the run's folder stays as it was."""
    before = contents(config.folder)
    for device in of_cohort(config.folder, 3):
        found = again(config.folder, 3, device)
        assert same(found, "allotment_calls", "target_usage", "accuracy")
        assert found.before.is_complete
        assert found.same_state is True
        assert device in found.answered.pack
    assert contents(config.folder) == before


def test_earlier_rounds_are_replayed_from_rounds_that_are_run_again(config: Config) -> None:
    """Each from the nearest state that was made before; of them nothing is forgotten."""
    before = contents(config.folder)
    first = state_before(config.folder, 1)
    assert (first.reached, first.folder) == (-1, config.folder / "replays" / "round-00000")
    assert first.seconds is not None
    for round_, reached in ((1, -1), (2, 0), (1, 0)):
        place = state_before(config.folder, round_)
        assert place.reached == reached
        found = rerun(place, of_cohort(config.folder, round_)[0], progress=False)
        assert same(found, "allotment_calls")
        assert found.same_state is None
    assert contents(config.folder) == before


def test_what_differs_is_named() -> None:
    """To the last bit, and what only one of the two has."""
    where = (3, "device-000", "strings", "train", "own")
    loss = Row(*where, "loss", 0.1, 1.0)
    run = rows_frame([Row(*where, "reward", 0.3, 24.0), Row(*where, "cloud_calls", 2.0, 1.0), loss])
    now = rows_frame([Row(*where, "reward", 0.1 + 0.2, 24.0), Row(*where, "explored", 3.0, 9.0), loss])
    assert differences(run, run) == []
    assert differences(run, now) == [
        "cloud_calls of strings: the run has 2.0 of 1.0, the replay nothing",
        "explored of strings: the run has nothing, the replay 3.0 of 9.0",
        "reward of strings: the run has 0.3 of 24.0, the replay 0.30000000000000004 of 24.0",
    ]


def test_rows_and_a_state_that_are_not_the_devices_are_found(config: Config, tmp_path: Path) -> None:
    """Somebody wrote another reward into the run's rows of its last round, and another seed made the round before."""
    folder = tmp_path / "changed"
    shutil.copytree(config.folder, folder, ignore=shutil.ignore_patterns("replays"))
    device = of_cohort(folder, 3)[0]
    rows = read_rows(folder)
    mine = (rows["device"] == f"device-{device:03d}") & (rows["name"] == "reward")
    rows.loc[mine, "total"] += 1
    write_rows(rows_path(folder, 3), [Row(*row) for row in rows[rows["round"] == 3].itertuples(index=False)])
    (line,) = again(folder, 3, device).differences
    assert line.startswith("reward of strings: the run has ")
    (line,) = again(folder, 3, device).differences  # of the state that is kept by now
    write_rows(rows_path(folder, 1), [])
    assert again(folder, 2, of_cohort(folder, 2)[0]).earlier == (
        "round 1 was made again, and its rows are not those of the run",
    )


def test_a_device_that_the_round_did_not_ask_is_told(config: Config) -> None:
    absent = next(device for device in range(4) if device not in of_cohort(config.folder, 3))
    with pytest.raises(ConfigError, match=rf"device-00{absent} was not asked to learn in round 3; those that were: "):
        again(config.folder, 3, absent)


@pytest.mark.parametrize(
    "end",
    [
        pytest.param("{kind: deadline, deadline_s: 0.55}", marks=pytest.mark.slow),
        "{kind: buffered, in_flight: 3}",
    ],
)
def test_devices_that_were_late_or_are_in_flight_are_replayed(tiny_run: TinyRun, end: str) -> None:
    """A late one's rows are there, though its update was not used; one in flight was not aggregated in its round."""
    config = tiny_run("timed", f"system.end={end}", "fleet.cohort=2", "evaluation.own=never")
    flsim.run(config, until=2, progress=False)
    flsim.run(resume=config.folder, progress=False)
    words, staleness = set(), set()
    for round_ in (3, 2):
        rows = read_rows(config.folder)
        rows = rows[(rows["round"] == round_) & (rows["split"] == "train")]
        staleness |= set(rows.loc[rows["name"] == "staleness", "total"])
        for name in rows.loc[rows["name"] == "downlink_bytes", "device"]:
            found = again(config.folder, round_, int(name.removeprefix("device-")))
            assert same(found)
            words.add(found.set_aside[0])
    assert words == {None, "late"} if "deadline" in end else staleness > {0.0}


@pytest.mark.slow
def test_a_run_with_ray_is_replayed_in_this_process(tiny_run: TinyRun) -> None:
    """The rounds before on two workers, or here; each device of each round."""
    config = tiny_run("ray", "engine.kind=ray", "engine.workers=2")
    flsim.run(config, progress=False)
    for round_, settings in ((3, ()), (1, ()), (2, ("engine.kind=local",))):
        for device in of_cohort(config.folder, round_):
            assert same(again(config.folder, round_, device, *settings), "allotment_calls")


class Dear(Oracle):
    """Costs money and counts how often it is asked, in a file."""

    costs = MONEY

    def __init__(self, book: str) -> None:
        super().__init__()
        self.book = Path(book)

    def answer(self, problems: Sequence[Problem]) -> list[Answer]:
        with self.book.open("a") as file:
            file.write("asked\n" * len(problems))
        return super().answer(problems)


@pytest.mark.slow
def test_nothing_is_bought_again_unless_that_is_said(tiny_run: TinyRun, tmp_path: Path) -> None:
    """Kept answers do; of a run that keeps none, its journals do for the last round, and no other."""
    book = tmp_path / "book"
    for name, cache in (("kept", str(tmp_path / "cache")), ("bare", "null")):
        config = tiny_run(name, f"cloud.cache={cache}", "rounds=2")
        cloud = Dear(str(book))
        flsim.run(config, cloud=cloud, progress=False)
        paid = book.read_text()
        assert paid
        last = state_before(config.folder, 2), of_cohort(config.folder, 2)[0]
        assert rerun(*last, cloud=cloud, progress=False).differences == []
        early = state_before(config.folder, 1), of_cohort(config.folder, 1)[0]
        if name == "kept":
            assert rerun(*early, cloud=cloud, progress=False).differences == []
            assert book.read_text() == paid
            continue
        with pytest.raises(RefusedError, match=r"questions to Dear, which costs money, are not among the answers"):
            rerun(*early, cloud=cloud, progress=False)
        assert book.read_text() == paid
        assert rerun(*early, cloud=cloud, pays=True, progress=False).differences == []
        assert len(book.read_text()) > len(paid)
