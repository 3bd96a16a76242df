"""The page of `flsim watch` in a real browser: a real server, a finished run, and one that goes on meanwhile."""

import json
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, TextIO

import pytest

import flsim
from tests.ecosystem import browsing
from tests.tiny import TinyRun, tiny_file

pytestmark = pytest.mark.ecosystem
LAPTOP, PHONE = (1366, 768), (390, 844)
PATIENCE_MS = 600_000  # where much else is at work, a run takes minutes to begin


@pytest.fixture(scope="module")
def root(tiny_runs: TinyRun) -> Path:
    """A folder of studies with a finished run, one that failed, and one with a nasty name."""
    run = flsim.run(tiny_runs("study/done"), progress=False).folder
    for name in ("failed", "<img src=x onerror=alert(1)>"):
        other = shutil.copytree(run, run.parent / name)
        (other / "summary.json").unlink()
        (other / "rows" / "round-00002.parquet").unlink()
    with (run.parent / "failed" / "run.log").open("a") as log:
        log.write("2026-11-29 11:26:00,000 ERROR the run failed: OSError: no space left\n")
    return run.parents[1]


@contextmanager
def watched(root: Path) -> Iterator[str]:
    """The real command at a free port, and its address."""
    command = [sys.executable, "-m", "flsim", "watch", str(root), "--port", "0", "--every", "0.5"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            (address,) = re.findall(r"http://127\.0\.0\.1:\d+", process.stdout.readline())
            yield address
        finally:
            process.terminate()
            process.wait(30)


@pytest.fixture(scope="module")
def address(root: Path) -> Iterator[str]:
    """Of a server that all tests of the file share."""
    with watched(root) as found:
        yield found


@contextmanager
def opened(address: str, size: tuple[int, int] = LAPTOP) -> Iterator[Any]:
    """A page that must have no errors, and that asks nobody but its server."""
    with browsing.opened(address, width=size[0], height=size[1]) as seen:
        yield seen.page
        assert seen.errors == []
        assert {url for url in seen.requests if not url.startswith(address.split("/run")[0])} == set()


def mean_of(run: Path, name: str) -> str:
    """A number of `summary.json` as pages write it."""
    told = json.loads((run / "summary.json").read_text())
    return f"{100 * told['at_end']['global'][name]['user_mean']:.1f} %"


def test_the_list_has_all_runs_with_the_numbers_of_their_summaries(address: str, root: Path) -> None:
    with opened(address) as page:
        page.wait_for_selector("tr[data-run='study/done']")
        line = page.inner_text("tr[data-run='study/done']")
        assert "done" in line
        assert "2 of 2" in line
        assert mean_of(root / "study/done", "accuracy") in line
        assert mean_of(root / "study/done", "alone_accuracy") in line
        assert page.locator("tr.reason").filter(has_text="OSError: no space left").count() == 1
        page.wait_for_function("document.querySelectorAll('#runs td')[0].closest('tbody').innerText.includes('1 of 2')")
        assert page.locator("#runs img").count() == 0
        page.get_by_role("button", name="failed 1").click()
        assert page.locator("tr[data-run]").count() == 1
        page.get_by_role("button", name="all 3").click()
        page.fill("#find", "DONE")
        assert [row.get_attribute("data-run") for row in page.locator("tr[data-run]").all()] == ["study/done"]


def test_a_click_on_a_heading_sorts(address: str) -> None:
    def order(page: Any) -> list[str]:
        return [str(row.get_attribute("data-run")) for row in page.locator("tr[data-run]").all()]

    with opened(address) as page:
        page.wait_for_selector("tr[data-run]")
        before = order(page)
        page.click("th[data-key=name] button")
        assert order(page) == before[::-1]
        page.click("th[data-key=state] button")
        assert order(page)[0] == "study/failed"
        assert page.locator("th[aria-sort]").count() == 1


def test_a_run_has_the_charts_and_numbers_of_its_report(address: str, root: Path) -> None:
    with opened(address) as page:
        page.click("tr[data-run='study/done'] a")
        page.wait_for_selector("[data-section=opening] .answer")
        told = json.loads((root / "study/done/summary.json").read_text())
        mean = told["at_end"]["global"]["accuracy"]["user_mean"]
        assert f"right on {100 * mean:.1f} %" in page.inner_text("[data-section=opening] .answer")
        worst = page.inner_text("[data-section=users]")
        assert told["worst_users"][0]["device"] in worst
        drawn = page.evaluate("flsimCharts.drawn.get('accuracy').flsim.lines[0].y.at(-1)")
        assert drawn == mean
        for place in page.locator("[data-chart]").all():
            assert place.locator("canvas").bounding_box()["height"] > 100
        with page.expect_popup() as popup:
            page.click("#report")
        report = popup.value
        report.wait_for_selector(".answer")
        assert f"{100 * mean:.1f} %" in report.inner_text(".answer")


def test_names_are_texts_and_never_markup(address: str) -> None:
    with opened(address) as page:
        page.locator("tr[data-run]").filter(has_text="<img").locator("a").click()
        page.wait_for_selector("[data-section=opening] .answer")
        assert page.inner_text("#name") == "study/<img src=x onerror=alert(1)>"
        assert page.locator("img").count() == 0


@pytest.mark.parametrize("size", [LAPTOP, PHONE])
def test_nothing_is_wider_than_the_screen(address: str, size: tuple[int, int]) -> None:
    for place in ("/", "/run?name=study/done"):
        with opened(address + place, size) as page:
            page.wait_for_selector("tr[data-run], [data-section=opening] .answer")
            page.wait_for_timeout(500)
            assert page.evaluate("document.documentElement.scrollWidth") <= size[0]


def test_a_run_that_goes_on_moves_without_a_reload(tiny_checkpoint: Path, tmp_path: Path) -> None:
    """From waiting for it to its report, on one page that is never loaded again; then the server ends."""
    run = tmp_path / "runs" / "live"
    (tmp_path / "runs").mkdir()
    more = ("rounds=30", "evaluation.every_rounds=1", f"run_dir={run}", "client.steps=3")
    command = [sys.executable, "-m", "flsim", "run", str(tiny_file(tmp_path, tiny_checkpoint, *more))]
    with watched(tmp_path / "runs") as address, opened(address) as page:
        page.wait_for_selector("#none:not([hidden])")
        with (tmp_path / "said").open("w") as said, subprocess.Popen(command, stdout=said, stderr=said) as process:
            page.wait_for_selector("tr[data-run=live]", timeout=PATIENCE_MS)
            page.click("tr[data-run=live] a")
            page.wait_for_selector("[data-section=accuracy] canvas", timeout=PATIENCE_MS)
            page.evaluate("window.same = true")
            seen = [round_of(page)]
            while process.poll() is None:
                time.sleep(0.2)
                seen.append(round_of(page))
        page.wait_for_function("document.getElementById('state').textContent === 'done'", timeout=PATIENCE_MS)
        assert process.returncode == 0, (tmp_path / "said").read_text()
        assert page.evaluate("window.same") is True
        assert len(set(seen)) > 2
        assert seen == sorted(seen)
        mean = mean_of(run, "accuracy")
        page.wait_for_function(f"document.querySelector('.answer').textContent.includes('right on {mean}')")
        page.wait_for_function("flsimCharts.drawn.get('accuracy').flsim.lines[0].y.length === 31")


@contextmanager
def ended(command: list[str], said: TextIO) -> Iterator[subprocess.Popen[bytes]]:
    """A command at work, which ends at the latest with the test."""
    with subprocess.Popen(command, stdout=said, stderr=said) as process:
        try:
            yield process
        finally:
            process.kill()


def round_of(page: Any) -> int:
    """As the page says it now."""
    found = re.search(r"round (\d+) of", page.inner_text("#rounds"))
    return int(found.group(1)) if found else -1


def test_a_server_that_has_ended_is_said(root: Path) -> None:
    with ExitStack() as server:
        address = server.enter_context(watched(root))
        with browsing.opened(address) as seen:  # whose console says that nobody answers, too
            seen.page.wait_for_selector("tr[data-run]")
            server.close()
            seen.page.wait_for_selector("#away:not([hidden])", timeout=30_000)
            assert "flsim watch is not there any more" in seen.page.inner_text("#away")
            assert seen.page.locator("tr[data-run='study/done']").count() == 1  # what was shown stays
