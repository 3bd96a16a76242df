"""The tokenizer of the built-in models: as much of transformers' as is asked of it, without importing transformers.

It knows keyword pieces and single characters: `'ab'[::-1]=` becomes `' a b ' [::-1] =`. The question mark is the whole
help request, one token, and ends a response just as `<eos>` does.
"""

import json
import shutil
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias, Union

from tokenizers import Tokenizer

from flsim.problems.families import KEYWORDS, LETTERS

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

AnyTokenizer: TypeAlias = Union["PreTrainedTokenizerBase", "BuiltinTokenizer"]
"""What a base reads and writes by."""

PAD, EOS, HELP = "<pad>", "<eos>", "?"
_CHARACTERS = "0123456789+-*%/=,()'[]" + LETTERS
PIECES = (PAD, EOS, HELP, *_CHARACTERS, *KEYWORDS)
"""All tokens of the built-in models."""
_FILES = ("tokenizer.json", "tokenizer_config.json")


def is_built_in(vocabulary: Iterable[str]) -> bool:
    """Whether a vocabulary is that of the built-in models, whose `?` is the help request and no question mark."""
    return set(vocabulary) == set(PIECES)


class BuiltinTokenizer:
    """The tokenizer that lies beside a built-in model; it says the same as transformers' of the same files."""

    bos_token_id: int | None = None
    """It begins with nothing."""
    chat_template: str | None = None
    """It knows of no turns."""

    def __init__(self, folder: Path) -> None:
        """Load it from a checkpoint's folder."""
        self._folder = folder
        self._core: Any = Tokenizer.from_file(str(folder / _FILES[0]))
        told = json.loads((folder / _FILES[1]).read_text())
        self.pad_token_id, self.eos_token_id = (self.get_vocab()[told[name]] for name in ("pad_token", "eos_token"))

    def __call__(
        self, text: str | Sequence[str], *, add_special_tokens: bool = True, return_offsets_mapping: bool = False
    ) -> dict[str, Any]:
        """The tokens of a text, or of each of several, and from where to where in it each stands.

        Args:
            text: one, or several.
            add_special_tokens: has no effect, as it adds none.
            return_offsets_mapping: whether the places are wanted.
        """
        if isinstance(text, str):
            one = self._core.encode(text)
            return {"input_ids": one.ids} | ({"offset_mapping": one.offsets} if return_offsets_mapping else {})
        all_ = self._core.encode_batch(list(text))
        more = {"offset_mapping": [one.offsets for one in all_]} if return_offsets_mapping else {}
        return {"input_ids": [one.ids for one in all_]} | more

    def __len__(self) -> int:
        """How many tokens there are."""
        return int(self._core.get_vocab_size())

    def decode(self, tokens: Any, *, skip_special_tokens: bool = False) -> str:
        """The text of tokens, a list or a tensor `(t,)`."""
        ids = tokens if isinstance(tokens, list) else tokens.tolist()
        return str(self._core.decode(ids, skip_special_tokens=skip_special_tokens))

    def batch_decode(self, rows: Any, *, skip_special_tokens: bool = False) -> list[str]:
        """The texts of rows of tokens, lists or a tensor `(n, t)`."""
        ids = rows if isinstance(rows, list) else rows.tolist()
        return list(self._core.decode_batch(ids, skip_special_tokens=skip_special_tokens))

    def get_vocab(self) -> dict[str, int]:
        """All tokens with their ids."""
        return dict(self._core.get_vocab(with_added_tokens=True))

    def save_pretrained(self, folder: str | Path) -> None:
        """Write its files into a folder, from which transformers' reads."""
        for name in _FILES:
            shutil.copyfile(self._folder / name, Path(folder) / name)
