"""The Flower ClientApp around a local algorithm: unwrap the messages of a pack, learn, measure, wrap the replies."""

from collections.abc import Sequence
from dataclasses import replace
from functools import cached_property
from typing import Protocol

from flwr.app import Context, Message, MessageType

import flsim.messages as wire
from clients.device import Device, keep, remember
from clients.evaluate import evaluate_pack, reference_rows
from flsim.config import BudgetConfig, Config
from flsim.engine.work import PackedClientApp
from flsim.messages import DeviceUpdate
from flsim.metrics.rows import Row
from flsim.timing import spend
from flsim.world import World, load_world


class LocalAlgorithm(Protocol):
    """What one pack of devices does in a round."""

    @property
    def dual_init(self) -> float:
        """What lambda starts from on a device that has not learned yet."""
        ...

    def local_update(self, world: World, devices: Sequence[Device]) -> list[DeviceUpdate]:
        """Learn for one round; one update per device, and the devices changed in place."""
        ...


class DeviceApp(PackedClientApp):
    """Runs a `LocalAlgorithm` for the devices of a pack. The world is loaded once, with the first message."""

    def __init__(self, config: Config, algorithm: LocalAlgorithm) -> None:
        super().__init__()
        self.config = config
        self.algorithm = algorithm

    @cached_property
    def world(self) -> World:
        """The worker's resident models and stream."""
        return load_world(self.config)

    def answer(self, messages: Sequence[Message], contexts: Sequence[Context]) -> list[Message]:
        """Train or evaluate a pack."""
        if messages[0].metadata.message_type == MessageType.TRAIN:
            return self._train(messages, contexts, self.config.budget)
        return self._evaluate(messages, contexts)

    def rehearse(self, messages: Sequence[Message], contexts: Sequence[Context]) -> None:
        """Train a pack that may not send anything to the cloud: its devices answer all their questions alone."""
        self._train(messages, contexts, replace(self.config.budget, calls_per_round=0))

    def _train(self, messages: Sequence[Message], contexts: Sequence[Context], budget: BudgetConfig) -> list[Message]:
        round_ = wire.round_of(messages[0])
        devices = [
            remember(
                context.state,
                wire.device_at(context.node_id),
                round_,
                adapter,
                budget=budget,
                dual=self.algorithm.dual_init,
            )
            for adapter, context in zip(wire.adapters_of(messages), contexts, strict=True)
        ]
        updates = self.algorithm.local_update(self.world, devices)
        local: list[list[Row]] = [[] for _ in devices]
        if wire.flag(messages[0], wire.EVALUATE_LOCAL):
            learned = [update.adapter for update in updates]
            with spend("evaluate"):
                local = evaluate_pack(self.world, [d.index for d in devices], learned, model="local", round_=round_)
        replies = []
        for message, context, device, update, rows in zip(messages, contexts, devices, updates, local, strict=True):
            keep(context.state, device)
            everything = (*update.rows, *rows)
            update = DeviceUpdate(device.index, update.adapter, update.num_examples, update.reward, everything)
            replies.append(wire.train_reply(update, message))
        return replies

    def _evaluate(self, messages: Sequence[Message], contexts: Sequence[Context]) -> list[Message]:
        round_ = wire.round_of(messages[0])
        indices = [wire.device_at(context.node_id) for context in contexts]
        adapters = wire.adapters_of(messages)
        with spend("evaluate"):
            rows = evaluate_pack(self.world, indices, adapters, model="global", round_=round_)
            if wire.flag(messages[0], wire.REFERENCES):
                rows = [a + b for a, b in zip(rows, reference_rows(self.world, indices, round_=round_), strict=True)]
        return [
            wire.evaluate_reply(
                tuple(own), self.config.evaluation.prompts_per_task * len(self.world.stream.tasks), message
            )
            for own, message in zip(rows, messages, strict=True)
        ]
