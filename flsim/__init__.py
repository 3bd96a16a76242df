"""flsim: federated continual learning of small language models on devices with a budgeted cloud LLM, simulated.

The public names are loaded when they are first used, so that a worker, which needs none of them, does not load the
report and its figures.
"""

import gc
import importlib
import logging
import os
import warnings
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from flsim.comparison.compare import Comparison, compare
    from flsim.config.load import load_config
    from flsim.config.schema import Config, ConfigError
    from flsim.loop.diagnosing import diagnose
    from flsim.loop.run import Run, run
    from flsim.metrics.rows import Row

os.environ.setdefault("FLWR_TELEMETRY_ENABLED", "0")  # read when flwr is imported; a simulation phones nobody
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")  # silences a warning about GPU variables
# Ray's own handler of crashes leaves SIGTERM to the system once Ray stops, and a run that makes its report would die in
# silence; where a process crashed is still said by Python's
os.environ.setdefault("RAY_DISABLE_FAILURE_SIGNAL_HANDLER", "1")
# in a notebook, Ray and the libraries that import tqdm.auto ask for ipywidgets, which the bar of a run does without
warnings.filterwarnings("ignore", message="IProgress not found")
logging.getLogger("ray.widgets.util").setLevel(logging.WARNING)

__all__ = ["Comparison", "Config", "ConfigError", "Row", "Run", "compare", "diagnose", "load_config", "run"]

_HOME = {
    "Comparison": "flsim.comparison.compare",
    "Config": "flsim.config.schema",
    "ConfigError": "flsim.config.schema",
    "Row": "flsim.metrics.rows",
    "Run": "flsim.loop.run",
    "compare": "flsim.comparison.compare",
    "diagnose": "flsim.loop.diagnosing",
    "load_config": "flsim.config.load",
    "run": "flsim.loop.run",
}


def __dir__() -> list[str]:
    """What completion offers: the public names, loaded or not, and what is here."""
    return sorted({*globals(), *__all__})


def __getattr__(name: str) -> Any:
    """Load a public name from its module; meanwhile nothing is garbage, and to look for it takes a seventh longer."""
    if name not in _HOME:
        raise AttributeError(f"module 'flsim' has no {name!r}; it offers: {', '.join(__all__)}")
    collects = gc.isenabled()
    gc.disable()
    try:
        return getattr(importlib.import_module(_HOME[name]), name)
    finally:
        if collects:
            gc.enable()
