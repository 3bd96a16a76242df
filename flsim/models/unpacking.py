"""Unpack a GGUF file: its quantised weights become those of an ordinary checkpoint folder, with its tokenizer.

transformers does it. What it says of files that it cannot read is seldom a sentence, so the file is looked at before.
"""

import errno
import importlib.util
import json
import os
import re
import shutil
import tempfile
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

from flsim.config.schema import ConfigError
from flsim.files import flush, nearest, sketch_of, writing

MADE = "unpacked.json"
"""The file of such a folder that says what it was made of, and lets one see whether it is whole."""
DTYPES = {"float32": 4, "bfloat16": 2}
"""What weights may be kept in, and the bytes of one."""
_FULL = ("F64", "F32", "F16")  # weights that bfloat16 would round
_PART = ".part"
_TOKENIZER = ("tokenizer.ggml.model", "tokenizer.ggml.tokens")


def refuse_without_reader(named: str) -> None:
    """Refuse a GGUF file where the package that reads it is not installed.

    Raises:
        ConfigError: naming it.
    """
    if importlib.util.find_spec("gguf") is None:
        raise ConfigError(f"{named} is a GGUF file, which the package gguf reads: pip install gguf (the extra gguf)")


def unpack(file: Path, folder: Path, *, named: str, dtype: str | None = None) -> None:
    """Write the folder; whoever looks for it finds it whole or not at all, and what was there before is gone then.

    Two processes must not do so for one folder at a time.

    Args:
        file: the GGUF file.
        folder: to be made.
        named: what is said of the file in errors, such as `model.path='x.gguf'`.
        dtype: of the weights, `float32` or `bfloat16`; None is bfloat16 for quantised ones, whose own error is larger
            by far than that of rounding, and float32 where most weights are float32 or float16.

    Raises:
        ConfigError: if the file is damaged, or of a kind that cannot be unpacked.
        UnwritableError: if the folder cannot be written.
    """
    refuse_without_reader(named)
    header = _header_of(file, named)
    dtype = dtype or header.dtype
    size = header.weights * DTYPES[dtype]
    with _writing(file, folder, size):
        for left in folder.parent.glob(f".{folder.name}.*{_PART}"):  # by processes that were killed
            shutil.rmtree(left)
        if size > shutil.disk_usage(nearest(folder)).free:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    model, tokenizer = _read(file, header, named, dtype)
    part = folder.with_name(f".{folder.name}.{os.getpid()}{_PART}")
    try:
        with _writing(file, folder, size):
            model.save_pretrained(part)
            tokenizer.save_pretrained(part)
            files = list(part.iterdir())
            told = {"file": file.name, "dtype": dtype, "transformers": metadata.version("transformers")}
            (part / MADE).write_text(json.dumps({**told, "sketch": sketch_of(files)}, indent=1))
            flush([*files, part / MADE], f"what is made of {file.name}")
            if folder.is_dir():
                shutil.rmtree(folder)
            os.replace(part, folder)
    finally:
        shutil.rmtree(part, ignore_errors=True)


@dataclass(frozen=True)
class _Header:
    """What a GGUF file says of itself."""

    architecture: str
    weights: int
    """How many there are."""
    dtype: str
    """What they are best kept in."""


def _header_of(file: Path, named: str) -> _Header:
    """Look at the file, whose format has no checksum: what is cut off is seen, a flipped bit is not."""
    from gguf import GGUFReader

    try:
        reader = GGUFReader(file)
        said = {name: field.contents() for name, field in reader.fields.items() if len(field.data) == 1}
        architecture = str(said["general.architecture"])
    except Exception as error:  # whatever numpy says of bytes that are not there
        raise ConfigError(
            f"{named} is cut short or damaged ({type(error).__name__}: {error}); fetch the file again"
        ) from error
    if int(said.get("split.count", 1)) > 1:
        raise ConfigError(f"{named} is one part of several; join them with llama.cpp's llama-gguf-split --merge")
    lacking = [name for name in _TOKENIZER if name not in reader.fields]
    if lacking:
        raise ConfigError(f"{named} holds no tokenizer ({lacking[0]}); take a file that does")
    held = Counter[str]()
    for tensor in reader.tensors:
        held[tensor.tensor_type.name] += int(tensor.n_elements)
    if not held:
        raise ConfigError(f"{named} holds no weights; take a file that does")
    dtype = "float32" if held.most_common(1)[0][0] in _FULL else "bfloat16"
    return _Header(architecture, held.total(), dtype)


def _read(file: Path, header: _Header, named: str, dtype: str) -> tuple[Any, Any]:
    """The model, unpacked, and its tokenizer."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, GgufConfig
    from transformers.utils import logging as transformers_logging

    transformers_logging.disable_progress_bar()
    with tempfile.TemporaryDirectory(prefix="flsim-gguf-") as alone:  # beside it may lie a tokenizer of something else
        (Path(alone) / "model.gguf").symlink_to(file.resolve())
        source: dict[str, Any] = {"pretrained_model_name_or_path": alone, "gguf_file": "model.gguf"}
        try:
            config = AutoConfig.from_pretrained(**source)
        except ValueError as error:
            raise ConfigError(
                f"{named} is of the architecture {header.architecture!r}, which transformers "
                f"{metadata.version('transformers')} does not unpack; give a checkpoint folder of the model"
            ) from error
        tokenizer = AutoTokenizer.from_pretrained(**source)
        both: Any = AutoModelForCausalLM.from_pretrained(
            **source,
            config=config,
            dtype=getattr(torch, dtype),
            quantization_config=GgufConfig(dequantize=True),
            output_loading_info=True,
        )
    model, found = both
    wrong = [*sorted(found["missing_keys"]), *sorted(name for name, *_ in found["mismatched_keys"])]
    if wrong:  # they would be drawn at random
        raise ConfigError(f"{named} lacks {len(wrong)} weights of its model, first {wrong[0]}; take another file")
    return model, tokenizer


@contextmanager
def _writing(file: Path, folder: Path, size: int) -> Iterator[None]:
    """Around what writes the folder; an error of the disk that safetensors words in its own way is one, too."""
    from safetensors import SafetensorError

    with writing(f"what is made of {file.name}", folder, size):
        try:
            yield
        except SafetensorError as error:
            number = re.search(r"os error (\d+)", str(error))
            if number is None:
                raise
            raise OSError(int(number[1]), os.strerror(int(number[1]))) from error
