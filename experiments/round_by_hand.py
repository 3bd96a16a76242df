"""A round by hand: one device learns by DA-GRPO from its first question on, and the server takes what it learned.

A small language model on a device learns to answer questions from rewards and, in the same policy, when to ask a large
model in the cloud (Chen, Fang, Wang, Brinton 2026, arXiv 2602.00166). With x a question, y the response, r = 1 if the
final answer is right, and c = 1 if the response asks for help, the paper's problem is

    maximise  J_r(theta) = E[ r(x, y) ]   subject to   J_c(theta) = E[ c(x, y) ] <= tau

and its Lagrangian is L(theta, lambda) = J_r - lambda (J_c - tau), with the dual variable lambda >= 0 as the price of
asking. The policy climbs L by its gradient, and lambda follows the constraint (Algorithm 1):

    A = A_r - lambda A_c,   lambda <- max(0, lambda + eta (J_c - tau))

`experiments/round_by_hand.py` tells this as a straight line, from the pure functions that the engine uses, without
Flower and Ray; a test says that both end with the same bits. `python -m experiments.round_by_hand` runs it in seconds,
and settings may follow, such as `client.dual_lr=0.2`. The page has all of the file but its imports. The round is the
paper's, in which a token of the policy asks (`client.policy=token client.imitate=0 client.replay=0`); unless told
otherwise flsim's devices ask by what they have learned of their drafts ([methods](methods.md)).
"""

import re
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor

from clients.da_grpo import DaGrpo
from clients.device.world import World, load_world
from flsim.budget.ledger import Ledger
from flsim.cloud.protocol import Answer
from flsim.config.load import load_config
from flsim.config.schema import Config
from flsim.devices import device_name
from flsim.learning.adam import AdamState, fresh_state
from flsim.learning.advantage import cost_advantage, task_advantage
from flsim.learning.dual import DualRule
from flsim.learning.exact_sum import ExactSum
from flsim.models.adapter import Adapter
from flsim.models.base import one_thread
from flsim.models.decoding import Completions, Reading, encode, generate, read
from flsim.models.scoring import pull_back
from flsim.problems.judging import are_right
from flsim.problems.problem import Problem
from flsim.seeding import seed_for
from strategies.parts.server_optimizers import Average

# ## What a device has
#
# An adapter theta of n numbers (LoRA's A and B of every layer, in one row), Adam's moments, lambda, and a ledger of
# what it spends at the cloud. The base model, the cloud and the stream of questions are the `world`, equal for all
# devices. Tensors keep a first axis of devices, which is 1 here; the engine trains a pack of K at once, and nothing
# else changes. P questions are met in a step, G responses are sampled for each, and a response has at most T tokens.


@dataclass
class Device:
    """The state of one device."""

    theta: Tensor
    """`(1, n)`."""
    moments: AdamState
    dual: Tensor
    """lambda, `(1,)`."""
    ledger: Ledger
    totals: dict[str, float] = field(default_factory=dict)
    """Sums over the round: `right`, of them `alone`, `asked`, and all `responses`."""


# ## A group of responses
#
# The adapter is put on so that a gradient can come back later. The questions are read once and shared by the G
# responses of their group, which are drawn at temperature 1. A response ends with an answer or with the help request,
# one token of the vocabulary: asking is part of the policy. A response is right alone if it does not ask and its
# answer is right.


def sample(
    world: World, theta: Tensor, problems: list[Problem], method: DaGrpo, seed: int
) -> tuple[Reading, Completions]:
    """G responses to each question, drawn by a generator of their own."""
    world.lora.attach(theta, train=True)
    reading = read(world.base, encode(world.base, world.base.prompts([problems])))  # logits (P, V)
    source = torch.Generator().manual_seed(seed)
    longest = method.max_new_tokens
    completions = generate(
        world.base, reading, group_size=method.group_size, max_new_tokens=longest, temperature=1.0, generators=[source]
    )  # tokens, mask and logprobs (1, P, G, T), asked (1, P, G)
    return reading, completions


def right_by_itself(problems: list[Problem], completions: Completions) -> Tensor:
    """1 where a response is right without the cloud, `(1, P, G)`."""
    said = [(problem, text) for problem, group in zip(problems, completions.texts[0], strict=True) for text in group]
    right = torch.tensor(are_right(said)).view_as(completions.asked)  # (1, P, G)
    return (right & ~completions.asked).float()  # (1, P, G)


# ## The cloud, under the ledger
#
# At most one query per question goes to the cloud, and all responses of the group that ask share its answer. Before,
# the ledger reserves the largest size that the exchange can come to; a query that does not fit under the caps is
# refused, and the device answers alone, greedily, with the help request ruled out. Afterwards the ledger gets back
# what was not used. The cloud of this round never fails; the engine cancels the reservation of a query that did.


def ask(world: World, ledger: Ledger, problems: list[Problem], wanted: Sequence[int], longest: int) -> Tensor:
    """1 at questions whose wish for help ends with a right answer, `(P,)`."""
    prices = world.config.cloud
    quotes: dict[int, Answer] = {}
    for p in wanted:
        quote = world.cloud.quote(problems[p])
        if ledger.reserve(quote.tokens, quote.money(prices)):
            quotes[p] = quote
    texts: dict[int, str] = {}
    for (p, quote), answer in zip(quotes.items(), world.cloud.answer([problems[p] for p in quotes]), strict=True):
        assert answer is not None
        ledger.give_back(quote.tokens - answer.tokens, quote.money(prices) - answer.money(prices))
        texts[p] = answer.text
    refused = [p for p in wanted if p not in quotes]
    if refused:
        with torch.no_grad():
            reading = read(world.base, encode(world.base, world.base.prompts([[problems[p] for p in refused]])))
            alone = generate(world.base, reading, group_size=1, max_new_tokens=longest, temperature=0.0, may_ask=False)
        texts |= {p: text for p, (text,) in zip(refused, alone.texts[0], strict=True)}
    helped = torch.zeros(len(problems))  # (P,)
    helped[list(texts)] = torch.tensor(are_right([(problems[p], text) for p, text in texts.items()])).float()
    return helped


# ## The dual advantage
#
# The advantage of a response is how much better it is than its group, less lambda times how much dearer it is:
#
#     A = A_r - lambda A_c,   A_r = G / (G - 1) (r - mean of the group),   A_c likewise of the costs c
#
# The factor makes the estimate unbiased although a response is part of its own mean.
#
# Neither part is divided by its standard deviation, or lambda would mean something else in every group. As the
# settings are here, three guards go beyond the paper: costs are compared over all P G responses
# (`cost_baseline`), the price answers at once to this step's own usage (`dual_gain`), and it stays below the largest
# reward (`dual_max`).


def dual_advantage(rewards: Tensor, costs: Tensor, dual: Tensor, tau: float, method: DaGrpo) -> tuple[Tensor, Tensor]:
    """`A` `(1, P, G)` from rewards and costs `(1, P, G)` and lambda `(1,)`, and the next lambda `(1,)`."""
    usage = costs.sum((1, 2)) / costs[0].numel()  # (1,), J_c
    rule = DualRule(method.dual_lr, method.dual_gain, method.dual_max)
    price = rule.price(dual, usage, tau)  # (1,), lambda itself where dual_gain is 0
    dearer = cost_advantage(costs, baseline=method.cost_baseline, tau=tau)  # (1, P, G)
    advantage = task_advantage(rewards) - price[:, None, None] * dearer  # (1, P, G)
    return advantage, rule.ascend(dual, usage, tau)  # max(0, lambda + eta (J_c - tau))


# ## One step
#
# The loss is that of the plain on-policy policy gradient, the mean of -A log pi(y | x) over all responses. Its
# gradient with respect to the log-probabilities of the tokens is known before any second pass through the model;
# `pull_back` carries it on to the adapter, and Adam takes one step. Only tokens that the policy sampled itself have a
# gradient, the cloud's words have none. Then lambda rises if usage was above tau, and falls if it was below.


def step_by_hand(world: World, device: Device, method: DaGrpo, step: int) -> None:
    """One local step of device 0 in round 1."""
    seed, name = world.config.seed, device_name(0)
    count = world.stream.prompts_per_step(name, method.prompts)
    problems = world.stream.training_problems(name, 1, step, count=count, seed=seed)  # P questions
    reading, completions = sample(world, device.theta, problems, method, seed_for(seed, "rollout", name, 1, step))

    costs = completions.asked.float()  # (1, P, G)
    alone = right_by_itself(problems, completions)  # (1, P, G)
    wanted = [p for p, group in enumerate(completions.asked[0].tolist()) if any(group)]
    helped = ask(world, device.ledger, problems, wanted, method.max_new_tokens)  # (P,)
    right = alone + costs * helped[:, None]  # (1, P, G), whoever answered
    rewards = alone + method.help_reward * (right - alone)  # (1, P, G); help_reward is alpha_c, 1 by default
    advantage, dual = dual_advantage(rewards, costs, device.dual, device.ledger.budget.tau, method)

    logprobs = completions.logprobs.clone().requires_grad_()  # (1, P, G, T), zero after the end
    loss = -(advantage * logprobs.sum(-1)).sum() / advantage.numel()
    (pull,) = torch.autograd.grad(loss, logprobs)  # (1, P, G, T)
    gradient = pull_back(world.base, world.lora, reading, completions, pull, temperature=1.0)  # (1, n)
    method.adam.step(device.theta, gradient, device.moments)  # theta moves in place
    device.dual = dual
    sums = {"right": right, "alone": alone, "asked": costs, "responses": torch.ones_like(costs)}
    device.totals = {key: device.totals.get(key, 0.0) + float(each.sum()) for key, each in sums.items()}


# ## The round
#
# The device gets the server's adapter, takes its steps, and sends its adapter back. The server adds the mean of what
# the devices moved, weighted by their questions (FedAvg); of one device the mean is its own. Moments, lambda and the
# ledger stay on the device and wait for the next round.


def round_by_hand(config: Config) -> tuple[Adapter, Device]:
    """The server's adapter after round 1, and the device as it waits for round 2."""
    method = DaGrpo(**{name: value for name, value in config.client.items() if name != "path"})
    world = load_world(config)
    theta = world.lora.stack([world.first])  # (1, n)
    dual = torch.tensor([method.dual_init])  # (1,)
    device = Device(theta, fresh_state(1, theta.shape[1]), dual, Ledger(config.budget))
    for step in range(method.steps):
        step_by_hand(world, device, method, step)

    (learned,) = world.lora.unstack(device.theta)  # A and B of every layer, by tensor name
    total = ExactSum()
    total.add(device.totals["responses"] / method.group_size, {n: learned[n] - old for n, old in world.first.items()})
    return Average().step(world.first, total.mean()), device


# ## Where it goes from here
#
# | here | in flsim |
# |---|---|
# | `step_by_hand` | `clients/reinforcement.py`, for any method; what is DA-GRPO's own, `clients/da_grpo.py` |
# | `sample`, `ask` | `clients/device/rollout.py`, for a pack of devices |
# | `Device` | `clients/device/device.py`, with what Flower keeps of it |
# | `round_by_hand` | `flsim/loop/rounds.py`; the server's part, `strategies/fedavg.py` |
#
# Change a number in `SETTINGS` or a line above, and run it again; then write the same as a method of its own
# ([methods](methods.md)), and it runs on a fleet.

SETTINGS = (
    "rounds=1",
    "fleet.devices=1",
    "stream.phases=[[arithmetic,numbers]]",
    "budget.tau=0.3",
    "client.policy=token",
    "client.dual_lr=0.1",
    "client.imitate=0",
    "client.replay=0",
    "strategy.path=strategies.fedavg:FedAvg",
    "engine.kind=local",
)


def page() -> str:
    """docs/round.md: the comments of this file as prose, and the rest as code."""
    source = Path(__file__).read_text().partition("\nSETTINGS = ")[0]
    _, opening, body = source.split('"""', 2)
    title, _, rest = opening.partition(": ")
    parts, code = [f"# {title}", f"{rest[0].upper()}{rest[1:].rstrip()}"], list[str]()
    prose = body.index("\n# ## ")  # what is above are imports
    for block in re.split("\n{2,}", body[prose:].strip()):
        if block.startswith("# "):
            parts += [f"```python\n{chr(10).join(code).strip()}\n```"] if code else []
            parts.append("\n".join(line[2:] for line in block.splitlines()))
            code = []
        else:
            code += [*block.splitlines(), ""]
    return "\n\n".join(parts) + "\n"


def main(arguments: Sequence[str]) -> None:
    """Run the round with settings such as `seed=1` and print what it came to; `--page` prints docs/round.md."""
    if list(arguments) == ["--page"]:
        print(page(), end="")
        return
    with one_thread():
        _, device = round_by_hand(load_config(None, [*SETTINGS, *arguments]))
    spent = device.ledger.round
    right, alone, asked, responses = device.totals.values()
    print(f"of {responses:.0f} responses {asked:.0f} asked, {right:.0f} ended right, {alone:.0f} of them alone")
    print(f"lambda {float(device.dual):.3f}; {spent.calls} calls, {spent.tokens} tokens, {spent.refused} refused")


if __name__ == "__main__":
    main(sys.argv[1:])
