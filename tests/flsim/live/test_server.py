"""The server of the page: what it sends, to whom, and that nothing else can be asked of it."""

import asyncio
import json
import re
import shutil
from pathlib import Path

import pytest
from httpx import ASGITransport, AsyncClient, Response

import flsim
from flsim.live.following import Following
from flsim.live.server import app_of, names_of
from flsim.loop.diagnosing import facts_of
from tests.tiny import TinyRun, without_pictures


@pytest.fixture(scope="module")
def root(tiny_runs: TinyRun) -> Path:
    """A folder with a finished run, called `done`, and what is left of one whose name is nasty."""
    with without_pictures():
        run = flsim.run(tiny_runs("study/done"), progress=False).folder
    other = shutil.copytree(run, run.parent / "<b>&'\" ä")
    (other / "summary.json").unlink()
    (other / "rows" / "round-00002.parquet").unlink()
    return run.parents[1]


class Client:
    """Who asks from this machine."""

    def __init__(self, root: Path) -> None:
        """Of the application that follows the runs of a folder."""
        self._transport = ASGITransport(app_of(Following(root, facts_of), names_of("127.0.0.1")))

    def get(self, address: str, *, headers: dict[str, str] | None = None, **params: str) -> Response:
        """Ask for it."""
        return self.request("GET", address, headers=headers, **params)

    def request(self, method: str, address: str, *, headers: dict[str, str] | None = None, **params: str) -> Response:
        """Ask in any way."""

        async def ask() -> Response:
            async with AsyncClient(transport=self._transport, base_url="http://127.0.0.1:8642") as client:
                return await client.request(method, address, headers=headers, params=params or None)

        return asyncio.run(ask())


@pytest.fixture(scope="module")
def client(root: Path) -> Client:
    """Who asks from this machine."""
    return Client(root)


def test_the_list_and_the_run_have_the_numbers_of_the_summary(client: Client, root: Path) -> None:
    client.get("/runs.json")  # the first one is in a hurry
    listed = {run["path"]: run for run in client.get("/runs.json").json()["runs"]}
    assert sorted(listed) == sorted(["study/done", "study/<b>&'\" ä"])
    told = json.loads((root / "study/done/summary.json").read_text())
    mean = told["at_end"]["global"]["accuracy"]["user_mean"]
    run = client.get("/run.json", name="study/done").json()
    for one in (listed["study/done"], run):
        assert (one["accuracy"], one["state"], one["round"]) == (mean, "done", 2)
    (line,) = [line for chart in run["charts"] if chart["name"] == "accuracy" for line in chart["lines"]][:1]
    assert line["y"][-1] == mean
    opening = next(section for section in run["sections"] if section["name"] == "opening")
    assert f"the mean user is right on {100 * mean:.1f} %" in opening["html"]
    charts = {chart["name"] for section in run["sections"] for chart in section["charts"]}
    assert charts == {chart["name"] for chart in run["charts"]}  # each has its place


def test_an_unfinished_run_says_so(client: Client) -> None:
    run = client.get("/run.json", name="study/<b>&'\" ä").json()
    assert (run["state"], run["round"], run["rounds"], run["report"]) == ("stopped", 1, 2, False)
    assert run["name"] == "study/<b>&'\" ä"
    assert "<b>" not in "".join(section["html"] for section in run["sections"])


def test_who_has_it_already_is_sent_nothing(client: Client) -> None:
    for address in ("/", "/page.js", "/run.json?name=study/done", "/report?name=study/done"):
        first = client.get(address)
        again = client.get(address, headers={"If-None-Match": f'"other", W/{first.headers["etag"]}'})
        assert (first.status_code, again.status_code, again.content) == (200, 304, b"")
        assert client.get(address, headers={"If-None-Match": '"other"'}).status_code == 200


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH"])
def test_there_is_nothing_to_send(client: Client, method: str) -> None:
    for address in ("/", "/runs.json", "/run.json?name=study/done", "/report?name=study/done"):
        assert client.request(method, address).status_code == 405


@pytest.mark.parametrize("host", ["evil.example", "evil.example:8642", "127.0.0.1.evil.example", "localhost.evil", ""])
def test_a_foreign_host_is_refused(client: Client, host: str) -> None:
    """A site that has its own name lead to this machine (DNS rebinding) is told nothing."""
    assert client.get("/runs.json", headers={"Host": host}).status_code == 400


@pytest.mark.parametrize("host", ["127.0.0.1", "127.0.0.1:8642", "localhost:8642"])
def test_this_machine_may_ask(client: Client, host: str) -> None:
    assert client.get("/runs.json", headers={"Host": host}).status_code == 200


def test_hosts_are_those_of_where_it_listens() -> None:
    assert names_of("127.0.0.1") == ["127.0.0.1", "localhost"]
    assert "[" in names_of("::1")
    everywhere = names_of("0.0.0.0")
    assert "127.0.0.1" in everywhere
    assert "*" not in everywhere
    assert "0.0.0.0" not in everywhere


@pytest.mark.parametrize(
    "address",
    [
        "/run.json?name=../secret",
        "/run.json?name=study/done/../done",
        "/run.json?name=study",
        "/run.json",
        "/report?name=/etc/passwd",
        "/report?name=study/%3Cb%3E",
        "/../../etc/passwd",
        "/static/config.yaml",
        "/study/done/config.yaml",
    ],
)
def test_no_address_leads_elsewhere(client: Client, address: str) -> None:
    assert client.get(address).status_code == 404


def test_no_other_site_may_embed_or_read_it(client: Client) -> None:
    for address in ("/", "/runs.json", "/report?name=study/done"):
        headers = client.get(address).headers
        policy = headers["content-security-policy"]
        assert "default-src 'none'" in policy
        assert "frame-ancestors 'none'" in policy
        assert headers["cross-origin-resource-policy"] == "same-origin"
        assert "access-control-allow-origin" not in headers
    assert "'unsafe-inline'" not in re.findall("script-src ([^;]*)", client.get("/").headers["content-security-policy"])


def test_the_page_needs_nothing_from_elsewhere(client: Client) -> None:
    page = client.get("/").text
    for file in re.findall(r'(?:src|href)="([\w-]+\.\w+)"', page):
        assert client.get(f"/{file}").status_code == 200, file
    assert not re.findall(r'(?:src|href)="(?:https?:)?//', page)
    assert 'data-every="2000"' in page
