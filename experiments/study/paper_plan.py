"""What is run: methods and bounds over two settings, the eight choices of each learner, and regimes of forgetting."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path

from experiments.study.methods import config_with, find_method
from experiments.study.plan import ONE_PROCESS, Arm, Planned

CONFIGS = Path(__file__).parents[1] / "configs"
SETTINGS = {"fleet": "aba", "single": "aba_single", "smollm2": "smollm2"}
"""A fleet of 16 non-IID devices, one device without federation, and four devices with a pretrained model."""
BUILT_IN = ("fleet", "single")
"""Those that need nothing to be installed."""
TUNED = CONFIGS / "tuned"
"""Where the chosen settings of every learner lie, a YAML file each, in a folder per setting."""
TUNING_SEED = 100
"""Of the runs on validation questions; not one of those that are reported."""


@dataclass(frozen=True)
class Method:
    """A line of the table."""

    label: str
    files: str
    """Method files, as `experiments.study` takes them: `grpo+random`."""
    tuned: str
    """The learner whose tuned settings it takes."""
    settings: tuple[str, ...] = BUILT_IN
    """Where it is run."""

    def arm(self, setting: str) -> Arm:
        """The method in a setting, with what was chosen for its learner there."""
        tuned = TUNED / setting / f"{self.tuned}.yaml"
        learner, *others = find_method(self.files).files
        # an ablation, such as `no_imitation`, goes over what was chosen
        fragments = (learner, *([tuned] if tuned.is_file() else []), *others)
        return Arm(self.label, (f"name={self.label}",), fragments, self.files)


_EVERYWHERE = tuple(SETTINGS)
METHODS = (
    Method("DA-GRPO", "da_grpo", "da_grpo", _EVERYWHERE),
    Method("DA-GRPO, fixed threshold", "da_grpo+own_calibrated", "da_grpo"),
    Method("DA-GRPO, by lambda", "da_grpo+own", "da_grpo"),
    Method("token before, own wish", "da_grpo_token", "da_grpo_token"),
    Method("token before, paced", "da_grpo_token+own_calibrated+paced", "da_grpo_token"),
    Method("token, plain form", "paper", "paper"),
    Method("fixed price", "fixed_price", "fixed_price"),
    Method("GAPG", "gapg", "gapg"),
    Method("collaborative GRPO", "collaborative_grpo", "collaborative_grpo"),
    Method("collaborative GRPO, explored", "collaborative_grpo+explore", "collaborative_grpo", ("smollm2",)),
    Method("collaborative Dr.GRPO", "collaborative_dr_grpo", "collaborative_dr_grpo"),
    Method("GRPO, asks at random", "grpo+random", "grpo", _EVERYWHERE),
    Method("GRPO, never asks", "grpo+never", "grpo", _EVERYWHERE),
    Method("GRPO, by confidence", "grpo+confidence", "grpo"),
    Method("GRPO, by entropy", "grpo+entropy", "grpo"),
    Method("GRPO, router", "grpo+classifier", "grpo"),
    Method("GRPO, cascade", "grpo+cascade", "grpo"),
    Method("GRPO, confidence, paced", "grpo+confidence+paced", "grpo", _EVERYWHERE),
    Method("GRPO, entropy, paced", "grpo+entropy+paced", "grpo"),
    Method("GRPO, router, paced", "grpo+classifier+paced", "grpo", _EVERYWHERE),
    Method("GRPO, cascade, paced", "grpo+cascade+paced", "grpo", _EVERYWHERE),
    Method("GRPO, benefit head", "da_grpo+no_imitation", "grpo", ("smollm2",)),
    Method("Dr.GRPO, at random", "dr_grpo+random", "dr_grpo"),
    Method("DAPO, at random", "dapo+random", "dapo"),
    Method("GVPO, at random", "gvpo+random", "gvpo"),
    Method("SFT, at random", "sft+random", "sft"),
    Method("SFT, confidence, paced", "sft+confidence+paced", "sft"),
)
"""What is compared, DA-GRPO first: the others are paired with it. A learner is tuned as in its first line; one that
does not learn to ask with asking at random, by what it knows and not by how well a rule asks."""
ABLATIONS = (
    Method("nothing imitated", "da_grpo+no_imitation", "da_grpo"),
    Method("imitated once", "da_grpo+no_replay", "da_grpo"),
    Method("each draft asks", "da_grpo+each", "da_grpo"),
    Method("worth after the request", "da_grpo+kept", "da_grpo"),
    Method("head sees numbers", "da_grpo+numbers", "da_grpo"),
    Method("head sees hidden state", "da_grpo+hidden", "da_grpo"),
    Method("head moves the adapter", "da_grpo+through", "da_grpo"),
    Method("temperature 0.03", "da_grpo+sharp", "da_grpo"),
    Method("temperature 0.3", "da_grpo+soft", "da_grpo"),
    Method("asks by confidence", "da_grpo+confidence+paced", "da_grpo"),
    Method("token before, imitates", "da_grpo_token+imitate+own_calibrated+paced", "da_grpo_token"),
)
"""What a part is good for, at the tuned settings of the whole."""
BOUNDS = (
    Method("oracle asks for GRPO", "grpo+oracle", "grpo"),
    Method("oracle asks for DA-GRPO", "da_grpo+oracle", "da_grpo"),
    Method("each device alone", "da_grpo+alone", "da_grpo", settings=("fleet",)),
    Method("all tasks at once", "da_grpo+joint", "da_grpo"),
    Method("one central learner", "da_grpo_token+central", "da_grpo_token", settings=("fleet",)),
    Method("token after a draft", "da_grpo_after+own_calibrated+paced", "da_grpo_after"),
)
"""Shown beside, and not paired. The token after a draft starts from a base of its own, which knows more alone."""

RATES = {"fleet": 1.0, "single": 0.5}
"""By how much the learning rates of `GRIDS` are multiplied: a fleet averages larger steps than one device bears."""
_LRS = ("0.0015", "0.003", "0.006", "0.012")
_RATES = ("0.001", "0.0015", "0.002", "0.003", "0.004", "0.006", "0.009", "0.012")
_EIGHT = tuple({"client.lr": lr} for lr in _RATES)


def _grid(**axes: Sequence[str]) -> tuple[dict[str, str], ...]:
    names = [f"client.{name}" for name in axes]
    return tuple(dict(zip(names, values, strict=True)) for values in product(*axes.values()))


GRIDS: dict[str, tuple[dict[str, str], ...]] = {
    "da_grpo": _grid(lr=_LRS, imitate=("4", "8")),
    "da_grpo_after": _grid(lr=_LRS, dual_lr=("0.05", "0.1")),
    "da_grpo_token": _grid(lr=_LRS, dual_lr=("0.05", "0.1")),
    "paper": _grid(lr=_LRS, dual_lr=("0.01", "0.05")),
    "fixed_price": _grid(lr=_LRS, price=("0.4", "0.6")),
    "gapg": _grid(lr=_LRS, help_reward=("0.3", "0.6")),
    "collaborative_grpo": _grid(lr=_LRS, help_reward=("0.1", "0.3")),
    "collaborative_dr_grpo": _grid(lr=_LRS, help_reward=("0.3", "0.6")),
    "grpo": _EIGHT,
    "dr_grpo": _EIGHT,
    "dapo": _EIGHT,
    "gvpo": _EIGHT,
    "sft": _EIGHT,
}
"""Eight choices for every learner: four learning rates and two values of what steers it, or eight rates."""

PRETRAINED = {learner: [{"client.lr": rate} for rate in ("0.0003", "0.0006", "0.0012", "0.0024")] for learner in GRIDS}
PRETRAINED["collaborative_grpo"] = list(_grid(lr=("0.0003", "0.0006"), help_reward=("0.1", "0.3")))
"""Four choices for a pretrained model, where a trial takes minutes."""


def config_of(setting: str) -> Path:
    """The config that all methods of a setting share."""
    return CONFIGS / f"{SETTINGS[setting]}.yaml"


def arms_of(setting: str, methods: Sequence[Method]) -> list[Arm]:
    """Those that are for this setting."""
    return [method.arm(setting) for method in methods if setting in method.settings]


def tuned_in(setting: str) -> list[Method]:
    """What is run in a setting and tuned; of those with the same learner the first is what it is tuned as."""
    return [method for method in (*METHODS, *BOUNDS) if setting in method.settings]


def choices_of(setting: str, learner: str) -> list[dict[str, str]]:
    """What is tried of a learner in a setting."""
    if setting not in RATES:
        return PRETRAINED[learner]
    return [{**one, "client.lr": f"{RATES[setting] * float(one['client.lr']):g}"} for one in GRIDS[learner]]


def trials_of(setting: str, learner: str, root: Path, more: Sequence[str]) -> list[Planned]:
    """The runs by which a learner is tuned, each with its choice of the learner's grid."""
    files = find_method(next(method.files for method in tuned_in(setting) if method.tuned == learner)).files
    trials = []
    for choice in choices_of(setting, learner):
        name = "-".join([learner, *(value for _, value in sorted(choice.items()))])
        own = [f"{key}={value}" for key, value in choice.items()]
        own += [f"seed={TUNING_SEED}", f"stream.seed={TUNING_SEED}", "evaluation.split=validation"]
        own += [f"name={name}", f"run_dir={root / name}"]
        trials.append(Planned(learner, config_with(config_of(setting), [ONE_PROCESS, *more, *own], files), choice))
    return trials


COMPARED = tuple(m for m in METHODS if m.files in ("da_grpo", "grpo+random", "collaborative_dr_grpo", "sft+random"))
"""DA-GRPO, the same without asking, with a fixed reward for help, and by heart."""
CLEAN = "runs/slm_clean"
"""Where `python -m experiments.pretrain slm_clean --out runs` leaves the model."""


@dataclass(frozen=True)
class Regime:
    """One change of the setting."""

    name: str
    what: str
    settings: tuple[str, ...]
    """Over the setting's own; they also go over tuned ones."""


REGIMES = (
    Regime("as tuned", "the setting as it is", ()),
    Regime("fast", "learning rate 0.01 for all", ("client.lr=0.01",)),
    Regime("slow", "learning rate 0.001 for all", ("client.lr=0.001",)),
    Regime("long", "phases of 36 rounds", ("rounds=108",)),
    Regime(
        "many",
        "A, B, A, B, A",
        (
            "rounds=60",
            "stream.phases=[[arithmetic,numbers],[strings,lists],[arithmetic,numbers],[strings,lists],[arithmetic,numbers]]",
        ),
    ),
    Regime(
        "unrelated", "one group a phase: sums, strings, sums", ("stream.phases=[[arithmetic],[strings],[arithmetic]]",)
    ),
    Regime("small", "adapters of rank 1", ("model.rank=1", "model.alpha=2")),
    Regime("clean", "an SLM that was pretrained on right answers only", (f"model.path={CLEAN}",)),
)
"""One change at a time."""
