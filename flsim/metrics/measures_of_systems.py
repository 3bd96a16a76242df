"""Measures of devices as systems: what they did in counts, and what that took in virtual time and joules."""

from collections.abc import Callable

import numpy as np

from flsim.metrics.fairness import gini
from flsim.metrics.formulas import AtEnd, MeanUser, Spent, Trained
from flsim.metrics.measure import Measure
from flsim.metrics.offloading import cost_per_correct
from flsim.metrics.run_rows import RunRows
from flsim.metrics.systems import (
    BUSIEST,
    PARTS,
    dropped_share,
    has_system,
    of_classes,
    share_of_busiest,
    staleness,
    virtual_seconds,
    waste_share,
    work_of,
)

DEADLINES = (1, 2, 5)
"""Deadlines of tests that have measures, in seconds; the run's page has those of its own `system.deadlines_s`."""
_DEVICE_JOULES = tuple(f"{part}_joules" for part in PARTS)


def _of_system(of: Callable[[RunRows], float]) -> Callable[[RunRows], float]:
    """A number that is nan where there is no virtual time."""
    return lambda run: of(run) if has_system(run.rows) else float("nan")


def _of_staleness(of: Callable[[np.ndarray], float]) -> Callable[[RunRows], float]:
    def taken(run: RunRows) -> float:
        values = staleness(run.rows)  # (updates,)
        return float(of(values)) if len(values) else float("nan")

    return taken


def _end(run: RunRows) -> float:
    return float(virtual_seconds(run.rows).iloc[-1])


def _gap_of_classes(run: RunRows) -> float:
    means = of_classes(run.accuracy, run.classes)
    return float(means.max() - means.min()) if len(means) else float("nan")


OF_SYSTEMS = (
    Measure("response_length", "tokens a response", "tokens",
            "Tokens that a device samples for a training response, its ending included.",
            Trained("sampled_tokens"), "work"),
    Measure("cut_share", "cut at the limit", "share",
            "Share of training responses that reached client.max_new_tokens without an ending.",
            Trained("cut_responses"), "work", higher_is_better=False),
    *(Measure(f"{name}_tokens", f"tokens {title}", "count", f"Tokens {meaning} while training, all devices.",
              Spent(f"{name}_tokens"), "work")
      for name, title, meaning in (
          ("read", "read", "of prompts that devices read, once for each group,"),
          ("sampled", "sampled", "that devices sampled"),
          ("learned", "learned", "of responses that pulled on the adapter"))),
    Measure("cloud_bytes", "texts to and from the cloud", "bytes",
            "Texts of questions and answers, while training, all devices.",
            Spent(("cloud_up_bytes", "cloud_down_bytes")), "work"),
    Measure("test_length", "tokens a test response", "tokens", "Tokens that a device samples for a test response.",
            AtEnd("sampled_tokens")),
    Measure("test_cut", "test responses cut", "share",
            "Share of test responses that reached client.max_new_tokens without an ending.",
            AtEnd("cut_responses"), higher_is_better=False),
    Measure("virtual_end", "virtual time", "seconds", "Virtual time at the end of the run.", _of_system(_end),
            "systems"),
    Measure("round_length", "a round", "seconds", "Mean length of a round in virtual time, as the server sees it.",
            _of_system(lambda run: _end(run) / max(1, len(virtual_seconds(run.rows)) - 1)), "systems"),
    *(Measure(f"device_{part}_seconds", title, "seconds", f"{meaning}; mean over rounds, per user.",
              Trained(f"{row}_seconds"), "systems", higher_is_better=False)
      for part, row, title, meaning in (
          ("round", "round", "a device's round", "How long a device is at work in a round in which it takes part"),
          ("compute", "compute", "computes", "What of it a device computes"),
          ("link", "link", "sends and receives", "What of it a device sends and receives adapters"),
          ("cloud", "cloud", "waits for the cloud", "What of it a device waits for the cloud"),
          ("waited", "waited", "until it is there", "How long the server waits until an invited device is there"))),
    Measure("staleness", "staleness", "index", "Versions that an update is old when it comes; mean over updates.",
            _of_staleness(np.mean), "systems"),
    Measure("staleness_p95", "staleness, 95 %", "index", "The 95th percentile of it.",
            _of_staleness(lambda values: np.quantile(values, 0.95)), "systems"),
    Measure("dropped_share", "too old", "share", "Share of the updates that came which were older than max_staleness.",
            lambda run: dropped_share(run.rows), "systems"),
    Measure("device_joules", "a device's round", "joules",
            "Joules of a device's battery in a round in which it takes part; mean over rounds, per user.",
            Trained("joules"), "energy", higher_is_better=False),
    Measure("joules", "all devices", "joules", "Joules of all batteries while training.",
            Spent(_DEVICE_JOULES), "energy"),
    *(Measure(f"{part}_joules", title, "joules", f"What of them goes into {meaning}.",
              Spent(f"{part}_joules"), "energy")
      for part, title, meaning in (
          ("compute", "computing", "computing"),
          ("waiting", "waiting", "waiting for the cloud"),
          ("radio", "radio", "sending and receiving"))),
    Measure("cloud_joules", "the cloud", "joules",
            "Joules of the cloud for its answers while training, which are no device's.", Spent("cloud_joules"),
            "energy"),
    Measure("waste_share", "wasted", "share", "Share of all devices' joules whose update did not count.",
            lambda run: waste_share(run.rows), "energy"),
    Measure("work_gini", "Gini of work", "index",
            "Gini coefficient over the fleet of the work whose update counted, in tokens: 0 if all do as much.",
            _of_system(lambda run: gini(work_of(run.rows))), "participation"),
    Measure("busiest_share", f"busiest {100 * BUSIEST:.0f} %", "share",
            f"Share of that work which the busiest {100 * BUSIEST:.0f} % of devices did; FLASH saw 86 %.",
            _of_system(lambda run: share_of_busiest(work_of(run.rows))), "participation"),
    Measure("class_gap", "gap of classes", "points",
            "Accuracy at the end: the class of devices with the highest mean minus that with the lowest.",
            _gap_of_classes, "participation"),
    Measure("question_seconds", "seconds", "seconds",
            "Virtual seconds until a test question is answered, at the end.",
            AtEnd("question_seconds"), "questions", higher_is_better=False),
    Measure("question_joules", "joules", "joules", "Joules of the device's battery for a test question, at the end.",
            AtEnd("question_joules"), "questions", higher_is_better=False),
    *(Measure(f"within_{limit}s", f"within {limit} s", "share",
              f"Share of test questions that are answered within {limit} s, at the end.",
              AtEnd(f"within_{limit}s"), "questions") for limit in DEADLINES),
    *(Measure(f"right_within_{limit}s", f"right within {limit} s", "share",
              f"Share of test questions that are answered right and within {limit} s, at the end.",
              AtEnd(f"right_within_{limit}s"), "questions") for limit in DEADLINES),
    Measure("seconds_per_right", "seconds per right answer", "seconds",
            "Seconds of a test question over accuracy, of the mean user.",
            MeanUser(("question_seconds", "accuracy"), lambda v: cost_per_correct(v[0], v[1])),
            "questions"),
    Measure("joules_per_right", "joules per right answer", "joules",
            "Joules of a test question over accuracy, of the mean user.",
            MeanUser(("question_joules", "accuracy"), lambda v: cost_per_correct(v[0], v[1])),
            "questions"),
)  # fmt: skip
