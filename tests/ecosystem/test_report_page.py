"""A run's page in a real browser: it draws by itself what the summary says, on a laptop, on a phone and on paper."""

import json
import re
import zlib
from pathlib import Path
from typing import Any

import pytest

from flsim.metrics.rows import Row, write_rows
from flsim.report.finish import finish_run
from flsim.tasks.stream import Phase
from flsim.timing import RoundTiming, write_timing
from tests.ecosystem.browsing import Seen, opened
from tests.flsim.report.test_run import TAU, write_run

pytestmark = pytest.mark.ecosystem
NAMES = [
    *("accuracy", "alone_accuracy", "usage", "lambda", "reliability", "claims_made", "users", "worst_users"),
    *("transfer", "requests", "seconds", "time", "mean_round"),
]
NUMBERS = """name => { const chart = flsimCharts.drawn.get(name).flsim;
  return Object.fromEntries(chart.lines.map(line => [line.name, line.y])); }"""
DRAWN = """name => { const sets = flsimCharts.drawn.get(name).data.datasets.filter(set => !set.band);
  return sets.map(set => set.data.map(one => one === null ? one : one.y ?? one)); }"""
POINTED = """([name, line, at]) => { const plot = flsimCharts.drawn.get(name);
  const set = plot.data.datasets.findIndex(one => one.line === line && !one.band);
  plot.canvas.scrollIntoView({ block: "center" });
  const { x, y } = plot.getDatasetMeta(set).data[at].getProps(["x", "y"], true);
  const box = plot.canvas.getBoundingClientRect();
  return [box.left + x, box.top + y]; }"""
TOLD = """name => { const told = flsimCharts.drawn.get(name).tooltip;
  return told.opacity === 0 ? null : [told.title, told.body.map(one => one.lines)]; }"""
INKED = """() => [...document.querySelectorAll("[data-chart] canvas")].map(canvas => {
  const { width, height } = canvas, seen = canvas.getContext("2d").getImageData(0, 0, width, height).data;
  let ink = 0;
  for (let at = 3; at < seen.length; at += 4) ink += seen[at] > 0;
  return ink / (width * height); })"""


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The page of a made-up run of 6 devices, with timings."""
    folder: Path = tmp_path_factory.mktemp("runs") / "made up"
    folder.mkdir()
    phases = write_run(folder)
    for round_ in range(13):
        parts = {"rollout": 2.0, "train": 2.4, "idle": 0.4, "evaluate": 1.6 * (round_ % 4 == 0)}
        write_timing(folder, RoundTiming(round_, 2, sum(parts.values()) / 2, parts))
    finish_run(folder, phases=phases, tau=TAU)
    return folder / "report.html"


def pointed(seen: Seen, name: str, line: int, at: int) -> Any:
    """What the chart tells of a point, as [title lines, lines of each item]; None if it tells nothing."""
    seen.page.mouse.move(*seen.page.evaluate(POINTED, [name, line, at]))
    seen.page.wait_for_timeout(100)
    return seen.page.evaluate(TOLD, name)


def test_it_loads_from_a_file_alone_and_every_chart_shows_something(report: Path) -> None:
    with opened(report.as_uri()) as seen:
        assert seen.page.evaluate("[...flsimCharts.drawn.keys()]") == NAMES
        inked = seen.page.evaluate(INKED)
        assert len(inked) == len(NAMES)
        assert min(inked) > 0.01
        assert seen.requests == [report.as_uri()]
        assert seen.errors == []


def test_numbers_that_are_drawn_are_those_of_the_summary(report: Path) -> None:
    summary = json.loads((report.parent / "summary.json").read_text())
    at_end = summary["at_end"]
    with opened(report.as_uri()) as seen:
        numbers = {name: seen.page.evaluate(NUMBERS, name) for name in NAMES}
        drawn = {name: seen.page.evaluate(DRAWN, name) for name in NAMES}
    assert numbers["accuracy"]["may ask"][-1] == pytest.approx(at_end["global"]["accuracy"]["user_mean"])
    assert numbers["accuracy"]["asks at random"][0] == pytest.approx(at_end["random"]["accuracy"]["user_mean"])
    assert numbers["alone_accuracy"]["alone"][-1] == pytest.approx(at_end["global"]["alone_accuracy"]["user_mean"])
    assert numbers["usage"]["budget τ"][0] == summary["tau"]
    assert numbers["worst_users"]["may ask"] == [user["accuracy"] for user in summary["worst_users"]]
    assert numbers["worst_users"]["frozen, alone"] == [user["frozen"] for user in summary["worst_users"]]
    assert 1e6 * sum(numbers["transfer"]["up"]) == pytest.approx(summary["totals"]["uplink_bytes"])
    assert sum(numbers["requests"]["granted"]) == summary["totals"]["calls"]
    assert drawn == {name: list(found.values()) for name, found in numbers.items()}


def test_pointing_at_a_user_tells_who_it_is_and_what_it_has(report: Path) -> None:
    worst = json.loads((report.parent / "summary.json").read_text())["worst_users"][0]
    with opened(report.as_uri()) as seen:
        title, lines = pointed(seen, "users", 0, 0)
        assert title == [worst["device"]]
        values = [("may ask", "accuracy"), ("asks at random", "random"), ("frozen, alone", "frozen")]
        assert lines == [[f"{text}: {100 * worst[key]:.1f} %" for text, key in values]]
        title, lines = pointed(seen, "worst_users", 0, 0)
        assert title == [worst["device"]]
        assert lines[0] == [f"may ask: {100 * worst['accuracy']:.1f} %"]
        assert seen.errors == []


def test_pointing_at_a_round_tells_the_mean_and_the_spread_of_users(report: Path) -> None:
    found = json.loads((report.parent / "summary.json").read_text())["at_end"]["global"]["accuracy"]
    mean, low, high = (f"{100 * found[key]:.1f} %" for key in ("user_mean", "p10", "p90"))
    with opened(report.as_uri()) as seen:
        title, lines = pointed(seen, "accuracy", 0, 12)
        assert title == ["round 12"]
        assert lines[0] == [f"may ask: {mean} (users {low} to {high})"]
        assert [line[0].split(":")[0] for line in lines] == ["may ask", "asks at random", "cloud LLM"]


def test_newer_numbers_are_drawn_in_place_and_a_hidden_line_stays_hidden(report: Path) -> None:
    with opened(report.as_uri()) as seen:
        seen.page.evaluate("""() => { const plot = flsimCharts.drawn.get("accuracy");
            plot.legend.options.onClick(null, plot.legend.legendItems[1], plot.legend); }""")
        charts = json.loads(seen.page.locator("script[data-flsim-charts]").text_content())
        first = charts[0]
        first["lines"][0]["y"][-1] = 0.123
        seen.page.evaluate("list => flsimCharts.show(list)", [first])
        assert seen.page.evaluate(DRAWN, "accuracy")[0][-1] == 0.123
        visible = "flsimCharts.drawn.get('accuracy').getSortedVisibleDatasetMetas().map(one => one.label)"
        assert set(seen.page.evaluate(visible)) == {"may ask", "cloud LLM"}
        assert seen.page.locator('[data-chart="users"]').is_hidden()
        seen.page.evaluate("list => flsimCharts.show(list)", charts)
        assert seen.page.locator('[data-chart="users"]').is_visible()
        assert seen.errors == []


def test_a_place_that_was_made_anew_is_drawn_in(report: Path) -> None:
    """As a page does that shows one run after another."""
    with opened(report.as_uri()) as seen:
        charts = json.loads(seen.page.locator("script[data-flsim-charts]").text_content())
        seen.page.evaluate("""() => { const place = document.querySelector("[data-chart=users]");
            place.replaceWith(place.cloneNode(true)); }""")
        seen.page.evaluate("list => flsimCharts.show(list)", charts)
        assert seen.page.evaluate("flsimCharts.drawn.get('users').canvas.isConnected")
        assert seen.page.evaluate(INKED)[NAMES.index("users")] > 0.01
        assert seen.errors == []


@pytest.mark.parametrize("width", [390, 600, 1280])
def test_nothing_but_tables_in_their_frames_is_wider_than_the_window(report: Path, width: int) -> None:
    with opened(report.as_uri(), width=width) as seen:
        assert seen.page.evaluate("document.documentElement.scrollWidth") <= width
        boxes = seen.page.evaluate(
            "[...document.querySelectorAll('canvas, img, p')].map(one => one.getBoundingClientRect().right)"
        )
        assert max(boxes) <= width
        assert seen.errors == []


def test_a_window_that_becomes_narrow_takes_its_charts_along(report: Path) -> None:
    with opened(report.as_uri()) as seen:
        seen.page.set_viewport_size({"width": 420, "height": 800})
        seen.page.wait_for_timeout(300)
        assert seen.page.evaluate("document.documentElement.scrollWidth") <= 420
        sizes = seen.page.evaluate("[...flsimCharts.drawn.values()].map(plot => plot.width)")
        assert 300 < min(sizes) <= max(sizes) < 420


def test_a_touch_tells_as_a_mouse_does(report: Path) -> None:
    with opened(report.as_uri(), width=390, height=844) as seen:
        seen.page.touchscreen.tap(*seen.page.evaluate(POINTED, ["users", 0, 2]))
        seen.page.wait_for_timeout(100)
        title, lines = seen.page.evaluate(TOLD, "users")
        assert title[0].startswith("device-")
        assert len(lines[0]) == 3


def test_paper_has_every_figure_as_lines_that_stay_sharp(report: Path) -> None:
    """The PDF holds each colour of each chart as drawing, not as a picture; pictures are the matrix and the stream."""
    with opened(report.as_uri()) as seen:
        seen.page.evaluate("""() => addEventListener("beforeprint", () => { window.onPaper =
            [...flsimCharts.drawn.values()].map(plot => [plot.width, plot.height]); })""")
        pdf = seen.page.pdf(prefer_css_page_size=True)
        sizes = seen.page.evaluate("window.onPaper")
        colours = seen.page.evaluate(
            "[...flsimCharts.drawn.values()].flatMap(plot => plot.flsim.lines.map(line => line.colour))"
        )
        after = seen.page.evaluate("[...flsimCharts.drawn.values()].map(plot => plot.width)")
        assert seen.errors == []
    assert len(sizes) == len(NAMES)
    paper = 182 / 25.4 * 96  # CSS pixels of a page of A4 without its margins
    assert all(150 < width <= paper and height > 150 for width, height in sizes)
    assert max(after) > paper / 2  # and the screen has its own again
    assert pdf.count(b"/Subtype /Image\n") == len(("matrix", "stream"))
    drawing = b"".join(_streams(pdf))
    set_colours = {tuple(round(float(one), 2) for one in found) for found in re.findall(_RGB, drawing)}
    assert {_rgb(colour) for colour in colours} <= set_colours


_RGB = rb"(?:^|\s)([\d.]+) ([\d.]+) ([\d.]+) (?:RG|rg)\b"


def _rgb(colour: str) -> tuple[float, ...]:
    return tuple(round(int(colour[at : at + 2], 16) / 255, 2) for at in (1, 3, 5))


def _streams(pdf: bytes) -> list[bytes]:
    """What a PDF's compressed streams hold; of pictures nothing that reads as drawing."""
    found = []
    for packed in re.findall(rb"stream\r?\n(.*?)\r?\nendstream", pdf, re.S):
        try:
            found.append(zlib.decompress(packed))
        except zlib.error:
            continue
    return found


def test_without_scripts_it_says_where_the_pictures_are(report: Path) -> None:
    with opened(report.as_uri(), scripts=False) as seen:
        links = seen.page.locator("noscript a")
        names = links.all_text_contents()
        assert names == [f"plots/{name}.png" for name in ("accuracy", "usage", "reliability", "users", "cost", "time")]
        assert all(links.nth(at).is_visible() for at in range(len(names)))
        assert all((report.parent / name).is_file() for name in names)
        assert seen.page.locator("canvas:visible").count() == 0


def test_a_name_that_is_a_script_is_shown_and_does_nothing(tmp_path: Path) -> None:
    name = "</script><img src=x onerror=alert(1)><script>alert(2)</script>"
    rows = [Row(1, f"{name}{at}", name, "test", "global", "accuracy", at, 2) for at in (1, 2)]
    write_rows(tmp_path / "rows" / "round-00001.parquet", rows)
    finish_run(tmp_path, phases=(Phase(name, (name,), 1, 2),), tau=None)
    asked: list[str] = []
    with opened((tmp_path / "report.html").as_uri()) as seen:
        seen.page.on("dialog", lambda dialog: asked.append(dialog.message))
        title, _ = pointed(seen, "users", 0, 0)
        assert title == [f"{name}1"]
        assert seen.requests == [(tmp_path / "report.html").as_uri()]
        assert (seen.errors, asked) == ([], [])


def test_a_thousand_users_are_drawn_and_found_without_delay(tmp_path: Path) -> None:
    rows = [
        Row(1, f"device-{at:04d}", "words", "test", model, "accuracy", (at * 37) % 1009, 1009)
        for at in range(1000)
        for model in ("global", "random", "frozen")
    ]
    write_rows(tmp_path / "rows" / "round-00001.parquet", rows)
    finish_run(tmp_path, phases=(Phase("A", ("words",), 1, 2),), tau=None)
    with opened((tmp_path / "report.html").as_uri()) as seen:
        worst = sorted(range(1000), key=lambda at: (at * 37) % 1009)
        title, _ = pointed(seen, "users", 0, 0)
        assert title[0] in {f"device-{at:04d}" for at in worst[:5]}  # several share a pixel
        spent = seen.page.evaluate("""() => { const from = performance.now();
            flsimCharts.show(JSON.parse(document.querySelector("script[data-flsim-charts]").textContent));
            return performance.now() - from; }""")
        assert spent < 2000  # milliseconds; some 30 on a laptop
        assert seen.errors == []
