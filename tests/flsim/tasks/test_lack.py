"""Devices without an item of a split: refused only where something reads it, with the mends that are left."""

import json
import re
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import flsim
from flsim.config.load import load_config
from flsim.config.schema import Config, ConfigError
from flsim.problems.problem import SPLITS
from flsim.tasks.item import Item
from flsim.tasks.partition import by_user
from flsim.tasks.splits import split_items
from flsim.tasks.stream import stream_of


def write(folder: Path, users: int, validated: int) -> None:
    """Users with train and test items, the first few of whom have validation items, too."""
    rows = [
        {"q": f"{user}+{n}=", "a": str(user + n), "who": f"u{user}", "part": split, "kind": "ab"[n % 2]}
        for user in range(users)
        for n, split in enumerate(["train"] * 6 + ["test"] * 2 + ["dev"] * 2 * (user < validated))
    ]
    (folder / "sums.jsonl").write_text("\n".join(map(json.dumps, rows)))


def config_of(folder: Path, devices: int, *more: str) -> Config:
    columns = "{question: q, answer: a, user: who, split: part, label: kind}"
    given = [f"fleet.devices={devices}", "rounds=1", "stream.phases=[[sums]]", "data.sums.kind=files"]
    given += [f"data.sums.root={folder}", f"data.sums.settings={{files: {{all: sums.jsonl}}, columns: {columns}}}"]
    return load_config(None, [*given, *more])


def refusal(config: Config) -> str:
    with pytest.raises(ConfigError) as found:
        stream_of(config)
    return str(found.value)


BY_USER = "data.sums.partition=user"


def test_validation_items_are_demanded_where_something_reads_them(tmp_path: Path) -> None:
    """Two of six users have some: six devices can be tested, and neither validate nor set thresholds."""
    write(tmp_path, users=6, validated=2)
    config = config_of(tmp_path, 6, BY_USER)
    source = stream_of(config).data[0].source
    assert [source.size(device, "validation") for device in range(6)] == [2, 2, 0, 0, 0, 0]
    said = refusal(config_of(tmp_path, 6, BY_USER, "evaluation.split=validation"))
    assert "6 devices of 1 user(s) each, but there are 2 users with at least 1 items in every split" in said
    assert "(train, validation); fleet.devices=2 is the most that they make" in said
    rule = "client.asking.path=clients.asking.scores:Confidence"
    asking = config_of(tmp_path, 6, BY_USER, rule, "cloud.kind=oracle", f"run_dir={tmp_path / 'run'}")
    with pytest.raises(
        ConfigError, match=r"sums: 4 of 6 devices have no validation .*the asking rule Confidence reads"
    ):
        flsim.run(asking, progress=False)
    assert not (tmp_path / "run").exists()


def test_those_who_validate_are_drawn_first(tmp_path: Path) -> None:
    """So a fleet that was drawn before is drawn again."""
    write(tmp_path, users=9, validated=4)
    source = stream_of(config_of(tmp_path, 4, BY_USER)).data[0].source
    assert [source.size(device, "validation") for device in range(4)] == [2] * 4


@pytest.mark.parametrize("more", [(), ("data.sums.alpha=inf",), ("data.sums.partition=evenly",), (BY_USER,)])
def test_the_fleet_that_a_refusal_names_fits(tmp_path: Path, more: tuple[str, ...]) -> None:
    """And of deals by user or evenly one more device does not."""
    write(tmp_path, users=7, validated=7)
    said = refusal(config_of(tmp_path, 40, *more))
    named = re.search(r"fleet\.devices=(\d+) (is the most|fits)", said)
    assert named
    stream_of(config_of(tmp_path, int(named[1]), *more))
    if named[2] == "is the most":
        assert f"fleet.devices={named[1]} is" in refusal(config_of(tmp_path, int(named[1]) + 1, *more))
    assert ("is the most" in named[2]) == bool(more and "partition" in more[0])


def test_advice_is_of_what_is_not_set_already(tmp_path: Path) -> None:
    write(tmp_path, users=7, validated=7)
    plain, even, unequal = (
        refusal(config_of(tmp_path, 40, *more))
        for more in ((), ("data.sums.partition=evenly",), ("data.sums.partition=evenly", "data.sums.quantity_sigma=2"))
    )
    assert all(text in plain for text in ("partition=evenly deals", "alpha above 1"))
    assert "alpha" not in refusal(config_of(tmp_path, 40, "data.sums.alpha=inf")).replace("data.sums.alpha", "")
    assert not any(text in even for text in ("partition", "alpha", "sigma", "splits"))
    assert "a quantity_sigma below 2 makes devices more equal" in unequal
    rows = [json.loads(line) for line in (tmp_path / "sums.jsonl").read_text().splitlines()]
    (tmp_path / "sums.jsonl").write_text("\n".join(json.dumps({**row, "part": "test"}) for row in rows))
    said = refusal(config_of(tmp_path, 2, "data.sums.partition=evenly"))
    assert said.endswith("the data set has 0. splits=hash makes one of the other splits' items")
    stream_of(config_of(tmp_path, 2, "data.sums.partition=evenly", "data.sums.splits=hash"))


@settings(max_examples=30)
@given(st.lists(st.sampled_from(SPLITS), min_size=1, max_size=30), st.integers(1, 4), st.integers(0, 2))
def test_users_who_do_without_a_split_come_only_where_others_are_too_few(
    parts: list[str], devices: int, least: int
) -> None:
    items = [Item(f"q{n}", "a", user=f"u{n % 5}", split=split) for n, split in enumerate(parts)]
    splits = split_items(items)

    def dealt(needs: tuple[str, ...]) -> list[int] | None:
        try:
            found = by_user(items, splits, devices=devices, users_per_device=1, least=least, needs=needs)
        except ConfigError:
            return None
        return [int(device) for device in found.device]

    strict, loose = dealt(SPLITS), dealt(("train", "test"))
    assert strict is None or strict == loose
