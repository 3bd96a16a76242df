"""What several tests share: a tiny random checkpoint, runs on it, one torch thread, quiet and offline libraries."""

import gc
import logging
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import settings

if TYPE_CHECKING:  # flsim's libraries read the environment when they are imported
    from tests.tiny import TinyRun

os.environ.setdefault("FLWR_TELEMETRY_ENABLED", "0")
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("OMP_NUM_THREADS", "1")  # shapes are too small to share, and another worker has the other core
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

settings.register_profile("house", deadline=None, derandomize=True, database=None, max_examples=50)
settings.load_profile("house")


gc.disable()  # until all tests are imported: nothing of that is garbage


def pytest_collection_finish() -> None:
    """All that the tests have imported stays: no garbage collection, of which some are asked for, looks through it."""
    gc.collect()
    gc.freeze()
    gc.enable()


@pytest.fixture(scope="session", autouse=True)
def not_flushed() -> Iterator[None]:
    """What tests write need not survive a power cut: a run waits for the disk some thirty times."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", lambda file: None)
        yield


@pytest.fixture(scope="session")
def one_thread() -> Iterator[None]:
    """Torch on one thread: the shapes here are too small to share, and the order of sums stays the same."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def one_ray() -> Iterator[None]:
    """Ray for all tests of a file; starting it takes seconds."""
    import ray

    ray.init(
        "local",
        num_cpus=2,
        include_dashboard=False,
        logging_level=logging.ERROR,
        log_to_driver=False,
        object_store_memory=100 * 2**20,
    )
    yield
    ray.shutdown()


@pytest.fixture
def hears_ctrl_c() -> Iterator[None]:
    """Programs that are started hear Ctrl-C, even where pytest itself was told not to, as in a shell's background."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.fixture(scope="session")
def tiny_checkpoint(tmp_path_factory: pytest.TempPathFactory, one_thread: None) -> Path:
    """Folder of a random 2-layer, 32-wide Llama with the built-in tokenizer.

    Its weights are drawn wide (0.3), so that it has clear preferences and a greedy choice never hangs on a last bit.
    """
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    from flsim.models.folder import build_tokenizer

    folder: Path = tmp_path_factory.mktemp("tiny") / "checkpoint"
    tokenizer = build_tokenizer()
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=2,
        max_position_embeddings=64,
        initializer_range=0.3,
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        tie_word_embeddings=False,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        LlamaForCausalLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture
def tiny_run(request: pytest.FixtureRequest, tiny_checkpoint: Path, tmp_path: Path) -> "TinyRun":
    """`tiny_run(name, *more)`: the config of a run as small as it gets, with the file's `TINY` and `more` over it.

    Its folder is `tmp_path / name`.
    """
    from tests.tiny import tiny_runs_in

    return tiny_runs_in(tmp_path, tiny_checkpoint, getattr(request.module, "TINY", ()))


@pytest.fixture(scope="module")
def tiny_runs(
    request: pytest.FixtureRequest, tiny_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory
) -> "TinyRun":
    """As `tiny_run`, for runs that tests of a file share: a name is one folder for the whole file."""
    from tests.tiny import tiny_runs_in

    return tiny_runs_in(tmp_path_factory.mktemp("runs"), tiny_checkpoint, getattr(request.module, "TINY", ()))


@pytest.fixture
def no_report() -> Iterator[None]:
    """Runs of the test end without their report; `without_report` of `tests/tiny.py` is for fixtures."""
    from tests.tiny import without_report

    with without_report():
        yield


@pytest.fixture
def no_pictures() -> Iterator[None]:
    """Runs and comparisons have a page, but its pictures are not drawn as files; for fixtures, `without_pictures`."""
    from tests.tiny import without_pictures

    with without_pictures():
        yield
