"""The Grid on Ray: each worker is a process that holds the client, and with it the base model, once.

A pack goes to the next idle worker. A worker that dies is started again by Ray and its pack is sent once more; of a
pack whose worker dies twice each device is tried alone, and one that still kills its worker is reported as failed.
"""

import logging
import time
from collections import deque
from collections.abc import Sequence
from types import TracebackType
from typing import Any, Self

import ray
import torch
from flwr.app import Message
from flwr.clientapp import ClientApp

import flsim.messages as wire
from flsim.engine.grid import FleetGrid, identify
from flsim.engine.store import DeviceStore
from flsim.engine.work import answer_pack

_OBJECT_STORE_BYTES = 200 * 2**20  # adapters are small; Ray's default would take 30 % of the memory
_TRIES = 2
_STARTING_S = 120.0  # longest start of a worker that died


class Worker:
    """One process that answers packs."""

    def __init__(self, app: ClientApp, store: DeviceStore, devices: int) -> None:
        identify()
        torch.set_num_threads(1)
        self._app = app
        self._store = store
        self._devices = devices

    def answer(self, messages: list[Message]) -> list[Message]:
        """Answer one pack."""
        return answer_pack(self._app, messages, self._store, self._devices)

    def ready(self) -> bool:
        """True once the process is up."""
        return True


class RayGrid(FleetGrid):
    """Clients on Ray workers."""

    def __init__(
        self, app: ClientApp, store: DeviceStore, devices: int, pack: int, *, workers: int, address: str | None = None
    ) -> None:
        """Prepare; the workers start on `with`.

        Args:
            app: the client, shipped once to each worker.
            store: the devices' states, in a folder that all workers see.
            devices: size of the fleet.
            pack: most devices in one batch.
            workers: number of processes.
            address: of a running Ray cluster; None starts one on this machine.
        """
        super().__init__(devices, pack)
        self._parts = (app, store, devices)
        self._count = workers
        self._address = address
        self._workers: list[Any] = []
        self._started_ray = False

    def __enter__(self) -> Self:
        """Start Ray if it is not running, and the workers."""
        if not ray.is_initialized():
            local: dict[str, Any] = (
                {} if self._address else {"num_cpus": self._count, "object_store_memory": _OBJECT_STORE_BYTES}
            )
            ray.init(
                address=self._address or "local",  # else Ray would join whatever RAY_ADDRESS or `ray start` left
                include_dashboard=None if self._address else False,
                logging_level=logging.ERROR,
                log_to_driver=False,
                **local,
            )
            self._started_ray = True
        remote: Any = ray.remote(Worker)
        self._workers = [
            remote.options(num_cpus=1, max_restarts=-1, max_task_retries=0).remote(*self._parts)
            for _ in range(self._count)
        ]
        ray.get([worker.ready.remote() for worker in self._workers])
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop the workers, and Ray if it was started here."""
        for worker in self._workers:
            ray.kill(worker)
        if self._started_ray:
            ray.shutdown()

    def _answer(self, packs: Sequence[list[Message]], timeout: float | None) -> list[Message]:
        deadline = None if timeout is None else time.monotonic() + timeout
        todo = deque((pack, 1) for pack in packs)
        idle = deque(self._workers)
        flying: dict[Any, tuple[Any, list[Message], int]] = {}
        replies: list[Message] = []
        while todo or flying:
            while todo and idle:
                (pack, attempt), worker = todo.popleft(), idle.popleft()
                flying[worker.answer.remote(pack)] = (worker, pack, attempt)
            left = None if deadline is None else max(0.0, deadline - time.monotonic())
            done, _ = ray.wait(list(flying), num_returns=1, timeout=left)
            if not done:
                _restart([worker for worker, _, _ in flying.values()])
                late = [pack for _, pack, _ in flying.values()] + [pack for pack, _ in todo]
                return replies + [_failed(wire.LATE, f"no reply within {timeout} s", m) for pack in late for m in pack]
            worker, pack, attempt = flying.pop(done[0])
            try:
                replies += ray.get(done[0])
            except ray.exceptions.RayActorError as error:
                if attempt < _TRIES:
                    todo.append((pack, attempt + 1))
                elif len(pack) > 1:
                    todo.extend(([message], _TRIES) for message in pack)
                else:
                    replies += [_failed(wire.DIED, f"its worker died each time: {error}", m) for m in pack]
                _wait_for(worker)
            idle.append(worker)
        return replies


def _restart(workers: Sequence[Any]) -> None:
    """Stop what these workers are at, so that it neither changes a device's state later nor holds up the next round."""
    for worker in workers:
        ray.kill(worker, no_restart=False)
    for worker in workers:
        _wait_for(worker)


def _wait_for(worker: Any) -> None:
    """Wait until a worker that died is up again; a call that comes too early fails, and would count as a death."""
    deadline = time.monotonic() + _STARTING_S
    while True:
        try:
            ray.get(worker.ready.remote(), timeout=_STARTING_S)
            return
        except ray.exceptions.RayActorError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.1)


def _failed(reason: str, detail: str, message: Message) -> Message:
    return wire.error_reply(reason, " ".join(detail.split())[:500], message)
