"""Where the two built-in checkpoints live: `builtin/slm` (0.4 M parameters) and `builtin/cloud` (1.3 M)."""

from pathlib import Path

BUILTIN_DIR = Path(__file__).parent / "builtin"
SLM_DIR = BUILTIN_DIR / "slm"
CLOUD_DIR = BUILTIN_DIR / "cloud"
