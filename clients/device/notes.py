"""What a device measures while it learns: sums per task over the round, handed over as rows."""

from collections import defaultdict
from collections.abc import Sequence

from torch import Tensor

from clients.device.device import Device
from clients.device.rollout import Rollout
from flsim.cloud.journal import TRAINING, lost_facts
from flsim.cloud.protocol import Basket
from flsim.cloud.tariff import trip_facts
from flsim.flower.messages import DeviceUpdate
from flsim.metrics.rows import WEIGHED, Row
from flsim.models.adapter import Adapter
from flsim.problems.families import relative_difficulty
from flsim.problems.problem import Problem


class Notes:
    """The sums of one device and round; every entry is a (total, weight) pair per task and name."""

    def __init__(self, device: Device, *, counts_cloud: bool = False) -> None:
        """Begin a round.

        Args:
            device: whose.
            counts_cloud: whether the cloud can fail and is really paid, so that there are rows of both.
        """
        self._sums: dict[tuple[str, str], list[float]] = defaultdict(lambda: [0.0, 0.0])
        self._where = (device.round, device.name)
        self._counts_cloud = counts_cloud
        self.prompts = 0
        self.effective_groups = 0

    def add(self, k: int, problems: Sequence[Problem], rollout: Rollout, advantage: Tensor) -> None:
        """Enter one step of the pack's device `k`; the advantages are `(K, P, G)`."""
        group = rollout.asked.shape[-1]
        sums = tuple(of[k].sum(-1).tolist() for of in (rollout.asked, rollout.right, rollout.right_alone))  # (P,) each
        explored = None if rollout.explored is None else rollout.explored[k].tolist()  # (P,)
        if explored is not None:  # sent as if all had asked
            sums = ([asked + group * one for asked, one in zip(sums[0], explored, strict=True)], *sums[1:])
            for problem, one in zip(problems, explored, strict=False):
                self._note(problem.task, "explored", group * one, group)
        if rollout.weighing is not None:
            weights = rollout.weights[k].tolist(), rollout.whole[k].tolist()  # (P,) each
            for problem, asked, weight, whole in zip(problems, sums[0], *weights, strict=False):
                self._note(problem.task, WEIGHED, asked * weight, group * whole)
        for (at, p), share in rollout.help.shares.items():
            if at == k:
                self._note(problems[p].task, "help_share", share, 1)
        for problem, asked, right, alone in zip(problems, *sums, strict=False):  # beyond the problems lies filling
            self._note(problem.task, "reward", right, group)
            self._note(problem.task, "alone_reward", alone, group)
            self._note(problem.task, "cloud_requests", asked, group)
            self._note(problem.task, "unanimous_groups", float(asked in (0, group)), 1)
            self._note(problem.task, "difficulty", relative_difficulty(problem), 1)
        self.prompts += len(problems)
        self.effective_groups += int((advantage[k, : len(problems)] != 0).any(-1).sum())

    def add_sent(self, problems: Sequence[Problem], sent: Sequence[bool], right: Sequence[bool]) -> None:
        """Enter one step of a device that samples nothing: which prompts it sent, and where the cloud was right."""
        for problem, asked, helped in zip(problems, sent, right, strict=True):
            self._note(problem.task, "reward", float(helped), float(asked))
            self._note(problem.task, "cloud_purchases", float(asked), 1)
            self._note(problem.task, "difficulty", relative_difficulty(problem), 1)
        self.prompts += len(problems)
        self.effective_groups += sum(right)

    def update(self, device: Device, adapter: Adapter) -> DeviceUpdate:
        """The device's update with everything that was noted."""
        spent = device.ledger.round
        for name, value in (
            ("dual_variable", device.dual),
            ("cloud_calls", spent.calls),
            ("cloud_tokens", spent.tokens),
            ("cloud_money", spent.money),
            ("cloud_refused", spent.refused),
            ("effective_groups", self.effective_groups),
        ):
            self._note("all", name, float(value), 1)
        for name, value in trip_facts(device.tariff, spent).items():
            self._note("all", name, value, 1)
        for name, pair in device.counts.facts(device.basket).items():
            self._note("all", name, *pair)
        facts = cloud_facts(device.basket) if self._counts_cloud else {}
        for name, value in (facts | lost_facts(device.journal.left(TRAINING))).items():
            self._note("all", name, value, 1)
        rewards = [pair for (_, name), pair in self._sums.items() if name == "reward"]
        reward = sum(total for total, _ in rewards) / max(1.0, sum(weight for _, weight in rewards))
        rows = tuple(
            Row(*self._where, task, "train", "own", name, total, weight)
            for (task, name), (total, weight) in self._sums.items()
        )
        return DeviceUpdate(device.index, adapter, self.prompts, reward, rows, self.effective_groups)

    def _note(self, task: str, name: str, total: float, weight: float) -> None:
        pair = self._sums[task, name]
        pair[0] += total
        pair[1] += weight


def cloud_facts(basket: Basket) -> dict[str, float]:
    """What becomes rows where the cloud can fail and is really paid; `cloud_failures` alone may enter a result."""
    return {"cloud_failures": basket.failures, "cloud_retries": basket.retries, **basket.bought_facts()}
