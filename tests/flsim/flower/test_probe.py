"""`engine.pack=auto`: what is chosen from what was timed, and that a run keeps its choice."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

import flsim
from clients.da_grpo import DaGrpo
from flsim.cloud.protocol import Answer, Cloud
from flsim.config.load import load_config
from flsim.config.schema import Config, ConfigError
from flsim.files import DamagedFileError
from flsim.flower.probe import Rehearsal, pack_of, probe
from flsim.loop.checks import check
from flsim.metrics.rows import without_timing
from flsim.problems.problem import Problem


def timed(seconds_per_device: Callable[[int], float], asked: list[int]) -> Callable[[int], Rehearsal]:
    def rehearse(devices: int) -> Rehearsal:
        asked.append(devices)
        return Rehearsal(devices, devices * seconds_per_device(devices), 10**8)

    return rehearse


def test_the_fastest_pack_is_chosen_and_no_larger_one_is_tried_in_vain() -> None:
    """Per device 1 s alone and 1 / K + K / 64 otherwise: best at 8, by less than 5 % better than at 4 or 16."""
    asked: list[int] = []
    choice = probe(timed(lambda k: 0.01 * (1 / k + k / 64), asked), most=100, workers=2)
    assert asked == [1, 1, 2, 4, 8, 16, 32]  # the first loads the model; two in a row that are no better are enough
    assert choice.pack == 8
    assert [one.devices for one in choice.tried] == [1, 2, 4, 8, 16, 32]


def test_among_equals_the_smallest_is_taken() -> None:
    assert probe(timed(lambda k: 0.01, []), most=100, workers=1).pack == 1


def test_no_pack_is_larger_than_a_workers_share() -> None:
    asked: list[int] = []
    assert probe(timed(lambda k: 0.01 / k, asked), most=6, workers=2).pack == 6
    assert asked == [1, 1, 2, 4, 6]


def test_a_pack_that_would_not_fit_into_memory_is_not_tried() -> None:
    asked: list[int] = []

    def rehearse(devices: int) -> Rehearsal:
        asked.append(devices)
        return Rehearsal(devices, 0.01, 10**8 + (10**14 if len(asked) > 2 else 0))

    assert probe(rehearse, most=100, workers=2).pack == 2
    assert asked == [1, 1, 2]


def test_a_probe_does_not_go_on_for_minutes() -> None:
    asked: list[int] = []
    assert probe(timed(lambda k: 100.0 / k, asked), most=100, workers=2).pack == 1
    assert asked == [1, 1]


@pytest.fixture
def auto(tiny_checkpoint: Path, tmp_path: Path) -> Config:
    return load_config(
        None,
        [
            f"run_dir={tmp_path / 'run'}",
            f"model.path={tiny_checkpoint}",
            "rounds=3",
            "fleet.devices=4",
            "cloud.kind=oracle",
            "evaluation.prompts_per_task=4",
            "engine.kind=local",
            "engine.pack=auto",
            *(f"client.{key}" for key in ("steps=2", "prompts=3", "group_size=3", "max_new_tokens=4")),
        ],
    )


def test_the_choice_is_kept_in_the_run_and_repeated(auto: Config) -> None:
    folder = auto.folder
    first = pack_of("auto", folder, timed(lambda k: 0.01 / k, []), cohort=auto.cohort_size, workers=1)
    assert first == json.loads((folder / "pack.json").read_text())["pack"] == 4

    def never(devices: int) -> Rehearsal:
        raise AssertionError("a run that has its choice must not rehearse again")

    assert pack_of("auto", folder, never, cohort=auto.cohort_size, workers=1) == 4
    (folder / "pack.json").write_text("{")
    with pytest.raises(DamagedFileError, match=r"pack\.json cannot be read .* write the run's pack size into it"):
        pack_of("auto", folder, never, cohort=auto.cohort_size, workers=1)


@pytest.mark.usefixtures("no_report")
@pytest.mark.slow
def test_a_run_finds_its_packs_and_the_rehearsal_leaves_no_trace(auto: Config) -> None:
    """Rows equal those of a run whose config names the size that was found; nothing was spent or learned before."""
    found = flsim.run(auto, progress=False)
    pack = json.loads((found.folder / "pack.json").read_text())["pack"]
    assert f"in packs of {pack}" in (found.folder / "run.log").read_text()
    overrides = [f"engine.pack={pack}", f"run_dir={found.folder.parent / 'named'}"]
    named = flsim.run(load_config(found.folder / "config.yaml", overrides), progress=False)
    assert without_timing(found.rows).equals(without_timing(named.rows))
    assert not (named.folder / "pack.json").exists()


@pytest.mark.usefixtures("no_report")
@pytest.mark.slow
def test_a_rehearsal_pays_no_cloud(auto: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    """A model that asks all the time meets a cloud that must not be called until the first round."""
    app = DaGrpo.client_app(auto, **{key: value for key, value in auto.client.items() if key != "path"})
    called: list[int] = []
    cloud = type(app.world.cloud)
    real = cloud.answer

    def counted(self: Cloud, problems: Sequence[Problem]) -> Sequence[Answer | None]:
        called.append(len(problems))
        return real(self, problems)

    monkeypatch.setattr(cloud, "answer", counted)
    before = len(called)
    flsim.run(auto, client=app, progress=False)
    first_paid = next(place for place, count in enumerate(called[before:]) if count > 0)
    assert first_paid > 0  # the rehearsals came first, and asked for nothing


def test_a_word_that_is_no_size_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"engine\.pack='many' must be a number, or auto: devices that"):
        check(load_config(None, ["engine.pack=many"]))
