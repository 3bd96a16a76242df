"""A BERT in the cloud teaches DistilBERT on devices: alone, taught by device, taught at the server, and a router.

First a run of one device that holds all training examples makes the teacher (`ROOT/teacher-sSEED`, of the first seed:
the cloud is one for all). Then the same fleet learns without it; has `budget.tau` of each device's examples taught a
round and aligned with it (labels, soft targets, hidden states); learns of these from the teacher alone; is distilled at
the server on proxy questions. Tests are alone and with a router: the tau of them that the device's softmax is least
sure of go to the teacher.
"""

import argparse
import sys
from pathlib import Path

from experiments.study.command import print_compared, run_missing, study_parser
from experiments.study.plan import Arm, runs_of
from experiments.study.running import exit_status
from flsim.config.load import load_config
from flsim.metrics.measures import chosen

CONFIG = Path(__file__).parents[1] / "configs" / "subjects.yaml"
BERT = "builtin:bert"
_ENCODER = "flsim.models.encoder:Encoder"
MEASURES = (
    *("alone_accuracy", "accuracy", "random_accuracy", "cloud_accuracy", "asking_auc", "wrong_auc"),
    *("calls", "tokens", "money", "stage_money"),
)


def main(arguments: list[str] | None = None) -> int:
    """The command line; returns the exit status."""
    parser = study_parser("teachers", __doc__, seeds=(0, 1, 2), root="runs/teachers")
    parser.add_argument("--config", type=Path, default=CONFIG, help="of the run (default subjects)")
    parser.add_argument("--rounds", type=int, default=4, help="epochs of the teacher (default %(default)s)")
    args = parser.parse_args(arguments)
    return exit_status(lambda: _run(args))


def teacher_of(rounds: int, tokens: int) -> Arm:
    """The run that makes the teacher."""
    return Arm(
        "teacher",
        (
            "fleet={devices: 1, cohort: 1}",
            f"client.model_settings={{base: '{BERT}', max_tokens: {tokens}}}",
            *("client.lr=0.001", f"rounds={rounds}", f"evaluation.every_rounds={rounds}"),
        ),
    )


def arms_of(weights: Path, tokens: int) -> list[Arm]:
    """The arms, whose teacher's weights lie in a file."""
    settings = f"{{base: '{BERT}', max_tokens: {tokens}, weights: {weights}}}"
    tested = (f"client.teacher={_ENCODER}", f"client.teacher_settings={settings}")
    stage = "strategies.stages.module_distillation:ModuleDistillation"
    server = (
        f"stage={{path: '{stage}', teacher: '{_ENCODER}', prompts: 256, batch: 16, lr: 0.001}}",
        f"stage.teacher_settings.base={BERT}",
        f"stage.teacher_settings.max_tokens={tokens}",
        f"stage.teacher_settings.weights={weights}",
    )
    silent = ("client.soft=0", "client.aligned=0", "client.hard=1")
    return [
        Arm("labels alone", (*tested, *silent)),
        Arm("taught by device", tested),
        Arm("taught, no labels", (*tested, "client.hard=0")),
        Arm("distilled at the server", (*tested, *silent, *server)),
    ]


def _run(args: argparse.Namespace) -> int:
    tokens = int(load_config(args.config, args.more).client["model_settings"]["max_tokens"])
    (teacher,) = runs_of(args.config, [teacher_of(args.rounds, tokens)], args.seeds[:1], args.root, args.more)
    if not run_missing([teacher], args.jobs):
        return 1
    weights = teacher.folder.absolute() / "adapter" / "module.safetensors"
    runs = runs_of(args.config, arms_of(weights, tokens), args.seeds, args.root, args.more)
    if not run_missing(runs, args.jobs):
        return 1
    out, tau = args.root.with_name(f"{args.root.name}-compared"), runs[0].config.budget.tau
    print_compared(runs, chosen(MEASURES), against="labels alone", said=f"tau {tau:g}", out=out)
    return 0


if __name__ == "__main__":
    sys.exit(main())
