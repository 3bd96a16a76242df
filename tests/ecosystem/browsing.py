"""A headless Chromium for pages of ours: whatever it says in its console, or asks of the network, is noted."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest

from tests.ecosystem.conftest import BROWSERS


@dataclass(frozen=True)
class Seen:
    """A page and what was noted of it; `page` is playwright's."""

    page: Any
    errors: list[str] = field(default_factory=list)
    """Of the console, warnings included, and of scripts."""
    requests: list[str] = field(default_factory=list)
    """Addresses, the page's own first; what is in the page itself (`data:`) is left out."""


@contextmanager
def opened(address: str, *, width: int = 1280, height: int = 800, scripts: bool = True) -> Iterator[Seen]:
    """The page at an address; the test skips where there is no playwright or no Chromium.

    Args:
        address: such as `file:///...` or `http://127.0.0.1:...`.
        width: of the window, in CSS pixels; below 600 it is a phone, with a finger.
        height: likewise.
        scripts: whether it may run any.
    """
    playwright = pytest.importorskip("playwright.sync_api", reason="a browser is driven by playwright, an extra")
    path = next(filter(None, map(shutil.which, BROWSERS)), None)
    if path is None:
        pytest.skip(f"no browser: none of {', '.join(BROWSERS)} is installed")
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=path, args=["--no-sandbox"])
        window = {"width": width, "height": height}
        context = browser.new_context(viewport=window, java_script_enabled=scripts, has_touch=width < 600)
        seen = Seen(context.new_page())
        loud = ("error", "warning")
        seen.page.on("console", lambda said: seen.errors.append(said.text) if said.type in loud else None)
        seen.page.on("pageerror", lambda error: seen.errors.append(str(error)))
        seen.page.on("request", lambda one: None if one.url.startswith("data:") else seen.requests.append(one.url))
        try:
            seen.page.goto(address)
            yield seen
        finally:
            browser.close()
