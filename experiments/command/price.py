"""Say what a finished run would have taken in hours, joules and gigabytes, from the counts in its rows.

Examples:
  flsim price runs/demo-seed0                                   # classes and links that ship
  flsim price runs/a runs/b --system phones.yaml
  flsim price runs/demo-seed0 system.stands_for.device=Qwen2.5-0.5B
  flsim price runs/demo-seed0 --system phones.yaml --out runs/demo-on-phones

Nothing is run again: seconds and joules follow from what each device read, sampled, learned and asked. Everybody is
there and awaited; another end of a round would have given another run. --out writes a run's folder with these rows,
for `flsim compare`, and its page.
"""

import json
import re
import shutil
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd

from experiments.command.terminal import Parser, folder_in
from flsim.cloud.make import make_cloud
from flsim.config.load import differences, load_config, to_yaml
from flsim.config.schema import Config, ConfigError
from flsim.config.system import ALWAYS, EVERYBODY, SystemConfig
from flsim.flower.contract import ChoosesByTime, client_of
from flsim.loop.place import CONFIG, refuse_no_run
from flsim.loop.ready import system_for
from flsim.metrics.rows import read_rows, rows_path, training, write_rows_frame
from flsim.metrics.timed import OF_DEVICES, OF_ROUNDS, WATT_HOUR, priced
from flsim.tasks.stream import stream_of
from flsim.text import aligned, amount, seconds

_SETTING = re.compile(r"[A-Za-z_][\w.]*=")


def main(arguments: list[str]) -> int:
    """The command line; returns the exit status."""
    parser = Parser("price", __doc__, settings=True)
    parser.add_argument(
        "runs",
        nargs="+",
        metavar="RUN",
        type=_run_or_setting,
        help="folders of runs, and settings of system as key=value",
    )
    parser.add_argument("--system", metavar="FILE", type=Path, help="YAML with a section system (default: what ships)")
    parser.add_argument("--out", metavar="FOLDER", type=Path, help="write the run with these rows there")
    parser.add_argument("--json", action="store_true", help="print the figures as JSON")
    args = parser.parse_intermixed_args(arguments)
    settings = [one for one in args.runs if isinstance(one, str)]
    folders = [one for one in args.runs if isinstance(one, Path)]
    if not folders:
        parser.error(f"no run is given, and {settings[0]} is a setting; name its folder, such as runs/demo-seed0")
    if args.out is not None and len(folders) != 1:
        raise ConfigError(f"--out={args.out} is for one run, and {len(folders)} are given; price them one by one")
    figures = {}
    for folder in folders:
        config, rows = priced_run(folder, args.system, settings)
        figures[str(folder)] = figures_of(rows)
        if args.out is not None:
            _write(folder, args.out, config, rows)
    print(json.dumps(figures, indent=2) if args.json else _table(figures))
    return 0


def _run_or_setting(text: str) -> Path | str:
    """A setting as it is; whatever is there, or begins as no key does, is a folder."""
    return text if _SETTING.match(text) and not Path(text).is_dir() else folder_in(text)


def priced_run(folder: Path, file: Path | None, settings: list[str]) -> tuple[Config, pd.DataFrame]:
    """A run's config with a system, and its rows with what that takes.

    Args:
        folder: the run's.
        file: YAML with a section `system`; None: the run's own, or what ships.
        settings: `system.KEY=value` over it.

    Raises:
        ConfigError: for a folder without a run, rows without counts, or a system under which it would be another run.
    """
    refuse_no_run(folder)
    other = next((one for one in settings if not one.startswith("system")), None)
    if other is not None:
        raise ConfigError(f"{other} is no setting of system, and flsim price runs nothing again; leave it out")
    asked, own = _asked(folder, file, settings)
    _refuse_other_run(folder, asked)
    config = replace(own, system=asked, run_dir=str(folder))
    if config.budget.follows_trips:
        raise ConfigError(
            f"{folder} has a budget in bytes, joules or seconds, which grants other questions under another system; "
            f"run it again with that"
        )
    client = client_of(config, make_cloud(config.cloud))
    if isinstance(client, ChoosesByTime) and client.chooses_by_time and asked != own.system:
        raise ConfigError(
            f"{folder} has a mode of help that chooses by what things take in virtual time (client.helping), and would "
            f"have chosen otherwise under another system; price it under its own, or run it again"
        )
    rows = read_rows(folder)
    if not (rows["name"] == "read_tokens").any():
        raise ConfigError(
            f"{folder} has no counts in its rows: a release before 0.4 made it, or its client counts nothing"
        )
    timed = rows["name"].isin(OF_DEVICES | OF_ROUNDS) | rows["name"].str.startswith(("class_", "link_"))
    system = system_for(config, client)
    assert system is not None, "one is asked for"
    return config, priced(rows[~timed].reset_index(drop=True), system)


def _asked(folder: Path, file: Path | None, settings: list[str]) -> tuple[SystemConfig, Config]:
    """The system that is asked for: the run's own, or a file's, with settings over it; and the run's config.

    Raises:
        ConfigError: for a file with other keys than those of system, or none of them, or a run of another end.
    """
    config = load_config(folder / CONFIG)
    if config.system is not None:
        _refuse_other_run(folder, config.system)
    if file is None:
        return load_config(folder / CONFIG, settings).system or SystemConfig(), config
    found = load_config(None, fragments=[file])
    other = [key for key in differences(Config(), found) if not key.startswith("system")]
    if other:
        raise ConfigError(f"--system={file} sets {other[0]}; a system is a section `system` and nothing else")
    if found.system is None:
        raise ConfigError(f"--system={file} has no section `system`; write its keys below one")
    return load_config(None, settings, fragments=[file]).system or SystemConfig(), config


def _refuse_other_run(folder: Path, system: SystemConfig) -> None:
    """Refuse to price what depends on who took part.

    Raises:
        ConfigError: saying what would have given another run.
    """
    if system.end.kind != EVERYBODY or system.availability.kind != ALWAYS or system.charge_w:
        raise ConfigError(
            f"{folder}: system.end, system.availability and system.charge_w say who takes part, so that another value "
            f"would have given another run; price runs that waited for all, who are always there, or run it again"
        )


def figures_of(rows: pd.DataFrame) -> dict[str, Any]:
    """Totals of a run: hours, joules of devices and of the cloud, gigabytes, money."""

    def total(*names: str) -> float:
        return float(sum(training(rows, name=name)["total"].sum() for name in names))

    fleet = rows[rows["name"] == "virtual_seconds"]["total"]
    return {
        "virtual_hours": float(fleet.max()) / 3600 if len(fleet) else 0.0,
        "device_joules": total("joules"),
        "compute_joules": total("compute_joules"),
        "waiting_joules": total("waiting_joules"),
        "radio_joules": total("radio_joules"),
        "cloud_joules": total("cloud_joules"),
        "gigabytes": total("link_bytes") / 1e9,
        "money": total("cloud_money"),
    }


def _table(figures: dict[str, dict[str, Any]]) -> str:
    lines = [["run", "virtual time", "devices, Wh", "computing", "waiting", "radio", "cloud, Wh", "GB", "money"]]
    for folder, of in figures.items():
        whole = of["device_joules"] or 1.0
        parts = [f"{100 * of[f'{part}_joules'] / whole:.0f} %" for part in ("compute", "waiting", "radio")]
        lines.append(
            [
                folder,
                seconds(3600 * of["virtual_hours"]),
                amount(of["device_joules"] / WATT_HOUR),
                *parts,
                amount(of["cloud_joules"] / WATT_HOUR),
                f"{of['gigabytes']:.3g}",
                amount(of["money"]),
            ]
        )
    return "\n".join(aligned(lines))


_LEFT = ("rows", "checkpoints", "devices", "purchases", "flights", "replays", "plots")
"""What a folder that nothing goes on from does without."""


def _write(folder: Path, out: Path, config: Config, rows: pd.DataFrame) -> None:
    """The run's folder with these rows, its page anew; no checkpoint, since nothing goes on from it."""
    if out.exists():
        raise ConfigError(f"--out={out} exists; name another folder")
    if int(rows["round"].max()) < config.rounds:
        at = f"round {rows['round'].max()} of {config.rounds}"
        raise ConfigError(f"{folder} is at {at}; finish it by flsim resume before you write it elsewhere")
    shutil.copytree(folder, out, ignore=shutil.ignore_patterns(*_LEFT))
    (out / CONFIG).write_text(to_yaml(replace(config, run_dir=str(out))), encoding="utf-8")
    for round_, own in rows.groupby("round"):
        write_rows_frame(rows_path(out, int(str(round_))), own)
    from flsim.report.finish import finish_run

    stream = stream_of(config)
    finish_run(out, phases=stream.phases, tau=config.budget.tau, data=stream.data, devices=config.fleet.devices)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
