"""When drafting pays on the fleets of some runs: how fast each class of device and the cloud say a token, by system."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pandas as pd

from flsim.collaboration.worth import Pace
from flsim.config.schema import Config
from flsim.devices import device_index
from flsim.metrics.formulas import AtEnd
from flsim.metrics.measures_of_help import tokens_per_request
from flsim.metrics.run_rows import RunRows
from flsim.models.sizes import system_of
from flsim.report.drafting_figure import LONGEST, Panel, acceptance_of, best_lengths, longest_trip
from flsim.system.classes import DeviceClass
from flsim.system.seconds import sample_seconds
from flsim.system.system import System
from flsim.text import markdown_table, percent, seconds


def pace_of(system: System, of: DeviceClass) -> Pace:
    """A token of the device's model without context, and one of the cloud's stream; the trip is left open.

    What ids of tokens take beyond the trip is left out: 12 bytes on the slowest link that ships are 0.2 ms.
    """
    draft = sample_seconds(system.shape, of, tokens=1, steps=1, context=0.0)
    return Pace(draft, 1 / system.config.cloud.decode_per_s, 0.0)


def drafting_panels(runs: Sequence[tuple[Config, pd.DataFrame]]) -> list[Panel]:
    """A panel for each class of device that drafted, the slowest first, with a ring for every device of every run.

    Args:
        runs: finished ones with a system and a mode of help that drafts, each with its rows.
    """
    paces, rings = dict[str, Pace](), dict[str, list[tuple[float, float]]]()
    for config, rows in runs:
        assert config.system is not None, "the study's runs have a system"
        system = system_of(config.system, config.model, config.stream.seed)
        length = int(config.client["helping"]["k"])
        for device, chance in acceptances(rows, length).items():
            index = device_index(str(device))
            of = system.class_of(index)
            paces[of.name] = pace_of(system, of)
            rings.setdefault(of.name, []).append((system.link_of(index).rtt_ms / 1000, chance))
    slowest = sorted(paces, key=lambda name: -paces[name].draft_s)
    return [Panel(f"{name}: {seconds(paces[name].draft_s)} a token", paces[name], rings[name]) for name in slowest]


def acceptances(rows: pd.DataFrame, length: int) -> dict[str, float]:
    """By device, the chance with which a token of its drafts of so many was accepted at the last test."""
    run = RunRows(rows, (), tau=float("nan"))
    both = pd.DataFrame(
        {"accepted": AtEnd("accepted_tokens")(run), "requests": AtEnd("cloud_test_trips")(run)}
    ).dropna()
    gained = {str(name): tokens_per_request(*own) for name, own in both.T.items()}
    return {name: acceptance_of(value, length) for name, value in gained.items() if np.isfinite(value)}


def inequality_table(panels: Sequence[Panel]) -> str:
    """A line for every class and trip: `rtt < t_v E(a, k) - k t_d - t_v`, with the mean acceptance of its devices."""
    lines = [["class", "t_v", "round trip", "a", "k*", "drafting pays below", "drafting", "stream"]]
    for panel in panels:
        for trip in sorted({trip for trip, _ in panel.rings}):
            chance = float(np.mean([own for other, own in panel.rings if other == trip]))
            ((length,),), ((gain,),) = best_lengths(panel.pace, (trip,), (chance,))
            below = longest_trip(panel.pace, chance)
            there = replace(panel.pace, rtt_s=trip)
            assert np.isclose(there.per_token(chance, int(length)) * gain, panel.pace.verify_s)
            lines.append(
                [
                    panel.title,
                    seconds(panel.pace.verify_s),
                    seconds(trip),
                    percent(chance),
                    f"{length}{' or more' if length == LONGEST else ''}",
                    seconds(below) if below > 0 else "no trip",
                    f"{seconds(panel.pace.verify_s / gain)} a token",
                    f"{seconds(panel.pace.verify_s)} a token",
                ]
            )
    return markdown_table(lines)
