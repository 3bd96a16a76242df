"""Losses and advantages against TRL's `GRPOTrainer`, on its own tensors and to the last bit; skipped without TRL."""

from collections.abc import Callable
from itertools import product
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from flsim.learning.advantage import centred, group_scaled
from flsim.learning.losses import Clipping, PolicyLoss

# the libraries below TRL warn about each other
pytestmark = [pytest.mark.usefixtures("one_thread"), pytest.mark.filterwarnings("ignore")]

P, G, T, LENGTH = 2, 8, 7, 9  # prompts, responses each, tokens of the longest, tokens allowed

PLAIN, TWO_SIDED = Clipping(), Clipping(0.2, 0.28, 1.5)
LOSSES = [
    *(
        PolicyLoss(aggregation, level, clipping, beta, True, LENGTH)
        for aggregation, (level, clipping), beta in product(
            ("grpo", "bnpo", "dapo", "dr_grpo"),
            (("token", PLAIN), ("token", TWO_SIDED), ("sequence", TWO_SIDED)),
            (0.0, 0.04),
        )
    ),
    PolicyLoss("grpo", "token", PLAIN, 0.04, False),
    PolicyLoss("dapo", "sequence", TWO_SIDED, 0.04, False),
]
REWARDS = [
    [1.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 0.0] + [0.0] * 8,
    [0.3, 0.0, 0.0, 0.3, 1.0, 0.0, 0.3, 0.0] + [0.1] * 8,
    torch.rand(P * G, generator=torch.Generator().manual_seed(0)).tolist(),
    (100 + torch.randn(P * G, generator=torch.Generator().manual_seed(1))).tolist(),
]

TrainerOf = Callable[..., Any]


@pytest.fixture(scope="module")
def trainer_of(tiny_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> TrainerOf:
    """Builds a trainer of the tiny model; it keeps the log-probabilities that its last loss was made of."""
    trl, datasets = pytest.importorskip("trl"), pytest.importorskip("datasets")
    from transformers import AutoModelForCausalLM, AutoTokenizer

    class Recording(trl.GRPOTrainer):  # type: ignore[misc, name-defined]
        """Forward pass and loss are TRL's own; a leaf between them lets the gradient be seen."""

        def _get_per_token_logps_and_entropies(self, *given: Any, **named: Any) -> Any:
            found, *rest = super()._get_per_token_logps_and_entropies(*given, **named)
            self.logprobs = found.detach().requires_grad_()
            return self.logprobs, *rest

    prompts = datasets.Dataset.from_dict({"prompt": ["1+1="] * P})
    tokenizer = AutoTokenizer.from_pretrained(tiny_checkpoint)
    folder = str(tmp_path_factory.mktemp("trl"))

    def build(rewards: list[float], group: int = G, **settings: Any) -> Any:
        arguments = trl.GRPOConfig(
            output_dir=folder,
            use_cpu=True,
            report_to=[],
            bf16=False,
            gradient_checkpointing=False,
            per_device_train_batch_size=P * G,
            num_generations=group,
            max_completion_length=LENGTH,
            **settings,
        )
        trainer = Recording(
            model=AutoModelForCausalLM.from_pretrained(tiny_checkpoint),
            reward_funcs=lambda **columns: list(rewards),
            args=arguments,
            train_dataset=prompts,
            processing_class=tokenizer,
        )
        trainer.current_gradient_accumulation_steps = 1
        trainer.model.train()
        return trainer

    return build


def inputs_of(trainer: Any, *, on_policy: bool) -> dict[str, Tensor]:
    """P groups of G completions of 1 to T tokens, as TRL's loss takes them; ratios from about 1/2 to 2."""
    generator = torch.Generator().manual_seed(0)
    mask = torch.arange(T) < torch.randint(1, T + 1, (P * G, 1), generator=generator)
    inputs = {
        "prompt_ids": torch.randint(3, 30, (P * G, 4), generator=generator),
        "prompt_mask": torch.ones(P * G, 4, dtype=torch.long),
        "completion_ids": torch.randint(3, 30, (P * G, T), generator=generator),
        "completion_mask": mask.long(),
        "advantages": torch.randn(P * G, generator=generator),
        "num_items_in_batch": mask.sum(),
    }
    ids, attention = (
        torch.cat([inputs[f"prompt_{part}"], inputs[f"completion_{part}"]], 1) for part in ("ids", "mask")
    )
    now = trainer._get_per_token_logps_and_entropies(trainer.model, ids, attention, T)[0].detach()
    old, reference = now + 0.3 * torch.randn(2, P * G, T, generator=generator)
    inputs["ref_per_token_logps"] = reference
    return inputs if on_policy else {**inputs, "old_per_token_logps": old}


def ours(loss: PolicyLoss, logprobs: Tensor, inputs: dict[str, Tensor]) -> Tensor:
    """Our loss of a pack of one device, from TRL's tensors."""

    def packed(name: str) -> Tensor | None:
        return inputs[name].view(1, P, G, T) if name in inputs else None

    return loss.per_device(
        logprobs.view(1, P, G, T),
        inputs["advantages"].view(1, P, G),
        inputs["completion_mask"].bool().view(1, P, G, T),
        torch.ones(1, P, dtype=torch.bool),
        old=packed("old_per_token_logps"),
        reference=packed("ref_per_token_logps"),
    )[0]


@pytest.mark.parametrize("loss", LOSSES, ids=str)
def test_loss_and_gradient_equal_trls(trainer_of: TrainerOf, loss: PolicyLoss) -> None:
    trainer = trainer_of(
        [],
        loss_type=loss.aggregation,
        importance_sampling_level=loss.level,
        epsilon=loss.clipping.low,
        epsilon_high=loss.clipping.high,
        delta=loss.clipping.delta,
        beta=loss.beta,
        use_bias_correction_kl=loss.correct_kl,
    )
    for on_policy in (True, False):
        inputs = inputs_of(trainer, on_policy=on_policy)
        theirs = trainer._compute_loss(trainer.model, inputs)
        (their_gradient,) = torch.autograd.grad(theirs, trainer.logprobs)
        logprobs = trainer.logprobs.detach().clone().requires_grad_()
        found = ours(loss, logprobs, inputs)
        (gradient,) = torch.autograd.grad(found, logprobs)
        assert torch.equal(found, theirs)
        assert torch.equal(gradient, their_gradient)
        assert gradient.any()


@pytest.mark.parametrize("group", [4, G])
@pytest.mark.parametrize(("scale", "advantage"), [("group", group_scaled), ("none", centred)])
def test_advantages_equal_trls(
    trainer_of: TrainerOf, scale: str, advantage: Callable[[Tensor], Tensor], group: int
) -> None:
    rewards: list[float] = []
    trainer = trainer_of(rewards, group, scale_rewards=scale)
    for rewards[:] in REWARDS:
        theirs = trainer._generate_and_score_completions([{"prompt": "1+1="}] * (P * G))["advantages"]
        assert torch.equal(advantage(torch.tensor(rewards).view(-1, group)).flatten(), theirs)
