"""The pieces of a page with charts: places, their data, the library and the script that draws them, and the style.

The library is Chart.js (MIT licence, in `vendored/` as it is published). A page holds it and needs nothing else:

    place("accuracy")  where a chart is to stand
    data(charts)       the numbers, drawn when the page has been read
    scripts()          once, at the end of the body: the library and ours, as text

A page that lives calls `flsimCharts.show(list)` again with what `as_json` gives, and charts are redrawn in place.
"""

import base64
import hashlib
from collections.abc import Iterable
from html import escape
from importlib.resources import files

from flsim.charts.chart import Chart, as_json

LIBRARY = "chart.umd.min.js"
"""Chart.js, in the folder `vendored`."""
SCRIPT = "flsim-charts.js"
"""What draws a chart from its JSON."""

STYLE = """
.charts { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 440px), 1fr)); gap: 0 2rem;
  margin: 1.2rem 0 .4rem; }
.charts.three { grid-template-columns: repeat(auto-fit, minmax(min(100%, 300px), 1fr)); }
.chart { margin: 0 0 1rem; min-width: 0; display: grid; grid-row: span 3; grid-template-rows: subgrid; }
.chart[hidden] { display: none; }
.chart.wide { grid-column: 1 / -1; }
.chart h3 { font-size: 1rem; line-height: 1.35; margin: 0 0 .3rem; align-self: end; }
.chart p.note { margin: 0; }
.chart .paper { position: relative; height: 320px; width: 100%; }
.chart .paper canvas { position: absolute; inset: 0; }
.chart .note:empty { display: none; }
@media (max-width: 600px) { .chart .paper { height: 290px; } }
body.printing { width: 182mm; max-width: none; padding: 0; margin: 0; }
body.printing .chart .paper { height: 68mm; }
body.printing .charts { grid-template-columns: 1fr 1fr; gap: 0 6mm; }
@media print {
  [data-chart-hint] { display: none; }
  .charts { grid-template-columns: 1fr 1fr; gap: 0 6mm; }
  .chart { break-inside: avoid; }
  .chart .paper { height: 68mm; }
  .chart .paper canvas { width: 100% !important; height: 100% !important; }
}
"""
"""The style of places, for screen, phone and print; it goes beside the page's own."""


def library_text() -> str:
    """The library, as it is served or embedded: without its last line, which sends a debugger after another file."""
    return (files(__package__) / "vendored" / LIBRARY).read_text(encoding="utf-8").partition("//# sourceMappingURL")[0]


def script_text() -> str:
    """What draws charts, as it is served or embedded; it needs the library."""
    return (files(__package__) / SCRIPT).read_text(encoding="utf-8")


def place(name: str, title: str = "", *, wide: bool = False) -> str:
    """Where a chart is drawn, under its title, with its note below; it stays hidden until there is one of that name.

    Args:
        name: of the chart.
        title: above it until the chart brings its own; plain text, also for readers who do not see the chart.
        wide: whether it takes the page's whole width.
    """
    paper = f'<div class="paper"><canvas role="img" aria-label="{escape(title or name)}"></canvas></div>'
    kind = "chart wide" if wide else "chart"
    inside = f'<h3>{escape(title)}</h3>{paper}<p class="note"></p>'
    return f'<figure class="{kind}" data-chart="{escape(name)}" hidden>{inside}</figure>'


def hint() -> str:
    """How charts are read with a mouse or a finger; there only where scripts run, and not on paper."""
    text = (
        "Point at a chart, or touch it, for its numbers, and on charts of users for whose they are. A click on a name "
        "in its key hides that line."
    )
    return f'<p class="note" data-chart-hint hidden>{text}</p>'


def data(charts: Iterable[Chart]) -> str:
    """The numbers within a page; no name in them, whatever it holds, can end the element that they stand in."""
    text = as_json(charts)
    for letter in "<>&\u2028\u2029":
        text = text.replace(letter, f"\\u{ord(letter):04x}")
    return f'<script type="application/json" data-flsim-charts>{text}</script>'


def scripts() -> str:
    """The library and the script, embedded; the last piece of a page's body."""
    return "\n".join(f"<script>{text}</script>" for text in (library_text(), script_text()))


def script_sources() -> str:
    """The two as a page's Content-Security-Policy names them: these scripts may run, and no other."""
    digests = (hashlib.sha256(text.encode()).digest() for text in (library_text(), script_text()))
    return " ".join(f"'sha256-{base64.b64encode(digest).decode()}'" for digest in digests)
