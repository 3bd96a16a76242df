import pickle
import subprocess
import sys

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

import flsim.seeding
from flsim.seeding import generator, python_random, seed_for

NAMES = st.lists(st.text(max_size=5) | st.integers(-50, 50), max_size=4)


@given(st.integers(-(2**40), 2**40), NAMES)
def test_a_seed_is_a_pure_function_and_fits_in_63_bits(root: int, names: list[str | int]) -> None:
    seed = seed_for(root, *names)
    assert seed == seed_for(root, *names)
    assert 0 <= seed < 2**63


def test_seeds_stay_what_they_were() -> None:
    """Two literals: a change of the formula would change every result of every run, unseen."""
    assert seed_for(0, "cohort", 3) == 4_800_819_520_670_056_574
    assert seed_for(7, "rollout", "device-007", 12, 0) == 2_482_043_662_390_550_110


def test_another_process_derives_the_same_seed() -> None:
    code = f"import runpy; print(runpy.run_path({flsim.seeding.__file__!r})['seed_for'](1, 'a', 2))"
    hashed = {"PYTHONHASHSEED": "123"}  # which would move a seed that came from Python's own hash()
    seen = subprocess.run([sys.executable, "-c", code], env=hashed, capture_output=True, text=True, check=True)
    assert int(seen.stdout) == seed_for(1, "a", 2)


def test_every_part_of_the_name_matters() -> None:
    """Names that a careless join would merge: order, borders between names, type, root, a missing last name."""
    names: list[tuple[int, tuple[str | int, ...]]] = [
        (0, ("a", "b")),
        (0, ("b", "a")),
        (0, ("ab",)),
        (0, ("a",)),
        (0, ("a", "")),
        (0, ()),
        (1, ("a",)),
        (10, ("a",)),
        (0, (1,)),
        (0, ("1",)),
        (0, (1, 2)),
        (0, (12,)),
        (0, (1, "2")),
        (-1, (1,)),
    ]
    assert len({seed_for(root, *name) for root, name in names}) == len(names)


def test_neighbouring_names_give_independent_draws() -> None:
    """1000 generators with consecutive names: their first draws are uniform and uncorrelated with their neighbour's.

    The mean of 1000 uniform numbers has the standard error 0.289 / sqrt(1000) = 0.009, their lag-1 correlation
    1 / sqrt(1000) = 0.032; the bounds are about four of each.
    """
    draws = np.array([generator(0, "rollout", number).random() for number in range(1000)])
    assert abs(draws.mean() - 0.5) < 0.037
    assert abs(np.corrcoef(draws[:-1], draws[1:])[0, 1]) < 0.13
    assert len(set(draws)) == 1000


def test_both_generators_start_from_the_seed() -> None:
    assert generator(3, "x").integers(2**60) == np.random.default_rng(seed_for(3, "x")).integers(2**60)
    first, again = python_random(3, "x"), python_random(3, "x")
    assert [first.random() for _ in range(5)] == [again.random() for _ in range(5)]
    assert python_random(3, "x").random() != python_random(3, "y").random()


def test_a_generator_leaves_the_global_ones_alone() -> None:
    before = pickle.dumps(np.random.get_state())
    generator(0, "x").random()
    python_random(0, "x").random()
    assert pickle.dumps(np.random.get_state()) == before
