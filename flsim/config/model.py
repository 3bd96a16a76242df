"""The part of the configuration that says which model devices hold, how it is asked, and what its adapters are like."""

import math
from dataclasses import dataclass, field
from typing import Any

from flsim.config.ranges import Range, above, at_least, count, day, filled, limited, one_of, tupled

AUTO = "auto"
TODAY = "2026-01-01"
"""The date that chat templates are told is today's: prompts of equal configs must be equal on every day."""
BEFORE, AFTER, ANYWHERE = "before", "after", "anywhere"
"""Where in a response the help request may stand."""
ASKS_BEFORE, ASKS_IN_BOTH = "builtin:slm", "builtin:slm_draft"
"""Built-in models by where they have learned to ask: before they answer, or after a draft as well."""
OFFER = "If you cannot solve it, reply with {help} and nothing else."
_MAP = Range(
    "auto, or a device for each layer",
    lambda value: None if isinstance(value, str | dict) else "must be auto, or name a device for each layer",
)
_STOPS = Range(
    "texts that are not empty",
    lambda value: None if all(value) else "holds an empty text, which stands everywhere; leave it out",
)


@dataclass(frozen=True)
class LoraShape:
    """What an adapter is like: its product is `scale * B A`, with B `(out, rank)` and A `(rank, in)`."""

    rank: int
    alpha: float
    rslora: bool = False
    """Whether the scale falls with the root of the rank (Kalajdzievski 2023, arXiv 2312.03732)."""

    @property
    def scale(self) -> float:
        """Alpha / r, or alpha / sqrt(r) for rsLoRA, by which the product of the factors is multiplied."""
        return self.alpha / (math.sqrt(self.rank) if self.rslora else self.rank)


@dataclass(frozen=True)
class ModelConfig:
    """The frozen base that all devices share, how it is asked, and the shape of its LoRA adapters."""

    path: str = filled("builtin:slm", "Qwen/Qwen2.5-0.5B-Instruct")
    """`builtin:slm`, `builtin:slm_draft` (it may ask after a draft), the folder of a Hugging Face decoder-only
    checkpoint, or its name at the hub, such as `Qwen/Qwen2.5-0.5B-Instruct`, with `@` and a revision if a certain one
    is meant."""
    rank: int = count(8, most=65_536)
    """LoRA rank r (peft's `LoraConfig.r`)."""
    alpha: float = above(0, 16.0)
    """LoRA alpha; the adapter is scaled by alpha / r, with `use_rslora` by alpha / sqrt(r)."""
    targets: tuple[str, ...] | None = filled(None, "[q_proj, v_proj]")
    """Names of the linear layers that carry an adapter (peft's `LoraConfig.target_modules`); None means every linear
    layer but the head, whatever the family calls them (peft's `all-linear`)."""
    lora: dict[str, Any] = field(default_factory=dict)
    """More fields of peft's `LoraConfig`, such as `{use_rslora: true}`; docs/models.md lists those that are taken."""
    dtype: str = one_of(
        "float32",
        ("float32", "bfloat16"),
        refused={"float16": "would lose small gradients, as none are scaled; choose bfloat16"},
    )
    """Of the frozen base: `float32` or `bfloat16`; adapters are float32 always."""
    device_map: Any = limited(None, _MAP)
    """Where the base's layers lie, as transformers takes it: `auto`, or such as `{model.embed_tokens: 0, ...}`; None
    puts all on the worker's device."""
    gradient_checkpointing: bool = False
    """Whether training keeps only each layer's input and computes the rest again: less memory, a third more work."""
    cuda_graphs: bool = False
    """Whether a GPU's work is captured and launched again by one call (CUDA graphs), in decoding and in passes with
    gradient: meant for small packs, where a processor may take longer to launch kernels than the card to run them. Each
    shape holds its memory, and rows that have ended are decoded along. Only where the short forward passes read, and
    with `engine.gpus`; results move in their last bits. It is off, since no card has measured it so far; `flsim
    benchmark gpu` does."""
    adapter: str | None = filled(None, "runs/demo-seed0/adapter")
    """Folder of a peft adapter to start from; None starts at B = 0."""
    max_new_tokens: int | None = count(None)
    """Longest response in tokens, the ending one included, in training, evaluation and distillation. None means what
    the built-in world needs: 9 in training, as long as its longest answer, and 12 at tests, so that an answer that is
    too long is seen to be. A `client.max_new_tokens` goes before it in training."""
    max_prompt_tokens: int | None = count(None)
    """Longest prompt in tokens; a longer one loses the beginning of its question, never its instruction or the chat's
    frame, and the run's log says so. None cuts nothing, and memory is estimated for 64 tokens with the built-in model,
    for 512 with others."""
    shared_prefix: int | None = at_least(0, None)
    """Fewest tokens of a common beginning of prompts, such as a system text with examples, that is read once for all of
    them; 0 reads every prompt whole. None means 16 where the short forward passes read (plain Llama, Mistral, Qwen2 and
    Qwen3 on one device), and 0 for other models and for the built-in world, whose questions are short."""
    help: str | None = filled(None, "<help>")
    """The help request. Where the tokenizer has it as one token, that token is the request and ends a response; else a
    response asks by ending with this text. None means the token `?` of the built-in tokenizer, else the text
    `<unknown> I need external assistance </unknown>`."""
    request: str = one_of(ANYWHERE, (BEFORE, AFTER, ANYWHERE))
    """Where in a response the help request may stand: `before`, as its beginning and nowhere else; `after`, only after
    a draft of at least one token, which is what the device says if its request is not granted; `anywhere`: no rule."""
    stop: tuple[str, ...] = limited((), _STOPS)
    """Texts that end a response, such as `["\\n"]`: it is over with the token that completes one, and what counts as
    said is what stands before it. A help request that would come later is never made."""
    offer: str | None = None
    """What tells the model that it may ask, with `{help}` where the request belongs; "" says nothing, which
    suits learners that never ask. None means a sentence of our own, but for a bare question (neither chat template nor
    instruction), which stays as it is."""
    templates: dict[str, str] = field(default_factory=dict)
    """How single tasks are worded, with the fields {instruction}, {offer}, {question} and {help}; by default
    instruction, offer and question stand one below the other, an empty line between them."""
    examples: dict[str, tuple[tuple[str, ...], ...]] = field(default_factory=dict)
    """Questions with their answers that stand before the question, by task, such as
    `{words: [["What is the opposite of hot?", cold]]}`; those under `all` are for every task that has none of its own.
    As turns of user and assistant where there is a chat template, else one below the other. `{help}` in an answer is
    the help request, so that an example can show when to ask."""
    system: str | None = None
    """System prompt of a checkpoint with a chat template; None is none."""
    chat: bool = True
    """Whether prompts are framed by the checkpoint's chat template, if it has one; else they are plain text."""
    chat_options: dict[str, Any] = field(default_factory=dict)
    """What the chat template is told beside the messages, such as `{enable_thinking: false}`."""

    date: str = day(TODAY)
    """What the chat template takes for today's date, YYYY-MM-DD, if it writes one; never the day of the run, so that a
    run that is resumed or made again on another day reads the same prompts."""

    def __post_init__(self) -> None:
        """Lists do as well as tuples."""
        object.__setattr__(self, "targets", tupled(self.targets))
        object.__setattr__(self, "stop", tupled(self.stop))
        object.__setattr__(self, "examples", tupled(self.examples))

    @property
    def shape(self) -> LoraShape:
        """Of the widest adapter, which the server keeps."""
        return self.shape_of(self.rank, self.alpha)

    def shape_of(self, rank: int, alpha: float) -> LoraShape:
        """Of an adapter with this rank and alpha."""
        return LoraShape(rank, alpha, bool(self.lora.get("use_rslora", False)))

    @property
    def drafts(self) -> bool:
        """Whether it asks after its drafts, so that these are its answers and its wish to ask is read after them.

        So it is where the setting says so. With `anywhere` it holds for the built-in model that has learned it; of any
        other, requests that follow some words are answered as if these had not been said.
        """
        return self.request == AFTER or (self.request == ANYWHERE and self.path == ASKS_IN_BOTH)

    @property
    def training_tokens(self) -> int:
        """Longest response in training, unless the client says otherwise."""
        return 9 if self.max_new_tokens is None else self.max_new_tokens

    @property
    def answer_tokens(self) -> int:
        """Longest response at tests; the longest answer of the built-in world has 9."""
        return 12 if self.max_new_tokens is None else self.max_new_tokens
