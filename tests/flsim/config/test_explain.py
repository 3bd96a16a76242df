"""Every key is told with its type, default, range and meaning, all from one place."""

from dataclasses import dataclass, replace

import pytest

from flsim.config.explain import SECTION, Key, fields_of, refuse_out_of_range
from flsim.config.load import settings_of
from flsim.config.ranges import ConfigError, Range, above, count, number, one_of
from flsim.config.schema import Config, DataConfig, FleetConfig
from flsim.config.system import ClassConfig, LinkConfig, SystemConfig


@dataclass(frozen=True)
class _Part:
    """A part."""

    size: int | None = count(None)
    """How many letters it has. More is said here."""
    speed: float = above(0, 2.5)
    """SGD's own
    step."""
    bare: str = ""


@dataclass(frozen=True)
class _Whole:
    """A whole."""

    part: _Part = _Part()
    mood: str = one_of("good", ("good", "bad"), refused={"so": "is neither"})
    """How it feels."""


def test_keys_are_told_as_their_dataclasses_define_them() -> None:
    assert list(fields_of(_Whole)) == [
        Key("part", SECTION, None, None, "A part."),
        Key("part.size", "int | None", None, "at least 1", "How many letters it has. More is said here."),
        Key("part.speed", "float", 2.5, "above 0", "SGD's own step."),
        Key("part.bare", "str", "", None, ""),
        Key("mood", "str", "good", "one of: good, bad", "How it feels."),
    ]


def test_the_keys_of_a_config_are_all_told() -> None:
    """Those that a run writes, and those of a data set under a name; each has a meaning, and its default is allowed."""
    told = {key.name: key for key in fields_of()}
    system = SystemConfig(classes={"NAME": ClassConfig()}, links={"NAME": LinkConfig()})
    written = settings_of(Config(data={"NAME": DataConfig()}, system=system))
    plain = {key for key in written if key.split(".")[0] not in ("client", "strategy")}
    leaves = {name for name, key in told.items() if key.type != SECTION}
    assert plain <= leaves
    assert all(isinstance(told[name].default, dict) for name in leaves - plain)
    assert not [name for name, key in told.items() if not key.meaning]
    refuse_out_of_range(Config())


@pytest.mark.parametrize(
    ("part", "said"),
    [
        (_Part(size=0), "part.size=0 must be at least 1, or left out: how many letters it has"),
        (_Part(speed=0.0), "part.speed=0.0 must be above 0: SGD's own step"),
        (_Part(speed=float("nan")), "part.speed=nan must be a number, which nan is not"),
    ],
)
def test_a_value_out_of_range_is_refused_with_what_the_setting_is(part: _Part, said: str) -> None:
    with pytest.raises(ConfigError) as caught:
        refuse_out_of_range(_Whole(part))
    assert str(caught.value) == said


def test_words_that_are_not_known_or_have_a_reason_of_their_own() -> None:
    with pytest.raises(ConfigError, match=r"^mood='blue' is not known; choose one of: good, bad$"):
        refuse_out_of_range(_Whole(mood="blue"))
    with pytest.raises(ConfigError, match=r"^mood='so' is neither$"):
        refuse_out_of_range(_Whole(mood="so"))


def test_a_list_is_looked_at_one_by_one() -> None:
    refuse_out_of_range(Config(fleet=FleetConfig(ranks=(1, 8))))
    with pytest.raises(ConfigError, match=r"fleet\.ranks=\[4, 0\] must each be at least 1: LoRA ranks of the devices"):
        refuse_out_of_range(Config(fleet=FleetConfig(ranks=(4, 0))))


def test_data_sets_are_looked_at_under_their_names() -> None:
    wrong = replace(Config(), data={"sums": DataConfig(), "more": DataConfig(alpha=-1.0)})
    with pytest.raises(ConfigError, match=r"data\.more\.alpha=-1\.0 must be at least 0"):
        refuse_out_of_range(wrong)


@pytest.mark.parametrize(
    ("allowed", "inside", "outside"),
    [
        (number(0, 1), (0, 0.5, 1), (-0.01, 1.01, float("nan"), float("inf"))),
        (number(0, above=True), (1e-300, float("inf")), (0, -1, float("nan"))),
        (number(2, finite=True), (2, 1e300), (1.99, float("inf"), float("nan"))),
    ],
)
def test_ranges_hold_their_ends(allowed: Range, inside: tuple[float, ...], outside: tuple[float, ...]) -> None:
    assert [allowed.complaint(value) for value in inside] == [None] * len(inside)
    assert None not in [allowed.complaint(value) for value in outside]


def test_a_setting_that_may_be_left_out_passes_as_none() -> None:
    for settings in (_Part(size=None), FleetConfig(cohort=None)):
        refuse_out_of_range(settings)
    with pytest.raises(ConfigError, match="cohort=0"):
        refuse_out_of_range(FleetConfig(cohort=0))
