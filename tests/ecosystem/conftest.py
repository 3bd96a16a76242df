"""The optional parts, each with its real server or browser; the last lines say which versions of them are here."""

import shutil
import subprocess
from importlib.metadata import PackageNotFoundError, version

import pytest

SHOWN = (
    *("flwr", "ray", "torch", "transformers", "peft", "datasets", "pyarrow"),
    *("tensorboard", "wandb", "mlflow", "trackio", "flwr-datasets", "lm_eval", "trl"),
    *("moto", "playwright", "nbclient", "ipykernel", "starlette", "uvicorn", "gguf"),
)
"""The packages that these tests are about."""
BROWSERS = ("chromium", "chromium-browser", "google-chrome")


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """What is installed, and which browser; a header would be left out by `-q`."""
    terminalreporter.section("versions")
    terminalreporter.write_line(", ".join(f"{name} {_version(name)}" for name in SHOWN))
    terminalreporter.write_line(f"browser: {_browser()}")


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "not installed"


def _browser() -> str:
    path = next(filter(None, map(shutil.which, BROWSERS)), None)
    if path is None:
        return "none"
    return subprocess.run([path, "--version"], capture_output=True, text=True, check=False).stdout.strip() or path
