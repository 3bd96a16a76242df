"""The server's own questions: their split, their groups, and how evenly they are drawn."""

from collections import Counter
from random import Random

from hypothesis import given
from hypothesis import strategies as st

from flsim.problems.families import FAMILIES, TASKS
from flsim.problems.problem import SPLITS, split_of
from flsim.tasks.stream import proxy_problems


@given(st.lists(st.sampled_from(TASKS), min_size=1, unique=True), st.sampled_from(SPLITS), st.integers(0, 40))
def test_groups_in_turn_questions_of_the_split_and_none_twice(groups: list[str], split: str, count: int) -> None:
    problems = proxy_problems(groups, split, count=count, rng=Random(count))
    assert len({problem.question for problem in problems}) == len(problems) == count
    assert all(split_of(problem.question) == split for problem in problems)
    shares = Counter(problem.task for problem in problems)
    assert max(shares[group] for group in groups) - min(shares[group] for group in groups) <= 1
    assert set(shares) <= set(groups)


def test_families_and_levels_are_equally_likely() -> None:
    """3000 arithmetic questions: 1000 of each of three families (sd 26), and 500 of each level of multiply (sd 20)."""
    problems = proxy_problems(["arithmetic"], "train", count=3000, rng=Random(0))
    families = Counter(problem.family for problem in problems)
    assert set(families) == {family.name for family in FAMILIES if family.task == "arithmetic"}
    assert all(abs(families[name] - 1000) < 300 for name in families)  # short questions run out: none comes twice
    few = Counter(problem.family for problem in proxy_problems(["arithmetic"], "train", count=300, rng=Random(0)))
    assert all(abs(few[name] - 100) < 5 * 8.2 for name in few)
