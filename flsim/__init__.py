"""flsim: federated continual learning of small language models on devices with a budgeted cloud LLM, simulated."""

import os

os.environ.setdefault("FLWR_TELEMETRY_ENABLED", "0")  # read when flwr is imported; a simulation phones nobody
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")  # silences a warning about GPU variables

from flsim.config import Config, ConfigError, load_config
from flsim.metrics.rows import Row
from flsim.simulation import Run, run

__all__ = ["Config", "ConfigError", "Row", "Run", "load_config", "run"]
