"""Choose each learner's settings on validation questions, out of eight, and write them as files that a run takes."""

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

import yaml

from experiments.study.command import run_missing
from experiments.study.paper_plan import GRIDS, TUNED, trials_of
from flsim.config.schema import Config
from flsim.files import write_atomically
from flsim.metrics.rows import evaluation, read_rows
from flsim.metrics.users import per_user
from flsim.tasks.stream import stream_of
from flsim.text import markdown_table


def tune(setting: str, root: Path, jobs: int, more: Sequence[str], learners: Collection[str] = tuple(GRIDS)) -> bool:
    """Run what is missing, and write the best choice of each learner to `experiments/configs/tuned/SETTING/`.

    Returns:
        Whether all went well.
    """
    trials = {learner: trials_of(setting, learner, root, more) for learner in GRIDS if learner in learners}
    if not run_missing([run for tried in trials.values() for run in tried], jobs):
        return False
    lines = [["learner", "choice", "score on validation questions", "chosen"]]
    for learner, tried in trials.items():
        scores = [score(run.config) for run in tried]
        best = max(range(len(tried)), key=lambda place: scores[place])
        write_atomically(TUNED / setting / f"{learner}.yaml", _fragment(tried[best].choice, scores).encode())
        for place, run in enumerate(tried):
            words = ", ".join(f"{key.removeprefix('client.')} {value}" for key, value in run.choice.items())
            lines.append([learner, words, f"{scores[place]:.3f}", "*" if place == best else ""])
    print(markdown_table(lines))
    return True


def score(config: Config) -> float:
    """What is maximised: the mean user's accuracy within the budget on all tasks, mean over the ends of phases.

    It counts what was learned, what was kept over a switch and what the cloud was asked for, each alike.
    """
    rows = evaluation(read_rows(config.folder), model="global", name="accuracy")
    ends = [phase.last_round for phase in stream_of(config).phases]
    return sum(float(per_user(rows[rows["round"] == end]).mean()) for end in ends) / len(ends)


def _fragment(choice: Mapping[str, str], scores: Sequence[float]) -> str:
    own = {key.removeprefix("client."): yaml.safe_load(value) for key, value in choice.items()}
    said = f"# Chosen on validation questions out of {len(scores)}, scores {min(scores):.3f} to {max(scores):.3f}"
    return f"{said}:\n#   flsim study paper --tune\n{yaml.safe_dump({'client': own})}"
