"""Supervised clients: a whole run on pictures by writer, its strategies, exact resume, and what is refused."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file

from flsim import run
from flsim.config.load import load_config
from flsim.config.schema import Config, ConfigError
from flsim.metrics.rows import COLUMNS, TIMING_NAMES, read_rows

WRITERS, EACH = 6, 60


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three classes of bright bars, each writer with its own brightness and noise."""
    rng = np.random.default_rng(0)
    x, y, users = [], [], []
    for writer in range(WRITERS):
        for _ in range(EACH):
            label = int(rng.integers(3))
            picture = rng.integers(0, 60, (8, 8)).astype(np.uint8)
            picture[2 * label + 1 : 2 * label + 3] += np.uint8(120 + 10 * writer)
            x.append(picture)
            y.append(f"bar{label}")
            users.append(f"writer{writer}")
    folder = tmp_path_factory.mktemp("pictures")
    np.savez(folder / "bars.npz", x=np.stack(x), y=np.array(y), user=np.array(users))
    return folder


def config(folder: Path, run_dir: Path, *more: str) -> Config:
    return load_config(
        None,
        [
            "name=bars",
            f"run_dir={run_dir}",
            "rounds=3",
            "data={bars: {kind: images, partition: user, users_per_device: 1, least: 1}}",
            f"data.bars.root={folder}",
            "data.bars.settings={files: {all: bars.npz}, side: 8}",
            "stream.phases=[[bars]]",
            f"fleet.devices={WRITERS}",
            "client={path: clients.supervised:Supervised, model: 'flsim.models.cnn:LeafCnn', lr: 0.2}",
            "client.model_settings={side: 8, channels: [3, 4], hidden: 8}",
            "strategy={path: strategies.fedavg:FedAvg}",
            "evaluation={every_rounds: 1, items: all, own: never}",
            "engine={kind: local, pack: 4}",
            *more,
        ],
    )


def rows_of(folder: Path) -> list[tuple[Any, ...]]:
    rows = read_rows(folder)
    rows = rows[~rows["name"].isin(TIMING_NAMES)].sort_values(list(COLUMNS[:6]), ignore_index=True)
    return [tuple(row) for row in rows.itertuples(index=False)]


def test_a_fleet_learns_pictures_and_leaves_its_model(pictures: Path, tmp_path: Path) -> None:
    done = run(config(pictures, tmp_path / "run", "rounds=12", "client.epochs=3", "evaluation.every_rounds=12"))
    end = done.summary.at_end
    assert end["global"]["accuracy"].user_mean > 0.9
    assert end["global"]["accuracy"].user_mean > end["frozen"]["accuracy"].user_mean + 0.3
    assert set(load_file(tmp_path / "run" / "adapter" / "module.safetensors")) == {
        f"{layer}.{part}" for layer in ("conv1", "conv2", "fc", "head") for part in ("weight", "bias")
    }
    told = done.rows[(done.rows["split"] == "train") & (done.rows["round"] == 1)].pivot(index="device", columns="name")
    assert (told["total"]["learned_examples"] == told["weight"]["reward"]).all()
    assert (told["weight"]["learned_examples"] == 1).all()
    assert (told["weight"][["read_tokens", "sampled_tokens"]].to_numpy() == 0).all()
    assert (told["total"]["cloud_trips"] == 0).all()
    page = done.report.read_text()
    assert "may ask" not in page.split("How this run was made")[0].split("Accuracy over rounds")[0]


@pytest.mark.usefixtures("no_report")
def test_rows_are_the_same_after_a_stop_and_in_any_pack(pictures: Path, tmp_path: Path) -> None:
    dynamic = ["strategy={path: strategies.fed_dyn:FedDyn, alpha: 0.1}", "fleet.cohort=4"]
    whole = run(config(pictures, tmp_path / "whole", *dynamic))
    run(config(pictures, tmp_path / "parts", *dynamic), until=1)
    run(resume=tmp_path / "parts")
    assert rows_of(tmp_path / "parts") == rows_of(whole.folder)
    single = rows_of(run(config(pictures, tmp_path / "single", *dynamic, "engine.pack=1")).folder)
    for one, other in zip(single, rows_of(whole.folder), strict=True):
        assert one[:6] == other[:6]
        assert one[6:] == pytest.approx(other[6:], abs=1e-3)


@pytest.mark.usefixtures("no_pictures")
def test_heads_stay_on_their_devices(pictures: Path, tmp_path: Path) -> None:
    plain = run(config(pictures, tmp_path / "plain"))
    own = run(config(pictures, tmp_path / "own", "strategy={path: strategies.fed_per:FedPer}"))
    sent = [one.summary.totals["uplink_bytes"] or 0.0 for one in (plain, own)]
    head = (4 * (8 * 3 + 3) + 2 * 128) * WRITERS * 3  # a head's bytes and two headers, by devices and rounds
    assert sent[0] - sent[1] == head
    first = load_file(tmp_path / "own" / "adapter" / "module.safetensors")
    assert not np.array_equal(
        first["fc.weight"], load_file(tmp_path / "plain" / "adapter" / "module.safetensors")["fc.weight"]
    )


@pytest.mark.usefixtures("no_report")
@pytest.mark.slow
def test_flowers_fedprox_holds_devices_back(pictures: Path, tmp_path: Path) -> None:
    norms = []
    for mu in (0.0, 10.0):
        prox = f"path: 'flwr.serverapp.strategy:FedProx', proximal_mu: {mu}, min_available_nodes: 6"
        strategy = f"strategy={{{prox}}}"
        done = run(config(pictures, tmp_path / f"mu{mu}", "rounds=1", "client.epochs=4", "client.lr=0.05", strategy))
        saved = load_file(done.folder / "adapter" / "module.safetensors")
        norms.append(saved)
    start = load_file(
        run(config(pictures, tmp_path / "none", "rounds=1", "client.lr=1e-30")).folder
        / "adapter"
        / "module.safetensors"
    )
    moved = [sum(float(((one[name] - start[name]) ** 2).sum()) for name in start) for one in norms]
    assert moved[1] < 0.5 * moved[0]


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (["stream.phases=[[arithmetic]]"], "built-in world"),
        (["client.model_settings={side: 12}"], "cannot read data.bars"),
        (["client.model=clients.grpo:Grpo"], "client.model"),
        (["client.lr=0"], "lr=0"),
        (["client.stepz=3"], "no setting stepz"),
        (["warmup.steps=3"], "language model"),
        (["strategy={path: strategies.fed_per:FedPer, head: nose.}"], "strategy.head='nose.'"),
    ],
)
def test_bad_input_is_told_before_any_work(pictures: Path, tmp_path: Path, more: list[str], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        run(config(pictures, tmp_path / "run", *more), progress=False)
    assert not (tmp_path / "run").exists()


def test_pictures_are_kept_from_language_models(pictures: Path, tmp_path: Path) -> None:
    language = replace(config(pictures, tmp_path / "run"), client={"path": "clients.grpo:Grpo"})
    with pytest.raises(ConfigError, match="a language model cannot read"):
        run(language, progress=False)
