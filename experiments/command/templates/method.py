"""MyMethod: say here in a sentence what is new about it; docs/methods.md says what else a learner may do.

flsim run demo rounds=4 client.path=my_method.py:MyMethod client.price=0.3 run_dir=runs/my_method
"""

from dataclasses import dataclass

from torch import Tensor

from clients.device.pack import Pack
from clients.device.rollout import Rollout
from clients.reinforcement import Reinforcement


@dataclass(frozen=True)
class MyMethod(Reinforcement):
    """Policy gradient on what a response is worth: right answers count, and asking the cloud has a fixed price."""

    price: float = 0.2
    """What asking costs, in units of a right answer; a field is a setting, here `client.price=...`."""

    def advantage(self, pack: Pack, rollout: Rollout) -> Tensor:
        """How much better each response is than the others to its prompt; this is what makes a method.

        `rollout.right` says which responses are right, the cloud's included, and `rollout.asked` which asked it: both
        `(K, P, G)`, for K devices, P prompts of each, and G responses to each prompt.
        """
        worth = rollout.right - self.price * rollout.asked  # (K, P, G)
        return worth - worth.mean(-1, keepdim=True)  # (K, P, G)
