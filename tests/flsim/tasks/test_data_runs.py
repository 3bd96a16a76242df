"""Whole federated runs on data sets: real SLM, two files of one's own beside a built-in group, in this process."""

import json
import re
from pathlib import Path

import pandas as pd
import pytest

import flsim
from clients.asking.threshold import calibration_questions
from clients.device.world import load_world
from clients.evaluate import own_tests
from flsim.comparison.comparable import check_comparable
from flsim.comparison.runs import Method, OpenRun
from flsim.config.schema import Config, ConfigError
from flsim.metrics.rows import STAGE, USER, without_timing
from flsim.report.finish import finish_run
from flsim.report.partition_figure import write_partitions
from flsim.report.summary import read_summary
from flsim.report.table import end_table
from flsim.tasks.sets import _group
from flsim.tasks.stream import TaskStream, stream_of
from tests.flsim.tasks.own_sets import config_of, write_sums, write_votes
from tests.tiny import without_pictures

SMALL = [
    "cloud.kind=oracle",
    "evaluation.prompts_per_task=6",
    "engine.kind=local",
    "model.rank=2",
    *(f"client.{key}" for key in ("steps=1", "prompts=4", "group_size=2", "max_new_tokens=4")),
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_votes(write_sums(tmp_path_factory.mktemp("own")))


@pytest.fixture(scope="module")
def finished(folder: Path, one_thread: None) -> flsim.Run:
    with without_pictures():
        return flsim.run(config(folder, "whole"), progress=False)


def config(folder: Path, name: str, *more: str) -> Config:
    return config_of(folder, *SMALL, f"run_dir={folder / name}", *more)


def of(run: flsim.Run, name: str, *, model: str = "global") -> pd.DataFrame:
    return run.rows[(run.rows["name"] == name) & (run.rows["model"] == model) & (run.rows["split"] == "test")]


def test_every_device_is_measured_on_every_task_group(finished: flsim.Run) -> None:
    accuracy = of(finished, "accuracy")
    assert set(accuracy["task"]) == {"sums", "votes", "lists"}
    assert set(accuracy.loc[accuracy["task"] != "votes", "weight"]) == {6.0}
    assert accuracy.groupby("round").size().to_dict() == {0: 9, 1: 9, 2: 9}
    met = finished.rows[(finished.rows["name"] == "difficulty") & (finished.rows["round"] == 1)]
    assert set(met["task"]) == {"sums"}
    assert ((met["total"] >= 0) & (met["total"] <= met["weight"])).all()


def test_a_user_has_a_verdict_for_each_item_and_its_true_weight_is_kept(finished: flsim.Run, folder: Path) -> None:
    """Of 6 asked, `votes` has 2, 4 and 7 test items on the three devices: 2, 4 and 6 verdicts.

    Of `sums` 6 of many are tested, `lists` has no end. Traffic is what the stream brings: 2 rounds of one step.
    """
    stream, rows = stream_of(config(folder, "whole")), finished.rows
    users = rows[rows["split"] == USER]
    assert set(users["round"]) == {0}
    weights = {(row.name, row.task, row.device): (row.total, row.weight) for row in users.itertuples()}
    verdicts = of(finished, "accuracy").set_index(["device", "task"])["weight"].groupby(level=[0, 1]).agg(set)
    held = [stream.items_held(f"device-00{number}", "test") for number in range(3)]
    assert sorted(own["votes"] for own in held) == [2, 4, 7]
    for number, own in enumerate(held):
        name = f"device-00{number}"
        for task, items in {**own, "lists": 6}.items():
            assert weights["test_items", task, name] == (items, min(items, 6))
            assert verdicts[name, task] == {min(items, 6)}
        assert weights["traffic", "all", name] == (2 * stream.prompts_per_step(name, 4), 2)


def test_a_runs_tables_weigh_users_by_what_they_have_and_by_their_traffic(finished: flsim.Run) -> None:
    """Derived from the rows of the last round: what is tested gives a user's value, what it has gives its weight."""
    end = of(finished, "accuracy")
    end = end[end["round"] == 2].groupby("device")[["total", "weight"]].sum()
    users = finished.rows[finished.rows["split"] == USER].groupby(["name", "device"])["total"].sum()
    values, items, traffic = end["total"] / end["weight"], users["test_items"], users["traffic"]
    found = finished.summary.at_end["global"]["accuracy"]
    assert found.example_mean == pytest.approx((items * values).sum() / items.sum())
    assert found.traffic_mean == pytest.approx((traffic * values).sum() / traffic.sum())
    assert found.user_mean == pytest.approx(values.mean())
    assert len({f"{mean:.6f}" for mean in (found.example_mean, found.traffic_mean, found.user_mean)}) == 3
    compared = flsim.compare([finished.folder], weighting="examples")
    assert compared.results[0].means["accuracy"].mean == pytest.approx(found.example_mean)


def test_a_runs_page_and_summary_have_the_user_level_auc(finished: flsim.Run) -> None:
    """One user of three never says yes; the others are weighed by their items, of which one is tested on 6 of 7."""
    aucs, items = of(finished, "task_auc"), finished.rows[finished.rows["name"] == "test_items"]
    own = aucs[(aucs["round"] == 2) & (aucs["weight"] > 0)].set_index("device")
    held = items[items["task"] == "votes"].set_index("device")["total"]
    found = finished.summary.aucs["global"]["task_auc"]
    mean = (held[own.index] * own["total"] / own["weight"]).sum() / held[own.index].sum()
    assert found.by_examples == pytest.approx(mean)
    assert found.uniform == pytest.approx((own["total"] / own["weight"]).mean())
    assert (found.users, found.one_class) == (len(own), 3 - len(own))
    assert found.left_out == pytest.approx(1 - held[own.index].sum() / held.sum())
    page = finished.report.read_text()
    assert "User-level weighted AUC (GAUC)" in page
    assert f"<td>task AUC, global</td><td>{mean:.3f}</td>" in re.sub(r"<td[^>]*>", "<td>", page)
    assert all(f">{title}</th>" in page for title in ("by examples", "by traffic", "uniform over users"))
    assert any(line.startswith("task AUC") for line in end_table(finished.summary).splitlines())


@pytest.mark.usefixtures("no_report")
def test_all_items_are_tested_where_all_are_asked_for(folder: Path, one_thread: None) -> None:
    """Then nothing is scaled, and the task without an end keeps its number."""
    settings = config(folder, "all", "evaluation.items=all", "evaluation.prompts_per_task=3")
    run = flsim.run(settings, progress=False, until=0)
    items = run.rows[run.rows["name"] == "test_items"].set_index(["task", "device"])
    tested = of(run, "accuracy").set_index(["task", "device"])["weight"]
    assert (items["total"] == items["weight"]).all()
    assert (items["weight"] == tested.reindex(items.index)).all()
    assert set(tested["lists"]) == {3.0}
    assert tested["sums"].min() > 6


def test_the_cloud_knows_the_answers(finished: flsim.Run) -> None:
    """The oracle errs on 3 % of the questions, by a hash."""
    cloud = of(finished, "accuracy", model="cloud")
    assert cloud["total"].sum() / cloud["weight"].sum() > 0.85


def test_scored_sets_have_an_auc_by_user(finished: flsim.Run) -> None:
    """The user without a yes has none, and its weight is zero; a user with both labels has one in [0, 1]."""
    auc, positives = of(finished, "task_auc"), of(finished, "positives")
    assert set(auc["task"]) == set(positives["task"]) == {"votes"}
    assert set(positives["weight"]) == {2.0, 4.0, 6.0}
    both = (positives["total"] > 0) & (positives["total"] < positives["weight"])
    assert auc["weight"].tolist() == positives["weight"].where(both, 0.0).tolist()
    assert both.any()
    assert (auc["total"] <= auc["weight"]).all()


@pytest.mark.usefixtures("no_pictures")
def test_the_realised_partitions_are_in_the_folder_and_on_the_page(finished: flsim.Run, folder: Path) -> None:
    page = finished.report.read_text()
    for name, over in (("sums", "label"), ("votes", "user")):
        kept = finished.folder / "partitions" / name
        assert (kept / "partition.png").read_bytes().startswith(b"\x89PNG")
        assert f"Who holds what of {name}" in page
        table, found = pd.read_parquet(kept / "partition.parquet"), finished.summary.partitions[name]
        assert table["items"].sum() == found["items"]
        assert (found["devices"], found["over"]) == (3, over)
        assert set(table["split"]) == {"train", "validation", "test"}
    assert finished.summary.partitions["votes"]["items"] == 3 * 40
    assert read_summary(finished.folder) == finished.summary
    settings = config(folder, "whole")
    bare = TaskStream(settings.stream, settings.rounds)
    assert finish_run(finished.folder, phases=bare.phases, tau=settings.budget.tau) == finished.summary


@pytest.mark.usefixtures("no_report")
@pytest.mark.slow
def test_questions_do_not_depend_on_the_packs(finished: flsim.Run, folder: Path, one_thread: None) -> None:
    again = flsim.run(config(folder, "alone", "engine.pack=1"), progress=False)
    keys = ["round", "device", "task", "name", "weight", "total"]
    names = ["difficulty", "positives"]
    met, alone = (run.rows.loc[run.rows["name"].isin(names), keys].reset_index(drop=True) for run in (finished, again))
    assert len(met) > 20
    pd.testing.assert_frame_equal(met, alone)


@pytest.mark.usefixtures("no_report")
@pytest.mark.slow
def test_rows_do_not_depend_on_the_workers(folder: Path, one_thread: None) -> None:
    """Each worker reads and deals the data for itself."""
    runs = [
        flsim.run(config(folder, f"with-{kind}", "engine.pack=1", f"engine.kind={kind}"), progress=False)
        for kind in ("local", "ray")
    ]
    one, other = (without_timing(run.rows) for run in runs)
    pd.testing.assert_frame_equal(one, other)


def test_calibration_questions_are_the_devices_own_and_no_test_questions(folder: Path, one_thread: None) -> None:
    world = load_world(config(folder, "calibration"))
    for device in range(3):
        known = {(p.task, p.question) for p in calibration_questions(world, device, 30)}
        tests = {(p.task, p.question) for p in own_tests(world, device)}
        assert {group for group, _ in known} == {"sums", "votes", "lists"}
        assert not known & tests
        others = {(p.task, p.question) for d in range(3) if d != device for p in own_tests(world, d)}
        assert not {one for one in known if one[0] != "lists"} & others


@pytest.mark.slow
def test_the_server_distils_on_items_of_the_data_sets(folder: Path, one_thread: None) -> None:
    """It asks the oracle about train items, shared ones among them, and measures devices on validation items."""
    stage = [
        "path=strategies.stages.distillation:Distillation",
        "every_rounds=1",
        "prompts=12",
        "from_devices=4",
        "steps=1",
    ]
    more = [f"stage.{key}" for key in (*stage, "held_out=8", "users=2", f"cache={folder / 'bought'}")]
    run = flsim.run(config(folder, "distilled", "fleet.opt_in=1", *more), progress=False)
    rows = run.rows[run.rows["split"] == STAGE]
    asked, accepted = (rows[rows["name"] == name].set_index("round") for name in ("from_devices", "accepted"))
    assert asked["weight"].tolist() == [12.0, 12.0]
    assert (accepted["total"] >= 10).all()
    assert set(rows.loc[rows["name"] == "alone_accuracy", "task"]) == {"sums", "votes", "lists"}


def test_data_that_are_not_there_leave_no_folder(folder: Path) -> None:
    with pytest.raises(ConfigError, match=r"data\.sums: files: the all file is not there"):
        flsim.run(config(folder, "gone", "data.sums.root=nowhere"), progress=False)
    assert not (folder / "gone").exists()


def test_runs_on_other_data_are_not_compared(finished: flsim.Run, folder: Path) -> None:
    """Neither as methods nor as a bound; the message says what differs."""
    settings = config(folder, "whole")
    one = Method("one", (OpenRun(finished.folder, settings),))
    check_comparable([one, one], [one])
    other = Method("other", (OpenRun(folder / "other", config(folder, "other", "data.sums.alpha=9")),))
    difference = r"data\.sums\.alpha is 9\.0 and not 1\.0 in .*other"
    with pytest.raises(ConfigError, match=f"cannot be compared.*{difference}.*must share stream, data"):
        check_comparable([one, other])
    with pytest.raises(ConfigError, match=f"'other' is no bound.*{difference}"):
        check_comparable([one], [other])


def test_runs_on_files_that_changed_between_are_not_compared(tmp_path: Path) -> None:
    """Settings agree, but device 1 is somebody else; where ids are shown or not is no difference."""
    write_votes(write_sums(tmp_path))

    def dealt(name: str, *settings: str) -> Method:
        own = config(tmp_path, name, "stream.phases=[[votes]]", *settings)
        _group.cache_clear()
        write_partitions(tmp_path / name, stream_of(own).data)
        return Method(name, (OpenRun(tmp_path / name, own),))

    first, again = dealt("first"), dealt("again", "data.votes.keep_user_ids=true", "data.votes.strict=true")
    check_comparable([first, again], [again])
    header, *lines = (tmp_path / "votes.csv").read_text().splitlines()
    (tmp_path / "votes.csv").write_text("\n".join([header, *reversed(lines)]))
    check_comparable([first, dealt("turned")])
    (tmp_path / "votes.csv").write_text("\n".join([header, *lines]).replace("u1,", "u9,"))
    with pytest.raises(ConfigError, match=r"changed cannot be compared with .*first: the devices of data\.votes hold"):
        check_comparable([first, dealt("changed")])


@pytest.mark.usefixtures("no_pictures")
def test_what_was_left_out_is_logged(tmp_path: Path, one_thread: None) -> None:
    rows = [{"q": f"{n}+1=", "a": str(n + 1) if n % 5 else "?", "kind": "one", "digits": 1} for n in range(300)]
    (tmp_path / "sums.jsonl").write_text("\n".join(map(json.dumps, rows)))
    settings = config(write_votes(tmp_path), "log", "data.sums.verifier=numeric", "stream.phases=[[sums]]")
    run = flsim.run(settings, progress=False, until=0)
    said = "data.sums: left out the items of 1 references that no completion could meet by the verifier numeric"
    assert said in (run.folder / "run.log").read_text()
    assert said in run.report.read_text()
    assert stream_of(settings).data[0].instruction.endswith("the number.")
