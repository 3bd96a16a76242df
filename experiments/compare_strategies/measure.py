"""What one run says of a strategy: per user from its rows, and what the server says of the aggregation."""

from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from clients.poisoning import malicious_devices
from flsim.config.schema import Config
from flsim.devices import device_name
from flsim.metrics.continual import forgetting
from flsim.metrics.rows import ASKED, STAGE, evaluation, latest, of_fleet, read_rows
from flsim.metrics.users import per_user
from flsim.tasks.stream import stream_of


@dataclass(frozen=True)
class Outcome:
    """One run."""

    accuracy: pd.Series
    """By user at the end, all task groups, asking the cloud within the budget."""
    alone: pd.Series
    """The same without the cloud."""
    forgetting: pd.Series
    """By user: best earlier end of a phase minus the last, mean over task groups, of accuracy without the cloud."""
    bias: float | None
    """Mean over rounds of `aggregation_bias`; None where it was not measured."""
    cut: float | None
    """Mean over rounds of `cut_energy`; None where nothing is cut."""
    uplink_mb: float
    """Of all devices and rounds."""
    downlink_mb: float
    """Of all devices and rounds."""
    calls: float
    """Cloud queries of the devices."""
    money: float
    """Of devices and server, in the unit of `cloud.price_*`."""
    server_money: float
    """The server's part of it."""
    usage: float
    """Mean share of responses that asked, over the last third of the run."""
    set_aside: int
    """Updates that could not be used."""


def outcome_of(folder: Path, config: Config) -> Outcome:
    """Read a finished run; malicious devices are no users."""
    rows = read_rows(folder)
    rows = rows[~rows["device"].isin([device_name(device) for device in _malicious(config)])]
    last = config.rounds
    tested = {name: evaluation(rows, model="global", name=name) for name in ("accuracy", "alone_accuracy")}
    asked = rows[rows["name"].isin(ASKED) & (rows["split"] == "train") & (rows["round"] > 2 * last / 3)]
    return Outcome(
        accuracy=per_user(latest(tested["accuracy"])),
        alone=per_user(latest(tested["alone_accuracy"])),
        forgetting=_forgetting(tested["alone_accuracy"], [phase.last_round for phase in stream_of(config).phases]),
        bias=_server_mean(rows, "aggregation_bias"),
        cut=_server_mean(rows, "cut_energy"),
        uplink_mb=_sum(rows, "uplink_bytes") / 1e6,
        downlink_mb=_sum(rows, "downlink_bytes") / 1e6,
        calls=_sum(rows[rows["split"] == "train"], "cloud_calls"),
        money=_sum(rows, "cloud_money"),
        server_money=_sum(rows[rows["split"] == STAGE], "cloud_money"),
        usage=float(per_user(asked).mean()),
        set_aside=int((rows["name"] == "set_aside").sum()),
    )


def _forgetting(rows: pd.DataFrame, ends: list[int]) -> pd.Series:
    values = {}
    for device, own in rows[rows["round"].isin(ends)].groupby("device"):
        totals = own.groupby(["round", "task"])[["total", "weight"]].sum()
        matrix = (totals["total"] / totals["weight"]).unstack("task").sort_index()
        values[str(device)] = float(forgetting(matrix).mean())
    return pd.Series(values, dtype=float)


def _malicious(config: Config) -> set[int]:
    share = config.client.get("poison_share")
    return set() if share is None else malicious_devices(config, float(share))


def _server_mean(rows: pd.DataFrame, name: str) -> float | None:
    found = of_fleet(rows)
    found = found[found["name"] == name]
    return None if found.empty else float(found["total"].mean())


def _sum(rows: pd.DataFrame, name: str) -> float:
    return float(rows.loc[rows["name"] == name, "total"].sum())
