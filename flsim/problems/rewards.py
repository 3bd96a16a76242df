"""A reward function in TRL's form as a verifier: right is a reward from a threshold on.

    def reward(prompts, completions, answer, **kwargs) -> list[float | None]

It gets lists with an entry per completion: prompts, completions, and the columns of the data set by their names
(`answer`, `solution`, `label`, `level`, and what the reader was told to `keep`). None says that it does not apply.
Whatever it needs of an item stands in the item's reference, as JSON: {"prompt": "2+2=", "columns": {"answer": "4"}}.
"""

import asyncio
import inspect
import json
import math
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from flsim.config.schema import ConfigError
from flsim.problems.judging import Judgement
from flsim.sandbox.helper import VerifierError

_TEXTS = ("prompts", "completions")
_LOGS = ("log_extra", "log_metric")
"""What TRL's trainer gives a function to log by; here nobody listens."""
_TRAINERS = ("completion_ids", "trainer_state", "environments")
"""What only TRL's trainer has."""
_PROMPT, _COLUMNS = "prompt", "columns"
_AT_ONCE = 1024  # items that it is tried on at a time
_SHOWN = 80  # characters of a text that an error shows


class RewardVerifier:
    """Takes what earns at least so much for right."""

    instruction = ""

    def __init__(
        self,
        name: str,
        function: Callable[..., Any],
        *,
        threshold: float = 1.0,
        chat: bool | None = None,
        check: bool = True,
    ) -> None:
        """A verifier of a function.

        Args:
            name: of the function, for messages: its path.
            function: with TRL's signature; a coroutine function is run to its end.
            threshold: the reward from which on a completion is right.
            chat: whether it reads chat messages, `[{"role": "assistant", "content": "..."}]`, in place of texts; None:
                whether the type of its parameter `completions` says so.
            check: whether it is called for every item's own solution before the run, so that what it raises is known,
                and items that it gives None for are left out; false for one that costs money or time.

        Raises:
            ConfigError: if it needs what only TRL's trainer has, or a threshold is no number.
        """
        if isinstance(threshold, bool) or not isinstance(threshold, int | float) or not math.isfinite(threshold):
            raise ConfigError(
                f"threshold={threshold!r} is no number; give the reward from which on a completion is right"
            )
        self.name, self.function, self.threshold, self.check = name, function, threshold, check
        parameters = inspect.signature(function).parameters.values()
        self._all = any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters)
        self._named = [p.name for p in parameters if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)]
        self._needed = [p.name for p in parameters if p.name in self._named and p.default is p.empty]
        hints = {parameter.name: str(parameter.annotation).lower() for parameter in parameters}
        self.chat = "dict" in hints.get("completions", "") if chat is None else chat
        trainers = next((needed for needed in self._needed if needed in _TRAINERS), None)
        if trainers is not None:
            raise ConfigError(
                f"the reward function {name} needs {trainers}, which only TRL's trainer has; give it a default, or "
                f"take a function of prompts, completions and columns"
            )

    def reference_of(self, prompt: str, columns: Mapping[str, Any]) -> str:
        """The reference of an item: all that the function is to know of it.

        Args:
            prompt: what the model reads.
            columns: of the item, `answer` and `solution` among them; values of None are left out.
        """
        known = {name: value for name, value in columns.items() if value is not None}
        return json.dumps({_PROMPT: prompt, _COLUMNS: known}, ensure_ascii=False)

    def verdicts(self, pairs: Sequence[tuple[str, str]]) -> list[bool]:
        """Whether each completion's reward is at least the threshold; one that it does not apply to is not right.

        Raises:
            VerifierError: if the function fails, or gives no rewards.
        """
        return [reward is not None and reward >= self.threshold for reward in self.rewards(pairs)]

    def rewards(self, pairs: Sequence[tuple[str, str]]) -> list[float | None]:
        """The rewards of `(reference, completion)` pairs; None where the function does not apply.

        Raises:
            VerifierError: as for `verdicts`.
        """
        if not pairs:
            return []
        known = [_read(reference) for reference, _ in pairs]
        prompts, completions = [prompt for prompt, _ in known], [said for _, said in pairs]
        names = dict.fromkeys(name for _, columns in known for name in columns)
        given = {name: [columns.get(name) for _, columns in known] for name in names}
        lacking = [name for name in self._needed if name not in (*_TEXTS, *_LOGS, *given)]
        if lacking:
            raise VerifierError(
                f"the reward function {self.name} needs the column {lacking[0]!r}; items have: {', '.join(given)}. "
                f"Keep it by settings.keep=[{lacking[0]}] of its data set, or give it a default"
            )
        return self._checked(self._called(prompts, completions, given), len(pairs))

    def explain(self, reference: str, completion: str) -> Judgement:
        """The verdict, and the reward."""
        (reward,) = self.rewards([(reference, completion)])
        said = "that it does not apply (None)" if reward is None else f"a reward of {reward:g}"
        return Judgement(reward is not None and reward >= self.threshold, said, wanted=f"at least {self.threshold:g}")

    def unreadable(self, references: Sequence[str]) -> list[str]:
        """Those to whose own solution the function does not apply.

        Raises:
            VerifierError: as for `verdicts`.
        """
        found = []
        for begin in range(0, len(references) if self.check else 0, _AT_ONCE):
            some = references[begin : begin + _AT_ONCE]
            rewards = self.rewards([(reference, str(_read(reference)[1].get("solution", ""))) for reference in some])
            found += [reference for reference, reward in zip(some, rewards, strict=True) if reward is None]
        return found

    def _called(self, prompts: list[str], completions: list[str], columns: Mapping[str, list[Any]]) -> Any:
        """What the function returns.

        Raises:
            VerifierError: if it raises anything, with the completion that it fails on.
        """
        try:
            return self._call(prompts, completions, columns)
        except Exception as error:  # it is anybody's
            one = self._failing(prompts, completions, columns)
            where = (
                f" for the completion {_short(completions[one])} of {_short(prompts[one])}" if one is not None else ""
            )
            said = f"{type(error).__name__}: {error}"
            raise VerifierError(
                f"the reward function {self.name} raised {said}{where}; mend it, or let it return None where it does "
                f"not apply"
            ) from error

    def _call(self, prompts: list[str], completions: list[str], columns: Mapping[str, list[Any]]) -> Any:
        texts: dict[str, Any] = {"prompts": prompts, "completions": completions}
        if self.chat:
            texts["prompts"] = [[{"role": "user", "content": text}] for text in prompts]
            texts["completions"] = [[{"role": "assistant", "content": text}] for text in completions]
        logs = {name: _ignored for name in _LOGS if name in self._needed}
        given = {**columns, **logs, **texts}
        found = self.function(**{name: value for name, value in given.items() if self._all or name in self._named})
        return _awaited(found) if inspect.isawaitable(found) else found

    def _failing(self, prompts: list[str], completions: list[str], columns: Mapping[str, list[Any]]) -> int | None:
        """The first completion that it fails on alone; None if there is none."""
        for one in range(len(prompts)):
            try:
                self._call([prompts[one]], [completions[one]], {name: [own[one]] for name, own in columns.items()})
            except Exception:
                return one
        return None

    def _checked(self, given: Any, wanted: int) -> list[float | None]:
        """What the function returned, as rewards.

        Raises:
            VerifierError: if it is no list of so many numbers.
        """
        must = f"it must return one number, or None, for each of the {wanted} completions"
        try:
            values = list(given)
        except TypeError:
            raise VerifierError(f"the reward function {self.name} returned {_short(given)}; {must}") from None
        if isinstance(given, str | Mapping) or len(values) != wanted:
            raise VerifierError(f"the reward function {self.name} returned {len(values)} rewards; {must}")
        return [self._number(value, must) for value in values]

    def _number(self, value: Any, must: str) -> float | None:
        try:
            number = math.nan if value is None else float(value)
        except (TypeError, ValueError):
            number = None
        if number is None or isinstance(value, str):
            raise VerifierError(f"the reward function {self.name} returned {_short(value)} as a reward; {must}")
        return None if math.isnan(number) else number


def _read(reference: str) -> tuple[str, dict[str, Any]]:
    """Prompt and columns of a reference; one that is a plain text, as on a command line, is the answer."""
    try:
        found = json.loads(reference)
    except ValueError:
        found = None
    if isinstance(found, dict) and found.keys() == {_PROMPT, _COLUMNS}:
        return found[_PROMPT], found[_COLUMNS]
    return "", {"answer": reference, "solution": reference}


def _awaited(coroutine: Any) -> Any:
    """What a coroutine comes to, also where a loop is running already, as in a notebook."""

    async def whole() -> Any:
        return await coroutine

    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return asyncio.run(whole())
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(asyncio.run, whole()).result()


def _ignored(*_: Any, **__: Any) -> None:
    """In place of what TRL's trainer logs by."""


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= _SHOWN else f"{text[: _SHOWN - 3]}..."
