"""`flsim benchmark population`: a line a fleet, and a star where a round does not follow the cohort."""

import pytest

from experiments.benchmark import population, population_side
from experiments.benchmark.population_side import Population
from experiments.benchmark.scale_side import Memory


def found(cpu_s: float, *wall_s: float) -> Population:
    return Population(7.0, 1.0, wall_s, cpu_s, 2.0, Memory(2**29, 2**29, 2**30), 30 * 2**20, 40, 8)


def test_a_fleet_whose_rounds_take_another_time_than_the_smallest_s_is_marked() -> None:
    lines = population.table(
        [1000, 1_000_000, 10], [found(4.0, 1.0), found(4.6, 2.0, 1.0, 9.0), found(3.0, 1.5)], rounds=2
    )
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines.splitlines()]
    assert cells[0] == list(population._HEADER)
    assert [line[5] for line in cells[2:]] == ["1.00", "1.15", "0.75*"]
    assert cells[3][:5] == ["1,000,000", "7.0", "1.0", "2.00 (1.00..9.00)", "2.30"]
    assert cells[3][6:] == ["2.0", "512", "512", "7.5", "40", "8"]


@pytest.mark.slow
def test_a_fleet_runs_in_a_process_of_its_own() -> None:
    own = population_side.measure(200_000, 4, 1)
    assert len(own.wall_s) == 1
    assert 0 < own.states <= 6
    assert own.memory.driver < 2**30
