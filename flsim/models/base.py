"""Load a base model and its tokenizer, built in, from a folder, or by its name at the hub of Hugging Face."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from flsim.config.model import AFTER, ModelConfig
from flsim.config.schema import ConfigError
from flsim.models.adapter import Adapter, initial_adapter
from flsim.models.builtin_llama import AnyModel, BuiltinLlama
from flsim.models.folder import HELP, AnyTokenizer, folder_of, is_built_in, loading, tokenizer_of
from flsim.models.forward import Forward
from flsim.models.help_request import NEVER, TEXT, HelpRequest
from flsim.models.hub import BUILTIN
from flsim.models.llama import LlamaForward, fits
from flsim.models.memory import GRAPH, keep_freed
from flsim.models.prefix import LEAST
from flsim.models.seam import Seam
from flsim.models.small.llama import SmallLlamaForward, is_small_llama
from flsim.models.static.forward import StaticForward, can_be_captured
from flsim.models.stop import NO_STOPS, Stops
from flsim.models.wording import BARE, Chat, Wording, has_chat, wording_of
from flsim.problems.problem import Problem

if TYPE_CHECKING:
    from transformers import PreTrainedModel


@dataclass(frozen=True)
class BaseModel:
    """A causal language model with what generation needs to know about its tokens, and how it is asked."""

    model: AnyModel
    tokenizer: AnyTokenizer
    pad_id: int
    eos_id: int
    """The token that ends an answer which somebody else wrote."""
    help: HelpRequest = NEVER
    more_ends: tuple[int, ...] = ()
    """Other tokens that end a response."""
    wording: Wording = BARE
    stops: Stops = NO_STOPS
    """Texts that end a response as well."""
    shared_prefix: int = 0
    """Fewest tokens of a common beginning of prompts that is read once for all; 0 reads every prompt whole."""
    checkpointing: bool = False
    """Whether training keeps the layers' inputs only and computes the rest again."""
    graph: int | None = None
    """Most bytes that a pass keeps for its backward; what is more is computed again, or passed in more parts. None is
    no limit."""
    cuda_graphs: bool = False
    """Whether decoding and passes with gradient are captured, for a model that the short way reads."""

    @property
    def help_id(self) -> int:
        """The token that asks the cloud for help and ends a response; `NO_HELP` where there is no such token."""
        return self.help.token

    def as_transformers(self) -> "PreTrainedModel":
        """The model in transformers' class, whatever it is here; adapters that are on act there, too."""
        return self.model.as_transformers() if isinstance(self.model, BuiltinLlama) else self.model

    @cached_property
    def forward(self) -> Forward:
        """How the model reads: the short way for the Llama family, the model's own for all others."""
        if self.cuda_graphs and fits(self.model):
            return StaticForward(self.model)
        return forward_of(self.model, checkpointing=self.checkpointing, graph=self.graph)

    def prompt(self, problem: Problem) -> str:
        """What the model reads of a problem; the same whether it may ask or not, since its reading is shared."""
        return self.wording.prompt(problem)

    def prompts(self, problems: Sequence[Sequence[Problem]]) -> list[list[str]]:
        """What it reads of every device's problems."""
        return [[self.prompt(problem) for problem in row] for row in problems]

    def spell(self, text: str, most: int | None = None) -> list[int]:
        """The tokens of an answer, the ending one included; of one with more than `most` the first, and so no end.

        None takes all. What stands from a stop text on is no part of an answer.
        """
        ids: list[int] = [*self.tokenizer(self.stops.cut(text), add_special_tokens=False)["input_ids"], self.eos_id]
        return ids[:most]

    def ends(self, tokens: Tensor) -> Tensor:
        """True at tokens that end a response, of any shape; the help request is not meant."""
        ending = tokens == self.eos_id
        for other in self.more_ends:
            ending |= tokens == other
        return ending


def forward_of(
    model: AnyModel, *, checkpointing: bool = False, graph: int | None = None, seam: Seam | None = None
) -> Forward:
    """How a model reads; see `LlamaForward` for what may be asked of it, and of any other only where it is cut."""
    if seam is None and graph is None and not checkpointing and is_small_llama(model):
        return SmallLlamaForward(model)
    if fits(model):
        return LlamaForward(model, checkpointing=checkpointing, graph=graph, seam=seam)
    from flsim.models.any_forward import AnyForward  # only now: transformers takes seconds

    return AnyForward(model, seam)


def load_base(
    path: str, *, dtype: str = "float32", place: str = "cpu", key: str = "model.path", asks: bool = True
) -> BaseModel:
    """Load a checkpoint with the settings of `ModelConfig` as they are; see `load_model`."""
    return load_model(ModelConfig(path=path, dtype=dtype), place=place, key=key, asks=asks)


def load_model(config: ModelConfig, *, place: str = "cpu", key: str = "model.path", asks: bool = True) -> BaseModel:
    """Load a checkpoint, frozen and in evaluation mode; the process keeps the memory of its passes (`keep_freed`).

    Args:
        config: which, and how it is asked.
        place: torch's name of the device that computes, such as `cpu` or `cuda`; `config.device_map` goes before it.
        key: the setting that the path comes from, for errors.
        asks: whether it is to be asked by `prompt`, and able to ask for help; a cloud is not.

    Raises:
        ConfigError: if there is no checkpoint, or its tokenizer cannot write the help request or end an answer.
    """
    keep_freed()
    tokenizer = tokenizer_of(config.path, key)
    help_ = _help_of(config, tokenizer, key) if asks else _built_in_help(tokenizer)
    wording = wording_of(config, tokenizer, help_.text) if asks else BARE
    model = _weights_of(config, key).eval().requires_grad_(False)
    if config.device_map is None:
        model = model.to(place)
    elif any(parameter.device.type == "meta" for parameter in model.parameters()):
        raise ConfigError(f"model.device_map={config.device_map!r} leaves layers off the devices; give it room for all")
    eos_id, *more_ends = _ends_of(config, tokenizer, model, key)
    pad_id = tokenizer.eos_token_id if tokenizer.pad_token_id is None else tokenizer.pad_token_id
    pad_id = eos_id if pad_id is None else pad_id
    checkpointing = config.gradient_checkpointing
    if checkpointing and not fits(model):
        raise ConfigError(
            f"model.gradient_checkpointing works for plain Llama, Mistral, Qwen2 and Qwen3 on one device, and "
            f"{config.path!r} is a {type(model).__name__} that reads by its own forward; leave it out and lower "
            f"client.micro_batch or engine.pack instead"
        )
    if config.cuda_graphs and not can_be_captured(model):
        raise ConfigError(
            f"model.cuda_graphs works for plain Llama, Mistral, Qwen2 and Qwen3 on one device, whose rotary angles do "
            f"not follow a text's length, and {config.path!r} is another {type(model).__name__}; leave it out"
        )
    stops = _stops_of(config, tokenizer, help_) if asks else NO_STOPS
    shared = _shared_prefix_of(config, tokenizer, model)
    graph = None if is_built_in(tokenizer.get_vocab()) or model.device.type != "cpu" else GRAPH
    ends = tuple(more_ends)
    asked = help_, ends, wording, stops, shared
    graphs = config.cuda_graphs and model.device.type != "cpu"  # the server's own model may lie elsewhere than devices'
    return BaseModel(model, tokenizer, pad_id, eos_id, *asked, checkpointing, graph, graphs)


def _shared_prefix_of(config: ModelConfig, tokenizer: AnyTokenizer, model: AnyModel) -> int:
    """As it is set; unset it is what pays, and nothing for the built-in world, whose questions are short."""
    if config.shared_prefix is None:
        return 0 if is_built_in(tokenizer.get_vocab()) or not fits(model) else LEAST
    if config.shared_prefix and not fits(model):
        raise ConfigError(
            f"model.shared_prefix works for plain Llama, Mistral, Qwen2 and Qwen3 on one device, and {config.path!r} "
            f"is a {type(model).__name__} that reads by its own forward; leave it out"
        )
    return config.shared_prefix


def _weights_of(config: ModelConfig, key: str) -> AnyModel:
    """The model with its weights; every one of them must be in the checkpoint, for others would be drawn at random."""
    if config.path.startswith(BUILTIN) and config.device_map is None:
        with loading(config.path, key):
            return BuiltinLlama(folder_of(config.path, key), getattr(torch, config.dtype))
    from transformers import AutoModelForCausalLM
    from transformers.utils import logging as transformers_logging

    transformers_logging.disable_progress_bar()
    placed: dict[str, Any] = {} if config.device_map is None else {"device_map": config.device_map}
    with loading(config.path, key if not placed else f"model.device_map={config.device_map!r} with {key}"):
        both: Any = AutoModelForCausalLM.from_pretrained(
            folder_of(config.path, key),
            dtype=getattr(torch, config.dtype),
            ignore_mismatched_sizes=True,  # so that they are told below
            output_loading_info=True,
            **placed,
        )
    model: AnyModel
    model, found = both
    wrong = [*sorted(found["missing_keys"]), *sorted(name for name, *_ in found["mismatched_keys"])]
    if wrong:
        raise ConfigError(
            f"{key}={config.path!r} cannot be loaded as a decoder-only model: {len(wrong)} of its weights are missing "
            f"or of another shape than its config.json says, first {wrong[0]}; save model and config.json together"
        )
    return model


def refuse_unspeakable(config: ModelConfig, max_new_tokens: int) -> None:
    """Refuse responses that are too short for the help request, and a token of the draft that must stand before it.

    It loads a tokenizer, but for built-in models.

    Raises:
        ConfigError: with both lengths.
    """
    if config.path.startswith("builtin:") and config.request != AFTER and not config.stop:
        return
    tokenizer = tokenizer_of(config.path)
    help_ = _help_of(config, tokenizer, "model.path")
    _stops_of(config, tokenizer, help_)  # refuses those that forbid it
    if help_.least > min(max_new_tokens, config.answer_tokens):
        after = " and stands after a draft (model.request=after)" if config.request == AFTER else ""
        raise ConfigError(
            f"the help request {help_.text!r} has {len(help_.ids)} tokens in {config.path!r}{after}, responses at most "
            f"{max_new_tokens} in training and {config.answer_tokens} at tests; set model.max_new_tokens (real tasks "
            f"need some hundred), or a shorter model.help"
        )


def _built_in_help(tokenizer: AnyTokenizer) -> HelpRequest:
    """What a cloud is kept from saying: the built-in one has learned a token for it, others know of no request."""
    vocabulary = tokenizer.get_vocab()
    return HelpRequest(HELP, (vocabulary[HELP],)) if is_built_in(vocabulary) else NEVER


def _help_of(config: ModelConfig, tokenizer: AnyTokenizer, key: str) -> HelpRequest:
    """The request as one token if the tokenizer has it as one, else as a text."""
    vocabulary = tokenizer.get_vocab()
    text = (HELP if is_built_in(vocabulary) else TEXT) if config.help is None else config.help
    if text in vocabulary:
        return HelpRequest(text, (vocabulary[text],), config.request)
    ids = tuple(tokenizer(text, add_special_tokens=False)["input_ids"]) if text.strip() == text else ()
    if not ids or str(tokenizer.decode(list(ids), skip_special_tokens=True)).strip() != text:
        raise ConfigError(
            f"{key}={config.path!r}: its tokenizer cannot write the help request {text!r}; set model.help to a token "
            "of its vocabulary, or to a text of ordinary tokens without white space around it"
        )
    return HelpRequest(text, ids, config.request)


def _stops_of(config: ModelConfig, tokenizer: AnyTokenizer, help_: HelpRequest) -> Stops:
    """The stop texts, none of which may lie within the request."""
    within = next((stop for stop in config.stop if stop in help_.text), None)
    if within is not None:
        raise ConfigError(
            f"model.stop holds {within!r}, which is part of the help request {help_.text!r}, so nobody could ask; take "
            f"another stop text, or another model.help"
        )
    return Stops(config.stop, tokenizer)


def _ends_of(config: ModelConfig, tokenizer: AnyTokenizer, model: AnyModel, key: str) -> list[int]:
    """All tokens that end a response, first the one to write oneself: the end of a turn where there is a chat."""
    turn = Chat(tokenizer, config.chat_options, today=config.date).end() if has_chat(tokenizer) else None
    named = getattr(model.generation_config, "eos_token_id", None)
    known = [turn, tokenizer.eos_token_id, *(named if isinstance(named, list) else [named])]
    ends = list(dict.fromkeys(token for token in known if token is not None))
    if not ends:
        raise ConfigError(f"{key}={config.path!r}: neither tokenizer nor generation_config names an end")
    return ends


@contextmanager
def one_thread() -> Iterator[None]:
    """Torch on one thread, as in a worker: how many there are enters the last bits of a sum."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


Extras = Callable[[BaseModel], Adapter]
"""What devices learn beside LoRA, as it is at first; a function of the base alone, so that server and workers agree."""


def first_adapter(config: ModelConfig, seed: int, extras: Extras | None = None) -> Adapter:
    """The adapter that round 1 starts from; a function of the model, the run's seed, and what the devices learn.

    Args:
        config: of the model.
        seed: of the run.
        extras: what devices learn beside LoRA; None is nothing.
    """
    base = load_model(config)
    return initial_adapter(base.model, config, seed, {} if extras is None else extras(base))
