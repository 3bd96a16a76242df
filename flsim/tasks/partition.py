"""Deal the items of a data set to devices: by user, by a Dirichlet mixture, evenly, and in unequal quantities.

Every rule deals train, validation and test alike, so that a device is tested on what it learns from. No item goes to
two devices. A deal is a pure function of the items and a seed: it follows no order of files, as items are put in the
order of a hash of their text before they are dealt, and no number of workers.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from flsim.config.schema import ConfigError
from flsim.devices import device_name
from flsim.problems.problem import SPLITS
from flsim.seeding import generator, seed_for
from flsim.tasks.item import Item

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


def by_user(
    items: Sequence[Item],
    splits: NDArray[np.int8],
    *,
    devices: int | None = None,
    users_per_device: int | None = None,
    least: int = 0,
    seed: int = 0,
    keep_user_ids: bool = False,
) -> Assignment:
    """Give every device the items of one user, or of several.

    Args:
        items: N items, each with a user.
        splits: from `split_items`, shape `(N,)`.
        devices: how many; None makes one per user (or per `users_per_device` of them).
        users_per_device: 1 draws that many users and leaves the others out; None deals all users out, as evenly as
            whole users allow, which is one each when `devices` is None.
        least: leave out users with fewer items than this in any split that the data have.
        seed: which users are drawn, and which share a device.
        keep_user_ids: whether devices are called by their users, not by their numbers.

    Raises:
        ConfigError: if an item has no user, or there are too few users.
    """
    users: list[str] = values_of(items, "user")
    counts = {user: np.zeros(len(SPLITS), dtype=int) for user in dict.fromkeys(users)}
    for user, split in zip(users, splits, strict=True):
        if split >= 0:
            counts[user][split] += 1
    there = [number for number in range(len(SPLITS)) if (splits == number).any()]
    fit = sorted(user for user, own in counts.items() if own[there].min(initial=least) >= least and own.sum() > 0)
    rate = users_per_device or 1
    wanted = len(fit) // rate if devices is None else devices
    if wanted < 1 or wanted * rate > len(fit):
        raise ConfigError(
            f"partition by user: {wanted} devices of {rate} user(s) each, but there are {len(fit)} users with at least "
            f"{least} items in every split; use fewer devices, or a smaller least"
        )
    drawn = sorted(fit, key=lambda user: seed_for(seed, "users", user))
    if users_per_device is not None or devices is None:
        drawn = drawn[: wanted * rate]
    drawn = drawn if len(drawn) > wanted else sorted(drawn)  # one user each: in the order of their names
    home = {user: number % wanted for number, user in enumerate(drawn)}
    owners = np.array([home.get(user, NOBODY) for user in users], dtype=np.int64)
    names = _numbered(wanted)
    if keep_user_ids:
        held = [[user for user in drawn if home[user] == number] for number in range(wanted)]
        names = tuple(own[0] if len(own) == 1 else f"{len(own)} users" for own in held)
    return Assignment(np.where(splits >= 0, owners, NOBODY), splits, names)


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
    labels, label = np.unique(np.array(values_of(items, over)), return_inverse=True)  # (L,), (N,)
    everything = np.bincount(label[splits >= 0], minlength=len(labels))  # (L,)
    prior = everything / everything.sum()
    mixtures = np.stack([_mixture(alpha, prior, seed, device) for device in range(devices)])  # (D, L)
    order = _order(items, seed)
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
    return Assignment(owners, splits, _numbered(devices))


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
    order = _order(items, seed)
    owners = np.full(len(items), NOBODY, dtype=np.int64)
    for number, split in enumerate(SPLITS):
        mine = order[splits[order] == number]
        counts = apportioned(quantity * len(mine), generator(seed, "deal", split))
        owners[mine] = np.repeat(np.arange(devices), counts)
    return Assignment(owners, splits, _numbered(devices))


def _numbered(devices: int) -> tuple[str, ...]:
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


def _order(items: Sequence[Item], seed: int) -> Indices:
    """Indices in dealing order: a hash of each item's text, so that it does not matter how the files were read."""
    keys = [seed_for(seed, "order", item.question, item.answer, item.user or "") for item in items]
    return np.argsort(np.array(keys, dtype=np.int64), kind="stable")


def values_of(items: Sequence[Item], field: str) -> list[Any]:
    """The field of every item.

    Raises:
        ConfigError: if there are no items, the field is unknown, or an item does not have it.
    """
    if field not in OVER:
        raise ConfigError(f"partition: over={field!r} is not known; it is one of: {', '.join(OVER)}")
    if not items:
        raise ConfigError("partition: the data set has no items")
    for number, item in enumerate(items):
        if getattr(item, field) is None or (field != "level" and not getattr(item, field).strip()):
            there = [name for name in OVER if getattr(item, name) is not None]
            raise ConfigError(
                f"partition: {item.where or f'item {number}'} ({item.question[:60]!r}) has no {field}; it has: "
                f"{', '.join(there) or 'none of ' + ', '.join(OVER)}. Map a column to {field}, or deal evenly"
            )
    return [getattr(item, field) for item in items]
