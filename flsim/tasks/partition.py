"""Deal the items of a data set to devices: by user, by a Dirichlet mixture, evenly, and in unequal quantities.

Every rule deals train, validation and test alike, so that a device is tested on what it learns from. No item goes to
two devices. A deal is a pure function of the items and a seed: it follows no order of files, as items are put in the
order of a hash of their text before they are dealt, and no number of workers.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from flsim.config.schema import ConfigError
from flsim.devices import device_name
from flsim.problems.problem import SPLITS
from flsim.seeding import generator, seed_for
from flsim.tasks.item import Item
from flsim.tasks.item_table import ItemTable, table_of

# Unequal quantities: how large a share of the items each device gets, and whole numbers in place of shares.


def lognormal_shares(devices: int, *, sigma: float, seed: int = 0) -> tuple[float, ...]:
    """Unequal quantities: log-normal with this sigma of the logarithm, summing to 1; sigma 0 makes them equal."""
    if not 0 <= sigma < np.inf:
        raise ConfigError(f"partition: sigma is {sigma}; it must be 0 or more, and finite")
    draws = [generator(seed, "quantity", device).normal(0.0, sigma) for device in range(devices)]
    sizes = np.exp(np.array(draws) - max(draws, default=0.0))
    return tuple(float(size) for size in sizes / sizes.sum())


def dirichlet_shares(devices: int, *, alpha: float, seed: int = 0) -> tuple[float, ...]:
    """Unequal quantities: one draw of a symmetric Dirichlet, `alpha` for each device; inf makes them equal."""
    if not alpha > 0:
        raise ConfigError(f"partition: alpha is {alpha}; it must be above 0, or inf")
    if np.isinf(alpha):
        return (1.0 / devices,) * devices
    return tuple(float(share) for share in generator(seed, "quantities").dirichlet([alpha] * devices))


def apportioned(quotas: NDArray[np.float64], rng: np.random.Generator) -> NDArray[np.int64]:
    """Whole numbers in place of quotas, each rounded down or up, their sum that of the quotas if that is whole.

    Systematic rounding: quotas are laid end to end, and each gets the whole numbers that its stretch covers after a
    random offset; so the expected count is the quota. By hand: quotas 1.5, 1.5, offset 0.2: the ends are at 1.7 and
    3.2, so the counts are 1 and 2.

    Args:
        quotas: at least 0, shape `(D,)`.
        rng: drawn from once.

    Returns:
        Counts, shape `(D,)`.
    """
    ends = np.floor(np.round(np.cumsum(quotas), 9) + rng.uniform(0.0, 1.0)).astype(np.int64)  # (D,)
    return np.asarray(np.diff(ends, prepend=0), dtype=np.int64)


def checked_shares(shares: Sequence[float] | None, devices: int) -> NDArray[np.float64]:
    """Shares as an array, `(D,)`; equal ones for None.

    Raises:
        ConfigError: if they do not fit the devices, are negative, or do not sum to 1.
    """
    if devices < 1:
        raise ConfigError(f"partition: devices is {devices}; it must be at least 1")
    if shares is None:
        return np.full(devices, 1.0 / devices)
    found = np.array(shares, dtype=np.float64)
    if found.shape != (devices,) or not (found >= 0).all() or not np.isclose(found.sum(), 1.0):
        raise ConfigError(f"partition: shares must be {devices} numbers of at least 0 that sum to 1, not {shares}")
    return found


NOBODY = -1


OVER = ("label", "level", "user")


Indices = NDArray[np.int64]


Floats = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Assignment:
    """Which device and which split each of N items belongs to."""

    device: Indices
    """Device from 0, or `NOBODY` for an item that was not dealt, shape `(N,)`."""
    split: NDArray[np.int8]
    """Index into `SPLITS`, or -1 for a dropped copy, shape `(N,)`."""
    names: tuple[str, ...]
    """What to call each of the D devices in files and pictures; users stand in it only where that was asked for."""

    @property
    def devices(self) -> int:
        """Number of devices."""
        return len(self.names)

    def own(self, device: int, split: str) -> Indices:
        """Indices of a device's items of a split, ascending."""
        return np.flatnonzero((self.device == device) & (self.split == SPLITS.index(split)))


_NAMED = 5  # devices that an error names


def lacking(assignment: Assignment, split: str) -> list[int]:
    """The devices that have no item of a split."""
    own = assignment.device[(assignment.split == SPLITS.index(split)) & (assignment.device >= 0)]
    found: list[int] = np.flatnonzero(np.bincount(own, minlength=assignment.devices) == 0).tolist()
    return found


def named_lack(assignment: Assignment, split: str) -> str:
    """That some devices have no item of a split, in words."""
    empty = lacking(assignment, split)
    named = ", ".join(assignment.names[device] for device in empty[:_NAMED])
    more = f" and {len(empty) - _NAMED} more" if len(empty) > _NAMED else ""
    return f"{len(empty)} of {assignment.devices} devices have no {split} item: {named}{more}"


def by_user(
    items: Sequence[Item],
    splits: NDArray[np.int8],
    *,
    devices: int | None = None,
    users_per_device: int | None = None,
    least: int = 0,
    seed: int = 0,
    keep_user_ids: bool = False,
    needs: Sequence[str] = SPLITS,
) -> Assignment:
    """Give every device the items of one user, or of several.

    Args:
        items: N items, each with a user.
        splits: from `split_items`, shape `(N,)`.
        devices: how many; None makes one per user (or per `users_per_device` of them).
        users_per_device: 1 draws that many users and leaves the others out; None deals all users out, as evenly as
            whole users allow, which is one each when `devices` is None.
        least: leave out users with fewer items than this in any split that the data have. Only where that leaves too
            few, users count who have as many in every split of `needs`.
        seed: which users are drawn, and which share a device.
        keep_user_ids: whether devices are called by their users, not by their numbers.
        needs: splits that somebody reads.

    Raises:
        ConfigError: if an item has no user, or there are too few users.
    """
    codes, users = coded(items, "user")
    counts = np.zeros((len(users), len(SPLITS)), dtype=np.int64)  # (U, S)
    np.add.at(counts, (codes[splits >= 0], splits[splits >= 0]), 1)
    rate = users_per_device or 1
    fit = _fit(users, counts, least, SPLITS)
    if len(fit) < (devices or 1) * rate:
        fit = _fit(users, counts, least, needs)
    wanted = len(fit) // rate if devices is None else devices
    if wanted < 1 or wanted * rate > len(fit):
        raise ConfigError(_too_few(users, counts, least, needs, wanted, rate))
    drawn = sorted(fit, key=lambda user: seed_for(seed, "users", user))
    if users_per_device is not None or devices is None:
        drawn = drawn[: wanted * rate]
    drawn = drawn if len(drawn) > wanted else sorted(drawn)  # one user each: in the order of their names
    home = {user: number % wanted for number, user in enumerate(drawn)}
    owners = np.array([home.get(user, NOBODY) for user in users], dtype=np.int64)[codes]  # (N,)
    names = numbered_devices(wanted)
    if keep_user_ids:
        held = [[user for user in drawn if home[user] == number] for number in range(wanted)]
        names = tuple(own[0] if len(own) == 1 else f"{len(own)} users" for own in held)
    return Assignment(np.where(splits >= 0, owners, NOBODY), splits, names)


def _fit(users: Sequence[str], counts: Indices, least: int, needs: Sequence[str]) -> list[str]:
    """Users who have at least so many items in each of these splits that the data have; sorted."""
    there = [number for number, split in enumerate(SPLITS) if split in needs and counts[:, number].any()]
    fits = (counts[:, there].min(axis=1, initial=least) >= least) & (counts.sum(axis=1) > 0)  # (U,)
    return sorted(users[place] for place in np.flatnonzero(fits).tolist())


def _too_few(users: Sequence[str], counts: Indices, least: int, needs: Sequence[str], devices: int, rate: int) -> str:
    """What is to be said of more devices than there are users for, with the mends that are left."""
    found = {number: len(_fit(users, counts, number, needs)) for number in {least, 1, 0}}
    most = found[least] // rate
    mends = [f"fleet.devices={most} is the most that they make"] if most else []
    if least > 1 and found[1] > found[least]:
        mends.append(f"with least=1 there are {found[1]} of them")
    if rate > 1:
        mends.append("with users_per_device=1 each of them is a device")
    if not most and least == 1:
        mends.append(f"{found[0]} users have items at all, so bring users with more of them")
    return (
        f"partition by user: {devices} devices of {rate} user(s) each, but there are {found[least]} users with at "
        f"least {least} items in every split ({', '.join(needs)}); {'; '.join(mends) or 'bring users with more items'}"
    )


def dirichlet(
    items: Sequence[Item],
    splits: NDArray[np.int8],
    *,
    devices: int,
    alpha: float,
    over: str = "label",
    shares: Sequence[float] | None = None,
    seed: int = 0,
) -> Assignment:
    """Give every device its own mixture of labels (Hsu, Qi and Brown 2019, arXiv 1909.06335, section 3.1).

    Device d draws a mixture `q_d ~ Dir(alpha p)`, where `p` are the labels' shares of all items, and wants its share of
    each split in that mixture. Items are dealt without replacement. Where a label is wanted more often than it is
    there, all who want it get less, in proportion, and nothing in its place; what nobody wants is left over (the
    figures say how much). So no device holds what it did not draw; the usual rule, to go on with the labels that are
    left, makes the last devices alike. In a split whose labels have other shares than `p`, mixtures are tilted by the
    ratio, so that `alpha = inf` uses all of every split.

    Args:
        items: N items with the field `over`.
        splits: from `split_items`, shape `(N,)`.
        devices: D.
        alpha: concentration, the sum of the Dirichlet's parameters, as in the paper: inf gives all devices the same
            mixture, 0 one label each. (`stream.alpha` is the parameter of each of J groups: J times as much in sum.)
        over: `label`, `level` or `user`.
        shares: quantity of each device, summing to 1, such as `lognormal_shares`; None makes them equal, shape `(D,)`.
        seed: of mixtures and deals.

    Raises:
        ConfigError: for settings out of range, or an item without the field.
    """
    if not alpha >= 0:  # nan, too
        raise ConfigError(f"partition: alpha is {alpha}; it must be 0 or more, or inf")
    quantity = checked_shares(shares, devices)  # (D,)
    labels, label = _sorted(*coded(items, over))  # (L,), (N,)
    everything = np.bincount(label[splits >= 0], minlength=len(labels))  # (L,)
    prior = everything / everything.sum()
    mixtures = np.stack([_mixture(alpha, prior, seed, device) for device in range(devices)])  # (D, L)
    order = in_dealing_order(items, seed)
    owners = np.full(len(items), NOBODY, dtype=np.int64)
    for number, split in enumerate(SPLITS):
        mine = order[splits[order] == number]  # indices of this split's items in dealing order
        there = np.bincount(label[mine], minlength=len(labels))  # (L,)
        if not there.sum():
            continue
        rng = generator(seed, "deal", split)
        tilt = there / np.maximum(everything, 1)  # (L,)
        counts = _counts(mixtures * tilt, quantity, there, rng)  # (D, L)
        for which in range(len(labels)):
            pile = mine[label[mine] == which]
            dealt = np.repeat(np.arange(devices), counts[:, which])
            owners[pile[: len(dealt)]] = dealt
    return Assignment(owners, splits, numbered_devices(devices))


def evenly(
    items: Sequence[Item],
    splits: NDArray[np.int8],
    *,
    devices: int,
    shares: Sequence[float] | None = None,
    seed: int = 0,
) -> Assignment:
    """Deal all items out at random (IID); with `shares`, in unequal quantities.

    Args:
        items: N items.
        splits: from `split_items`, shape `(N,)`.
        devices: D.
        shares: as in `dirichlet`; None gives sizes that differ by at most one per split.
        seed: of the deal.

    Raises:
        ConfigError: for settings out of range.
    """
    quantity = checked_shares(shares, devices)
    order = in_dealing_order(items, seed)
    owners = np.full(len(items), NOBODY, dtype=np.int64)
    for number, split in enumerate(SPLITS):
        mine = order[splits[order] == number]
        counts = apportioned(quantity * len(mine), generator(seed, "deal", split))
        owners[mine] = np.repeat(np.arange(devices), counts)
    return Assignment(owners, splits, numbered_devices(devices))


def numbered_devices(devices: int) -> tuple[str, ...]:
    """Names as the rows have them."""
    return tuple(map(device_name, range(devices)))


def _counts(wishes: Floats, quantity: Floats, there: Indices, rng: np.random.Generator) -> Indices:
    """How many items of each label each device gets, `(D, L)`; never more of a label than there are.

    Args:
        wishes: mixtures, not normalised, `(D, L)`.
        quantity: shares, `(D,)`.
        there: items of each label, `(L,)`.
        rng: of the rounding.
    """
    total = wishes.sum(axis=1, keepdims=True)  # (D, 1), 0 for a device none of whose labels is in this split
    quotas = wishes / np.where(total > 0, total, 1.0) * (quantity[:, None] * there.sum())  # (D, L)
    # offsets spread evenly over devices: alike devices round different labels up, so that no label is asked for by all
    offsets = (rng.permutation(len(quotas)) + rng.uniform(0.0, 1.0)) / len(quotas)  # (D,)
    ends = np.floor(np.round(np.cumsum(quotas, axis=1), 9) + offsets[:, None]).astype(np.int64)  # (D, L)
    counts = np.diff(ends, axis=1, prepend=0)  # (D, L)
    asked = counts.sum(axis=0)  # (L,)
    for label in np.flatnonzero(asked > there):
        counts[:, label] = apportioned(counts[:, label] * (there[label] / asked[label]), rng)
    return counts


def _mixture(alpha: float, prior: Floats, seed: int, device: int) -> Floats:
    """A device's mixture of labels, `(L,)`."""
    if np.isinf(alpha):
        return prior
    rng = generator(seed, "mixture", device)
    if alpha < 1e-6:  # the limit, where gamma variates vanish: one label, drawn by its share
        return np.asarray(np.eye(len(prior))[rng.choice(len(prior), p=prior)], dtype=np.float64)
    return np.asarray(rng.dirichlet(alpha * prior), dtype=np.float64)


def in_dealing_order(items: Sequence[Item], seed: int) -> Indices:
    """Indices in dealing order: a hash of each item's text, so that it does not matter how the files were read."""
    return _order_of(table_of(items), seed)


@lru_cache(maxsize=1)  # whoever looks for the largest fleet that fits deals the same items again and again
def _order_of(table: ItemTable, seed: int) -> Indices:
    texts = zip(table.questions(), table.of_field("answer"), table.of_field("user"), strict=True)
    keys = [seed_for(seed, "order", question, answer, user or "") for question, answer, user in texts]
    return np.argsort(np.array(keys, dtype=np.int64), kind="stable")


def coded(items: Sequence[Item], field: str) -> tuple[Indices, list[Any]]:
    """The field of every item, as an index into the values that there are, `(N,)`, and these.

    Raises:
        ConfigError: if there are no items, the field is unknown, or an item does not have it.
    """
    if field not in OVER:
        raise ConfigError(f"partition: over={field!r} is not known; it is one of: {', '.join(OVER)}")
    if not items:
        raise ConfigError("partition: the data set has no items")
    table = table_of(items)
    values, codes = table.values(field), table.columns[field].codes
    seen = [value if field == "label" or not isinstance(value, str) else value.strip() for value in values]
    blank = np.array([*(value == "" for value in seen), True])[codes]  # the last is None; a label may be a space
    if blank.any():
        number = int(np.argmax(blank))
        item = table[number]
        there = [name for name in OVER if getattr(item, name) is not None]
        raise ConfigError(
            f"partition: {item.where or f'item {number}'} ({item.question[:60]!r}) has no {field}; it has: "
            f"{', '.join(there) or 'none of ' + ', '.join(OVER)}. Map a column to {field}, or deal evenly"
        )
    return codes.astype(np.int64), values


def _sorted(codes: Indices, values: Sequence[Any]) -> tuple[NDArray[Any], Indices]:
    """The values that items have in their order, `(L,)`, and which of them each item has, `(N,)`."""
    used, which = np.unique(codes, return_inverse=True)
    found, places = np.unique(np.array([values[code] for code in used.tolist()]), return_inverse=True)
    return found, places[which]
