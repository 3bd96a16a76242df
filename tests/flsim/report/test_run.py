"""A run of 6 devices and 12 rounds, made up but realistic, from its rows to every file of the report."""

import json
import math
import re
from pathlib import Path
from typing import TypeAlias

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from flsim.charts.pieces import script_sources, scripts
from flsim.metrics.rows import Row, read_rows, write_rows
from flsim.metrics.run_rows import RunRows
from flsim.report.finish import finish_run, stream_table
from flsim.report.summary import SetAside, Summary, read_summary
from flsim.report.table import end_table
from flsim.tasks.stream import Phase

Finished: TypeAlias = tuple[Path, Summary]
TAU = 0.3
ARITHMETIC, WORDS = ("arithmetic", "numbers"), ("strings", "lists")
GROUPS = (*ARITHMETIC, *WORDS)
PROMPTS = 20
PLOTS = ("overview", "accuracy", "usage", "matrix", "users", "stream", "cost")


def phases_of(rounds: int) -> tuple[Phase, ...]:
    """A, B and A again, a third of the rounds each."""
    third = rounds // 3
    kinds = (("A", ARITHMETIC), ("B", WORDS), ("A", ARITHMETIC))
    return tuple(Phase(name, tasks, n * third + 1, (n + 1) * third) for n, (name, tasks) in enumerate(kinds))


def skill_at(round_: int, task: str, third: int) -> float:
    """The global adapter's chance on a task: it learns within a phase and forgets in the next."""
    learning = 1 - math.exp(-3.0 * min(round_, third) / third)
    if task in ARITHMETIC:
        away = min(max(0, round_ - third), third) / third
        back = max(0, round_ - 2 * third) / third
        return 0.25 + 0.4 * learning - 0.15 * away + 0.2 * back
    return 0.2 + 0.35 * (1 - math.exp(-3.0 * min(max(0, round_ - third), third) / third)) + 0.02 * learning


def evaluation_rows(
    round_: int, device: str, model: str, skills: dict[str, float], *, asks: float, rng: np.random.Generator
) -> list[Row]:
    rows = []
    for task, skill in skills.items():
        alone = int(rng.binomial(PROMPTS, min(0.97, max(0.02, skill))))
        asked = round(PROMPTS * asks)
        helped = int(rng.binomial(asked, 0.75)) if model == "global" else int(rng.binomial(asked, 0.5))
        right = min(PROMPTS, alone + helped)
        values = {"accuracy": right, "alone_accuracy": alone, "cloud_grants": asked}
        rows += [Row(round_, device, task, "test", model, name, total, PROMPTS) for name, total in values.items()]
    return rows


def training_rows(
    round_: int, device: str, phase: Phase, *, usage: float, dual: float, rng: np.random.Generator
) -> list[Row]:
    rows = []
    for task in phase.tasks:
        asked = int(rng.binomial(64, usage))
        rows.append(Row(round_, device, task, "train", "own", "cloud_requests", asked, 64))
        rows.append(Row(round_, device, task, "train", "own", "reward", int(rng.binomial(64, 0.6)), 64))
    once = {
        "dual_variable": dual,
        "cloud_calls": float(round(usage * 128)),
        "cloud_refused": float(max(0, round((usage - TAU) * 128))),
        "cloud_tokens": float(round(usage * 128 * 42)),
        "cloud_money": round(usage * 128) * 2e-4,
        "uplink_bytes": 1_310_720.0,
        "downlink_bytes": 1_310_720.0,
        "seconds": 4.0 + float(rng.random()),
    }
    return rows + [Row(round_, device, "all", "train", "own", name, total, 1) for name, total in once.items()]


def write_run(run_dir: Path, *, devices: int = 6, rounds: int = 12, last_round: int | None = None) -> tuple[Phase, ...]:
    """Write rows, config and environment; `last_round` stops early, None goes to the end."""
    rng = np.random.default_rng(5)
    phases, third = phases_of(rounds), rounds // 3
    talents = rng.normal(0.0, 0.09, devices)
    talents[3 % devices] = -0.24  # device-003 is worst off
    for round_ in range((rounds if last_round is None else last_round) + 1):
        rows: list[Row] = []
        current = next((phase for phase in phases if phase.first_round <= round_ <= phase.last_round), None)
        since = 0 if current is None else round_ - current.first_round
        for index, talent in enumerate(talents):
            device = f"device-{index:03d}"
            usage = float(np.clip(TAU + 0.35 * math.exp(-since / (third / 4)) + 0.3 * talent, 0.02, 0.95))
            skills = {task: skill_at(round_, task, third) + talent for task in GROUPS}
            rows += evaluation_rows(round_, device, "global", skills, asks=min(TAU, usage), rng=rng)
            claims = {"claimed_20": 15.0, "wrong_claimed_20": 15.0, "claimed_60": 13.0, "wrong_claimed_60": 10.0}
            rows += [
                Row(round_, device, "all", "test", "global", name, total, 60.0 if "20" in name else 20.0)
                for name, total in claims.items()
            ]
            if current is None:
                start = dict.fromkeys(GROUPS, 0.3 + talent)
                rows += evaluation_rows(0, device, "random", start, asks=TAU, rng=rng)
                rows += evaluation_rows(0, device, "frozen", start, asks=0.0, rng=rng)
                rows += [Row(0, device, task, "test", "cloud", "accuracy", 18, PROMPTS) for task in GROUPS]
                continue
            own = {task: skill + 0.04 for task, skill in skills.items()}
            rows += evaluation_rows(round_, device, "own", own, asks=TAU, rng=rng)
            dual = 0.2 + 0.5 * math.exp(-abs(since - third / 3) / third) + 0.1 * float(rng.random())
            rows += training_rows(round_, device, current, usage=usage, dual=dual, rng=rng)
            mix = rng.dirichlet([2.0] * len(current.tasks))
            counts = zip(current.tasks, np.round(32 * mix), rng.random(len(mix)), strict=True)
            rows += [
                Row(round_, device, task, "train", "own", "difficulty", prompts * (0.3 + 0.4 * hard), prompts)
                for task, prompts, hard in counts
            ]
        if round_ == 2:
            rows.append(Row(2, "device-001", "not_finite", "train", "own", "set_aside", 1, 1))
        write_rows(run_dir / "rows" / f"round-{round_:05d}.parquet", rows)
    (run_dir / "config.yaml").write_text("name: demo\nnote: <script>alert('x')</script>\nbudget:\n  tau: 0.3\n")
    environment = {"python": "3.11", "commit": "abc1234", "packages": {"numpy": "2", "pandas": "3"}}
    (run_dir / "environment.json").write_text(json.dumps(environment))
    return phases


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Finished:
    run_dir = tmp_path_factory.mktemp("runs") / "made-up & small"
    run_dir.mkdir()
    phases = write_run(run_dir)
    return run_dir, finish_run(run_dir, phases=phases, tau=TAU)


def test_summary_file_is_what_was_returned_and_has_all_parts(finished: Finished) -> None:
    run_dir, summary = finished
    assert read_summary(run_dir) == summary
    assert set(json.loads((run_dir / "summary.json").read_text())) == {
        *("run", "rounds", "devices", "split", "tasks", "tau", "phases", "headline", "at_end", "aucs", "reliability"),
        *(
            "at_switches",
            "continual",
            "usage",
            "worst_users",
            "totals",
            "fleet_budget",
            "set_aside",
            "findings",
            "stage",
            "partitions",
            "measured",
            "classes",
        ),
    }
    assert summary.tasks == tuple(GROUPS)
    assert set(summary.at_end) == {"global", "own", "frozen", "random", "cloud"}
    assert [switch.round for switch in summary.at_switches] == [4, 8]
    assert summary.set_aside == (SetAside(2, "device-001", "not_finite"),)


def test_the_worst_user_is_found_and_the_page_names_it(finished: Finished) -> None:
    run_dir, summary = finished
    assert summary.worst_users[0].device == "device-003"
    page = (run_dir / "report.html").read_text()
    first_line = re.search(r"worst-off user.*?<tbody><tr><td>(.*?)</td>", page, re.S)
    assert first_line is not None
    assert first_line.group(1) == "device-003"


def test_page_needs_nothing_but_itself_and_escapes_text(finished: Finished) -> None:
    """Scripts are the library and ours, by their digests; of pictures there is what no chart draws."""
    page = (finished[0] / "report.html").read_text()
    assert page.endswith(f"{scripts()}\n</body></html>\n")
    assert f"default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src {script_sources()}\"" in page
    page = page.replace(scripts(), "")
    assert not re.search(r"""(src|href)\s*=\s*["']?\s*(https?:|//|file:)""", page)
    assert "<link" not in page
    assert re.findall("<script[^>]*>", page) == ['<script type="application/json" data-flsim-charts>']
    assert "url(" not in page
    assert "&lt;script&gt;alert(&#x27;x&#x27;)" in page
    assert "<h1>made-up &amp; small</h1>" in page
    assert page.count('src="data:image/png;base64,') == len(("matrix", "stream"))
    assert "budget τ = 30 %" in page


def test_every_chart_has_its_place_and_its_picture_is_named_for_who_runs_no_script(finished: Finished) -> None:
    page = (finished[0] / "report.html").read_text()
    (held,) = re.findall("<script[^>]*data-flsim-charts>(.*?)</script>", page)
    charts = {chart["name"]: chart for chart in json.loads(held)}
    assert list(charts) == re.findall('data-chart="(.*?)"', page)
    assert {f"plots/{chart['group']}.png" for chart in charts.values()} == set(re.findall('<a href="(.*?)">', page))
    assert all((finished[0] / link).is_file() for link in re.findall('<a href="(.*?)">', page))
    worst = finished[1].worst_users
    assert charts["worst_users"]["categories"] == [user.device for user in worst]
    assert charts["worst_users"]["lines"][0]["y"] == [user.accuracy for user in worst]


def test_a_name_that_is_a_script_stays_a_name(tmp_path: Path) -> None:
    """Devices and tasks are named by whoever brings data."""
    name = "</script><script>alert(1)</script><!--"
    phases = (Phase(name, (name,), 1, 2),)
    rows = [Row(1, name, name, "test", "global", "accuracy", 1, 2), Row(1, name, name, "train", "own", "reward", 1, 2)]
    write_rows(tmp_path / "rows" / "round-00001.parquet", rows)
    finish_run(tmp_path, phases=phases, tau=None)
    page = (tmp_path / "report.html").read_text().replace(scripts(), "")
    assert page.count("<script") == page.count("</script") == 1
    assert "<!--" not in page
    (held,) = re.findall("<script[^>]*data-flsim-charts>(.*?)</script>", page)
    assert {chart["name"] for chart in json.loads(held)} == {"accuracy", "users", "worst_users"}
    assert json.loads(held)[1]["lines"][0]["users"] == [name]


@pytest.mark.parametrize("name", PLOTS)
def test_plots_open_and_show_something(finished: Finished, name: str) -> None:
    with Image.open(finished[0] / "plots" / f"{name}.png") as image:
        pixels = np.asarray(image.convert("L"), dtype=float)
    assert pixels.shape[1] >= 1100
    assert 0.005 < (pixels < 160).mean() < 0.7


def test_what_the_wish_claims_is_drawn_and_told(finished: Finished) -> None:
    """Of 6 devices 120 prompts at 65 % and 360 at 25 %; of the first 60 are wrong, of the others as many as claimed."""
    run_dir, summary = finished
    assert summary.reliability is not None
    assert summary.reliability.error == pytest.approx(18 / 480)
    assert (summary.reliability.claimed, summary.reliability.wrong) == pytest.approx((168 / 480, 150 / 480))
    with Image.open(run_dir / "plots" / "reliability.png") as image:
        assert 0.005 < (np.asarray(image.convert("L"), dtype=float) < 160).mean() < 0.7
    page = (run_dir / "report.html").read_text()
    assert "ten bins of equal width): 3.8 %; 35.0 % claimed in the mean and 31.2 % wrong" in page


def test_stream_table_is_what_the_devices_met(tmp_path: Path) -> None:
    """Device-000 met 3 prompts of difficulties 0, 0.5 and 1 in round 1: 3 prompts of mean difficulty 1.5 / 3."""
    write_rows(
        tmp_path / "rows" / "round-00001.parquet",
        [Row(1, "device-000", "lists", "train", "own", "difficulty", 1.5, 3)],
    )
    table = stream_table(RunRows(read_rows(tmp_path), (), tau=TAU))
    assert table.to_dict("records") == [
        {"round": 1, "device": "device-000", "task": "lists", "prompts": 3, "mean_difficulty": 0.5}
    ]


def test_overview_is_1400_pixels_wide(finished: Finished) -> None:
    with Image.open(finished[0] / "plots" / "overview.png") as image:
        assert image.width == 1400


def test_ledger_adds_up_to_the_totals(finished: Finished) -> None:
    run_dir, summary = finished
    ledger = pd.read_parquet(run_dir / "ledger.parquet")
    assert list(ledger.columns) == ["round", "device", "calls", "refused", "tokens", "money"]
    assert len(ledger) == 12 * 6
    assert ledger["calls"].sum() == summary.totals["calls"]
    assert ledger["tokens"].sum() == summary.totals["tokens"]


def test_table_fits_a_terminal_and_shows_the_mean_user(finished: Finished) -> None:
    _, summary = finished
    table = end_table(summary)
    assert max(len(line) for line in table.splitlines()) <= 100
    mean = summary.at_end["global"]["accuracy"].user_mean
    line = next(line for line in table.splitlines() if line.startswith("global, may ask"))
    assert line.split()[-10:][0] == f"{100 * mean:.1f}"


def test_a_second_finish_changes_no_number_and_no_picture(finished: Finished) -> None:
    run_dir, summary = finished
    before = {path.name: path.read_bytes() for path in (run_dir / "plots").iterdir()}
    again = finish_run(run_dir, phases=phases_of(12), tau=TAU)
    assert again == summary
    assert before == {path.name: path.read_bytes() for path in (run_dir / "plots").iterdir()}


@pytest.mark.parametrize("last_round", [0, 5])
def test_a_partial_run_gets_its_report(tmp_path: Path, last_round: int) -> None:
    phases = write_run(tmp_path, devices=2, last_round=last_round)
    for extra in ("config.yaml", "environment.json"):
        (tmp_path / extra).unlink()
    summary = finish_run(tmp_path, phases=phases, tau=None)
    assert summary.rounds == last_round
    assert len(summary.usage) == math.ceil(last_round / 4)
    assert (tmp_path / "report.html").stat().st_size > 10_000
    assert max(len(line) for line in end_table(summary).splitlines()) <= 100
