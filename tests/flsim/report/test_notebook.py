"""What a notebook shows of a run and of a comparison: the numbers of summary and tables, escaped, and axes to go on."""

import re

import numpy as np
import pytest

import flsim
from flsim.config.schema import ConfigError
from flsim.metrics.measures import MEASURES
from flsim.metrics.rows import evaluation, latest, training
from flsim.metrics.users import per_user
from flsim.metrics.users_frame import dictionary_of
from flsim.report.notebook import PANELS
from flsim.text import percent
from tests.tiny import TinyRun, without_pictures

TINY = ("fleet.devices=3",)


@pytest.fixture(scope="module")
def run(tiny_runs: TinyRun) -> flsim.Run:
    with without_pictures():
        return flsim.run(tiny_runs("<b>run</b>", "client.path=clients.da_grpo:DaGrpo"), progress=False)


def test_a_run_shows_its_answer_its_table_and_a_figure(run: flsim.Run) -> None:
    html = run._repr_html_()
    accuracy = run.summary.at_end["global"]["accuracy"]
    (line,) = re.findall(r"<tr><td>global, may ask</td>(.*?)</tr>", html)
    wanted = [percent(getattr(accuracy, name)) for name in ("example_mean", "traffic_mean", "user_mean", "p10")]
    assert re.findall(r"<td>(.*?)</td>", line)[:4] == wanted
    assert html.count("data:image/png;base64,") == 1
    assert "&lt;b&gt;run&lt;/b&gt;" in html
    assert "<b>run</b>" not in html
    assert len(html) < 100_000


def test_users_are_a_line_each_with_documented_columns(run: flsim.Run) -> None:
    users = run.users.set_index("device")
    assert list(users.index) == ["device-000", "device-001", "device-002"]
    assert list(users.columns[:2]) == ["accuracy", "alone_accuracy"]
    own = per_user(latest(evaluation(run.rows, model="global", name="accuracy")))
    np.testing.assert_array_equal(users["accuracy"], own)
    calls = training(run.rows, name="cloud_calls").groupby("device")["total"].sum()
    np.testing.assert_array_equal(users["calls"], calls)
    assert users["calls"].sum() == run.summary.totals["calls"]
    told = dictionary_of(run.users)
    assert list(told["column"]) == list(run.users.columns)
    assert (told["meaning"].str.len() > 10).all()
    assert told.set_index("column").loc["accuracy", "meaning"] == MEASURES["accuracy"].meaning
    assert not told["meaning"].str.contains("all devices").any()


@pytest.mark.parametrize("name", PANELS)
def test_plot_gives_axes_to_go_on_with(run: flsim.Run, name: str) -> None:
    from matplotlib.figure import Figure

    own = Figure().add_subplot()
    assert run.plot(name, own) is own
    assert own.has_data() or own.texts or own.images


def test_plot_without_axes_makes_a_figure_of_pyplot(run: flsim.Run) -> None:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    axes = run.plot()
    axes.axhline(0.5)
    assert axes.get_title() == "Accuracy"
    assert pyplot.get_fignums()
    pyplot.close("all")
    with pytest.raises(ConfigError, match=r"plot\('acuracy'\): .* \(did you mean accuracy\?\)"):
        run.plot("acuracy")


def test_a_comparison_shows_its_tables(run: flsim.Run) -> None:
    compared = flsim.compare([run])
    html = compared._repr_html_()
    assert f"{100 * compared.table['accuracy'].iloc[0]:.1f} % (" in html
    assert html.count("data:image/png;base64,") == 1
