"""A cloud that costs money, for who must not pay: all of it but answers, so that those that are kept are all there are.

The cache stands before it (`flsim/cloud/make.py`), and a journal before that: what they hold is given, and a question
that they lack ends the run with a sentence.
"""

from collections.abc import Mapping, Sequence
from typing import Never

from flsim.cloud.more_help import Beginning, Continuation, Draft, Verified, going_on, verifying
from flsim.cloud.protocol import Answer, Cloud, RefusedError
from flsim.problems.problem import Problem


class Unpaid(Cloud):
    """Another cloud that is never asked."""

    def __init__(self, cloud: Cloud, mend: str) -> None:
        """Stand in its place.

        Args:
            cloud: that is not to be asked.
            mend: what to do where an answer is missing, for people.
        """
        self.cloud, self.mend = cloud, mend
        self.costs, self.access, self.shared, self.reach = cloud.costs, cloud.access, cloud.shared, cloud.reach

    @property
    def reads_drafts(self) -> bool:
        """As the cloud has it."""
        return self.cloud.reads_drafts

    def quote(self, problem: Problem) -> Answer:
        """As the cloud has it."""
        return self.cloud.quote(problem)

    def identity(self) -> Sequence[object]:
        """As the cloud has it, so that a cache finds its answers."""
        return self.cloud.identity()

    def answer(self, problems: Sequence[Problem]) -> list[Answer | None]:
        """No answer.

        Raises:
            RefusedError: with the mend, unless nothing is asked.
        """
        return self._lacking(len(problems), "questions") if problems else []

    def go_on(self, beginnings: Sequence[Beginning], tokens: int) -> list[Continuation | None]:
        """Nothing.

        Raises:
            RefusedError: with the mend, unless nothing is asked.
        """
        going_on(self.cloud)
        return self._lacking(len(beginnings), "beginnings of answers") if beginnings else []

    def verify(self, drafts: Sequence[Draft], rule: str, temperature: float) -> list[Verified | None]:
        """Nothing.

        Raises:
            RefusedError: with the mend, unless nothing is asked.
        """
        verifying(self.cloud)
        return self._lacking(len(drafts), "drafts") if drafts else []

    @property
    def vocabulary(self) -> Mapping[str, int]:
        """As the cloud has it."""
        return verifying(self.cloud).vocabulary

    def said(self, tokens: Sequence[int]) -> str:
        """As the cloud has it."""
        return verifying(self.cloud).said(tokens)

    def _lacking(self, count: int, what: str) -> Never:
        raise RefusedError(
            f"{count} {what} to {type(self.cloud).__name__}, which costs money, are not among the answers that are "
            f"kept; {self.mend}"
        )

    def for_worker(self, workers: int) -> Cloud:
        """Nor does a worker pay."""
        return Unpaid(self.cloud.for_worker(workers), self.mend)

    def for_server(self) -> Cloud:
        """Nor does a server."""
        return Unpaid(self.cloud.for_server(), self.mend)
