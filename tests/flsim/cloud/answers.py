"""Answers of a cloud that does not fail."""

from collections.abc import Sequence

from flsim.cloud.protocol import Answer, Cloud
from flsim.problems.problem import Problem


def answered(cloud: Cloud, problems: Sequence[Problem]) -> list[Answer]:
    """One answer per problem; none may be missing."""
    answers = cloud.answer(problems)
    assert len(answers) == len(problems)
    found = [answer for answer in answers if answer is not None]
    assert len(found) == len(problems)
    return found
