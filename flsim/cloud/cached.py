"""A cloud that is asked every question once: what it said is kept in this process, and on disk for all runs."""

from collections.abc import Sequence
from dataclasses import replace

from flsim.cloud.cache import Cache
from flsim.cloud.cloud import Answer, Cloud, Reply, text_reply
from flsim.cloud.keys import identity_of, key_of
from flsim.cloud.teacher import TEXT
from flsim.config import CloudConfig
from flsim.tasks.problem import Problem


class CachedCloud:
    """Answers of another cloud; any number of processes may share the folder."""

    def __init__(self, cloud: Cloud, config: CloudConfig, cache: Cache | None) -> None:
        """Stand before a cloud.

        Args:
            cloud: what is asked where nothing is known.
            config: what it was made from.
            cache: what was answered before, by whichever run; None keeps answers in this process only.
        """
        self.cloud = cloud
        self._cache = cache
        self._identity = identity_of(cloud, config)
        self._known: dict[bytes, Answer] = {}

    def quote(self, problem: Problem) -> Answer:
        """As the cloud has it."""
        return self.cloud.quote(problem)

    def answer(self, problems: Sequence[Problem]) -> list[Answer | None]:
        """One answer per problem, in order; of a question that is new, only the first one counts as bought.

        Raises:
            DamagedFileError: if the cache cannot be read.
        """
        keys = [key_of(self._identity, TEXT, problem) for problem in problems]
        asked: dict[bytes, Problem] = {}
        for key, problem in zip(keys, problems, strict=True):
            asked.setdefault(key, problem)
        self._look_up([key for key in asked if key not in self._known])
        new = self._ask({key: problem for key, problem in asked.items() if key not in self._known})
        self._known |= {key: replace(answer, cached=True, retries=0) for key, answer in new.items()}
        return [new.pop(key) if key in new else self._known.get(key) for key in keys]

    def _look_up(self, keys: Sequence[bytes]) -> None:
        if self._cache is not None and keys:
            found = self._cache.get(keys)
            self._known |= {key: replace(Reply.from_bytes(value).answer, cached=True) for key, value in found.items()}

    def _ask(self, problems: dict[bytes, Problem]) -> dict[bytes, Answer]:
        """Buy and keep; a question that the cloud fails at is left out, and asked again the next time."""
        if not problems:
            return {}
        said = zip(problems, self.cloud.answer(list(problems.values())), strict=True)
        answers = {key: answer for key, answer in said if answer is not None}
        if self._cache is None or not answers:
            return answers
        kept = self._cache.put({key: text_reply(answer).to_bytes() for key, answer in answers.items()})
        # where another process was first, its words are everybody's from now on
        return {key: replace(Reply.from_bytes(kept[key]).answer, retries=own.retries) for key, own in answers.items()}
