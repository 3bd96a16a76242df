"""Choose each learner's settings on validation questions, out of six, and write them as files that a run takes."""

from collections.abc import Collection, Sequence
from pathlib import Path

import yaml

from experiments.reproduce_paper.plan import GRIDS, TUNED, trials_of
from experiments.study.running import Failure, do_all
from flsim.config.schema import Config
from flsim.files import write_atomically
from flsim.metrics.rows import evaluation, read_rows
from flsim.metrics.users import per_user
from flsim.tasks.stream import stream_of
from flsim.text import markdown_table as table


def tune(
    setting: str, root: Path, jobs: int, more: Sequence[str], learners: Collection[str] = tuple(GRIDS)
) -> list[Failure]:
    """Run what is missing, and write the best choice of each learner to `experiments/configs/tuned/SETTING/`."""
    trials = {learner: trials_of(setting, learner, root, more) for learner in GRIDS if learner in learners}
    failures = do_all([config for tried in trials.values() for _, config in tried], jobs)
    if failures:
        return failures
    lines = [["learner", "choice", "score on validation questions", "chosen"]]
    for learner, tried in trials.items():
        scores = [score(config) for _, config in tried]
        best = max(range(len(tried)), key=lambda place: scores[place])
        (TUNED / setting).mkdir(parents=True, exist_ok=True)
        write_atomically(TUNED / setting / f"{learner}.yaml", _fragment(tried[best][0], scores).encode())
        for place, (choice, _) in enumerate(tried):
            words = ", ".join(f"{key.removeprefix('client.')} {value}" for key, value in choice.items())
            lines.append([learner, words, f"{scores[place]:.3f}", "*" if place == best else ""])
    print(table(lines))
    return []


def score(config: Config) -> float:
    """What is maximised: the mean user's accuracy within the budget on all task groups, mean over the ends of phases.

    It counts what was learned, what was kept over a switch and what the cloud was asked for, each alike.
    """
    rows = evaluation(read_rows(config.folder), model="global", name="accuracy")
    ends = [phase.last_round for phase in stream_of(config).phases]
    return sum(float(per_user(rows[rows["round"] == end]).mean()) for end in ends) / len(ends)


def _fragment(choice: dict[str, str], scores: Sequence[float]) -> str:
    own = {key.removeprefix("client."): yaml.safe_load(value) for key, value in choice.items()}
    said = f"# Chosen on validation questions out of {len(scores)}, scores {min(scores):.3f} to {max(scores):.3f}"
    return f"{said}:\n#   python -m experiments.reproduce_paper --tune\n{yaml.safe_dump({'client': own})}"
