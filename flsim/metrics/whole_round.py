"""One round of a whole cohort as facts, with a line for each of its devices; those of one are in `one_round.py`."""

from flsim.metrics.one_round import Facts, OneRound, Records, whole
from flsim.metrics.rows import ASKED, evaluation, of_fleet


def facts_of_round(records: Records, round_: int) -> Facts:
    """A round of the whole cohort, and a line of each of its devices."""
    of = records.of_round(round_)
    fleet = of_fleet(records.rows)
    fleet = fleet[fleet["round"] == round_].set_index("name")
    told = {str(name): float(row["total"]) for name, row in fleet.iterrows()}
    spent = fleet[fleet.index.str.startswith("spent_")]
    return {
        "round": round_,
        "cohort": len(of.cohort),
        "landed": len(of.landed),
        "phases": _phases(of),
        "fleet": told,
        "caps": {str(name).removeprefix("spent_"): float(row["weight"]) for name, row in spent.iterrows()},
        "mean": {name: of.mean(name) for name in ("reward", "alone_reward", "loss", "update_norm", "dual_variable")},
        "accuracy": {
            "before": _mean_accuracy(records, 0, round_ - 1),
            "after": _mean_accuracy(records, round_, round_),
        },
        "devices": [_line(of, device) for device in of.cohort],
    }


def _phases(of: OneRound) -> list[str]:
    """The names of the phases that its devices were in."""
    stream = of.records.stream
    weights = [stream.phase_weights(device, of.round) for device in of.cohort]
    return [phase.name for at, phase in enumerate(stream.phases) if any(own[at] > 0 for own in weights)]


def _line(of: OneRound, device: str) -> Facts:
    """A device in a table."""
    own = of.of_device(device)
    prompts = own.pair("difficulty")
    return {
        "device": device,
        "prompts": None if prompts is None else int(prompts[1]),
        "alone_reward": own.value("alone_reward"),
        "reward": own.value("reward"),
        "usage": own.value(ASKED),
        "calls": whole(own.total("cloud_calls")),
        "refused": whole(own.total("cloud_refused")),
        "dual": own.total("dual_variable"),
        "share": own.total("aggregation_share"),
        "update_norm": own.total("update_norm"),
        "mean_cosine": own.total("mean_cosine"),
        "set_aside": own.set_aside(),
    }


def _mean_accuracy(records: Records, first: int, last: int) -> Facts | None:
    """The global model's, of the mean user, in the last round of a window that has any."""
    found = evaluation(records.rows, model="global", name="accuracy")
    found = found[found["round"].between(first, last)]
    if found.empty:
        return None
    found = found[found["round"] == found["round"].max()]
    sums = found.groupby("device")[["total", "weight"]].sum()
    sums = sums[sums["weight"] > 0]
    return {"round": int(found["round"].iloc[0]), "accuracy": float((sums["total"] / sums["weight"]).mean())}
