"""Pieces of a self-contained HTML page: escaped tables, embedded pictures, and the style for screen and print."""

import base64
from collections.abc import Sequence
from html import escape
from pathlib import Path

from flsim.charts.chart import Chart
from flsim.charts.pieces import STYLE as PLACES
from flsim.charts.pieces import data, place, script_sources, scripts

STYLE = """
:root { color-scheme: light; }
* { box-sizing: border-box; }
body { font: 16px/1.55 system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", Arial, sans-serif; color: #222;
  background: #fff; max-width: 1060px; margin: 0 auto; padding: 32px 24px 64px; }
h1 { font-size: 1.9rem; line-height: 1.2; margin: 0 0 .3rem; }
h2 { font-size: 1.25rem; margin: 2.8rem 0 .6rem; padding-top: .8rem; border-top: 1px solid #ddd; }
.facts { color: #666; margin: 0 0 1.2rem; }
.answer { font-size: 1.22rem; line-height: 1.45; margin: 0 0 1.2rem; padding: .9rem 1.1rem;
  background: #eef5fa; border-left: 5px solid #0072b2; }
p { max-width: 75ch; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; font-size: .92rem; font-variant-numeric: tabular-nums; margin: .4rem 0 .8rem; }
th, td { padding: .32rem .8rem; text-align: right; white-space: nowrap; border-bottom: 1px solid #e6e6e6; }
th:first-child, td:first-child { text-align: left; padding-left: 0; }
thead th { color: #555; white-space: normal; font-weight: 600; border-bottom: 2px solid #bbb; vertical-align: bottom; }
tbody tr.strong td { font-weight: 650; background: #f5f9fc; }
tr.fault td:first-child { color: #fff; background: #b3261e; padding-left: .5rem; }
tr.warning td:first-child { background: #f6d365; padding-left: .5rem; }
tr.note td:first-child { background: #e3e7ea; padding-left: .5rem; }
table.words th, table.words td { text-align: left; white-space: normal; }
table.words td:nth-child(3) { min-width: 22ch; }
figure { margin: 1.2rem 0 2rem; }
figure img { display: block; max-width: 100%; height: auto; }
figcaption, .note { color: #555; font-size: .92rem; max-width: 85ch; margin-top: .5rem; }
pre { background: #f6f6f6; padding: .9rem 1rem; font-size: .82rem; line-height: 1.45; overflow-x: auto; }
summary { cursor: pointer; color: #0060a0; }
@media screen and (max-width: 600px) {
  body { padding: 20px 14px 48px; }
  th, td { padding: .3rem .5rem; }
  th:first-child, td:first-child { white-space: normal; min-width: 7rem; }
}
@page { size: A4; margin: 15mm 14mm; }
@media print {
  :root { font-size: 10pt; }
  body { font-size: 10pt; padding: 0; max-width: none; }
  h2 { break-after: avoid; margin-top: 1.6rem; }
  figure, table, .answer { break-inside: avoid; }
  figure img { max-height: 120mm; }
  .scroll { overflow: visible; }
  table.words td { overflow-wrap: anywhere; min-width: 8ch; }
  table.words td:nth-child(5), table.words td:nth-child(6) { min-width: 18ch; }
  th, td { padding: .22rem .5rem; }
  pre { white-space: pre-wrap; overflow-wrap: anywhere; }
  details::details-content { content-visibility: visible; display: block; }
  .answer, tbody tr.strong td { -webkit-print-color-adjust: exact; print-color-adjust: exact; }
}
"""


def page_of(title: str, body: Sequence[str], *, head: str = "") -> str:
    """A whole HTML page that needs no other file, script or network.

    Args:
        title: plain text.
        body: pieces of HTML, already escaped.
        head: more of its head, likewise.
    """
    first = '<meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">'
    first += f"<title>{escape(title)}</title><style>{STYLE}</style>"
    joined = "\n".join(body)
    return f'<!doctype html>\n<html lang="en"><head>{first}{head}</head>\n<body>\n{joined}\n</body></html>\n'


def charted_page(title: str, body: Sequence[str], charts: Sequence[Chart]) -> str:
    """The same with charts, their library and their numbers; it may run these scripts and load nothing at all.

    Args:
        title: plain text.
        body: pieces of HTML, already escaped, with a place for every chart.
        charts: that are drawn when the page has been read; without any it holds no script.
    """
    if not charts:
        return page_of(title, body)
    rules = f"default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src {script_sources()}"
    head = f'<meta http-equiv="Content-Security-Policy" content="{rules}"><style>{PLACES}</style>'
    return page_of(title, [*body, data(charts), scripts()], head=head)


def figure_of(charts: Sequence[Chart], caption: str, *, picture: str = "") -> str:
    """The charts of one figure beside or below one another, with its caption.

    Args:
        charts: at least one.
        caption: plain text, how to read them.
        picture: path of the same as a picture from the page, for browsers without scripts; empty if there is none.
    """
    link = f'<a href="{escape(picture)}">{escape(picture)}</a>'
    without = (
        f"<noscript><p>JavaScript draws these charts, and it is off; as a picture they are in {link}.</p></noscript>"
    )
    places = "".join(place(chart.name, chart.title, wide=len(charts) == 1) for chart in charts)
    told = f'<p class="note">{escape(caption)}</p>'
    kind = "charts three" if len(charts) == 3 else "charts"
    return f'{without if picture else ""}<div class="{kind}">{places}</div>{told}'


def heading(text: str, level: int = 2) -> str:
    """A heading of plain text."""
    return f"<h{level}>{escape(text)}</h{level}>"


def paragraph(text: str, *, kind: str = "") -> str:
    """A paragraph of plain text; `kind` is its class in the style, empty for none."""
    attribute = f' class="{kind}"' if kind else ""
    return f"<p{attribute}>{escape(text)}</p>"


def table(
    headings: Sequence[str],
    rows: Sequence[Sequence[str]],
    *,
    strong: Sequence[int] = (),
    kind: str = "numbers",
    marks: Sequence[str] = (),
) -> str:
    """A table of plain texts, the first column left and the others right aligned.

    Args:
        headings: one per column.
        rows: as many cells each.
        strong: numbers of the rows that stand out, from 0.
        kind: `numbers`, or `words` to align all columns left and to break long cells.
        marks: a class of the style for every row; empty for none.
    """
    head = "".join(f"<th>{escape(text)}</th>" for text in headings)
    lines = []
    for number, row in enumerate(rows):
        cells = "".join(f"<td>{escape(text)}</td>" for text in row)
        mark = "strong" if number in strong else marks[number] if marks else ""
        lines.append(f'<tr class="{mark}">{cells}</tr>' if mark else f"<tr>{cells}</tr>")
    whole = f"<thead><tr>{head}</tr></thead><tbody>{''.join(lines)}</tbody>"
    return f'<div class="scroll"><table class="{kind}">{whole}</table></div>'


def picture(path: Path, caption: str) -> str:
    """A PNG embedded in the page, with its caption, which is also its text for readers who do not see it.

    Where there is no such file, since it could not be drawn, the page says so.
    """
    if not path.is_file():
        return paragraph(f"The picture {path.name} could not be drawn.", kind="note")
    data = base64.b64encode(path.read_bytes()).decode("ascii")
    image = f'<img alt="{escape(caption)}" src="data:image/png;base64,{data}">'
    return f"<figure>{image}<figcaption>{escape(caption)}</figcaption></figure>"


def folded_table(title: str, headings: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table that opens on a click and is open in print."""
    return f"<details><summary>{escape(title)}</summary>{table(headings, rows)}</details>"


def folded(title: str, text: str) -> str:
    """A text in fixed-width letters that opens on a click and is open in print."""
    return f"<details><summary>{escape(title)}</summary><pre>{escape(text)}</pre></details>"
