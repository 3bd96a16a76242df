"""The fleet's cloud budget: what each device may spend in a round, and what is booked after it. Pure functions.

Before a round `deal` gives each of its devices an allotment; together they are never above what is left of any cap. A
device's ledger never passes its own, so no lock is needed, and the number of workers changes nothing. After the round
`book` charges what the devices report. Who does not report (its reply failed) is charged what its journal says, or its
whole allotment, since it may have spent it. What was allotted and not spent is thereby back in the pool.

`budget.tau` is the share of the fleet's prompts that may ask. Shared `equally`, every device may make the same number
of calls, so that tau_k = tau (mean n) / n_k for a device that meets n_k prompts per round; by `traffic`, tau_k = tau.
Either way a device has a dual variable of its own. By `price` there is one for all,

    lambda <- clip(lambda + price_lr (J - tau)),    price = clip(lambda + price_gain (J - tau)),

with J the share of all the round's responses that asked. Devices neither move it nor add a term of their own: a device
asks where its benefit is above the price (Chen et al. 2026, arXiv 2602.00166, fixed point of the dual), so at one price
the calls go to the largest benefits of the whole fleet, on whichever devices they are.
"""

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from fractions import Fraction
from typing import Self, TypeVar

from flsim.budget.division import even, exact_part, split_exact, split_whole, whole_part
from flsim.config.schema import BudgetConfig, FleetBudgetConfig

FLOOR = Fraction(1, 10)
"""By price, this part of every round's pool is dealt out equally: a device that never asked so far may begin to."""
_FAR = Fraction(2) ** 1000  # what is larger is no float
_MEMORY = 0.5  # how much of a device's earlier usage stays after a round
Number = TypeVar("Number", int, float)


@dataclass(frozen=True)
class Allotment:
    """One device's part of the fleet's budget in a round; None leaves its own rule as it is."""

    tau: float | None = None
    """Share of its prompts that its dual variable aims at."""
    test_tau: float | None = None
    """Share of its test prompts that may ask."""
    calls: int | None = None
    """Cloud queries."""
    tokens: int | None = None
    """Cloud tokens, prompt and completion."""
    money: float | None = None
    """In the unit of `cloud.price_*`."""
    price: float | None = None
    """The fleet's dual variable."""


@dataclass(frozen=True)
class Report:
    """What a device says of its round."""

    calls: int
    tokens: int
    money: float
    prompts: int
    """Prompts it met."""
    asked: float
    """Responses that asked, granted or not."""
    responses: float
    """All its responses."""


@dataclass(frozen=True)
class Habit:
    """What the server knows of a device that has reported."""

    prompts: Fraction
    """Prompts of its last round."""
    usage: float
    """Share of its responses that asked; the last round counts half, those before it the other half."""


@dataclass(frozen=True)
class FleetState:
    """What the server keeps between rounds; saved with the checkpoint."""

    calls: int = 0
    """Charged so far."""
    tokens: int = 0
    money: Fraction = Fraction(0)
    habits: Mapping[int, Habit] = field(default_factory=dict)
    """By device; a device that has not reported yet counts as the mean of those that have."""
    dual: float = 0.0
    """lambda, without the proportional term."""
    price: float = 0.0
    """What a request costs in the next round."""


def first_state(fleet: FleetBudgetConfig) -> FleetState:
    """The state before the first round."""
    return FleetState(dual=fleet.price_init, price=fleet.price_init)


def allot(
    budget: BudgetConfig, state: FleetState, cohort: Sequence[int], round_: int, *, devices: int, rounds: int
) -> dict[int, Allotment]:
    """The allotments of a round.

    Laws: of every cap they sum to at most what is left; the order of `cohort` does not matter; where all have equal
    shares, two calls differ by at most one; none is negative.

    Args:
        budget: with one for the fleet.
        state: after the round before.
        cohort: the devices that take part in the round, each once.
        round_: from 1.
        devices: size of the fleet.
        rounds: of the run.
    """
    fleet = budget.fleet
    shares = _shares(fleet, state, cohort)
    calls = _calls_of_round(fleet, state.calls, round_, rounds)
    dealt = {device: Allotment() for device in cohort}
    if calls is not None:
        dealt = {d: replace(dealt[d], calls=n) for d, n in split_whole(calls, shares, round_).items()}
    if fleet.tokens_total is not None:
        tokens = whole_part(fleet.tokens_total, state.tokens, round_, rounds)
        dealt = {d: replace(dealt[d], tokens=n) for d, n in split_whole(tokens, shares, round_).items()}
    if fleet.money_total is not None:
        money = exact_part(fleet.money_total, state.money, round_, rounds)
        dealt = {d: replace(dealt[d], money=amount) for d, amount in split_exact(money, shares).items()}
    taus = Taus.of(budget, state, devices)
    if fleet.rule == "price":
        return {d: replace(own, test_tau=taus.of_test(d), price=state.price) for d, own in dealt.items()}
    return {d: replace(own, test_tau=taus.of_test(d), tau=float(taus[d])) for d, own in dealt.items()}


def book(
    budget: BudgetConfig, state: FleetState, dealt: Mapping[int, Allotment], reports: Mapping[int, Report]
) -> FleetState:
    """The state after a round.

    Args:
        budget: the one that `deal` was given.
        state: likewise.
        dealt: what it gave.
        reports: of the devices whose replies can be used.
    """
    charged = [reports.get(device, own) for device, own in dealt.items()]
    habits = dict(state.habits)
    for device, report in reports.items():
        habits[device] = _habit(habits.get(device), report)
    dual, price = _prices(budget, state, reports)
    return FleetState(
        calls=state.calls + sum(one.calls or 0 for one in charged),
        tokens=state.tokens + sum(one.tokens or 0 for one in charged),
        money=state.money + sum((max(Fraction(0), Fraction(one.money or 0)) for one in charged), Fraction(0)),
        habits=habits,
        dual=dual,
        price=price,
    )


def taus_of_tests(budget: BudgetConfig, state: FleetState, tested: Sequence[int], *, devices: int) -> dict[int, float]:
    """The share of its test prompts that each of these devices may send to the cloud.

    It is the device's tau_k; by price the part of the budget that its asking so far would get it. Test sets are equally
    long, so tau_k is scaled down where its mean over the fleet is above tau: however it is shared, the fleet sends at
    most tau of all its test prompts, and ways of sharing are measured with equal budgets.

    Args:
        budget: with one for the fleet.
        state: after the round before.
        tested: the devices that are asked about.
        devices: size of the fleet.
    """
    taus = Taus.of(budget, state, devices)
    return {device: taus.of_test(device) for device in tested}


def caps_of_run(fleet: FleetBudgetConfig, rounds: int) -> dict[str, float]:
    """What the fleet may spend in the whole run, by kind; kinds without a cap are left out."""
    per_round = None if fleet.calls_per_round is None else fleet.calls_per_round * rounds
    calls = [cap for cap in (fleet.calls_total, per_round) if cap is not None]
    caps = {"calls": min(calls, default=None), "tokens": fleet.tokens_total, "money": fleet.money_total}
    return {kind: cap for kind, cap in caps.items() if cap is not None}


def narrowed(budget: BudgetConfig, own: Allotment) -> BudgetConfig:
    """A device's budget in a round: its own, and no more than its allotment."""
    return replace(
        budget,
        tau=budget.tau if own.tau is None else own.tau,
        calls_per_round=_lesser(budget.calls_per_round, own.calls),
        tokens_per_round=_lesser(budget.tokens_per_round, own.tokens),
        money_per_round=_lesser(budget.money_per_round, own.money),
    )


def _lesser(one: Number | None, other: Number | None) -> Number | None:
    return other if one is None or (other is not None and other < one) else one


def _calls_of_round(fleet: FleetBudgetConfig, spent: int, round_: int, rounds: int) -> int | None:
    """The fleet's calls in a round; a cap on rounds takes the place of the even parts of the cap on the run."""
    if fleet.calls_total is None:
        return fleet.calls_per_round
    if fleet.calls_per_round is None:
        return whole_part(fleet.calls_total, spent, round_, rounds)
    return min(fleet.calls_per_round, max(0, fleet.calls_total - spent))


def _shares(fleet: FleetBudgetConfig, state: FleetState, devices: Sequence[int]) -> dict[int, Fraction]:
    """Each device's share of what there is; they sum to 1."""
    mean = _mean_habit(state)
    habits = {device: state.habits.get(device, mean) for device in devices}
    if fleet.rule == "traffic":
        return even({device: habit.prompts for device, habit in habits.items()})
    if fleet.rule == "price":
        wanted = even({device: habit.prompts * Fraction(habit.usage) for device, habit in habits.items()})
        return {device: FLOOR / len(wanted) + (1 - FLOOR) * share for device, share in wanted.items()}
    return even(dict.fromkeys(devices, Fraction(1)))


def _mean_habit(state: FleetState) -> Habit:
    """What stands for a device that has not reported: the mean of all that have."""
    known = [state.habits[device] for device in sorted(state.habits)]
    if not known:
        return Habit(Fraction(1), 1.0)
    alike = Counter(habit.prompts.as_integer_ratio() for habit in known)
    prompts = sum((Fraction(*ratio) * count for ratio, count in alike.items()), Fraction(0))
    return Habit(prompts / len(known), sum(habit.usage for habit in known) / len(known))


@dataclass(frozen=True)
class Taus:
    """tau_k of every device of a fleet: its share of the tau sum_k n_k prompts that may ask, over its own n_k.

    Each is `min(1, per_prompt / n_k + constant + per_usage * usage_k)`, and sums over the fleet are taken over the
    devices that have reported, with all others as one: exactly what adding up device by device would give, at the cost
    of those that took part.
    """

    habits: Mapping[int, Habit]
    others: Habit
    """Of every device that has not reported."""
    tau: Fraction
    """The fleet's, which a device without prompts has."""
    per_prompt: Fraction
    constant: Fraction
    per_usage: Fraction
    excess: Fraction
    """How many times tau their mean is, where that is above 1; else 1."""

    @classmethod
    def of(cls, budget: BudgetConfig, state: FleetState, devices: int) -> Self:
        """Those of a fleet of this size."""
        others, tau, none = _mean_habit(state), Fraction(budget.tau), Fraction(0)
        found: defaultdict[tuple[int, int], list[tuple[float, int]]] = defaultdict(list)  # a Fraction is slow to hash
        for habit in state.habits.values():
            found[habit.prompts.as_integer_ratio()].append((habit.usage, 1))
        found[others.prompts.as_integer_ratio()].append((others.usage, devices - len(state.habits)))
        alike = {Fraction(*ratio): own for ratio, own in found.items()}  # prompts -> usages, and of how many
        prompts = sum((n * sum(count for _, count in own) for n, own in alike.items()), none)
        wanted = none
        if budget.fleet.rule == "price":
            wanted = sum((n * _exact_sum(own) for n, own in alike.items()), none)
        equal, by_traffic, by_wish = tau * prompts / devices, none, none
        if budget.fleet.rule == "traffic" and prompts:
            equal, by_traffic = none, tau
        if wanted:
            equal, by_wish = FLOOR * equal, (1 - FLOOR) * tau * prompts / wanted
        whole = cls(state.habits, others, tau, equal, by_traffic, by_wish, Fraction(1))
        total = sum((whole._sum_of(n, own) for n, own in alike.items()), none)
        return whole if total <= tau * devices else replace(whole, excess=total / (tau * devices))

    def __getitem__(self, device: int) -> Fraction:
        """Of a device."""
        habit = self.habits.get(device, self.others)
        if not habit.prompts:
            return self.tau
        plain = self.per_prompt / habit.prompts + self.constant
        return min(Fraction(1), plain + self.per_usage * Fraction(habit.usage))

    def of_test(self, device: int) -> float:
        """The same scaled down, so that the mean over the fleet is not above tau."""
        return float(self[device] / self.excess)

    def _sum_of(self, prompts: Fraction, alike: Sequence[tuple[float, int]]) -> Fraction:
        """Over devices of as many prompts, given as usages and how many have each."""
        count = sum(count for _, count in alike)
        if not prompts:
            return self.tau * count
        plain = self.per_prompt / prompts + self.constant
        if not self.per_usage:
            return min(Fraction(1), plain) * count
        most = (1 - plain) / self.per_usage  # from which usage on tau_k is 1
        near = float(min(most, _FAR))
        less = [(u, n) for u, n in alike if u < near or (u == near and u < most)]
        below_one = sum(count for _, count in less)
        return count - below_one + plain * below_one + self.per_usage * _exact_sum(less)


def _exact_sum(values: Sequence[tuple[float, int]]) -> Fraction:
    """The sum of floats, each so many times."""
    parts: Counter[int] = Counter()  # numerators by denominator, which are few powers of two
    for value, count in values:
        numerator, denominator = value.as_integer_ratio()
        parts[denominator] += numerator * count
    return sum((Fraction(numerator, denominator) for denominator, numerator in parts.items()), Fraction(0))


def _habit(before: Habit | None, report: Report) -> Habit:
    """What is known after one more report; without responses the usage stays."""
    earlier = None if before is None else before.usage
    now = report.asked / report.responses if report.responses else earlier
    if earlier is not None and now is not None:
        now = _MEMORY * earlier + (1 - _MEMORY) * now
    return Habit(Fraction(report.prompts), 0.0 if now is None else now)


def _prices(budget: BudgetConfig, state: FleetState, reports: Mapping[int, Report]) -> tuple[float, float]:
    """The next lambda and the next price; both stay in a round without any response."""
    fleet = budget.fleet
    responses = sum(report.responses for report in reports.values())
    if not responses:
        return state.dual, state.price
    above = sum(report.asked for report in reports.values()) / responses - budget.tau
    dual = min(max(state.dual + fleet.price_lr * above, 0.0), fleet.price_max)
    return dual, min(max(dual + fleet.price_gain * above, 0.0), fleet.price_max)
