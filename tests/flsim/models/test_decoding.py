from dataclasses import replace
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from transformers import GPTNeoXConfig, GPTNeoXForCausalLM, PreTrainedModel, Qwen2Config, Qwen2ForCausalLM

from flsim.config.model import ModelConfig
from flsim.models.adapter import initial_adapter
from flsim.models.base import BaseModel, load_base
from flsim.models.decoding import Completions, Prompts, encode, generate, read
from flsim.models.folder import build_tokenizer
from flsim.models.stacked_lora import StackedLora
from flsim.problems.families import FAMILIES

pytestmark = pytest.mark.usefixtures("one_thread")

QUESTIONS = ["59+6=", "'ihbd'[::-1]=", "max([17,9,32])=", "7=", "abs(27-45)="]
T = 8


@pytest.fixture(scope="module")
def base(tiny_checkpoint: Path) -> BaseModel:
    return load_base(str(tiny_checkpoint))


def another(base: BaseModel, kind: type[PreTrainedModel], config: Any, **changes: Any) -> BaseModel:
    """A random model of another architecture, with the same tokenizer."""
    sizes = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4}
    ends = {"bos_token_id": None, "eos_token_id": base.eos_id, "pad_token_id": base.pad_id}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        model = kind(config(vocab_size=len(base.tokenizer), initializer_range=0.3, **sizes, **ends, **changes))
    return replace(base, model=model.eval().requires_grad_(False))


@pytest.fixture(scope="module", params=["llama", "qwen2", "gpt_neox"])
def any_base(request: pytest.FixtureRequest, base: BaseModel) -> BaseModel:
    if request.param == "gpt_neox":  # it decodes by its own `forward`
        return another(base, GPTNeoXForCausalLM, GPTNeoXConfig)
    if request.param == "qwen2":
        return another(base, Qwen2ForCausalLM, Qwen2Config, num_key_value_heads=2)
    return base


def seeded(*seeds: int) -> list[torch.Generator]:
    return [torch.Generator().manual_seed(seed) for seed in seeds]


def sample(
    base: BaseModel, prompts: Prompts, *seeds: int, group_size: int = 6, temperature: float = 3.0
) -> Completions:
    """Hot by default, so that completions end early and late, and decoding drops rows on its way."""
    return generate(
        base,
        read(base, prompts),
        group_size=group_size,
        max_new_tokens=24,
        temperature=temperature,
        generators=seeded(*seeds),
    )


def next_logits(base: BaseModel, ids: list[int]) -> Tensor:
    """Logits `(L, V)` of one unpadded sequence, read in one go without a cache."""
    with torch.no_grad():
        logits: Tensor = base.model(input_ids=torch.tensor([ids]), use_cache=False).logits
    return logits[0]


def ends(base: BaseModel) -> tuple[int, int]:
    return base.eos_id, base.help_id


def test_greedy_equals_transformers_generate(any_base: BaseModel) -> None:
    prompts = encode(any_base, [QUESTIONS])
    ours = generate(any_base, read(any_base, prompts), group_size=1, max_new_tokens=T, temperature=0.0)
    theirs = any_base.model.generate(  # type: ignore[operator]
        prompts.ids[0],
        attention_mask=prompts.mask[0].long(),
        do_sample=False,
        max_new_tokens=T,
        eos_token_id=list(ends(any_base)),
        pad_token_id=any_base.pad_id,
    )[:, prompts.ids.shape[-1] :]
    assert torch.equal(ours.tokens[0, :, 0], theirs)
    assert len({tuple(row) for row in theirs.tolist()}) > 1  # the model does read its prompts


def test_greedy_needs_no_company(any_base: BaseModel) -> None:
    """Every question alone gives the tokens that it gives in a left-padded batch."""
    together = generate(
        any_base, read(any_base, encode(any_base, [QUESTIONS])), group_size=2, max_new_tokens=T, temperature=0.0
    )
    for p, question in enumerate(QUESTIONS):
        alone = generate(
            any_base, read(any_base, encode(any_base, [[question]])), group_size=1, max_new_tokens=T, temperature=0.0
        )
        for g in range(2):
            kept = together.tokens[0, p, g][together.mask[0, p, g]]
            assert torch.equal(kept, alone.tokens[0, 0, 0][alone.mask[0, 0, 0]])


@pytest.fixture(scope="module")
def lora(tiny_checkpoint: Path) -> tuple[BaseModel, StackedLora, Tensor]:
    """A pack of three devices with different random adapters."""
    base = load_base(str(tiny_checkpoint))
    config = ModelConfig(path=str(tiny_checkpoint), rank=2, alpha=4.0)
    like = initial_adapter(base.model, config, 0)
    rng = np.random.default_rng(0)
    adapters = [{n: rng.normal(0, 0.2, t.shape).astype(np.float32) for n, t in like.items()} for _ in range(3)]
    stacked = StackedLora(base.model, like, 2.0)
    return base, stacked, stacked.stack(adapters)


def same(first: Completions, second: Completions, *, at: int, of: int, count: int) -> bool:
    """Whether a device drew the same tokens in two packs, up to the padding after the end."""
    rows = [[c.tokens[k, :count][m].tolist() for m in [c.mask[k, :count]]] for c, k in ((first, at), (second, of))]
    return rows[0] == rows[1] and first.texts[at] == second.texts[of]


def test_a_devices_tokens_do_not_depend_on_its_pack(lora: tuple[BaseModel, StackedLora, Tensor]) -> None:
    """Neither on who shares it, nor on its place, nor on the others' number and length of prompts."""
    base, stacked, theta = lora
    own, short, many = QUESTIONS[:2], ["7="], QUESTIONS

    stacked.attach(theta[:1])
    alone = sample(base, encode(base, [own]), 10)
    for others in ([short, many], [many, short], [[], short]):
        stacked.attach(theta)
        first = sample(base, encode(base, [own, *others]), 10, 11, 12)
        assert same(alone, first, at=0, of=0, count=2)
        stacked.attach(theta[[2, 1, 0]])
        last = sample(base, encode(base, [*others, own]), 12, 11, 10)
        assert same(alone, last, at=0, of=2, count=2)
    stacked.attach(theta[1:2])
    other_adapter = sample(base, encode(base, [own]), 10)
    assert not same(alone, other_adapter, at=0, of=0, count=2)
    stacked.attach(theta[:1])
    other_seed = sample(base, encode(base, [own]), 11)
    assert not same(alone, other_seed, at=0, of=0, count=2)


def chi_square(counts: Tensor, probabilities: Tensor) -> tuple[float, int]:
    """Pearson's statistic and its degrees of freedom; tokens expected fewer than 5 times are one cell."""
    expected = probabilities * counts.sum()
    rare = expected < 5
    seen = torch.cat([counts[~rare], counts[rare].sum()[None]])
    hoped = torch.cat([expected[~rare], expected[rare].sum()[None]]).clamp(min=1e-9)
    return float(((seen - hoped) ** 2 / hoped).sum()), len(seen) - 1


@pytest.mark.parametrize("temperature", [1.0, 0.5, 2.0])
def test_sampled_frequencies_match_the_distribution(base: BaseModel, temperature: float) -> None:
    """The first and the second token of 4000 samples, against softmax(logits / temperature) of a plain forward.

    The statistic has the mean d and the variance 2 d for d degrees of freedom: the bound is four deviations. Under
    another temperature it is far outside.
    """
    prompts = encode(base, [["59+6="]])
    drawn = generate(
        base, read(base, prompts), group_size=4000, max_new_tokens=2, temperature=temperature, generators=seeded(5)
    ).tokens[0, 0]  # (G, T)
    ids = prompts.ids[0, 0].tolist()
    vocabulary = len(base.tokenizer)
    likeliest = int(drawn[:, 0].mode().values)
    assert likeliest not in ends(base)
    after = drawn[drawn[:, 0] == likeliest, 1]
    assert len(after) > 150
    for prefix, tokens in ((ids, drawn[:, 0]), ([*ids, likeliest], after)):
        counts = torch.bincount(tokens, minlength=vocabulary).double()
        logits = next_logits(base, prefix)[-1].double()
        statistic, freedom = chi_square(counts, torch.softmax(logits / temperature, -1))
        assert statistic < freedom + 4 * (2 * freedom) ** 0.5
        wrong, freedom = chi_square(counts, torch.softmax(logits / temperature * 1.7, -1))
        assert wrong > freedom + 6 * (2 * freedom) ** 0.5


def test_an_answer_alone_never_asks(base: BaseModel) -> None:
    prompts = encode(base, [QUESTIONS])
    free = sample(base, prompts, 3, group_size=60)
    assert free.asked.float().mean() > 0.02
    alone = generate(
        base, read(base, prompts), group_size=60, max_new_tokens=T, temperature=3.0, generators=seeded(3), may_ask=False
    )
    assert not alone.asked.any()
    assert not (alone.tokens == base.help_id).any()
    assert alone.logprobs.isfinite().all()


def test_a_part_of_a_reading_goes_on_as_if_it_alone_had_been_read(any_base: BaseModel) -> None:
    """Of two devices the second and the first prompt, and the third; what fills the second row says nothing."""
    rows, places = [QUESTIONS[:3], QUESTIONS[2:]], [[1, 0], [2]]
    part = read(any_base, encode(any_base, rows)).of(places)
    wanted = [[row[place] for place in own] for row, own in zip(rows, places, strict=True)]
    plain: dict[str, Any] = {"group_size": 2, "max_new_tokens": T, "temperature": 0.0, "may_ask": False}
    found = generate(any_base, part, **plain)
    assert found.texts == generate(any_base, read(any_base, encode(any_base, wanted)), **plain).texts
    assert [len(row) for row in found.texts] == [2, 1]


def test_a_bias_on_the_request_is_each_devices_own(base: BaseModel) -> None:
    """Of -inf it is as if asking were forbidden, of 0 as if there were none, far above everything asks at once."""
    prompts = encode(base, [QUESTIONS] * 3)
    settings: dict[str, Any] = {"group_size": 20, "max_new_tokens": T, "temperature": 3.0}
    bias = torch.tensor([-torch.inf, 0.0, 1e4])[:, None].repeat(1, len(QUESTIONS))  # (K, P)
    bias[2, 0] = -torch.inf
    biased = generate(base, read(base, prompts), generators=seeded(3, 3, 3), help_bias=bias, **settings)
    free = generate(base, read(base, prompts), generators=seeded(3, 3, 3), **settings)
    alone = generate(base, read(base, prompts), generators=seeded(3, 3, 3), may_ask=False, **settings)
    assert same(biased, alone, at=0, of=0, count=len(QUESTIONS))
    assert same(biased, free, at=1, of=1, count=len(QUESTIONS))
    assert not biased.asked[2, 0].any()  # a prompt with a bias of its own
    assert biased.asked[2, 1:].all()
    assert biased.mask[2, 1:].sum() == biased.asked[2, 1:].numel()  # at the first token


def test_forbidding_the_request_leaves_other_choices_as_they_were(base: BaseModel) -> None:
    """Greedy completions that do not ask are the same with asking disabled; those that would ask go on otherwise."""
    wanting = prefer_help(base, "7=")
    prompts = encode(wanting, [QUESTIONS])
    free = generate(wanting, read(wanting, prompts), group_size=1, max_new_tokens=T, temperature=0.0)
    alone = generate(wanting, read(wanting, prompts), group_size=1, max_new_tokens=T, temperature=0.0, may_ask=False)
    assert bool(free.asked[0, 3, 0])
    assert not free.asked.all()
    for p in range(len(QUESTIONS)):
        assert free.asked[0, p, 0] or free.texts[0][p] == alone.texts[0][p]


def prefer_help(base: BaseModel, question: str) -> BaseModel:
    """The model with its output layer bent just so far that it greedily asks at `question`."""
    prompt = torch.tensor([base.tokenizer(question)["input_ids"]])
    with torch.no_grad():
        read = base.model(input_ids=prompt, output_hidden_states=True)
    hidden, best = read.hidden_states[-1][0, -1], read.logits[0, -1].max()  # (d,), ()
    bent = load_base(str(base.model.name_or_path))
    head = bent.model.get_output_embeddings()
    assert isinstance(head, torch.nn.Linear)
    head.weight[base.help_id] = hidden * (best + 0.1) / (hidden @ hidden)
    return bent


def test_a_request_ends_the_completion_and_is_no_text(base: BaseModel) -> None:
    wanting = prefer_help(base, "7=")
    drawn = generate(wanting, read(wanting, encode(wanting, [["7="]])), group_size=2, max_new_tokens=T, temperature=0.0)
    assert drawn.tokens.tolist() == [[[[base.help_id]] * 2]]
    assert drawn.asked.tolist() == [[[True, True]]]
    assert drawn.texts == [[["", ""]]]


def test_filling_neither_asks_nor_speaks(base: BaseModel) -> None:
    """A device with fewer prompts than its pack has filling rows, of an `<eos>` alone; they belong to nobody."""
    wanting = prefer_help(base, "<eos>")  # asks just where the filling is
    prompts = encode(wanting, [QUESTIONS, QUESTIONS[:1], []])
    assert prompts.real.sum(1).tolist() == [5, 1, 0]
    drawn = generate(wanting, read(wanting, prompts), group_size=2, max_new_tokens=T, temperature=0.0)
    assert (drawn.tokens[~prompts.real] == wanting.pad_id).all()
    assert not drawn.mask[~prompts.real].any()
    assert not drawn.asked[~prompts.real].any()
    assert [len(row) for row in drawn.texts] == [5, 1, 0]


def test_after_the_end_there_is_masked_padding(base: BaseModel) -> None:
    drawn = sample(base, encode(base, [QUESTIONS, QUESTIONS[:2]]), 1, 2, group_size=40)
    ended = (drawn.tokens == base.eos_id) | (drawn.tokens == base.help_id)
    seen = set()
    for k, p, g in np.ndindex(2, 5, 40):
        if p >= len(drawn.texts[k]):
            continue
        tokens, mask, logprobs = drawn.tokens[k, p, g], drawn.mask[k, p, g], drawn.logprobs[k, p, g]
        places = ended[k, p, g].nonzero()[:, 0].tolist()
        length = places[0] + 1 if places else len(tokens)
        seen.add(length)
        assert len(places) <= 1
        assert mask.tolist() == [t < length for t in range(len(tokens))]
        assert (tokens[length:] == base.pad_id).all()
        assert (logprobs[length:] == 0).all()
        assert (logprobs[:length] < 0).all()
        assert bool(drawn.asked[k, p, g]) == (tokens[length - 1] == base.help_id)
    assert len(seen) > 10  # ends early and late


def test_texts_decode(base: BaseModel) -> None:
    """A text is its tokens' pieces side by side, without the ending one."""
    drawn = sample(base, encode(base, [QUESTIONS, QUESTIONS[:2]]), 1, 2)
    pieces = {i: piece for piece, i in base.tokenizer.get_vocab().items()}
    silent = {base.pad_id, base.eos_id, base.help_id}
    for k, row in enumerate(drawn.texts):
        for p, group in enumerate(row):
            for g, text in enumerate(group):
                tokens = drawn.tokens[k, p, g][drawn.mask[k, p, g]].tolist()
                assert text == "".join(pieces[token] for token in tokens if token not in silent)


def test_sampling_without_a_generator_per_device_is_refused(base: BaseModel) -> None:
    prompts = encode(base, [["7="], ["7="]])
    with pytest.raises(ValueError, match="one generator per device, 2 of them"):
        sample(base, prompts, 1)


def test_encode_pads_on_the_left(base: BaseModel) -> None:
    """`7=` has two tokens and `59+6=` five, so the first gets three of padding; the second device has filling."""
    prompts = encode(base, [["7=", "59+6="], ["7="]])
    vocabulary = base.tokenizer.get_vocab()
    seven, equals = vocabulary["7"], vocabulary["="]
    assert prompts.ids[0, 0].tolist() == [base.pad_id] * 3 + [seven, equals]
    assert prompts.mask[0, 0].tolist() == [False] * 3 + [True] * 2
    assert prompts.ids[1, 1].tolist() == [base.pad_id] * 4 + [base.eos_id]
    assert prompts.counts == (2, 1)
    assert prompts.real.tolist() == [[True, True], [True, False]]


def test_an_answer_that_is_cut_has_no_end(base: BaseModel) -> None:
    """Its end would be one that nobody had said; an answer that fits has it."""
    whole = base.spell("1234")
    assert whole[-1] == base.eos_id
    assert base.spell("1234", len(whole)) == whole
    assert base.spell("1234", len(whole) - 1) == whole[:-1]


def test_the_tokenizer_spells_every_question_and_answer() -> None:
    """Nothing of the built-in world is lost: decode(encode(text)) is the text, and no piece is unknown (`<pad>`)."""
    tokenizer, rng = build_tokenizer(), Random(0)
    for family in FAMILIES:
        for level in family.levels:
            for text in family.draw(rng, level):
                ids = tokenizer(text)["input_ids"]
                assert tokenizer.pad_token_id not in ids, text
                assert tokenizer.decode(ids) == text
