"""Joining Ray: its own on this machine or a running cluster, and whether that offers what the run asks for."""

import logging
import math
import os
import secrets
import signal
import socket
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import psutil
import ray
import torch
from ray import cloudpickle

from flsim.config.schema import ConfigError, EngineConfig
from flsim.flower.store import DeviceStore

_STORE_BYTES = (
    2**29
)  # of objects for each worker: an exact sum of 30 million parameters; beyond it Ray goes by the disk
_STORE_SHARE = 0.3  # at most, of the memory; it is taken as it is needed, and not before
_KNOCK_S = 10.0  # how long a cluster may take to pick up
_OFFER_S = 60.0  # how long a cluster may take to offer CPUs and GPUs
_READY_S = 600.0  # how long its workers may take to be up: each imports torch, perhaps over a network


def join(address: str | None, workers: int) -> bool:
    """Start Ray here, or connect to a running cluster; whether there was something to do.

    Raises:
        ConfigError: if there is no cluster at the address.
    """
    if ray.is_initialized():
        return False
    if address is not None:
        _knock(address)
    room = int(min(workers * _STORE_BYTES, _STORE_SHARE * psutil.virtual_memory().total))
    local: dict[str, Any] = {"num_cpus": workers, "object_store_memory": room}
    # read as a worker starts: its memory then comes in large pages, and a round of 32 devices takes 2 to 4 % less
    os.environ.setdefault("GLIBC_TUNABLES", "glibc.malloc.hugetlb=1")
    try:
        with _own_sigterm():
            ray.init(
                address=address or "local",  # else Ray would join whatever RAY_ADDRESS or `ray start` left
                include_dashboard=None if address else False,
                logging_level=logging.ERROR,
                log_to_driver=False,
                **({} if address else local),
            )
    except ConnectionError as error:
        raise _nobody(address, error) from error
    except Exception as error:  # its folder of sessions, its shared memory, or a machine that is too busy
        raise ConfigError(
            f"Ray could not be started: {' '.join(str(error).split())}; it needs room in its folder of sessions "
            f"(RAY_TMPDIR, else /tmp), shared memory and processors that are free within half a minute: try again by a "
            f"resume, or set engine.kind=local"
        ) from error
    return True


@contextmanager
def _own_sigterm() -> Iterator[None]:
    """Around the start of Ray, which takes SIGTERM for itself: whoever has a handler keeps it."""
    before = signal.getsignal(signal.SIGTERM)
    if threading.current_thread() is not threading.main_thread() or not callable(before):
        yield
        return
    try:
        yield
    except SystemExit as stop:  # Ray's handler, in the seconds that its start takes
        if stop.code == signal.SIGTERM:
            before(signal.SIGTERM, None)
        raise
    finally:
        signal.signal(signal.SIGTERM, before)


def refuse_unsendable(parts: Mapping[str, object]) -> None:
    """Refuse what cannot be sent to workers: what it is made of is pickled, classes of a notebook with all they name.

    Args:
        parts: what is sent, by what it is called.

    Raises:
        ConfigError: naming the part that does not pickle, and why.
    """
    for name, part in parts.items():
        try:
            cloudpickle.dumps(part)
        except Exception as error:  # of whatever it refers to
            raise ConfigError(
                f"{name} cannot be sent to Ray workers: {' '.join(str(error).split())}; let it open what is of this "
                f"process alone (files, locks, connections) when it first needs it, keep such things out of the "
                f"globals that its methods name, or set engine.kind=local"
            ) from error


def _knock(address: str) -> None:
    """Whether somebody listens at `host:port`: Ray itself would wait for minutes."""
    host, colon, port = address.rpartition(":")
    if colon and port.isdigit():
        try:
            socket.create_connection((host, int(port)), timeout=_KNOCK_S).close()
        except OSError as error:
            raise _nobody(address, error) from error


def _nobody(address: str | None, error: Exception) -> ConfigError:
    return ConfigError(
        f"engine.address={address!r}: no Ray cluster answers there ({str(error).splitlines()[0]}); start one with "
        f"`ray start --head`, or leave engine.address out"
    )


def share_of(gpus: float) -> float:
    """What Ray is asked for: 1/k rounded down to Ray's four digits, so that k workers fit on one GPU."""
    return float(gpus) if gpus == int(gpus) else math.floor(1e4 / round(1 / gpus)) / 1e4


def gpus_for(workers: int, gpus: float) -> int:
    """Whole GPUs that so many workers need: a worker's share lies on one GPU."""
    return workers * int(gpus) if gpus == int(gpus) else math.ceil(workers / round(1 / gpus))


def check_gpus(engine: EngineConfig) -> None:
    """Make sure that this machine has the GPUs for all workers; a cluster is asked when it is joined.

    Raises:
        ConfigError: saying how many are needed and how many there are.
    """
    need = gpus_for(engine.workers, engine.gpus)
    if need and engine.address is None and need > torch.cuda.device_count():
        raise ConfigError(
            f"engine.workers={engine.workers} with engine.gpus={engine.gpus:g} need {need} GPUs, this machine has "
            f"{torch.cuda.device_count()}; lower engine.workers or engine.gpus (1/k puts k workers on one GPU), or "
            f"give engine.address"
        )


def wait_for_offer(workers: int, gpus: float) -> None:
    """Wait until the cluster has the CPUs and GPUs for all workers; a cluster may still be growing.

    Raises:
        ConfigError: if it does not have them in time, with what it has.
    """
    need = {"CPU": workers, "GPU": gpus_for(workers, gpus)}
    deadline = time.monotonic() + _OFFER_S
    while True:
        has = ray.cluster_resources()
        if all(has.get(kind, 0.0) >= count for kind, count in need.items()):
            return
        if time.monotonic() > deadline:
            raise ConfigError(
                f"engine.workers={workers} with engine.gpus={gpus:g} need {need['CPU']} CPUs and {need['GPU']} GPUs, "
                f"the Ray cluster has {has.get('CPU', 0.0):g} and {has.get('GPU', 0.0):g}; lower engine.workers or "
                f"engine.gpus, or add nodes"
            )
        time.sleep(0.5)


def wait_until_up(workers: Sequence[Any]) -> None:
    """Wait until every worker runs.

    Raises:
        ConfigError: if some do not in time, as when other jobs hold the cluster's CPUs.
    """
    waiting = [worker.ready.remote() for worker in workers]
    up, missing = ray.wait(waiting, num_returns=len(waiting), timeout=_READY_S)
    if missing:
        free = ray.available_resources()
        raise ConfigError(
            f"{len(missing)} of engine.workers={len(workers)} did not start within {_READY_S:g} s; free in the cluster "
            f"are {free.get('CPU', 0.0):g} CPUs and {free.get('GPU', 0.0):g} GPUs; end other jobs or lower "
            f"engine.workers"
        )
    ray.get(up)


def check_folder(workers: Sequence[Any], store: DeviceStore) -> None:
    """Make sure that every worker sees the folder of the device states, by a token that is left there.

    Raises:
        ConfigError: naming the nodes that do not, the folder, and the mend.
    """
    token = secrets.token_hex(16)
    store.leave_token(token)
    try:
        answers = ray.get([worker.finds_token.remote(token) for worker in workers])
    finally:
        store.take_token()
    blind = sorted({node for node, found, _ in answers if not found})
    why = next((reason for _, _, reason in answers if reason), None)
    if blind and store.bucket is not None:
        raise ConfigError(
            f"the workers on {', '.join(blind)} do not reach {store.bucket}, where devices keep their state: "
            f"{why or 'what is put there is not found from there'}; credentials and addresses must hold on every node"
        )
    if blind:
        raise ConfigError(
            f"the workers on {', '.join(blind)} do not see the run's folder {store.folder}: devices keep their state "
            f"there; choose a run_dir on a file system that all nodes share"
        )
