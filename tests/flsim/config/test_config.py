import math
import re
from dataclasses import fields, is_dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flsim.config.load import differences, load_config, to_yaml
from flsim.config.model import ModelConfig
from flsim.config.schema import (
    DIVISIONS,
    ENGINE_KINDS,
    SCHEDULES,
    BudgetConfig,
    CloudConfig,
    Config,
    ConfigError,
    EngineConfig,
    EvaluationConfig,
    FleetBudgetConfig,
    FleetConfig,
    StreamConfig,
)
from flsim.loop.checks import check
from flsim.problems.families import TASKS


def complaint(*overrides: str, path: Path | None = None) -> str:
    with pytest.raises(ConfigError) as caught:
        check(load_config(path, overrides))
    return str(caught.value)


@pytest.mark.parametrize(
    ("override", "key", "given_value", "allowed"),
    [
        ("rounds=many", "rounds=", "'many'", "must be a whole number"),
        ("rounds=2.5", "rounds=", "'2.5'", "must be a whole number"),
        ("budget.tau=high", "budget.tau=", "'high'", "must be a number"),
        ("budget.tau=1.5", "budget.tau", "1.5", "[0, 1]"),
        ("budget.tau=-0.1", "budget.tau", "-0.1", "[0, 1]"),
        ("budget.tau=.nan", "budget.tau", "nan", "must be a number"),
        ("budget.calls_total=-1", "budget.calls_total=-1", "must be", "at least 0"),
        ("budget.fleet.tokens_total=-1", "budget.fleet.tokens_total=-1", "must be", "at least 0"),
        (
            "budget.fleet.money_total=.inf",
            "budget.fleet.money_total=inf",
            "must be",
            "at least 0 and finite, or left out",
        ),
        ("budget.fleet.division=fairly", "budget.fleet.division", "'fairly'", "equally, traffic, price"),
        ("budget.fleet.price_lr=0.1", "budget.fleet.price_lr=0.1", "no effect", "budget.fleet.division=price"),
        ("budget.fleet.calls=3", "'budget.fleet.calls'", "unknown key", "did you mean budget.fleet.calls_total?"),
        ("stream.schedule=steps", "stream.schedule", "'steps'", "switch, staggered, ramp, recurring"),
        ("stream.phases=[[geometry]]", "stream.phases[0]", "'geometry'", "arithmetic, strings, numbers, lists"),
        ("stream.phases=[[lists],[]]", "stream.phases[1]", "empty", "arithmetic, strings, numbers, lists"),
        ("stream.phases=[]", "stream.phases", "empty", "at least one list of tasks"),
        ("stream.schedule=recurring", "stream.schedule=recurring", "stream.phase_rounds", "after how many rounds"),
        ("model.targets=[]", "model.targets", "is empty", "such as [q_proj, v_proj]"),
        ("model.alpha=0", "model.alpha=0", "above 0", "scaled by alpha / r"),
        ("stream.phase_rounds=0", "stream.phase_rounds=0", "must be", "at least 1"),
        ("stream.lag_rounds=-1", "stream.lag_rounds=-1", "must be", "at least 0"),
        ("stream.quantity_sigma=-1", "stream.quantity_sigma=-1", "must be", "at least 0"),
        ("stream.alpha=0", "stream.alpha=0", "must be", "above 0"),
        ("cloud.kind=gpt", "cloud.kind", "'gpt'", "cloud.path=flsim.cloud.endpoint:Endpoint"),
        ("engine.kind=dask", "engine.kind", "'dask'", "ray, local"),
        ("engine.gpus=-1", "engine.gpus=-1", "must be", "at least 0"),
        ("engine.gpus=0.4", "engine.gpus=0.4", "1/k or a whole number", "the nearest is 1/2 (0.5)"),
        ("engine.gpus=0.6", "engine.gpus=0.6", "1/k or a whole number", "the nearest is 1/2 (0.5)"),
        ("engine.gpus=0.3", "engine.gpus=0.3", "1/k or a whole number", "the nearest is 1/3 (0.3333)"),
        ("engine.gpus=0.9", "engine.gpus=0.9", "1/k or a whole number", "the nearest is 1"),
        ("engine.gpus=1.5", "engine.gpus=1.5", "1/k or a whole number", "the nearest is 2"),
        ("engine.gpus=.nan", "engine.gpus='.nan'", "must be", "a number"),
        ("evaluation.split=train", "evaluation.split", "'train'", "validation, test"),
        ("fleet.devices=0", "fleet.devices=0", "must be", "in [1, 1e+07]"),
        ("fleet.cohort=0", "fleet.cohort=0", "must be", "at least 1"),
        ("fleet.cohort=20", "fleet.cohort", "20", "fleet.devices=16; lower the cohort"),
        ("rounds=0", "rounds=0", "must be", "at least 1"),
        ("rounds=2", "rounds", "2", "at least one round per phase"),
        ("model.rank=0", "model.rank=0", "must be", "in [1, 65536]"),
        ("model.targets={q_proj: 1}", "model.targets", "list", "[a, b]"),
        ("strategy.path=null", "strategy", "no path", "strategy.path=module:Name"),
    ],
)
def test_a_bad_value_is_answered_with_key_value_and_what_is_allowed(
    override: str, key: str, given_value: str, allowed: str
) -> None:
    message = complaint(override)
    assert key in message
    assert given_value in message
    assert allowed in message


@pytest.mark.parametrize("share", [0, 0.125, 0.2, 0.25, 0.33, 0.333, 1 / 3, 0.5, 1, 2])
def test_gpu_shares_that_divide_a_gpu_or_are_whole_are_accepted(share: float) -> None:
    assert load_config(None, [f"engine.gpus={share}"]).engine.gpus == share


def test_a_gpu_share_needs_workers_of_their_own() -> None:
    message = complaint("engine.gpus=0.5", "engine.kind=local")
    assert "engine.gpus=0.5 needs engine.kind=ray" in message


@pytest.mark.parametrize(
    ("override", "key", "allowed"),
    [
        ("round=3", "'round'", "did you mean rounds"),
        ("budget.tua=0.5", "'budget.tua'", "did you mean budget.tau?"),
        ("tau=0.5", "'tau'", "did you mean budget.tau?"),
        ("stream.of=1", "'stream.of'", "allowed here: phases, schedule"),
        ("xyz=1", "'xyz'", "allowed here: name, seed, rounds, run_dir, model"),
    ],
)
def test_an_unknown_key_is_answered_with_those_that_are_close(
    override: str, key: str, allowed: str, tmp_path: Path
) -> None:
    """Or with all of its section; from the command line and from a file, which is then named."""
    message = complaint(override)
    assert f"unknown key {key} in the overrides; {allowed}" in message
    dotted, value = override.split("=")
    yaml = f"{value}\n"
    for part in reversed(dotted.split(".")):
        yaml = f"{{{part}: {yaml.strip()}}}\n"
    file = tmp_path / "mine.yaml"
    file.write_text(yaml)
    assert f"unknown key {key} in {file}, line 1; {allowed}" in complaint(path=file)


def test_a_mistyped_value_in_a_file_names_the_file(tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text("budget: {tau: high}\n")
    message = complaint("rounds=5", path=file)
    assert message == f"budget.tau='high' in {file}, line 1 must be a number"


@pytest.mark.parametrize("override", ["rounds", "--rounds=4", "-x"])
def test_an_override_without_equals_sign(override: str) -> None:
    message = complaint("seed=1", override)
    assert repr(override) in message
    assert "key=value, such as rounds=4" in message


def test_a_missing_file(tmp_path: Path) -> None:
    message = complaint(path=tmp_path / "none.yaml")
    assert str(tmp_path / "none.yaml") in message
    assert "shipped are aba, " in message


def test_more_phases_than_rounds_may_only_recur() -> None:
    config = Config(rounds=2)
    check(replace(config, stream=replace(config.stream, schedule="recurring", phase_rounds=1)))
    with pytest.raises(ConfigError, match="rounds=2 is less than the 3 phases"):
        check(config)


def test_a_fleet_budget_is_on_with_a_cap_or_a_way_to_share() -> None:
    rules = {
        (): None,
        ("calls_total=9",): "equally",
        ("money_total=0",): "equally",
        ("division=traffic",): "traffic",
        ("division=price", "tokens_total=9", "price_lr=0.1"): "price",
    }
    for overrides, rule in rules.items():
        assert load_config(None, [f"budget.fleet.{one}" for one in overrides]).budget.fleet.rule == rule


def test_the_price_starts_below_its_bound() -> None:
    message = complaint("budget.fleet.division=price", "budget.fleet.price_max=0.2")
    assert "budget.fleet.price_init=0.5 must be in [0, 0.2]" in message


def test_the_model_that_asks_before_it_answers_cannot_ask_after() -> None:
    message = complaint("model.request=after")
    assert message == (
        "model.request=after with model.path=builtin:slm, which has only learned to ask before it answers; "
        "take model.path=builtin:slm_draft"
    )
    assert "model.request='late' is not known; choose one of: before, after, anywhere" in complaint(
        "model.request=late"
    )
    for asks in ("before", "after", "anywhere"):
        config = load_config(None, ["model.path=builtin:slm_draft", f"model.request={asks}"])
        check(config)
        assert config.model.drafts == (asks != "before")
    for asks in ("before", "anywhere"):
        assert not load_config(None, [f"model.request={asks}"]).model.drafts
    assert [
        load_config(None, ["model.path=x", f"model.request={asks}"]).model.drafts for asks in ("after", "anywhere")
    ] == [
        True,
        False,
    ]


def test_defaults_are_a_valid_run() -> None:
    assert load_config() == Config()
    check(Config())
    assert load_config().folder == Path("runs/run-seed0")
    assert load_config(overrides=["run_dir=/x/y"]).folder == Path("/x/y")
    assert load_config(overrides=["fleet.devices=5"]).cohort_size == 5
    assert load_config(overrides=["fleet.cohort=3"]).cohort_size == 3


def test_overrides_lie_over_the_file_and_the_file_over_the_defaults(tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text("rounds: 9\nbudget: {tau: 0.4}\nclient: {path: 'a:b', lr: 0.1}\n")
    config = load_config(file, ["rounds=12", "client.lr=0.2", "client.steps=3", "stream.phases=[[lists],[numbers]]"])
    assert (config.name, config.rounds, config.budget.tau) == ("mine", 12, 0.4)
    assert config.client == {"path": "a:b", "lr": 0.2, "steps": 3}
    assert config.stream == StreamConfig(phases=(("lists",), ("numbers",)))
    hash(config.stream)


def test_an_empty_file_is_the_defaults_under_its_name(tmp_path: Path) -> None:
    file = tmp_path / "empty.yaml"
    file.write_text("")
    assert load_config(file) == Config(name="empty")
    file.write_text("name: other\n")
    assert load_config(file).name == "other"


@pytest.mark.parametrize("file", sorted(Path(__file__).parents[3].glob("experiments/configs/*.yaml")), ids=str)
def test_shipped_configs_are_valid(file: Path) -> None:
    config = load_config(file)
    check(config)
    assert config.name == file.stem


COUNT, SHARE, AMOUNT = st.integers(1, 10**6), st.floats(0, 1), st.floats(0, 1e6)
CONFIGS = st.builds(
    Config,
    name=st.text("abc-_ 0123'\"#:", min_size=1, max_size=9),
    seed=st.integers(0, 2**40),
    rounds=st.integers(4, 1000),
    run_dir=st.none() | st.just("/tmp/x y"),
    model=st.builds(
        ModelConfig,
        rank=st.integers(1, 65_536),
        alpha=st.floats(0.1, 100),
        adapter=st.none() | st.just("null"),
        targets=st.sampled_from([("q_proj",), ("a", "b")]),
    ),
    stream=st.builds(
        StreamConfig,
        phases=st.lists(
            st.lists(st.sampled_from(TASKS), min_size=1, max_size=3, unique=True).map(tuple), min_size=1, max_size=4
        ).map(tuple),
        schedule=st.sampled_from(SCHEDULES),
        phase_rounds=COUNT,
        lag_rounds=st.integers(0, 9),
        alpha=st.floats(1e-9, math.inf, exclude_min=True),
        quantity_sigma=AMOUNT,
    ),
    fleet=st.builds(FleetConfig, devices=st.integers(50, 100), cohort=st.none() | st.integers(1, 50)),
    budget=st.builds(
        BudgetConfig,
        tau=SHARE,
        calls_total=st.none() | COUNT,
        money_total=st.none() | AMOUNT,
        fleet=st.builds(
            FleetBudgetConfig,
            division=st.none() | st.sampled_from(DIVISIONS),
            calls_per_round=st.none() | COUNT,
            money_total=st.none() | AMOUNT,
        ),
    ),
    cloud=st.builds(CloudConfig, settings=st.builds(dict, batch_size=st.integers(1, 9)), price_per_prompt_token=AMOUNT),
    evaluation=st.builds(EvaluationConfig, every_rounds=COUNT),
    engine=st.builds(EngineConfig, kind=st.sampled_from(ENGINE_KINDS), timeout_s=st.none() | AMOUNT),
    client=st.fixed_dictionaries({"path": st.just("a:b")}, optional={"lr": AMOUNT, "deep": st.just({"x": [1, None]})}),
)


@given(config=CONFIGS)
def test_yaml_round_trip(tmp_path_factory: pytest.TempPathFactory, config: Config) -> None:
    """What is written into the run's folder reads back to an equal configuration, to the last bit of every float."""
    file = tmp_path_factory.mktemp("yaml") / "config.yaml"
    file.write_text(to_yaml(config))
    again = load_config(file)
    check(again)
    assert again == config
    assert differences(config, again) == []


def changed(value: Any) -> Any:
    """Another value of the same kind; a nested group of settings changes its first."""
    if is_dataclass(value):
        return altered(value, **{fields(value)[0].name: changed(getattr(value, fields(value)[0].name))})
    if isinstance(value, tuple):
        return (*value, value[0]) if value else (1,)
    if isinstance(value, str):
        return f"{value}x"
    if isinstance(value, dict):
        return {**value, "more": 0.5}
    return 1 if value is None else value + 1


def altered(part: Any, /, **changes: Any) -> Any:
    return replace(part, **changes)


def every_change(config: Config) -> dict[str, Config]:
    """The configuration with one setting changed, for every setting there is."""
    variants: dict[str, Config] = {}
    for field in fields(config):
        part: Any = getattr(config, field.name)
        if isinstance(part, dict):
            variants[f"{field.name}.path"] = altered(config, **{field.name: {**part, "path": "x:y"}})
            variants[f"{field.name}.lr"] = altered(config, **{field.name: {**part, "lr": 1}})
        elif is_dataclass(part):
            for inner in fields(part):
                value = ("a",) if inner.name == "targets" else changed(getattr(part, inner.name))
                new = altered(part, **{inner.name: value})
                variants[f"{field.name}.{inner.name}"] = altered(config, **{field.name: new})
        else:
            variants[field.name] = altered(config, **{field.name: changed(part)})
    return variants


def test_differences_are_all_settings_but_those_free_of_results() -> None:
    """What may change between a run and its resume: where it is computed, and where folders lie."""
    config = Config()
    variants = every_change(config)
    assert len(variants) > 40
    unseen = {key for key, variant in variants.items() if not differences(config, variant)}
    assert unseen == {"engine.kind", "engine.workers", "engine.address", "run_dir", "cloud.cache", "track"}
    for key in variants.keys() - unseen:
        (line,) = differences(config, variants[key])
        assert line.startswith((f"{key}: ", f"{key}.", key.replace("settings", "more: ")))


def test_a_difference_says_old_and_new() -> None:
    old = Config()
    new = replace(old, budget=BudgetConfig(tau=0.5), client={**old.client, "lr": 0.1})
    assert differences(old, new) == ["budget.tau: 0.3 -> 0.5", "client.lr: (absent) -> 0.1"]
    assert differences(new, old) == ["budget.tau: 0.5 -> 0.3", "client.lr: 0.1 -> (absent)"]


def test_keys_of_the_last_release_are_read_and_written_back_new(tmp_path: Path) -> None:
    file = tmp_path / "old.yaml"
    file.write_text(
        "server: {path: strategies.distillation:Distillation}\nbudget: {tau: 0.4, fleet: {share: traffic}}\n"
    )
    config = load_config(file, ["fleet.sharing=0.5"])
    assert config.stage == {"path": "strategies.stages.distillation:Distillation"}
    assert (config.budget.tau, config.budget.fleet.division, config.fleet.opt_in) == (0.4, "traffic", 0.5)
    file.write_text(to_yaml(config))
    assert load_config(file) == config
    assert not {"server", "sharing", "share"} & set(re.findall(r"(\w+):", to_yaml(config)))


def test_an_old_key_beside_its_new_name_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "both.yaml"
    file.write_text("fleet: {sharing: 0.5, opt_in: 0.1}\n")
    with pytest.raises(
        ConfigError, match=r"'sharing' in .*both\.yaml, line 1 is called 'opt_in' now, and both are given"
    ):
        load_config(file)


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (["fleet.ranks=[8,"], r"override 'fleet\.ranks=\[8,': a bracket or a quote is not closed"),
        ([3], "overrides holds 3, which is no text"),
        (["=3"], "override '=3': write it as key=value"),
        ("rounds=3", "must be a list of key=value"),
        ({"rounds": 3}, "must be a list of key=value"),
    ],
)
def test_overrides_that_cannot_be_read_are_told_in_a_sentence(overrides: Any, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        load_config("demo", overrides)


@pytest.mark.parametrize(
    "wrong",
    [
        *("fleet.devices=99999999999999", "model.rank=999999"),
        *("cloud.price_per_prompt_token=inf", "cloud.price_per_completion_token=inf"),
    ],
)
def test_what_no_machine_can_hold_or_pay_is_refused(wrong: str) -> None:
    with pytest.raises(ConfigError, match=wrong.partition("=")[0]):
        load_config(None, [wrong])
