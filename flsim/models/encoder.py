"""Encoders that tell classes of texts apart: BERT, DistilBERT and their like, whole or under LoRA.

    client.model=flsim.models.encoder:Encoder  client.model_settings={base: FOLDER}            any folder that
                                              `AutoModelForSequenceClassification` reads; nothing is downloaded
    client.model_settings={base: builtin:distilbert}                                          a tiny one that ships

The two that ship are a pair to try distillation with: BERT of four layers and DistilBERT of two, alike in width, with
random weights and a tokenizer that hashes words.
"""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from zlib import crc32

import torch
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file
from torch import Tensor, nn
from transformers import (
    AutoModelForSequenceClassification,
    AutoTokenizer,
    BertConfig,
    BertForSequenceClassification,
    DistilBertConfig,
    DistilBertForSequenceClassification,
)

from flsim.models.adapter import quiet_peft
from flsim.problems.problem import Problem

WIDTH, HEADS, WORDS = 64, 4, 8192
_PAD, _CLS, _SPECIAL = 0, 1, 2
_WORD = re.compile(r"\w+|[^\w\s]")


class Encoder(nn.Module):
    """An encoder with a layer of classes on the state of its first token."""

    batched = False
    """Its attention masks look at their values, which `torch.func.vmap` does not allow."""

    def __init__(
        self,
        classes: int,
        *,
        base: str = "builtin:distilbert",
        rank: int | None = None,
        alpha: int = 16,
        max_tokens: int = 64,
        weights: str | None = None,
    ) -> None:
        """Load or make it.

        Args:
            classes: how many answers there are.
            base: `builtin:bert`, `builtin:distilbert`, or a folder with an encoder of Hugging Face; a layer of other
                classes than these is made anew.
            rank: of LoRA on its linear layers, which are then all that is learned beside the layer of classes; None
                learns all of it.
            alpha: of LoRA.
            max_tokens: texts are cut to.
            weights: file of what a run of this module left (`adapter/module.safetensors`), such as a teacher's; None
                takes the encoder's own.

        Raises:
            ValueError: if there is no such encoder, or the weights are another module's.
        """
        super().__init__()
        self.max_tokens = max_tokens
        self.tokenizer: Any = None
        encoder = _builtin(base, classes) if base.startswith("builtin:") else self._of_folder(Path(base), classes)
        if rank is not None:
            inner = encoder.base_model.named_modules()
            linear = sorted({name.rpartition(".")[2] for name, one in inner if isinstance(one, nn.Linear)})
            heads = ["classifier", "pre_classifier"]  # BERT has one, DistilBERT both
            settings = LoraConfig("SEQ_CLS", r=rank, lora_alpha=alpha, target_modules=linear, modules_to_save=heads)
            with quiet_peft():
                encoder = get_peft_model(encoder, settings)
        self.encoder = encoder
        if weights is not None:
            self._take(Path(weights))

    @property
    def width(self) -> int:
        """Of its hidden states."""
        return int(getattr(self.encoder.config, "hidden_size", None) or self.encoder.config.dim)

    def inputs(self, problems: Sequence[Problem]) -> Tensor:
        """Tokens of the questions, `(N, max_tokens)`, filled up behind."""
        texts = [problem.question for problem in problems]
        rows = torch.full((len(texts), self.max_tokens), self._pad, dtype=torch.long)  # (N, L)
        for row, text in zip(rows, texts, strict=True):
            ids = torch.tensor(self._ids(text), dtype=torch.long)
            row[: len(ids)] = ids
        return rows

    def tokens(self, inputs: Tensor) -> Tensor:
        """How many of inputs `(N, L)` are no filling, `(N,)`."""
        return (inputs != self._pad).sum(1)  # (N,)

    def forward(self, inputs: Tensor, states: bool = False) -> Any:
        """Logits `(N, C)` of tokens `(N, L)`; with `states` also the last hidden state of the first token, `(N, D)`."""
        said = self.encoder(input_ids=inputs, attention_mask=(inputs != self._pad).long(), output_hidden_states=states)
        return (said.logits, said.hidden_states[-1][:, 0]) if states else said.logits

    @property
    def _pad(self) -> int:
        return _PAD if self.tokenizer is None else int(self.tokenizer.pad_token_id)

    def _ids(self, text: str) -> list[int]:
        if self.tokenizer is not None:
            found: list[int] = self.tokenizer(text, truncation=True, max_length=self.max_tokens)["input_ids"]
            return found
        words = _WORD.findall(text.lower())[: self.max_tokens - 1]
        return [_CLS, *(_SPECIAL + crc32(word.encode()) % (WORDS - _SPECIAL) for word in words)]

    def _of_folder(self, folder: Path, classes: int) -> Any:
        if not (folder / "config.json").is_file():
            raise ValueError(
                f"base={str(folder)!r} holds no encoder (no config.json); give a folder of one, such as a copy of "
                f"distilbert-base-uncased, or builtin:distilbert"
            )
        self.tokenizer = AutoTokenizer.from_pretrained(folder)
        settings: dict[str, Any] = {"num_labels": classes, "ignore_mismatched_sizes": True, "dtype": torch.float32}
        return AutoModelForSequenceClassification.from_pretrained(folder, **settings)

    def _take(self, file: Path) -> None:
        """Weights of a run; parameters that it did not learn stay as they are."""
        if not file.is_file():
            raise ValueError(f"weights={str(file)!r} is no file; name the adapter/module.safetensors of a run")
        held = load_file(str(file))
        own = dict(self.named_parameters())
        strange = [name for name, value in held.items() if name not in own or own[name].shape != value.shape]
        if strange:
            raise ValueError(f"weights={str(file)!r} are of another module: {strange[0]} does not fit")
        self.load_state_dict(held, strict=False)


def _builtin(base: str, classes: int) -> Any:
    """One of the tiny pair, with random weights."""
    sizes: dict[str, Any] = {"vocab_size": WORDS, "max_position_embeddings": 512, "num_labels": classes}
    if base == "builtin:bert":
        return BertForSequenceClassification(
            BertConfig(
                hidden_size=WIDTH,
                num_hidden_layers=4,
                num_attention_heads=HEADS,
                intermediate_size=4 * WIDTH,
                **sizes,
            )
        )
    if base == "builtin:distilbert":
        return DistilBertForSequenceClassification(
            DistilBertConfig(dim=WIDTH, n_layers=2, n_heads=HEADS, hidden_dim=4 * WIDTH, **sizes)
        )
    raise ValueError(f"base={base!r} is no encoder that ships; there are builtin:bert and builtin:distilbert")
