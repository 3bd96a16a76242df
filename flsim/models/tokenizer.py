"""The tokenizer of the built-in models: keyword pieces and single characters, in the `tokenizers` format.

`'ab'[::-1]=` becomes `' a b ' [::-1] =`. The question mark is the whole help request, one token, and ends a response
just as `<eos>` does.
"""

from collections.abc import Iterable

from tokenizers import Regex, Tokenizer, decoders, pre_tokenizers
from tokenizers.models import WordLevel
from transformers import PreTrainedTokenizerFast

from flsim.tasks.families import KEYWORDS, LETTERS

PAD, EOS, HELP = "<pad>", "<eos>", "?"
_CHARACTERS = "0123456789+-*%/=,()'[]" + LETTERS


_PIECES = [PAD, EOS, HELP, *_CHARACTERS, *KEYWORDS]


def is_built_in(vocabulary: Iterable[str]) -> bool:
    """Whether a vocabulary is that of the built-in models, whose `?` is the help request and no question mark."""
    return set(vocabulary) == set(_PIECES)


def build_tokenizer() -> PreTrainedTokenizerFast:
    """The tokenizer that the shipped checkpoints were pretrained with (saved beside each of them)."""
    core = Tokenizer(WordLevel({piece: i for i, piece in enumerate(_PIECES)}, unk_token=PAD))
    escaped = "|".join(_escape(keyword) for keyword in KEYWORDS)
    core.pre_tokenizer = pre_tokenizers.Split(Regex(f"{escaped}|."), behavior="isolated")
    core.decoder = decoders.Fuse()
    return PreTrainedTokenizerFast(tokenizer_object=core, pad_token=PAD, eos_token=EOS, padding_side="left")


def _escape(text: str) -> str:
    return "".join(f"\\{c}" if not c.isalnum() else c for c in text)
