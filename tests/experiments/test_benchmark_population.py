"""`flsim benchmark population`: a line a fleet, and a star where a round does not follow the cohort."""

import pytest

from experiments.benchmark import population, population_side
from experiments.benchmark.population_side import Population
from experiments.benchmark.scale_side import Memory


def found(*wall_s: float) -> Population:
    return Population(7.0, 1.0, wall_s, 2.0, Memory(2**29, 2**29, 2**30), 30 * 2**20, 40, 8)


def test_a_fleet_whose_rounds_take_another_time_than_the_smallest_s_is_marked() -> None:
    lines = population.table([1000, 1_000_000, 10], [found(1.0, 2.0, 9.0), found(2.3), found(1.5)], rounds=1)
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines.splitlines()]
    assert cells[0] == list(population._HEADER)
    assert [line[4] for line in cells[2:]] == ["1.00", "1.15", "0.75*"]
    assert cells[3][:4] == ["1,000,000", "7.0", "1.0", "2.30 (2.30..2.30)"]
    assert cells[3][5:] == ["2.0", "512", "512", "10.0", "40", "8"]


@pytest.mark.slow
def test_a_fleet_runs_in_a_process_of_its_own() -> None:
    own = population_side.measure(200_000, 4, 1)
    assert len(own.wall_s) == 1
    assert 0 < own.states <= 6
    assert own.memory.driver < 2**30
