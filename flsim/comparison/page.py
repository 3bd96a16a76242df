"""A comparison as one HTML page that needs nothing else: what was compared, tables, figures, and what columns mean."""

from pathlib import Path

from flsim.comparison.captions import CAPTIONS
from flsim.comparison.comparable import varied
from flsim.comparison.cost_table import class_rows, equal_rows, speed_rows, target_rows
from flsim.comparison.figures import letters
from flsim.comparison.pairing import Pair
from flsim.comparison.result import Compared, Result
from flsim.comparison.runs import seed_text
from flsim.comparison.spend import spend_rows
from flsim.comparison.table import along_rows, cell, difference_text, end_rows
from flsim.comparison.weightings import panel_note, panel_text, weighting_rows
from flsim.config.schema import ALL, Config
from flsim.metrics.measures import MEASURES, TABLES
from flsim.metrics.weighting import WEIGHTINGS
from flsim.report.html import folded_table, heading, page_of, paragraph, picture, table
from flsim.tasks.stream import TaskStream
from flsim.text import percent

_NOTE = (
    "A star marks a 95 % interval that excludes 0. Methods are judged one by one: of twenty that are all alike, one "
    "will have a star by chance. With few seeds intervals are rough."
)
_OF_COSTS = (
    "A cost is what the run had taken by the first test at which the mean user was right that often: the median over "
    "seeds, those that never got there counting as infinite. Times less: the median of the method that all are paired "
    "with over the method's own, seeds drawn in pairs for the interval; a star marks one that excludes 1. For the same "
    "cost: in each seed as much as the method that had taken least by its end."
)
_NAMED = 6  # users of each method that are named as hurt


def page(comparison: Compared, plots: Path) -> str:
    """The page.

    Args:
        comparison: what it shows.
        plots: the folder that holds the figures of `CAPTIONS`.
    """
    body = [*_opening(comparison), *_main(comparison), *_pairs(comparison, plots)]
    body += [heading("What it costs"), picture(plots / "pareto.png", CAPTIONS["pareto.png"])]
    body += [*_tables(comparison, "training", "test"), *_help(comparison, plots)]
    body += [*_tables(comparison, "traffic", "work"), *_spend(comparison, plots)]
    body += _systems(comparison, plots)
    body += _wish(comparison, plots)
    body.append(heading("Over rounds"))
    body += [picture(plots / name, CAPTIONS[name]) for name in ("curves.png", "asking.png")]
    body += [*_users(comparison, plots), *_learning(comparison), *_bounds(comparison), *_words(comparison)]
    return page_of(_title(comparison), body)


def _title(comparison: Compared) -> str:
    labels = [result.label for result in comparison.results]
    return f"Comparison: {', '.join(labels[:4])}{f' and {len(labels) - 4} more' if len(labels) > 4 else ''}"


def _opening(comparison: Compared) -> list[str]:
    config = comparison.results[0].method.config
    facts = f"methods: {len(comparison.results)}, seeds: {len(comparison.seeds)}, {config.fleet.devices} devices, "
    facts += f"{config.rounds} rounds, budget τ = {percent(config.budget.tau, digits=0)} of prompts"
    pieces = [
        heading(_title(comparison), 1),
        paragraph(facts, kind="facts"),
        paragraph(_answer(comparison), kind="answer"),
    ]
    pieces += [heading("What was compared"), table(["what all share", ""], _setting(comparison, config), kind="words")]
    other = varied([result.method for result in comparison.results])
    if other:
        marks = letters(comparison)
        lines = [
            [f"{marks[r.label]}  {r.label}", *(row[n] for row in other.values())] for n, r in _numbered(comparison)
        ]
        pieces.append(table(["method", *other], lines, kind="words"))
    return pieces


def _numbered(comparison: Compared) -> list[tuple[int, Result]]:
    return list(enumerate(comparison.results))


def _answer(comparison: Compared) -> str:
    """The most accurate method against the one that all are paired with, in a sentence."""
    known = [result for result in comparison.results if "accuracy" in result.means]
    if not known:
        return "No method was evaluated."
    best = max(known, key=lambda result: result.means["accuracy"].mean)
    text = f"{best.label} has the highest accuracy of the mean user at the end, {percent(best.means['accuracy'].mean)}"
    pair = comparison.pair(best.label)
    if pair is None:
        return f"{text}; the others are paired with it."
    sure = "" if pair.difference.excludes_zero else ", which may be chance"
    points = difference_text(pair).removesuffix(" *")
    worse = f"{len(pair.hurt)} of {pair.pairs} (seed, user) pairs are worse off"
    return f"{text}: {points} points against {pair.against}{sure}; {worse}."


def _setting(comparison: Compared, config: Config) -> list[list[str]]:
    """What all methods share, in words."""
    phases = TaskStream(config.stream, config.rounds).phases
    spans = [f"{p.name} (rounds {p.first_round} to {p.last_round}): {', '.join(p.tasks)}" for p in phases]
    caps = {**vars(config.budget), **{f"fleet {key}": value for key, value in vars(config.budget.fleet).items()}}
    limits = [f"{key.replace('_', ' ')} {value}" for key, value in caps.items() if "_" in key and "price" not in key]
    limits = [text for text in limits if not text.endswith("None")]
    stream = f"schedule {config.stream.schedule}, Dirichlet alpha {config.stream.alpha:g}, "
    stream += f"sigma of prompts {config.stream.quantity_sigma:g}"
    tests = f"{config.evaluation.prompts_per_task} {config.evaluation.split} prompts per task and device"
    if config.data:
        items = config.evaluation.items or config.evaluation.prompts_per_task
        tests += f" ({'all' if items == ALL else f'at most {items}'} of a data set)"
    if config.evaluation.devices is not None:
        tests += f", of {panel_text(config)}"
    return [
        ["phases", "; ".join(spans)],
        ["stream", stream],
        ["budget", ", ".join([f"τ = {config.budget.tau:g}", *limits])],
        ["tests", f"{tests}, every {config.evaluation.every_rounds} rounds and at the end of each phase"],
        ["base model, cloud", f"{config.model.path}, {config.cloud.path}"],
        ["seeds", ", ".join(seed_text(seeds) for seeds in comparison.seeds)],
        ["paired with", comparison.against],
        ["harm is taken against", comparison.alone],
    ]


def _main(comparison: Compared) -> list[str]:
    config = comparison.results[0].method.config
    first, *end = end_rows(comparison)
    second, *along = along_rows(comparison)
    return [
        heading("At the end, and over the run"),
        table(first, end, strong=_strong(comparison)),
        table(second, along, strong=_strong(comparison)),
        paragraph(
            f"Accuracy and differences with their 95 % intervals; forgetting and differences in points. Users are "
            f"weighed {comparison.weighting.title}. {panel_note(config)}{_NOTE}",
            kind="note",
        ),
        *_weightings(comparison),
    ]


def _weightings(comparison: Compared) -> list[str]:
    """The same users, weighed in every way."""
    first, *lines = weighting_rows(comparison)
    meanings = " ".join(f"{one.title.capitalize()}: {one.meaning}" for one in WEIGHTINGS.values())
    note = f"{meanings} A dash: nobody's weight is known. The file weightings.csv has all measures of users so."
    return [heading("By weighting"), table(first, lines), paragraph(note, kind="note")]


def _strong(comparison: Compared) -> list[int]:
    """The line of the method that the others are paired with."""
    return [number for number, result in _numbered(comparison) if result.label == comparison.against]


def _pairs(comparison: Compared, plots: Path) -> list[str]:
    if not comparison.pairs:
        return []
    headings = [
        f"minus {comparison.against}, by user",
        *("may ask: points", "win rate", "hurt", "alone: points", "win rate", "hurt"),
    ]
    others = [result for result in (*comparison.results, *comparison.bounds) if result.label != comparison.against]
    lines, hurt = [], []
    for result in others:
        both = [comparison.pair(result.label, measure) for measure in ("accuracy", "alone_accuracy")]
        lines.append([result.label, *(text for pair in both for text in _pair_cells(pair))])
        if both[0] is not None:
            hurt.append([result.label, _hurt(both[0])])
    pieces = [heading("User by user"), picture(plots / "paired.png", CAPTIONS["paired.png"]), table(headings, lines)]
    return [*pieces, table(["may ask", "who is hurt, by how many points, the most hurt first"], hurt, kind="words")]


def _pair_cells(pair: Pair | None) -> list[str]:
    if pair is None:
        return ["-", "-", "-"]
    return [difference_text(pair), percent(pair.win_rate, digits=0), f"{len(pair.hurt)} of {pair.pairs}"]


def _hurt(pair: Pair) -> str:
    """Who is worse off, the most hurt first."""
    named = [f"{u.device} ({seed_text(u.seeds)}) {100 * (u.value - u.other):+.1f}" for u in pair.hurt[:_NAMED]]
    more = f"; and {len(pair.hurt) - _NAMED} more, see per_user.csv" if len(pair.hurt) > _NAMED else ""
    return "; ".join(named) + more if named else "nobody"


def _help(comparison: Compared, plots: Path) -> list[str]:
    """What a test question takes; a picture of it where a run names a mode of help."""
    pictured = (plots / "questions.png").is_file()
    pieces = [picture(plots / "questions.png", CAPTIONS["questions.png"])] if pictured else []
    return [*pieces, *_tables(comparison, "help")]


def _spend(comparison: Compared, plots: Path) -> list[str]:
    """Cost in training beside cost at test, and what is reached for the same cost."""
    rows = spend_rows(comparison)
    if not rows:
        return []
    note = (
        f"Here a device meets H = {comparison.life.horizon:g} test prompts for each training prompt (--horizon), and "
        f"at equal spend training and test together make S = {percent(comparison.spend)} calls per prompt (--spend): "
        f"what training leaves of it goes to the test prompts with the highest asking scores. A dash: training alone "
        f"has made more, or the curve was not measured. A prompt of whose group of responses any asks is one call."
    )
    pictured = (plots / "spend.png").is_file()
    return [
        heading("Training and test together"),
        *([picture(plots / "spend.png", CAPTIONS["spend.png"])] if pictured else []),
        table(rows[0], rows[1:], strong=_strong(comparison)),
        *_tables(comparison, "life"),
        paragraph(note, kind="note"),
    ]


def _systems(comparison: Compared, plots: Path) -> list[str]:
    """What it takes to get to an accuracy, and what devices, links and the cloud took of it."""
    strong, pieces = _strong(comparison), []
    reached, faster, equal = target_rows(comparison), speed_rows(comparison), equal_rows(comparison)
    if reached or equal:
        pieces.append(heading("What it takes to get there"))
        pieces += [picture(plots / "costs.png", CAPTIONS["costs.png"])] if reached else []
        pieces += [table(rows[0], rows[1:], strong=strong) for rows in (reached, equal) if rows]
        pieces += [table(faster[0], faster[1:])] if faster else []
        pieces.append(paragraph(_OF_COSTS, kind="note"))
    own, classes = _tables(comparison, "systems", "energy", "questions", "participation"), class_rows(comparison)
    own += [table(classes[0], classes[1:], strong=strong)] if classes else []
    return [*pieces, *([heading("Devices as systems"), *own] if own else [])]


def _wish(comparison: Compared, plots: Path) -> list[str]:
    """Whether what rules claim of being wrong comes true."""
    tables = _tables(comparison, "wish")
    if not tables:
        return []
    pictured = (plots / "reliability.png").is_file()
    pieces = [picture(plots / "reliability.png", CAPTIONS["reliability.png"])] if pictured else []
    return [heading("The wish as a forecast"), *pieces, *tables]


def _tables(comparison: Compared, *names: str) -> list[str]:
    """The tables of these names, a line per method; measures that no method has are left out."""
    return [table for name in names for table in _table(comparison, name)]


def _table(comparison: Compared, name: str) -> list[str]:
    known = [
        one
        for one in comparison.measures
        if one.table == name and any(one.written(r.value(one.name)) != "-" for r in comparison.results)
    ]
    if not known:
        return []
    lines = [[result.label, *(cell(result, one) for one in known)] for result in comparison.results]
    return [table([TABLES[name], *(one.title for one in known)], lines, strong=_strong(comparison))]


def _users(comparison: Compared, plots: Path) -> list[str]:
    note = f"Accuracy at the end when the device may ask. Harmed: lower than with {comparison.alone}."
    return [
        heading("Users"),
        picture(plots / "users.png", CAPTIONS["users.png"]),
        *_tables(comparison, "users", "fairness"),
        paragraph(note, kind="note"),
    ]


def _learning(comparison: Compared) -> list[str]:
    """What was learned and forgotten, with the cloud and alone, and the mean user's matrices."""
    pieces = [heading("Learning and forgetting")]
    pieces += _tables(comparison, "learning", "learning alone", "transfer", "transfer alone", "switches")
    values = comparison.matrices.groupby(["method", "round", "task"], sort=False)["accuracy"].mean()
    for result in comparison.results:
        own = values[result.label].unstack("task")
        lines = [
            [
                "before training" if round_ == 0 else f"after round {round_}",
                *(MEASURES["accuracy"].written(v) for v in row),
            ]
            for round_, row in zip(own.index, own.to_numpy(dtype=float), strict=True)
        ]
        pieces.append(
            folded_table(f"matrix R of the mean user: {result.label}", ["may ask", *map(str, own.columns)], lines)
        )
    return pieces


def _bounds(comparison: Compared) -> list[str]:
    """How the runs that serve as bounds differ from what is compared."""
    if not comparison.bounds:
        return []
    base = comparison.of(comparison.against).method
    lines = []
    for result in comparison.bounds:
        other = varied([base, result.method])
        lines.append([result.label, "; ".join(f"{key} {values[1]} (not {values[0]})" for key, values in other.items())])
    return [heading("Bounds"), table(["measured on the same test sets", "differs in"], lines, kind="words")]


def _words(comparison: Compared) -> list[str]:
    note = (
        "Every number is the mean over seeds of a run's own; of users unless it says otherwise, who are weighed "
        f"{comparison.weighting.title} in means and once each in percentiles and in what says how equal they are."
    )
    lines = [[one.title, one.name, one.meaning] for one in comparison.measures]
    headings = ["column", "name in the files", "meaning"]
    return [heading("What the columns mean"), paragraph(note), table(headings, lines, kind="words")]
