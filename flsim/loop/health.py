"""The rows about an aggregation: its health, from what was sent and what came back, whatever the strategy."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import isnan

from flwr.app import Message

import flsim.flower.messages as wire
from flsim.aggregation.health import Health, health, operations
from flsim.aggregation.pairs import Pairs, pairs_of
from flsim.config.model import LoraShape
from flsim.config.schema import Config
from flsim.devices import device_name
from flsim.flower.contract import Deals, weighed_by
from flsim.metrics.rows import EVERY_TASK, Row, fleet_row
from flsim.models.adapter import Adapter, cropped, widened

MOST_OPERATIONS = 2e11
"""Multiplications beyond which a round's bias, cosine and norms are not measured: about ten seconds of one core."""

_MOST = 1e6  # a row holds finite numbers


@dataclass
class HealthReader:
    """Reads what the aggregations of a run say of themselves."""

    config: Config
    log: logging.Logger
    told: bool = False
    """Whether the log says already that measuring would take too long."""

    def rows(
        self, strategy: object, adapter: Adapter, sent: Sequence[Message], usable: Sequence[Message], round_: int
    ) -> list[Row]:
        """The rows of one aggregation.

        Of the server: `aggregation_bias`, `update_cosine`, `effective_devices` (see `flsim.aggregation.health`) and,
        where a strategy cuts to a rank, `cut_energy`, of large layers as an estimate. Of each device: `update_norm`,
        how far its product moved, `mean_cosine`, the cosine between its move and the mean one, and `aggregation_share`,
        how much say it had; of Flower's own strategies the share of its examples, whatever they do with it. Where the
        replies carry no tensors, because the workers summed them, where devices keep a factor for themselves, or where
        measuring takes more than `MOST_OPERATIONS`, only what the shares say is there.

        Args:
            strategy: after it has aggregated.
            adapter: the server's before.
            sent: the round's training messages.
            usable: the replies that were aggregated, as they came.
            round_: the round.
        """
        if not usable:
            return []
        shares = strategy.shares if isinstance(strategy, Deals) else _by_examples(usable, weighed_by(strategy))
        rows = [_of_device(round_, device, "aggregation_share", share) for device, share in sorted(shares.items())]
        if shares:
            rows.append(fleet_row(round_, "effective_devices", 1 / sum(share**2 for share in shares.values())))
        if isinstance(strategy, Deals):
            if strategy.cut_energy is not None:
                rows.append(fleet_row(round_, "cut_energy", strategy.cut_energy))
            if set(strategy.learns) - set(strategy.carries):
                return rows
        if not shares or not all(wire.ARRAYS in reply.content for reply in usable):
            return rows
        if self._too_long(adapter, len(usable), round_):
            return rows
        found = _measure(self.config, adapter, sent, usable, shares)
        rows.append(fleet_row(round_, "aggregation_bias", min(found.bias, _MOST)))
        if found.cosine is not None:
            rows.append(fleet_row(round_, "update_cosine", found.cosine))
        devices = [wire.device_of(reply) for reply in usable]
        along = zip(devices, found.with_mean.tolist(), strict=True)
        rows += [_of_device(round_, device, "mean_cosine", cosine) for device, cosine in along if not isnan(cosine)]
        norms = zip(devices, found.norms.tolist(), strict=True)
        return rows + [_of_device(round_, device, "update_norm", norm) for device, norm in norms]

    def _too_long(self, adapter: Adapter, devices: int, round_: int) -> bool:
        """Whether measuring so many devices takes too long; the first time the log says so."""
        needed = operations(pairs_of(adapter, self.config.shape.scale), devices)
        if needed <= MOST_OPERATIONS:
            return False
        if not self.told:
            self.log.info(
                "round %d: bias, cosine and norms of %d updates are not measured: that takes %.1g multiplications, more"
                " than %.1g",
                *(round_, devices, needed, MOST_OPERATIONS),
            )
            self.told = True
        return True


def _measure(
    config: Config, adapter: Adapter, sent: Sequence[Message], usable: Sequence[Message], shares: Mapping[int, float]
) -> Health:
    """The health of a cohort whose replies carry their tensors.

    What did not travel is the server's: a factor that nobody learns, and the directions beyond a device's rank, which
    it did not move.
    """
    carried = {message.metadata.dst_node_id: message for message in sent}
    starts: dict[int, tuple[Adapter, Pairs]] = {}
    new: list[Pairs] = []
    old: list[Pairs] = []
    for reply in usable:
        message, shape = carried[reply.metadata.src_node_id], config.shape_of(wire.device_of(reply))
        key = id(wire.arrays_of(message))
        if key not in starts:
            start = cropped(adapter, shape, config.shape) | wire.adapter_of(message)
            starts[key] = start, _in_full(start, shape, adapter, config)
        old.append(starts[key][1])
        new.append(_in_full(starts[key][0] | wire.adapter_of(reply), shape, adapter, config))
    return health(new, [abs(shares.get(wire.device_of(reply), 0.0)) for reply in usable], start=old)


def _in_full(part: Adapter, shape: LoraShape, adapter: Adapter, config: Config) -> Pairs:
    """What a device of some shape has of the server's adapter, as pairs of the server's rank."""
    return pairs_of(widened(part, shape, config.shape, rest=adapter), config.shape.scale)


def _by_examples(usable: Sequence[Message], key: str) -> dict[int, float]:
    """The shares under Flower's usual weighting, by the metric of that name."""
    counts = {wire.device_of(reply): wire.count_of(reply, key) or 0.0 for reply in usable}
    total = sum(counts.values())
    return {device: count / total for device, count in counts.items()} if total else {}


def _of_device(round_: int, device: int, name: str, value: float) -> Row:
    return Row(round_, device_name(device), EVERY_TASK, "train", "own", name, value, 1.0)
