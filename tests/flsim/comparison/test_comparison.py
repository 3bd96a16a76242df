"""Comparing runs, on tiny runs written by hand: who may be compared, every number derived by hand, files and page."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import flsim
from flsim.comparison.comparable import check_comparable, varied
from flsim.comparison.figures import letters
from flsim.comparison.paper import latex_tables, markdown_tables
from flsim.comparison.runs import open_methods
from flsim.comparison.weightings import terminal_table
from flsim.comparison.wish import claimants
from flsim.config.load import load_config, to_yaml
from flsim.config.schema import ConfigError
from flsim.metrics.measures import MEASURES, Measure, of_table
from flsim.metrics.rows import Row, write_rows

ONE, TWO, THREE = "device-000", "device-001", "device-002"
USERS = (ONE, TWO, THREE)
TASKS = ("arithmetic", "strings")
SETTINGS = [
    "rounds=4",
    "fleet.devices=3",
    "stream.phases=[[arithmetic],[strings]]",
    "evaluation.every_rounds=2",
    "evaluation.prompts_per_task=10",
    "engine.kind=local",
]


def evaluated(round_: int, model: str, name: str, values: Mapping[str, Sequence[float]]) -> list[Row]:
    """Of 10 prompts of each task, the numbers of the three users."""
    return [
        Row(round_, device, task, "test", model, name, total, 10.0)
        for task, totals in values.items()
        for device, total in zip(USERS, totals, strict=True)
    ]


def trained(round_: int, name: str, totals: Sequence[float], weight: float = 1.0, task: str = "all") -> list[Row]:
    return [Row(round_, d, task, "train", "own", name, t, weight) for d, t in zip(USERS, totals, strict=True)]


def rows_of(
    end: Mapping[str, Sequence[float]], usage: Sequence[float] = (3, 3, 3), *, asking: bool = False
) -> list[Row]:
    """A run of two phases: arithmetic 8, 6, 4 of 10 after the first, `end` after the second, usage of 10 per round."""
    rows = evaluated(0, "global", "accuracy", {"arithmetic": (3, 3, 3), "strings": (2, 2, 2)})
    rows += evaluated(0, "random", "accuracy", {"arithmetic": (5, 5, 5), "strings": (5, 5, 5)})
    rows += evaluated(0, "frozen", "alone_accuracy", {"arithmetic": (3, 3, 3), "strings": (1, 1, 1)})
    rows += evaluated(0, "cloud", "accuracy", {"arithmetic": (10, 10, 10), "strings": (10, 10, 10)})
    rows += evaluated(2, "global", "accuracy", {"arithmetic": (8, 6, 4), "strings": (3, 3, 3)})
    rows += evaluated(4, "global", "accuracy", end)
    rows += evaluated(2, "global", "alone_accuracy", {"arithmetic": (5, 5, 5), "strings": (2, 2, 2)})
    rows += evaluated(4, "global", "alone_accuracy", {"arithmetic": (4, 4, 4), "strings": (4, 4, 4)})
    rows += evaluated(4, "global", "cloud_grants", {"arithmetic": (2, 2, 2), "strings": (4, 4, 4)})
    rows += evaluated(2, "own", "alone_accuracy", {"arithmetic": (7, 5, 5), "strings": (2, 2, 2)})
    rows += evaluated(4, "own", "alone_accuracy", {"arithmetic": (4, 4, 4), "strings": (4, 3, 4)})
    for round_ in range(1, 5):
        rows += trained(round_, "cloud_requests", usage, 10.0, "arithmetic")
        rows += trained(round_, "dual_variable", (0.5, 0.5, 0.5))
        rows += trained(round_, "cloud_calls", (2, 1, 1))
        rows += trained(round_, "cloud_refused", (1, 0, 0))
        rows += trained(round_, "cloud_money", (0.2, 0.1, 0.1))
    if asking:
        for share in range(10, 100, 10):
            rows += evaluated(4, "global", f"accuracy_sending_{share}", dict.fromkeys(TASKS, (7, 7, 7)))
        rows += evaluated(4, "global", "kept_accuracy", dict.fromkeys(TASKS, (6, 6, 6)))
        for round_ in range(1, 5):
            rows += trained(round_, "difficulty", (4, 4, 4), 8.0, "arithmetic")  # 8 prompts a round
            rows += trained(round_, "reward", (6, 4, 2), 8.0, "arithmetic")
        rows += [Row(4, d, "all", "test", "global", "wrong_auc", 15.0, 20.0) for d in USERS]
        for name, totals, weight in CLAIMED:
            rows += [Row(4, d, "all", "test", "global", name, t, weight) for d, t in zip(USERS, totals, strict=True)]
        auc = ((16.0, 20.0), (8.0, 20.0), (0.0, 0.0))
        rows += [Row(4, d, "all", "test", "global", "asking_auc", *pair) for d, pair in zip(USERS, auc, strict=True)]
        scored = {"task_auc": ((6.0, 8.0), (2.0, 4.0), (0.0, 0.0)), "positives": ((3.0, 8.0), (1.0, 4.0), (4.0, 4.0))}
        for name, pairs in scored.items():
            rows += [Row(4, d, "strings", "test", "global", name, *pair) for d, pair in zip(USERS, pairs, strict=True)]
    return rows


CLAIMED = (  # 12 of 20 wrong alone: 5 of 10 prompts at 20 %, and 7, 6 or 8 of 10 at 70 %
    ("claimed_20", (2.0, 2.0, 2.0), 10.0),
    ("wrong_claimed_20", (5.0, 6.0, 4.0), 10.0),
    ("claimed_70", (7.0, 7.0, 7.0), 10.0),
    ("wrong_claimed_70", (7.0, 6.0, 8.0), 10.0),
)


def write_run(folder: Path, rows: Sequence[Row], *more: str) -> Path:
    """A run's folder, as a run leaves it."""
    config = load_config(None, [*SETTINGS, f"run_dir={folder}", *more])
    folder.mkdir(parents=True)
    (folder / "config.yaml").write_text(to_yaml(config))
    for round_ in range(config.rounds + 1):
        write_rows(folder / "rows" / f"round-{round_:05d}.parquet", [row for row in rows if row.round == round_])
    return folder


BASE_END = {"arithmetic": (4, 5, 4), "strings": (6, 5, 2)}  # accuracy 0.5, 0.5, 0.3
NEW_END = {"arithmetic": (6, 5, 3), "strings": (8, 5, 1)}  # accuracy 0.7, 0.5, 0.2
NEW = ("name=new", "client.lr=0.5")


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two methods on two seeds; in seed 1 the base is better by 0.1 for each, and its rows say how well it asks."""
    root = tmp_path_factory.mktemp("runs")
    better = {task: tuple(n + 1 for n in totals) for task, totals in NEW_END.items()}
    for seed, base in ((0, BASE_END), (1, better)):
        seeds = (f"seed={seed}", f"stream.seed={seed}")
        write_run(root / f"base-s{seed}", rows_of(base), "name=base", *seeds)
        write_run(root / f"new-s{seed}", rows_of(NEW_END, (5, 3, 1), asking=True), *NEW, *seeds)
    return root


@pytest.fixture(scope="module")
def found(root: Path) -> flsim.Comparison:
    return flsim.compare([root])


def test_runs_that_differ_in_seeds_only_are_one_method(root: Path, found: flsim.Comparison) -> None:
    assert [result.label for result in found.results] == ["base", "new"]
    assert (found.against, found.alone, found.seeds) == ("base", "frozen, asks at random", [(0, 0), (1, 1)])
    assert letters(found) == {"base": "A", "new": "B"}
    assert [run.folder.name for run in found.results[1].method.runs] == ["new-s0", "new-s1"]


def test_pairs_by_hand(found: flsim.Comparison) -> None:
    """Seed 0: +0.2, 0, -0.1; seed 1: -0.1 three times. Means 0.0333 and -0.1; one win, one tie, four hurt of six."""
    pair = found.pair("new")
    assert pair is not None
    assert pair.difference.mean == pytest.approx((0.1 / 3 - 0.1) / 2)
    assert pair.win_rate == pytest.approx(1.5 / 6)
    assert pair.pairs == 6
    assert len(pair.hurt) == 4
    assert {(user.seeds, user.device) for user in pair.hurt if user.seeds == (0, 0)} == {((0, 0), THREE)}
    assert not pair.difference.excludes_zero
    assert found.pair("base") is None
    alone = found.pair("new", "alone_accuracy")
    assert alone is not None
    assert (alone.difference.mean, alone.win_rate, alone.hurt) == (0.0, 0.5, ())


def test_continual_measures_by_hand(found: flsim.Comparison) -> None:
    """New: arithmetic 0.8, 0.6, 0.4 after its phase and 0.6, 0.5, 0.3 after the next; strings 0.8, 0.5, 0.1 then."""
    new = found.of("new")
    assert new.value("during_task") == pytest.approx(np.mean([(0.8 + 0.8) / 2, (0.6 + 0.5) / 2, (0.4 + 0.1) / 2]))
    assert new.value("post_switch") == pytest.approx((0.6 + 0.5 + 0.3) / 3)
    math, code = (0.2, 0.1, 0.1), (0.3 - 0.8, 0.3 - 0.5, 0.3 - 0.1)
    both = [(m + c) / 2 for m, c in zip(math, code, strict=True)]
    assert new.value("forgetting_max") == pytest.approx(np.mean(both))
    assert new.value("forgetting_relative") == pytest.approx(np.mean([0.2 / 0.8, 0.1 / 0.6, 0.1 / 0.4]))
    assert new.value("forgetting_learned") == pytest.approx(np.mean(math))
    assert new.value("forward_transfer") == pytest.approx(0.1)  # strings 0.3 before they are taught, 0.2 at the start
    assert new.value("alone_post_switch") == pytest.approx(0.4)
    # local minus merged, on the phase's own: 0.2, 0, 0 in the first, 0, -0.1, 0 in the second
    assert new.value("forgetting_by_aggregation") == pytest.approx((0.1 - 0.05 + 0) / 3)
    # any time: arithmetic alone after round 2, both after round 4
    assert new.value("anytime") == pytest.approx(np.mean([(0.8 + 0.7) / 2, (0.6 + 0.5) / 2, (0.4 + 0.2) / 2]))


def test_what_switches_do_to_the_mean_user_by_hand(found: flsim.Comparison) -> None:
    """Arithmetic falls from 0.6 to 0.4667 and is not back at the end of phase B; usage is 0.3, on tau, all along."""
    new, base = found.of("new"), found.of("base")
    assert new.value("dip") == pytest.approx(0.6 - 1.4 / 3)
    assert (new.value("unrecovered"), np.isnan(new.value("recovery_rounds"))) == (1.0, True)
    assert (new.value("settling_rounds"), new.value("unsettled")) == (0.0, 0.0)
    assert (base.value("violation"), base.value("training_usage")) == pytest.approx((0.0, 0.3))
    assert new.value("violation") == pytest.approx(0.2 / 3)  # usage 0.5, 0.3, 0.1 against 0.3


def test_offloading_by_hand(found: flsim.Comparison) -> None:
    """New: accuracy 0.4667, alone 0.4, cloud 1, and 0.7 whatever share is sent."""
    new, base = found.of("new"), found.of("base")
    assert new.value("cloud_gain") == pytest.approx(1.4 / 3 - 0.4)
    assert new.value("alone_gain") == pytest.approx(0.4 - 0.2)
    assert new.value("pgr") == pytest.approx((1.4 / 3 - 0.4) / 0.6)
    assert new.value("apgr") == pytest.approx(0.1 * (0 + 0.5) / 2 + 0.8 * 0.5 + 0.1 * (0.5 + 1) / 2)
    assert new.value("cpt_50") == pytest.approx(0.1)
    assert new.value("cpt_80") == pytest.approx(0.9 + 0.1 * (0.8 - 0.5) / 0.5)
    assert new.value("kept_accuracy") == pytest.approx(0.6)
    assert (new.value("calls"), new.value("refused"), new.value("money")) == pytest.approx((16, 4, 1.6))
    assert new.value("cost_per_correct") == pytest.approx(0.3 * 0.1 / (1.4 / 3))  # 0.1 a call, for 0.3 of the prompts
    assert np.isnan(base.value("apgr"))  # an older run that lacks the rows
    assert np.isnan(base.value("weighted_auc"))


def test_training_and_test_together_by_hand(found: flsim.Comparison, root: Path) -> None:
    """New: 8, 4 and 4 calls for 32 prompts in training, 0.3 per test prompt; right 0.75, 0.5, 0.25 in training."""
    new, base = found.of("new"), found.of("base")
    trained_with = (0.25 + 0.125 + 0.125) / 3
    assert new.value("training_calls") == pytest.approx(trained_with)
    assert new.value("total_spend") == pytest.approx((trained_with + 0.3) / 2)
    assert new.value("served") == pytest.approx(0.5)
    assert new.value("lifetime_accuracy") == pytest.approx((0.5 + 1.4 / 3) / 2)
    assert new.value("left_for_test") == pytest.approx(0.6 - trained_with)
    assert new.value("accuracy_at_equal_spend") == pytest.approx(0.7)  # whatever share is sent
    assert np.isnan(base.value("training_calls"))  # an older run
    other = flsim.compare([root], horizon=3, spend=0.05)
    assert other.of("new").value("total_spend") == pytest.approx((trained_with + 3 * 0.3) / 4)
    left = (4 * 0.05 - trained_with) / 3
    assert other.of("new").value("left_for_test") == pytest.approx(left)
    assert other.of("new").value("accuracy_at_equal_spend") == pytest.approx(0.4 + 0.3 * left / 0.1)
    assert np.isnan(flsim.compare([root], spend=0.05).of("new").value("accuracy_at_equal_spend"))  # overspent
    for wrong in ({"horizon": 0}, {"horizon": float("inf")}, {"spend": 1.5}, {"horizon": float("nan")}):
        with pytest.raises(ConfigError, match=r"must be (above 0|in \[0, 1\])"):
            flsim.compare([root], **wrong)


def test_the_wish_as_a_forecast_by_hand(found: flsim.Comparison) -> None:
    """Of all 60 prompts 30 are claimed at 20 % and 15 of them wrong, 30 at 70 % and 21 wrong: users' gaps cancel."""
    new, base = found.of("new"), found.of("base")
    assert new.value("ece") == pytest.approx((abs(6 - 15) + abs(21 - 21)) / 60)
    assert new.value("claimed") == pytest.approx((0.2 + 0.7) / 2)
    assert new.value("wrong_auc") == pytest.approx(0.75)
    assert np.isnan(base.value("ece"))
    assert [one.text for one in claimants(found)] == ["B new, ECE 15.0 %"]
    (sums,) = (one.sums for one in claimants(found))
    assert sums.T[20].to_list() == [12.0, 30.0, 60.0]  # of both seeds


def test_users_by_hand(found: flsim.Comparison) -> None:
    """New: 0.7, 0.5, 0.2 in both seeds; requests 12, 4, 4; asking at random all have 0.5."""
    new, base = found.of("new"), found.of("base")
    assert (new.value("user_mean"), new.value("example_mean")) == pytest.approx((1.4 / 3, 1.4 / 3))
    assert new.value("request_mean") == pytest.approx((12 * 0.7 + 4 * 0.5 + 4 * 0.2) / 20)
    assert (new.value("p50"), new.value("worst_decile_mean")) == pytest.approx((0.5, 0.2))
    assert new.value("gini_of_error") == pytest.approx(2 * (0.2 + 0.5 + 0.3) / (2 * 9 * (1.6 / 3)))
    assert new.value("jain") == pytest.approx(1.4**2 / (3 * (0.49 + 0.25 + 0.04)))
    assert new.value("harm_rate") == pytest.approx(1 / 3)
    assert base.value("harm_rate") == pytest.approx((1 / 3 + 1 / 3) / 2)
    assert new.value("weighted_auc") == pytest.approx((0.8 * 20 + 0.4 * 20) / 40)
    assert new.value("weighted_auc_dropped") == pytest.approx(1 / 3)
    assert new.value("weighted_task_auc") == pytest.approx((0.75 * 8 + 0.5 * 4) / 12)
    assert new.value("weighted_task_auc_dropped") == pytest.approx(4 / 16)


def test_harm_is_by_the_method_that_is_called_alone(root: Path) -> None:
    """New against base: one of three worse in seed 0, all in seed 1."""
    found = flsim.compare([root], alone="base", against="new")
    assert found.of("new").value("harm_rate") == pytest.approx((1 / 3 + 1) / 2)
    assert [pair.label for pair in found.pairs] == ["base", "base"]
    assert found.of("base").value("harm_rate") == 0.0


def test_frames_hold_every_number(found: flsim.Comparison) -> None:
    table = found.table.set_index("method")
    assert table.loc["new", "accuracy_difference"] == pytest.approx((0.1 / 3 - 0.1) / 2)
    assert (table.loc["new", "accuracy_hurt"], table.loc["new", "accuracy_win_rate"]) == (4, 0.25)
    assert table["kind"].tolist() == ["method", "method", "reference", "reference", "reference"]
    assert table.loc["frozen, alone", "alone_accuracy"] == pytest.approx(0.2)
    assert table.loc["cloud LLM", "accuracy"] == 1.0
    users = found.per_user.set_index(["method", "seed", "device"])
    assert len(users) == 12
    assert users["accuracy_difference"].to_dict()["new", 0, ONE] == pytest.approx(0.2)
    curves = found.curves
    assert set(curves["measure"]) == {"accuracy", "alone_accuracy", "training_usage", "dual_variable"}
    start = curves[(curves["method"] == "new") & (curves["measure"] == "accuracy") & (curves["round"] == 2)]
    assert start["mean"].tolist() == pytest.approx([0.45, 0.45])
    matrices = found.matrices.set_index(["method", "seed", "device", "round", "task"])
    assert matrices["accuracy"].to_dict()["new", 0, ONE, 4, "strings"] == 0.8


def test_the_terminal_table_has_a_line_per_method(found: flsim.Comparison) -> None:
    text = terminal_table(found)
    assert max(len(line) for line in text.splitlines()) <= 120
    assert re.search(r"^new +46\.7 % \(.*\) +20\.0 % +40\.0 % +30\.0 % +-3\.3 \(", text, re.MULTILINE)
    assert re.search(r"^new +53\.3 % +46\.7 % +-1\.7 +30\.0 % +6\.7 % +16 +1\.60$", text, re.MULTILINE)


def test_the_tables_of_a_paper_have_the_numbers_of_the_comparison(found: flsim.Comparison) -> None:
    latex, markdown = latex_tables(found), markdown_tables(found)
    mean, low, high = (100 * found.table.set_index("method")[f"accuracy{end}"]["new"] for end in ("", "_low", "_high"))
    gap = 100 * found.table.set_index("method")["accuracy_difference"]["new"]
    (line,) = re.findall(r"^new & (.*) \\\\$", latex.partition("tab:along")[0], re.MULTILINE)
    cells = line.split(" & ")
    assert cells[0] == rf"{mean:.1f} \% ({low:.1f} to {high:.1f})"
    assert cells[-1].startswith(f"{gap:+.1f} (".replace("-", "$-$"))
    assert latex.count("\\toprule") == latex.count("\\bottomrule") == 2
    assert "% needs \\usepackage{booktabs}" in latex
    assert f"{mean:.1f} % ({low:.1f} to {high:.1f})" in markdown
    assert not re.search(r"(?<!\\)%", latex.partition("\n")[2])


def test_a_label_of_any_letters_is_text_in_latex(found: flsim.Comparison) -> None:
    new, old = sorted(found.results, key=lambda one: one.label != "new")
    named = replace(new, method=replace(new.method, label="a<b>|_c"))
    latex = latex_tables(replace(found, results=(named, old), pairs=()))
    assert r"a\textless{}b\textgreater{}\textbar{}\_c & " in latex
    assert not re.search("[<>|]", latex.partition("\n")[2])


def test_all_files_are_written_and_the_page_needs_nothing_else(found: flsim.Comparison, tmp_path: Path) -> None:
    written_files = found.write(tmp_path / "out")
    names = {path.name for path in written_files}
    assert names == {
        *("page.html", "table.csv", "weightings.csv", "per_user.csv", "curves.csv", "matrices.csv"),
        *("paired.png", "pareto.png", "curves.png", "asking.png", "users.png", "spend.png", "reliability.png"),
        *("tables.tex", "tables.md"),
    }
    page = written_files[0].read_text()
    assert not re.search(r"https?:|<script|<link|src=\"(?!data:image/png;base64,)|url\(|@import", page)
    assert page.count("data:image/png;base64,") == 7
    for text in ("4 of 6", "device-002 (seed 0) -10.0", "client.lr", "What the columns mean", "frozen, asks at random"):
        assert text in page
    read = pd.read_csv(tmp_path / "out" / "table.csv").set_index("method")
    assert read.loc["new", "accuracy"] == pytest.approx(1.4 / 3)


def test_every_number_is_declared_as_a_measure_and_every_measure_is_taken(found: flsim.Comparison) -> None:
    taken = set(found.of("new").facts) | set(found.of("new").means) | set(found.of("new").users[0])
    ratios = {"acceptance", "tokens_per_request"}  # of drafts, and per right answer of what these rows do not tell
    assert taken == set(MEASURES) - ratios - {name for name in MEASURES if name.endswith("_per_right")}
    assert MEASURES["accuracy"].written(float("nan")) == "-"
    assert [MEASURES["accuracy"].written(0.5), MEASURES["cloud_gain"].written(0.05)] == ["50.0 %", "+5.0"]
    assert [measure.name for measure in of_table("end")] == ["accuracy", "alone_accuracy"]


OWN = """
from flsim.metrics.formulas import Trained
from flsim.metrics.measures import Measure

PRICE = Measure("price", "what asking costs", "index", "The mean dual variable.", Trained("dual_variable"), "training")
"""


@pytest.mark.usefixtures("no_pictures")
def test_a_measure_of_ones_own_is_shown_with_those_of_the_table(root: Path, tmp_path: Path) -> None:
    """Lambda is 0.5 all along; the most accurate user of a run, by an object, has 0.7 with the new method."""
    file = tmp_path / "own_measure.py"
    file.write_text(OWN)
    best = Measure("best", "best user", "share", "The best user.", lambda run: float(run.accuracy.max()))
    found = flsim.compare([root], measures=["during_task", f"{file}:PRICE", best], out=tmp_path / "out")
    new = found.of("new")
    assert (new.means["price"].mean, new.facts["best"]) == pytest.approx((0.5, 0.7))
    assert re.search(r"^new +53\.3 % +0\.500 +70\.0 %$", terminal_table(found), re.MULTILINE)
    page = (tmp_path / "out" / "page.html").read_text()
    assert "The mean dual variable." in page
    assert page.count("<th>what asking costs</th>") == 2  # in the main table and in that of its group
    assert found.table.set_index("method").loc["new", "best"] == pytest.approx(0.7)


def test_the_measures_of_the_page_run_as_they_are_written(tmp_path: Path) -> None:
    """Rewards of 6 in 8 and alone 4 in 8 for all: 0.75, of which 0.25 by help."""
    page = (Path(__file__).parents[3] / "docs" / "comparing.md").read_text()
    file = tmp_path / "my_measures.py"
    file.write_text(page.split("```python\n")[2].split("```")[0])
    rewards = [*trained(1, "reward", (6, 6, 6), 8.0), *trained(1, "alone_reward", (4, 4, 4), 8.0)]
    run = write_run(tmp_path / "run", [*rows_of(NEW_END), *rewards])
    (own,) = flsim.compare([run], measures=[f"{file}:REWARD", f"{file}:HELP"]).results
    assert (own.means["reward"].mean, own.means["help"].mean) == (0.75, 0.25)


def test_a_measure_that_cannot_be_used_is_refused_in_a_sentence(root: Path) -> None:
    with pytest.raises(ConfigError, match=r"measures='accurcy' is not known; did you mean .*accuracy"):
        flsim.compare([root], measures=["accurcy"])
    with pytest.raises(ConfigError, match=r"names .*Row.*, which is no flsim\.metrics\.measures\.Measure"):
        flsim.compare([root], measures=["flsim.metrics.rows:Row"])
    twin = Measure("accuracy", "mine", "share", "Another.", lambda run: run.accuracy)
    with pytest.raises(ConfigError, match="two that are called 'accuracy'; call your own differently"):
        flsim.compare([root], measures=[twin])
    wrong = Measure("wrong", "wrong", "share", "No number.", lambda run: run.rows)  # type: ignore[arg-type, return-value]
    with pytest.raises(ConfigError, match="'wrong' returned DataFrame; it may return a pandas Series"):
        flsim.compare([root], measures=[wrong])
    with pytest.raises(ValueError, match="unit='percent' is none of: share, points"):
        Measure("own", "own", "percent", "Of a unit that there is not.", lambda run: 1.0)


def test_malicious_devices_are_no_users(tmp_path: Path) -> None:
    """The third is marked before training: its accuracy of 0.2, its usage and its calls are in no number."""
    mark = Row(0, THREE, "all", "test", "own", "malicious", 1.0, 1.0)
    found = flsim.compare([write_run(tmp_path / "bad", [*rows_of(NEW_END, (5, 3, 1)), mark])])
    (own,) = found.results
    assert found.per_user["device"].tolist() == [ONE, TWO]
    assert (own.value("accuracy"), own.value("training_usage")) == pytest.approx(((0.7 + 0.5) / 2, 0.4))
    assert (own.value("calls"), own.value("harm_rate"), own.value("p10")) == pytest.approx((12, 0, 0.52))
    assert own.value("forgetting_by_aggregation") == pytest.approx((0.1 - 0.05) / 2)


def test_runs_on_other_terms_are_refused_saying_what_differs(root: Path, tmp_path: Path) -> None:
    other = write_run(tmp_path / "other", rows_of(BASE_END), "budget.tau=0.5", "stream.alpha=2.0", "client.lr=0.1")
    with pytest.raises(ConfigError) as refused:
        flsim.compare([root / "base-s0", other])
    said = str(refused.value)
    assert f"cannot be compared with {root / 'base-s0'}" in said
    assert f"budget.tau is 0.5 and not 0.3 in {other}" in said
    assert f"stream.alpha is 2.0 and not 0.5 in {other}" in said
    assert "client.lr" not in said


def test_how_a_fleets_budget_is_shared_is_a_method_and_how_large_it_is_is_not(tmp_path: Path) -> None:
    runs = [
        write_run(tmp_path / share, rows_of(BASE_END), f"budget.fleet.division={share}", "budget.fleet.calls_total=9")
        for share in ("equally", "price")
    ]
    check_comparable(open_methods(runs))
    runs.append(write_run(tmp_path / "rich", rows_of(BASE_END), "budget.fleet.calls_total=10"))
    with pytest.raises(ConfigError, match=r"budget\.fleet\.calls_total is 10 and not 9"):
        check_comparable(open_methods(runs))


def test_every_method_needs_the_same_seeds(root: Path) -> None:
    with pytest.raises(ConfigError, match=r"'new' lacks seed 1.*leave out the seeds that not all have"):
        flsim.compare([root / "base-s0", root / "base-s1", root / "new-s0"])


def test_two_runs_of_a_method_and_a_seed_need_labels(root: Path, tmp_path: Path) -> None:
    again = write_run(tmp_path / "again", rows_of(NEW_END), "name=base", "seed=0", "stream.seed=0")
    with pytest.raises(ConfigError, match="both 'base' with seed 0; leave one out, or tell them apart by labels"):
        flsim.compare([root / "base-s0", again])
    found = flsim.compare([root / "base-s0"], labels={"again": again})
    assert [result.label for result in found.results] == ["base", "again"]


def test_a_label_holds_for_all_seeds_and_methods_of_one_name_go_by_folder(root: Path, tmp_path: Path) -> None:
    found = open_methods([root], {"better": root / "new-s1"})
    assert [(method.label, len(method.runs)) for method in found] == [("base", 2), ("better", 2)]
    write_run(tmp_path / "low-s0", rows_of(BASE_END), "client.lr=0.1")
    write_run(tmp_path / "high-seed0", rows_of(BASE_END), "client.lr=0.2")
    assert [method.label for method in open_methods([tmp_path])] == ["high", "low"]


BEFORE = {"alone_accuracy": "local_accuracy", "cloud_requests": "cloud_usage", "cloud_grants": "cloud_usage"}


def test_runs_of_the_release_before_still_compare(found: flsim.Comparison, root: Path, tmp_path: Path) -> None:
    """The same run with its rows called as they were: it is another method of the same numbers."""
    rows = [
        replace(row, name=BEFORE.get(row.name, row.name), model="local" if row.model == "own" else row.model)
        for row in rows_of(NEW_END, (5, 3, 1), asking=True)
    ]
    assert {row.name for row in rows} & {"alone_accuracy", "cloud_requests", "cloud_grants"} == set()
    old = write_run(tmp_path / "old", rows, *NEW, "seed=0", "stream.seed=0")
    both = flsim.compare([], labels={"new": root / "new-s0", "old": old})
    for one, other in zip(both.of("new").users, both.of("old").users, strict=True):
        pd.testing.assert_frame_equal(one, other)
    assert both.of("old").value("training_usage") == pytest.approx(0.3)


def test_what_is_no_finished_run_is_refused(root: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="is not there; give run folders"):
        flsim.compare([tmp_path / "nowhere"])
    with pytest.raises(ConfigError, match=r"has no config\.yaml, and no folder in it has one"):
        flsim.compare([tmp_path])
    half = write_run(tmp_path / "half", rows_of(BASE_END))
    (half / "rows" / "round-00004.parquet").unlink()
    with pytest.raises(ConfigError, match=r"not finished: its rows end at round 3 of 4; finish it by flsim resume "):
        flsim.compare([half])
    with pytest.raises(ConfigError, match="against='other' is none of the methods compared; they are base, new"):
        flsim.compare([root], against="other")


def test_a_run_that_tested_nobody_is_refused(tmp_path: Path) -> None:
    untested = write_run(tmp_path / "untested", [row for row in rows_of(BASE_END) if row.name != "accuracy"])
    with pytest.raises(ConfigError, match="untested has tested nobody at its end"):
        flsim.compare([untested])


def test_a_bound_needs_the_same_test_sets_and_no_more(root: Path, tmp_path: Path) -> None:
    """Joint training on all tasks with another budget and length is a bound; other test prompts are none."""
    joint = [
        write_run(
            tmp_path / f"joint-s{seed}",
            rows_of(NEW_END),
            *("name=joint", f"seed={seed + 7}", f"stream.seed={seed}"),
            *("stream.phases=[[arithmetic,strings]]", "budget.tau=0.9"),
        )
        for seed in (0, 1)
    ]
    found = flsim.compare([root], bounds=joint, alone="joint")
    assert [bound.label for bound in found.bounds] == ["joint"]
    assert found.of("joint").means["accuracy"].mean == pytest.approx(1.4 / 3)
    assert found.table["kind"].tolist()[2] == "bound"
    assert varied([found.of("base").method, found.of("joint").method])["budget.tau"] == ["0.3", "0.9"]
    with pytest.raises(ConfigError, match=r"'joint' is no bound.*lacks runs with stream.seed 1"):
        flsim.compare([root], bounds=joint[:1])
    other = write_run(tmp_path / "other", rows_of(NEW_END), "stream.phases=[[strings,arithmetic]]", "stream.seed=0")
    with pytest.raises(ConfigError, match=r"tasks, in order is .'strings', 'arithmetic'. and not"):
        flsim.compare([root / "base-s0"], bounds=[other])


def test_a_run_with_hardly_any_rows_gives_empty_cells(tmp_path: Path) -> None:
    """Another client that reports accuracy only."""
    few = [row for row in rows_of(BASE_END) if row.model == "global" and row.name == "accuracy"]
    found = flsim.compare([write_run(tmp_path / "few", few)], out=tmp_path / "out")
    assert "-" in terminal_table(found)
    assert (tmp_path / "out" / "page.html").is_file()
    assert found.references == {}
