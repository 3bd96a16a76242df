"""The profile command: it measures the run that the config means, says what it read, and cleans up after itself."""

from pathlib import Path

import pandas as pd
import pytest
from PIL import Image

from experiments.command.__main__ import main
from flsim import load_config, run
from flsim.metrics.rows import Row, read_rows, without_timing, write_rows
from flsim.timing import PARTS, RoundTiming, read_timings, write_timing
from tests.tiny import tiny_file


@pytest.fixture
def tiny(tiny_checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A config file of a run as small as it gets, evaluated after every second round; its folder is `run` beside it."""
    monkeypatch.chdir(tmp_path)
    client = (f"client.{key}" for key in ("prompts=2", "group_size=2", "max_new_tokens=3"))
    return tiny_file(tmp_path, tiny_checkpoint, "rounds=4", f"run_dir={tmp_path / 'run'}", *client)


@pytest.mark.slow
def test_a_kept_profile_is_the_beginning_of_the_whole_run(tiny: Path, tmp_path: Path) -> None:
    """Its rows are bit for bit those of the run's first rounds, and a resume makes the whole run of it."""
    kept = tmp_path / "kept"
    assert main(["profile", str(tiny), "--rounds", "2", f"run_dir={kept}"]) == 0
    whole = run(load_config(tiny), progress=False)
    rows, first = without_timing(read_rows(whole.folder)), without_timing(read_rows(kept))
    assert set(first["round"]) == {0, 1, 2}
    pd.testing.assert_frame_equal(first, rows[rows["round"] <= 2], check_exact=True)
    assert "Where the time went" in (kept / "report.html").read_text()
    run(resume=kept, progress=False)
    pd.testing.assert_frame_equal(without_timing(read_rows(kept)), rows, check_exact=True)


@pytest.mark.usefixtures("no_pictures")
def test_by_default_one_evaluation_follows_the_warm_up_and_the_run_is_thrown_away(
    tiny: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """An evaluation every 2 rounds: 3 rounds run, of which 2 and 3 are measured, and 2 holds the evaluation."""
    assert main(["profile", str(tiny), "seed=3"]) == 0
    out, err = capsys.readouterr()
    assert err.splitlines()[0] == "profiling 3 of 4 rounds of tiny"
    assert "3/3" in err  # the run's own bar, with the time left
    assert "(mean of rounds 2 to 3) on 1 worker; 1 of 2 held an evaluation." in out
    assert {line.split(" ")[0] for line in out.splitlines()} >= {*PARTS, "all"}
    shown = {line.split()[0]: float(line.split()[2]) for line in out.splitlines() if line.startswith(PARTS)}
    assert min(shown[name] for name in ("rollout", "train", "evaluate", "commit")) > 0
    assert out.endswith("\npicture: runs/profile-tiny-seed3.png\n")
    with Image.open(tmp_path / "runs" / "profile-tiny-seed3.png") as image:
        assert image.width == 1200
    assert {path.name for path in tmp_path.iterdir()} == {"tiny.yaml", "runs"}
    assert [path.name for path in (tmp_path / "runs").iterdir()] == ["profile-tiny-seed3.png"]


@pytest.mark.usefixtures("no_pictures")
def test_the_parts_of_a_real_round_add_up_to_its_workers_time(tiny: Path, tmp_path: Path) -> None:
    assert main(["profile", str(tiny), "--rounds", "1", f"run_dir={tmp_path / 'kept'}"]) == 0
    timings = read_timings(tmp_path / "kept")
    assert [timing.round for timing in timings] == [0, 1]
    for timing in timings:
        assert sum(timing.parts.values()) == pytest.approx(timing.workers * timing.wall_s, rel=1e-6)
        assert min(timing.parts.values()) > -0.01 * timing.wall_s


def test_a_run_is_read_where_it_lies(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Rounds of 1 s by one worker, of which training takes 0.75; an update that was set aside is told."""
    for number in (1, 2, 3):
        write_timing(tmp_path, RoundTiming(number, 1, 1.0, {"train": 0.75, "other": 0.25}))
    write_rows(
        tmp_path / "rows" / "round-00001.parquet",
        [Row(1, "device-000", "not_finite", "train", "own", "set_aside", 1.0, 1.0)],
    )
    assert main(["profile", "--run", str(tmp_path)]) == 0
    out, err = capsys.readouterr()
    line = next(line for line in out.splitlines() if line.startswith("train"))
    assert line.split()[1:5] == ["0.750", "0.750", "75.0", "%"]
    assert out.endswith(f"picture: {tmp_path / 'plots' / 'time.png'}\n")
    assert err == "note: updates set aside: 1 (not_finite); their work is not all above\n"


def test_mistakes_exit_with_one_message(tiny: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["profile", str(tiny), "fleet.devicess=3"]) == 2
    assert capsys.readouterr().err.startswith("error: unknown key 'fleet.devicess'")
    assert main(["profile", "--run", str(tmp_path)]) == 2
    assert "has no timing/ to read" in capsys.readouterr().err
    for wrong in ([], ["--run", str(tmp_path), str(tiny)], [str(tiny), "--rounds", "0"]):
        with pytest.raises(SystemExit) as stopped:
            main(["profile", *wrong])
        assert stopped.value.code == 2
    assert [path.name for path in tmp_path.iterdir()] == ["tiny.yaml"]


def test_help_teaches(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        main(["profile", "--help"])
    assert stopped.value.code == 0
    out = capsys.readouterr().out
    assert "flsim profile --run runs/demo-seed0" in out
    assert "worker-s" in out
    assert max(len(line) for line in out.splitlines()) <= 100
