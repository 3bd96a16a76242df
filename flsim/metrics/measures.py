"""THE table of measures: each is declared once, and every report, table, study and results page takes names of it.

A measure of your own is one more declaration, given by object or as `module:NAME` wherever names are taken
(docs/comparing.md):

    REWARD = Measure("reward", "reward", "share", "The mean reward of a user's training responses.", Trained("reward"))
"""

from collections.abc import Sequence
from difflib import get_close_matches

from flsim.config.plugins import resolve
from flsim.config.schema import ConfigError
from flsim.metrics.measure import TABLES as TABLES
from flsim.metrics.measure import Measure as Measure
from flsim.metrics.measures_of_asking import OF_ASKING
from flsim.metrics.measures_of_help import OF_HELP
from flsim.metrics.measures_of_learning import OF_LEARNING
from flsim.metrics.measures_of_systems import OF_SYSTEMS
from flsim.metrics.measures_of_users import OF_USERS

MEASURES: dict[str, Measure] = {
    measure.name: measure for measure in (*OF_LEARNING, *OF_ASKING, *OF_USERS, *OF_SYSTEMS, *OF_HELP)
}
"""All of them by name, in the order in which tables show them."""


def of_table(table: str) -> list[Measure]:
    """The measures of one table."""
    return [measure for measure in MEASURES.values() if measure.table == table]


def chosen(given: Sequence[str | Measure]) -> list[Measure]:
    """The measures that a caller named.

    Args:
        given: names of `MEASURES`, measures, or paths of measures such as `my_measures.py:REWARD`.

    Raises:
        ConfigError: for a name that there is not, a path that names no measure, or a measure of one's own that is
            called as another.
    """
    found = [_found(one) for one in given]
    for one in found:
        if MEASURES.get(one.name, one) is not one or [other.name for other in found].count(one.name) > 1:
            raise ConfigError(f"measures: there are two that are called {one.name!r}; call your own differently")
    return found


def _found(given: str | Measure) -> Measure:
    if isinstance(given, Measure):
        return given
    if ":" in given:
        found = resolve("measures", given)
        if not isinstance(found, Measure):
            raise ConfigError(f"measures={given!r} names {found!r}, which is no flsim.metrics.measures.Measure")
        return found
    if given not in MEASURES:
        near = ", ".join(get_close_matches(given, MEASURES, n=3)) or ", ".join(MEASURES)
        raise ConfigError(f"measures={given!r} is not known; did you mean {near}? One of your own is module:NAME")
    return MEASURES[given]
