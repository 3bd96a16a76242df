"""What is run: one learner per domain and seed; every rule is then asked about the same finished run."""

from collections.abc import Sequence
from pathlib import Path

from flsim.config.load import load_config
from flsim.config.schema import Config

CONFIGS = Path(__file__).parents[1] / "configs"
DOMAINS = {"gsm8k": "replay_gsm8k", "mmlu": "replay_mmlu", "code": "replay_code", "domains": "replay_domains"}
"""Name -> config."""


def runs_of(domain: str, seeds: Sequence[int], root: Path, more: Sequence[str]) -> list[Config]:
    """The runs of a domain, one per seed, which sets the stream's seed, too.

    Args:
        domain: of `DOMAINS`.
        seeds: of the runs.
        root: folder of all runs.
        more: settings over the config's own.
    """
    own = [[f"seed={seed}", f"stream.seed={seed}", f"run_dir={root / f'{domain}-s{seed}'}"] for seed in seeds]
    return [load_config(CONFIGS / f"{DOMAINS[domain]}.yaml", [*more, *settings]) for settings in own]
