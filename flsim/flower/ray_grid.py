"""The Grid on Ray: each worker is a process that holds the client, and with it the base model, once.

A pack goes to the next idle worker, the one that took longest in earlier rounds first, so that no worker is left with a
long one at the end. Tensors that several messages share are put into Ray's object store once and read once per worker.
A worker that dies is started again by Ray and its pack is sent once more; of a pack whose worker dies twice each device
is tried alone, and one that still kills its worker is reported as failed.
"""

import time
from collections import Counter, deque
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from types import MappingProxyType, TracebackType
from typing import Any, Self

import ray
import torch
from flwr.app import ArrayRecord, Message, RecordDict
from flwr.clientapp import ClientApp

import flsim.flower.messages as wire
from flsim.cloud.desk import open_desk
from flsim.cloud.protocol import Cloud
from flsim.config.schema import ConfigError
from flsim.config.session import bring
from flsim.devices import device_at
from flsim.files import DamagedFileError, UnwritableError, log_to
from flsim.flower.cluster import check_folder, join, share_of, wait_for_offer, wait_until_up
from flsim.flower.contract import Weight
from flsim.flower.grid import FleetGrid, identify
from flsim.flower.guard import Guard
from flsim.flower.probe import Rehearsal
from flsim.flower.store import DeviceStore, Saved
from flsim.flower.work import PackResult, answer_pack, rehearse_pack
from flsim.learning.exact_sum import ExactSum

_TRIES = 2
_STARTING_S = 120.0  # longest start of a worker that died


class Worker:
    """One process that answers packs."""

    def __init__(
        self, app: ClientApp, store: DeviceStore, devices: int, brought: Mapping[str, Any] = MappingProxyType({})
    ) -> None:
        identify()
        bring(brought)
        torch.set_num_threads(1)
        self._store = store.here()
        log_to(self._store.run_dir)  # what goes wrong here, too, stands in the run's log
        self._app = app
        self._devices = devices
        self._tensors: dict[str, ArrayRecord] = {}

    def answer(
        self,
        light: list[Message],
        places: list[dict[str, int]],
        refs: list[Any],
        weight: Weight | None,
        saved: dict[int, Saved],
    ) -> PackResult:
        """Answer one pack.

        Args:
            light: the messages without their tensors.
            places: for each message, the names of its records of tensors and which of `refs` they are.
            refs: the pack's distinct records of tensors in the object store.
            weight: as for `answer_pack`.
            saved: as for `answer_pack`.
        """
        known = self._tensors
        self._tensors = {ref.hex(): known.get(ref.hex()) or ray.get(ref) for ref in refs}  # of this pack only
        records = list(self._tensors.values())
        messages = [
            wire.with_content(m, RecordDict({**m.content, **{name: records[at] for name, at in place.items()}}))
            for m, place in zip(light, places, strict=True)
        ]
        return answer_pack(self._app, messages, self._store, self._devices, weight, saved)

    def rehearse(self, messages: list[Message]) -> Rehearsal:
        """Answer a pack for its time and memory only."""
        return rehearse_pack(self._app, messages, self._devices)

    def ready(self) -> bool:
        """True once the process is up."""
        return True

    def finds_token(self, token: str) -> tuple[str, bool, str]:
        """The worker's node, whether it sees where the token was left, and why not, if that is known."""
        node = ray.util.get_node_ip_address()
        try:
            return node, self._store.finds_token(token), ""
        except (ConfigError, UnwritableError) as error:
            return node, False, str(error)


@dataclass(frozen=True)
class _Flight:
    """A pack that is with a worker."""

    worker: Any
    pack: list[Message]
    attempt: int
    started: float


class RayGrid(FleetGrid):
    """Clients on Ray workers."""

    def __init__(
        self,
        app: ClientApp,
        store: DeviceStore,
        devices: int,
        pack: int,
        *,
        workers: int,
        address: str | None = None,
        gpus: float = 0.0,
        cloud: Cloud | None = None,
        brought: Mapping[str, Any] = MappingProxyType({}),
    ) -> None:
        """Prepare; the workers start on `with`.

        Args:
            app: the client, shipped once to each worker.
            store: the devices' states, in a folder that all workers see.
            devices: size of the fleet.
            pack: most devices in one batch.
            workers: number of processes.
            address: of a running Ray cluster; None starts one on this machine.
            gpus: a worker's share of a GPU, 1/k, or a whole number of them.
            cloud: one that an actor beside the workers is to hold for all of them; None holds none.
            brought: what a config names of this session, as `flsim.config.session.taken_along` gives it.
        """
        super().__init__(devices, pack)
        self.workers = workers
        self._parts = (app, store, devices, dict(brought))
        self._address = address
        self._gpus = gpus
        self._cloud = cloud
        self._actors: list[Any] = []
        self._beside: list[Any] = []
        self._started_ray = False
        self._stopping: Future[None] | None = None
        self._guard = Guard()
        self._seconds: dict[tuple[str, int], float] = {}  # by kind of message and device, when last measured

    def __enter__(self) -> Self:
        """Start Ray if it is not running, and the workers.

        Raises:
            ConfigError: if there is no cluster at the address, it lacks CPUs or GPUs, or does not see the run's folder.
        """
        self._started_ray = join(self._address, self.workers)
        try:
            self._guard.begin(self._parts[1].run_dir, started=self._started_ray)
            wait_for_offer(self.workers, self._gpus)
            if self._cloud is not None:
                self._beside = [open_desk(self._cloud)]
            remote: Any = ray.remote(Worker)
            options = {"num_cpus": 1, "num_gpus": share_of(self._gpus), "max_restarts": -1, "max_task_retries": 0}
            self._actors = [remote.options(**options).remote(*self._parts) for _ in range(self.workers)]
            wait_until_up(self._actors)
            check_folder(self._actors, self._parts[1])
            self._guard.look()
        except BaseException:
            self.__exit__(None, None, None)
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop the workers, and Ray if it was started here; whatever happened, no process of it stays."""
        if self._stopping is None:
            self._stop()
        else:
            self._stopping.result()

    def release(self) -> None:
        """See `FleetGrid`: Ray ends its processes one after the other, which takes a second or two."""
        beside = ThreadPoolExecutor(1, "flsim-stops-ray")
        self._stopping = beside.submit(self._stop)
        beside.shutdown(wait=False)

    def _stop(self) -> None:
        try:
            for actor in (*self._actors, *self._beside) if self._guard.holds else ():
                ray.kill(actor)
            if self._started_ray:
                ray.shutdown()
        finally:
            self._guard.end()

    def rehearse(self, messages: Sequence[Message]) -> Rehearsal:
        """All workers at once; the slowest time and the highest peak."""
        with self._guard.blamed():
            waiting = [actor.rehearse.remote(list(messages)) for actor in self._actors]
            all_: list[Rehearsal] = [self._guard.get(one) for one in waiting]
        return Rehearsal(len(messages), max(one.seconds for one in all_), max(one.peak_bytes for one in all_))

    def _answer(
        self, packs: Sequence[list[Message]], weight: Weight | None, timeout: float | None
    ) -> Iterator[PackResult]:
        with self._guard.blamed():
            yield from self._answers(packs, weight, timeout)

    def _answers(
        self, packs: Sequence[list[Message]], weight: Weight | None, timeout: float | None
    ) -> Iterator[PackResult]:
        deadline = None if timeout is None else time.monotonic() + timeout
        tensors = _Tensors(packs)
        todo = deque((pack, 1) for pack in self._longest_first(packs))
        idle = deque(self._actors)
        flying: dict[Any, _Flight] = {}
        while todo or flying:
            while todo and idle:
                (pack, attempt), worker = todo.popleft(), idle.popleft()
                started = time.perf_counter()
                call = worker.answer.remote(*tensors.ship(pack), weight, self._saved(pack))
                flying[call] = _Flight(worker, pack, attempt, started)
            left = None if deadline is None else max(0.0, deadline - time.monotonic())
            done = self._guard.wait(list(flying), left)
            if done is None:
                late = [flight.pack for flight in flying.values()] + [pack for pack, _ in todo]
                self._spent["other"] += sum(time.perf_counter() - flight.started for flight in flying.values())
                self._restart([flight.worker for flight in flying.values()])
                yield _failed(wire.LATE, f"no reply within {timeout} s", [m for pack in late for m in pack])
                return
            flight = flying.pop(done)
            try:
                result: PackResult = self._guard.get(done)
            except ray.exceptions.RayTaskError as error:
                raise _plain(error) from error
            except ray.exceptions.RayActorError as error:
                self._guard.check()  # else the worker would be waited for
                self._spent["other"] += time.perf_counter() - flight.started
                if flight.attempt < _TRIES:
                    todo.append((flight.pack, flight.attempt + 1))
                elif len(flight.pack) > 1:
                    todo.extend(([message], _TRIES) for message in flight.pack)
                else:
                    yield _failed(wire.DIED, f"its worker died each time: {error}", flight.pack)
                self._wait_for(flight.worker)
            else:
                self._book_pack(result, time.perf_counter() - flight.started)
                self._remember_seconds(result.replies)
                yield result
            idle.append(flight.worker)

    def _longest_first(self, packs: Sequence[list[Message]]) -> list[list[Message]]:
        """The packs by the seconds that their devices took when last measured; a device without any counts as the mean.

        The order decides when a pack is answered, never what is in it.
        """
        keys = [[(m.metadata.message_type, device_at(m.metadata.dst_node_id)) for m in pack] for pack in packs]
        known = [self._seconds[key] for pack in keys for key in pack if key in self._seconds]
        mean = sum(known) / max(1, len(known))
        expected = [sum(self._seconds.get(key, mean) for key in pack) for pack in keys]
        return [packs[place] for place in sorted(range(len(packs)), key=lambda place: -expected[place])]

    def _remember_seconds(self, replies: Sequence[Message]) -> None:
        for reply in replies:
            if reply.has_error():
                continue
            seconds = wire.seconds_of(reply)
            if seconds is not None:
                self._seconds[reply.metadata.message_type, wire.device_of(reply)] = seconds

    def _restart(self, workers: Sequence[Any]) -> None:
        """Stop what these workers are at, so that it neither changes a device's state later nor holds up the round."""
        for worker in workers:
            ray.kill(worker, no_restart=False)
        for worker in workers:
            self._wait_for(worker)

    def _wait_for(self, worker: Any) -> None:
        """Wait until a worker that died is up again; a call that comes too early fails, and would count as a death."""
        deadline = time.monotonic() + _STARTING_S
        while True:
            try:
                self._guard.get(worker.ready.remote(), _STARTING_S)
                return
            except ray.exceptions.RayActorError:
                self._guard.check()
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.1)


class _Tensors:
    """The tensors of a send in the object store: those that packs share are put once, the others as their pack leaves.

    What else a message holds (its config may be its device's own) is small and travels with the message.
    """

    def __init__(self, packs: Sequence[list[Message]]) -> None:
        uses = Counter(key for pack in packs for key in _distinct(pack))
        self._shared = {key for key, count in uses.items() if count > 1}
        self._refs: dict[int, Any] = {}

    def ship(self, pack: Sequence[Message]) -> tuple[list[Message], list[dict[str, int]], list[Any]]:
        """A pack as `Worker.answer` takes it."""
        distinct = _distinct(pack)
        refs = [self._put(key, record) for key, record in distinct.items()]
        order = {key: place for place, key in enumerate(distinct)}
        light, places = [], []
        for message in pack:
            heavy = message.content.array_records
            rest = {name: record for name, record in message.content.items() if name not in heavy}
            light.append(wire.with_content(message, RecordDict(rest)))
            places.append({name: order[id(record)] for name, record in heavy.items()})
        return light, places, refs

    def _put(self, key: int, record: ArrayRecord) -> Any:
        if key in self._refs:
            return self._refs[key]
        ref = ray.put(record)
        if key in self._shared:
            self._refs[key] = ref
        return ref


def _distinct(pack: Sequence[Message]) -> dict[int, ArrayRecord]:
    """The records of tensors that a pack's messages hold, each once, by identity."""
    return {id(record): record for message in pack for record in message.content.array_records.values()}


def _plain(error: ray.exceptions.RayTaskError) -> Exception:
    """What a worker raised, without Ray's account of where, if it is a sentence for whoever runs this."""
    cause = getattr(error, "cause", None)
    return cause if isinstance(cause, UnwritableError | DamagedFileError | ConfigError) else error


def _failed(reason: str, detail: str, messages: Sequence[Message]) -> PackResult:
    detail = " ".join(detail.split())[:500]
    return PackResult([wire.error_reply(reason, detail, message) for message in messages], ExactSum(), 0.0, {})
