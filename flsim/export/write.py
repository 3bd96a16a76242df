"""Export a run: into one folder, with a page that says what each file is and how it is loaded."""

import io
from pathlib import Path

import pandas as pd

from flsim.config.load import load_config
from flsim.config.schema import ConfigError
from flsim.export.adapter import (
    ADAPTER,
    APART,
    GGUF,
    MERGED,
    export_adapter,
    export_gguf,
    export_merged,
    is_lora,
    refuse_formats,
    scale_of,
)
from flsim.export.dictionary import dictionary
from flsim.files import write_atomically
from flsim.metrics.rows import of_users, read_rows
from flsim.metrics.run_rows import RunRows
from flsim.metrics.users_frame import users_frame
from flsim.report.summary import Summary, read_summary

FORMS = ("parquet", "csv")
"""What tables are written as."""
DICTIONARY = "dictionary.csv"
_VLLM_RANKS = (8, 16, 32, 64, 128, 256, 320, 512)  # what its --max-lora-rank takes


def export(run: Path, out: Path, *, merged: bool = False, gguf: bool = False, form: str = "parquet") -> list[Path]:
    """Write what a finished run left for others to use.

    Args:
        run: its folder.
        out: where it goes; there may be none yet, or an empty one.
        merged: whether the base with the adapter in its weights is written, too, which takes the base's size.
        gguf: whether the adapter is written for llama.cpp, too.
        form: of the tables, of `FORMS`.

    Returns:
        The files, `README.md` first.

    Raises:
        ConfigError: for no finished run, a folder that holds something, or a format that cannot be had.
        DamagedFileError: if a file of the run cannot be read.
        UnwritableError: if a file cannot be written.
    """
    if not (run / "config.yaml").is_file():
        raise ConfigError(
            f"{run} is no run: it has no config.yaml; give a run's folder, such as runs/demo-seed0 (the tables of a "
            f"comparison for a paper, tables.tex and tables.md, are beside its page)"
        )
    if out.exists() and not out.is_dir():
        raise ConfigError(f"{out} is a file; name a folder that is not there yet, or an empty one")
    if out.exists() and any(out.iterdir()):
        raise ConfigError(f"{out} is there already and not empty; name another folder, or delete it")
    config = load_config(run / "config.yaml")
    refuse_formats(run, config.model, merged=merged, gguf=gguf)
    found, rows = read_summary(run), read_rows(run)
    users = users_frame(RunRows.under(of_users(rows), found.phases, found.tau))
    files = export_adapter(run, out)
    files += [export_gguf(run, config.model, out, name=found.run)] if gguf else []
    files += [export_merged(run, config.model, out)] if merged else []
    files += [_write_table(out / f"{name}.{form}", frame) for name, frame in (("rows", rows), ("users", users))]
    files.append(_write_table(out / DICTIONARY, dictionary(rows, users)))
    page = out / "README.md"
    write_atomically(page, _page(config.seed, config.model.path, found, out, form).encode(), what="the export's page")
    return [page, *files]


def _write_table(path: Path, frame: pd.DataFrame) -> Path:
    """As the file's ending says; numbers in full, so that they are read back as they were."""
    buffer = io.BytesIO()
    if path.suffix == ".csv":
        frame.to_csv(buffer, index=False)
    else:
        frame.to_parquet(buffer, index=False)
    write_atomically(path, buffer.getvalue(), what="a table of the export")
    return path


def _page(seed: int, base: str, found: Summary, out: Path, form: str) -> str:
    """What each file is, in Markdown."""
    head = "pd.read_parquet" if form == "parquet" else "pd.read_csv"
    lines = [
        f"# {found.run}, exported",
        "",
        f"Run of {found.rounds} rounds and {found.devices} devices, seed {seed}.",
        "",
        "| file | what it is |",
        "|---|---|",
        *(f"| `{name}` | {what} |" for name, what in _files(base, out, form)),
        "",
        "```python",
        "import pandas as pd",
        f'rows = {head}("rows.{form}")',
        'tested = rows[(rows["name"] == "accuracy") & (rows["model"] == "global")]',
        'sums = tested.groupby(["round", "device"])[["total", "weight"]].sum()',
        '(sums["total"] / sums["weight"]).groupby("round").mean()  # the mean user, over rounds',
        "```",
    ]
    return "\n".join(lines) + "\n"


def _of_base(base: str) -> str:
    """What to do where other programs do not find the base by its name."""
    if not base.startswith(("builtin:", "package:")) and not base.endswith(".gguf"):
        return ""
    return f"; other programs do not know `{base}`, so give them a whole model, by `flsim export --merged`"


def _files(base: str, out: Path, form: str) -> list[tuple[str, str]]:
    found = []
    if is_lora(out):
        rank, scale = scale_of(out / ADAPTER)
        room = next((one for one in _VLLM_RANKS if one >= rank), rank)
        found.append(
            (
                f"{ADAPTER}/",
                f"LoRA of rank {rank} and scale {scale:g} on `{base}`, for `PeftModel.from_pretrained(base, "
                f'"{ADAPTER}")` and `vllm serve BASE --enable-lora --max-lora-rank {room} --lora-modules '
                f"mine={ADAPTER}`{_of_base(base)}",
            )
        )
    else:
        found.append((f"{ADAPTER}/", "the weights of the module that devices learned, for `module.load_state_dict`"))
    more = {
        APART: (
            "/",
            "what devices learned beside LoRA, such as a head that decides when to ask; no other program reads it",
        ),
        GGUF: ("", "the adapter for llama.cpp: `llama-cli -m BASE.gguf --lora adapter.gguf`"),
        MERGED: ("/", "the base with the adapter in its weights: `AutoModelForCausalLM.from_pretrained`"),
    }
    found += [(name + end, what) for name, (end, what) in more.items() if (out / name).exists()]
    found += [
        (f"rows.{form}", "every measurement, one (total, weight) a line; a mean is total / weight"),
        (f"users.{form}", "a line per user with every measure of users that was taken"),
        (DICTIONARY, "columns, names of rows and measures, with their units and meanings"),
    ]
    return found
