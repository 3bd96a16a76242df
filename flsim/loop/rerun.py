"""One device's round run again, alone, and held against what the run has of it, bit for bit.

The rounds before it give the state that it begins with (`flsim/loop/before.py`); the round itself is the run's own code
on a grid that answers one pack and leaves (`flsim/flower/pack_grid.py`).
"""

import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import pandas as pd
from flwr.clientapp import ClientApp
from flwr.serverapp.strategy import Strategy

import flsim.flower.messages as wire
from flsim.cloud.make import make_cloud
from flsim.cloud.protocol import MONEY, NOTHING, Cloud
from flsim.cloud.unpaid import Unpaid
from flsim.config.load import load_config
from flsim.config.schema import Config, ConfigError
from flsim.devices import device_name
from flsim.files import log_to
from flsim.flower.contract import Stage, client_of
from flsim.flower.grid import store_in
from flsim.flower.pack_grid import Answered, LeftRun, PackGrid
from flsim.loop.before import Before
from flsim.loop.checkpoints import latest_checkpoint
from flsim.loop.folder import open_again
from flsim.loop.lock import RunLock
from flsim.loop.place import CONFIG
from flsim.loop.ready import Ready, prepare
from flsim.loop.simulation import go_on
from flsim.loop.treasurer import allotment_rows, spent_in_training
from flsim.metrics.rows import COLUMNS, TIMING_NAMES, Row, read_rows_file, rows_frame, rows_path
from flsim.metrics.timed import OF_DEVICES

OF_SERVER = OF_DEVICES | {"aggregation_share", "update_norm", "mean_cosine", "staleness", "late", "set_aside"}
"""Training rows of a device that the server writes, once it has heard of others: a device alone has none of them."""
_KEY = ["task", "split", "model", "name"]
_NOT_ITS_OWN = ("late", "died", "left", wire.MISCOUNTED, wire.UNSUMMABLE)  # set aside for what others did or saw
_SPENT = ("cloud_calls", "cloud_tokens", "cloud_money")  # which a run has from journals where a reply is missing


@dataclass(frozen=True)
class Rerun:
    """What came of a round that was run again, beside what the run has of it."""

    before: Before
    device: int
    answered: Answered
    recorded: pd.DataFrame
    """The run's rows of the device and round, but for those that differ between equal runs."""
    again: pd.DataFrame
    """The rows that came now, likewise."""
    earlier: tuple[str, ...]
    """Which of the rounds that were made again for it differ from the run's, a sentence each."""
    same_state: bool | None
    """Whether the state that the device left is the one that the run holds; None where the run holds none of the
    round."""

    @property
    def set_aside(self) -> tuple[str | None, str | None]:
        """Why the device was set aside, in the run and now, each as one word; None where it was not."""
        marked = self.recorded.loc[self.recorded["name"] == "set_aside", "task"]
        reply = self.answered.reply
        return (str(marked.iloc[0]) if len(marked) else None, wire.reason_of(reply)[0] if reply.has_error() else None)

    @property
    def theirs(self) -> bool:
        """Whether the run set it aside for what others did or saw, so that its reply is usable now."""
        was, now = self.set_aside
        return was in _NOT_ITS_OWN and now is None

    @property
    def heard(self) -> bool:
        """Whether the run has what the device replied; not where no reply was there to be read."""
        said = self.recorded["name"].isin(self.again["name"]) & ~self.recorded["name"].isin(_SPENT)
        return not self.theirs or bool((said & ~_by_message(self.recorded)).any())

    @property
    def compared(self) -> tuple[pd.DataFrame, pd.DataFrame]:
        """The rows that a device alone can have, of the run and now; of one that was not heard what it was sent."""
        was, now = (rows[~rows["name"].isin(OF_SERVER)] for rows in (self.recorded, self.again))
        if not self.heard:
            return was[_by_message(was)], now[_by_message(now)]
        if self.theirs:  # what it sent is not counted as received
            now = now[(now["name"] != "uplink_bytes") | ("uplink_bytes" in set(was["name"]))]
        return was, now

    @property
    def differences(self) -> list[str]:
        """What is not the same, a line each; empty where all is, to the bit."""
        was, now = self.set_aside
        lines = (
            []
            if was == now or self.theirs
            else [f"set_aside: the run has {was or 'nothing'}, the replay {now or 'nothing'}"]
        )
        lines += differences(*self.compared)
        return lines + (["the state that the device left"] if self.same_state is False else [])


def _by_message(rows: pd.DataFrame) -> "pd.Series[bool]":
    """The rows that say what a device was sent."""
    return rows["name"].str.startswith("allotment_") | rows["name"].isin(["downlink_bytes", "target_usage"])


def differences(recorded: pd.DataFrame, again: pd.DataFrame) -> list[str]:
    """What differs between two sets of rows of one device and round, by name, a line each.

    Args:
        recorded: of the run.
        again: of the replay.
    """
    both = recorded.merge(again, on=_KEY, how="outer", suffixes=("_was", "_is"), indicator="side")
    lines = []
    for row in both.sort_values(_KEY, kind="stable").to_dict("records"):
        was, now = (f"{float(row[f'total_{of}'])!r} of {float(row[f'weight_{of}'])!r}" for of in ("was", "is"))
        if was == now:
            continue
        was, now = "nothing" if row["side"] == "right_only" else was, "nothing" if row["side"] == "left_only" else now
        where = "" if row["split"] == "train" else f" ({row['split']}, {row['model']})"
        lines.append(f"{row['name']} of {row['task']}{where}: the run has {was}, the replay {now}")
    return lines


def rerun(
    before: Before,
    device: int,
    settings: Sequence[str] = (),
    *,
    strategy: Strategy | None = None,
    client: ClientApp | None = None,
    stage: Stage | None = None,
    cloud: Cloud | None = None,
    pays: bool = False,
    debug: bool = False,
    progress: bool = True,
) -> Rerun:
    """Run a device's round again.

    Args:
        before: the state that it begins with; what is missing of it is made.
        device: its index.
        settings: `key=value` of where the rounds before are run; the device's own is run in this process.
        strategy: as the run was given one, if it was; likewise `client`, `stage` and `cloud`.
        client: likewise.
        stage: likewise.
        cloud: likewise.
        pays: whether a cloud that costs money may be asked what is not kept of its answers.
        debug: whether to stop in pdb where the device learns, and where it raises.
        progress: whether to show a bar.

    Raises:
        ConfigError: for settings that change results, a device that the round did not ask, or answers that are not
            kept and may not be paid.
        DamagedFileError: if a file cannot be read.
    """
    config = replace(_config_of(before.run, settings), track=())  # a rerun is no run that anybody follows
    cloud = make_cloud(config.cloud) if cloud is None else cloud
    if cloud.costs == MONEY and not pays:
        guard = Unpaid(cloud, "flsim replay --again asks, and pays for, what is missing")
        _refuse_stage(before, config, stage)
        client = client_of(config, guard) if client is None else client
        cloud = cloud if stage or config.stage else guard
    before.fill()
    config = replace(config, run_dir=str(before.folder))
    with RunLock(before.folder) as lock:
        log = log_to(before.folder)
        ready = prepare(config, strategy, client, stage, cloud)
        if not before.is_complete:
            go_on(ready, lock, last=before.round - 1, log=log, progress=progress)
        before.forget_later()
        if cloud.costs != NOTHING and config.cloud.cache is None:
            before.take_purchases()
        answered = _answered(ready, lock, before, device, debug=debug, log=log)
    return _beside(before, device, answered, config)


def _config_of(run: Path, settings: Sequence[str]) -> Config:
    """The run's own config, with where it runs laid over it; unlike a resume it writes nothing."""
    if not (run / CONFIG).is_file():
        raise ConfigError(f"{run} has no {CONFIG}; flsim resume {run} says whether it can be had again")
    return open_again(run, load_config(run / CONFIG, settings) if settings else None)


def _refuse_stage(before: Before, config: Config, stage: Stage | None) -> None:
    """A stage buys for itself; whether its cache lacks anything is known only when it asks."""
    if (stage or config.stage) and not before.is_complete:
        raise ConfigError(
            f"rounds {before.reached + 1} to {before.round - 1} must be made again, and the stage of the run would buy "
            f"what its cache lacks from a cloud that costs money; flsim replay --again lets it"
        )


def _answered(
    ready: Ready, lock: RunLock, before: Before, device: int, *, debug: bool, log: logging.Logger
) -> Answered:
    """The round up to the reply of the device."""
    grid = PackGrid(ready.client, store_in(before.folder), ready.config.fleet.devices, device, debug=debug)
    try:
        go_on(ready, lock, last=before.round, log=log, progress=False, on=grid)
    except LeftRun as left:
        if left.answered is not None:
            return left.answered
        asked = ", ".join(device_name(one) for one in left.asked[:8])
        more = f" and {len(left.asked) - 8} more" if len(left.asked) > 8 else ""
        raise ConfigError(
            f"{device_name(device)} was not asked to learn in round {before.round}; those that were: {asked}{more}"
        ) from left
    raise AssertionError("a grid of one pack leaves the run by LeftRun")


def _beside(before: Before, device: int, answered: Answered, config: Config) -> Rerun:
    """What came, beside what the run has."""
    recorded = read_rows_file(rows_path(before.run, before.round))
    own = (recorded["device"] == device_name(device)) & ~recorded["name"].isin(TIMING_NAMES)
    of_training = (recorded["split"] == "train") | recorded["model"].str.startswith("own")
    again = rows_frame(_rows(answered, before.round, device, config))
    again = again[~again["name"].isin(TIMING_NAMES)]
    made = range(before.reached + 1, before.round)
    earlier = tuple(line for number in made for line in _unlike(before, number))
    checkpoint = latest_checkpoint(before.run)
    inventory = None if checkpoint is None else checkpoint.inventory
    held = None if inventory is None else inventory.states.get(device)
    same = None
    if held is not None and held.round == before.round:
        same = answered.state is not None and answered.state.digest == held.digest
    return Rerun(before, device, answered, recorded[own & of_training], again, earlier, same)


def _rows(answered: Answered, round_: int, device: int, config: Config) -> list[Row]:
    """All that a run's rows say of a device by its message and its reply alone."""
    where = (round_, device_name(device), "all", "train", "own")
    rows = [Row(*where, "downlink_bytes", wire.size_of(answered.sent), 1.0)]
    rows += allotment_rows(round_, device, wire.allotment_of(answered.sent))
    if answered.reply.has_error():
        return [*rows, *spent_in_training(config, device, round_)[0]]
    uplink = Row(*where, "uplink_bytes", wire.uplink_of(answered.reply), 1.0)
    return [*rows, uplink, *wire.rows_of(answered.reply)]


def _unlike(before: Before, round_: int) -> list[str]:
    """Whether a round that was made again differs from the run's, but for what differs between equal runs."""
    frames = []
    for folder in (before.run, before.folder):
        frame = read_rows_file(rows_path(folder, round_))
        frame = frame[~frame["name"].isin(TIMING_NAMES)]
        frames.append(frame.sort_values(list(COLUMNS), kind="stable", ignore_index=True))
    if frames[0].equals(frames[1]):
        return []
    return [f"round {round_} was made again, and its rows are not those of the run"]
