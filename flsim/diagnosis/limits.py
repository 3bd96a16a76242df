"""THE table of thresholds: every number that a finding is held against, what it is of, and where it comes from."""

from dataclasses import dataclass

OURS = "ours"


@dataclass(frozen=True)
class Limit:
    """One threshold."""

    value: float
    meaning: str
    """What is held against it."""
    source: str = OURS
    """Who says so."""


LIMITS: dict[str, Limit] = {
    "users": Limit(5, "tested users at least, for whatever is said of the mean user"),
    "prompts": Limit(100, "test prompts at least, of all users together, for the same"),
    "rounds": Limit(3, "rounds in a row that a state lasts", "SageMaker Debugger, whose rules wait for three steps"),
    "fleet": Limit(0.1, "share of the devices from which on a state of single devices is one of the fleet"),
    "gap": Limit(0.05, "accuracy alone of a device's own model minus that of the merged one"),
    "cosine": Limit(0.1, "mean cosine of two devices' updates over the last third, below which a gap names it"),
    "local_forgetting": Limit(0.05, "fall on past tasks over local steps, in accuracy alone"),
    "forgotten": Limit(0.2, "share of a task's accuracy that is lost by the end of the next phase"),
    "tests": Limit(7, "tests of a phase at least, so that each third has three"),
    "slope": Limit(0.1, "gain per round in the last third, as a part of what it was in the first or had to be"),
    "below_cloud": Limit(0.1, "accuracy of the cloud minus that of the run"),
    "closed": Limit(0.25, "part of the gap to the cloud that a phase closed"),
    "link": Limit(0.5, "share of a device's round that goes into transfers"),
    "over_tau": Limit(0.05, "usage minus tau, over the last third of a phase", "the band of flsim's own settling time"),
    "under_tau": Limit(0.5, "usage as a part of tau, over the last third of a phase"),
    "settled": Limit(6, "rounds of a phase at least, before usage is held against tau"),
    "refused": Limit(0.2, "share of the requests that a cap refused, over the last third of the rounds"),
    "requests": Limit(20, "requests at least, for that share"),
    "at_bound": Limit(0.5, "part of a phase that lambda lies at 0 or at its maximum"),
    "asks": Limit(0.02, "usage as a part of tau, or what it lacks to 1 as a part of 1 - tau"),
    "asking_margin": Limit(0.05, "tau, and 1 - tau: nearer to 0 or 1 nobody is to ask, or everybody may"),
    "dead": Limit(0.01, "norm of a device's update as a part of the median of its round"),
    "still": Limit(1e-6, "norm of an update in all; what is less is lost in weights of 32 bits"),
    "no_signal": Limit(0.9, "share of the groups whose responses are all worth the same"),
    "solved": Limit(0.9, "mean reward from which on such groups are solved and no fault"),
    "cut": Limit(0.5, "share of the responses that reach the limit without an ending"),
    "short": Limit(2.0, "tokens of a response that did not ask, its ending included"),
    "accepted": Limit(0.3, "share of the drafted tokens that the cloud accepted, over the last third of the rounds"),
    "drafted": Limit(100, "drafted tokens at least, for that share"),
    "dearer": Limit(1.0, "what help took, as a part of what asking for the same answer would have"),
    "bias": Limit(0.5, "error of averaging factors in place of products, of the mean product"),
    "kept_energy": Limit(0.9, "share of the exact aggregate's squared norm that its cut to a rank keeps"),
    "effective": Limit(1 / 3, "devices that count, after weighting, as a part of those that took part"),
    "straggler": Limit(3.0, "longest of the durations of a round, in medians"),
    "waste": Limit(0.2, "joules of work that nobody aggregated, of all"),
    "stale": Limit(0.95, "quantile of staleness that reaches system.end.max_staleness"),
    "dropped": Limit(0.05, "share of the replies that were too stale to count"),
    "busiest": Limit(0.3, "share of the devices that are called the busiest"),
    "work": Limit(0.6, "share of the updates that come from the busiest", "FLASH (TMC 2022) saw 0.86"),
    "turns": Limit(5.0, "updates of a device in the mean at least, for whatever is said of who took part"),
    "classes": Limit(0.05, "accuracy of the best class of devices minus that of the worst"),
    "chance": Limit(0.05, "expected number of devices that chance alone would never invite"),
    "empty": Limit(0.001, "charge of a battery as a part of its capacity; a round that drains it ends within it"),
    "tenth": Limit(0.15, "mean accuracy minus its 10th percentile over users, without the tests' own noise"),
    "percentile_users": Limit(10, "tested users at least, for a 10th percentile"),
    "harmed": Limit(0.2, "share of users clearly less accurate than with the model it began with, asking at random"),
    "harmed_users": Limit(3, "such users at least: chance finds two of six in 3 % of runs, three of twelve in 2 %"),
    "clearly": Limit(1.645, "standard errors of a user's own two tests that make a loss clear", "one-sided 5 %"),
}
"""All of them by name; docs/diagnoses.md shows the same."""


def limit(name: str) -> float:
    """The number of a threshold."""
    return LIMITS[name].value
