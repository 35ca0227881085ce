"""Renders a report as one self-contained HTML page, without scripts."""

import base64
import dataclasses
import html
from collections.abc import Sequence

STYLE = """
:root { color-scheme: light dark; --ink: #1b1f24; --page: #fff; --faint: #5b6470;
        --line: #d8dce1; --shade: #f4f6f8; --link: #0a5fa8; --edge: #0004; }
@media (prefers-color-scheme: dark) {
  :root { --ink: #e3e6ea; --page: #14171b; --faint: #a0a8b2; --line: #343a42;
          --shade: #1d2127; --link: #6db3ee; --edge: #fff5; } }
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 80rem; padding: 1rem; color: var(--ink);
       background: var(--page); font: 1rem/1.5 system-ui, sans-serif;
       overflow-wrap: anywhere; }
h1 { font-size: 1.7rem; line-height: 1.25; margin: .5rem 0; }
h2 { font-size: 1.25rem; margin: 2.5rem 0 .5rem; padding-bottom: .2rem;
     border-bottom: 1px solid var(--line); }
p { max-width: 46rem; margin: .5rem 0; }
nav { display: flex; flex-wrap: wrap; gap: .1rem 1rem; font-size: .9rem; }
nav a { color: var(--link); padding: .2rem 0; }
.lead { font-size: 1.1rem; }
.warning { border-left: .25rem solid #d55e00; padding-left: .75rem; }
.figures { display: grid; gap: .75rem; margin: 1rem 0;
           grid-template-columns: repeat(auto-fit, minmax(min(100%, 9rem), 1fr)); }
.figures div { background: var(--shade); border-radius: .5rem; padding: .7rem;
               max-width: 24rem; }
.figures dt, .figures dd + dd { color: var(--faint); font-size: .875rem; }
.figures dd { margin: 0; font-size: clamp(1.25rem, 5vw, 1.75rem); line-height: 1.25; }
.figures dd + dd { line-height: 1.4; }
.side { display: grid; gap: 1.25rem; align-items: start;
        grid-template-columns: repeat(auto-fit, minmax(min(100%, 24rem), 1fr)); }
.side > * { min-width: 0; }
figure { margin: 0; max-width: 40rem; }
img { display: block; width: 100%; height: auto; }
.scroll { max-width: 100%; overflow-x: auto; margin: .5rem 0; background:
  linear-gradient(90deg, var(--page) 40%, transparent) 0 / 3rem 100% local no-repeat,
  linear-gradient(270deg, var(--page) 40%, transparent) 100% / 3rem 100% local
    no-repeat,
  radial-gradient(farthest-side at 0, var(--edge), transparent) 0 / 1rem 100%
    scroll no-repeat,
  radial-gradient(farthest-side at 100%, var(--edge), transparent) 100% / 1rem 100%
    scroll no-repeat; }
table { border-collapse: collapse; font-size: .875rem;
        font-variant-numeric: tabular-nums; }
th, td { border-bottom: 1px solid var(--line); padding: .3rem .75rem .3rem 0;
         text-align: left; vertical-align: top; min-width: 3rem; max-width: 26rem;
         overflow-wrap: break-word; }
th { border-bottom: 2px solid var(--line); }
.number { text-align: right; }
td.long { overflow-wrap: anywhere; white-space: pre-wrap; }
td + td.long { min-width: 14rem; word-break: break-all; }
@media (max-width: 40rem) { th, td { max-width: 9rem; } }
summary { cursor: pointer; margin: 1rem 0 .25rem; font-weight: 600; }
"""

# Content security policy: the browser loads nothing from outside this file.
POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"


Row = Sequence[str | float | int]


@dataclasses.dataclass(frozen=True)
class Picture:
    """A figure of the report.

    Attributes:
        name: name of its file, without folder or suffix.
        svg: the content of the SVG file.
        alt: description in words of what it shows.
    """

    name: str
    svg: bytes
    alt: str


@dataclasses.dataclass(frozen=True)
class Table:
    """A table of the report.

    Attributes:
        head: names of the columns.
        rows: one value per column; numbers are aligned to the right, and floats are
            fractions, shown in percent.
        folded_as: heading under which the table is collapsed; "" shows the table.
    """

    head: Sequence[str]
    rows: Sequence[Row]
    folded_as: str = ""


@dataclasses.dataclass(frozen=True)
class Section:
    """A part of the report.

    Attributes:
        title: heading.
        notes: paragraphs under the heading.
        pictures: shown side by side if there is room.
        tables: after the pictures, beside them if there is room.
        is_warning: whether the notes are marked as a warning.
    """

    title: str
    notes: Sequence[str] = ()
    pictures: Sequence[Picture] = ()
    tables: Sequence[Table] = ()
    is_warning: bool = False


@dataclasses.dataclass(frozen=True)
class Head:
    """What stands first in the report.

    Attributes:
        title: title of the page.
        lead: one sentence that says what is reported.
        figures: shown large: what it is, the number, and a remark below it.
    """

    title: str
    lead: str = ""
    figures: Sequence[tuple[str, str, str]] = ()


def render(head: Head, sections: Sequence[Section]) -> bytes:
    """Returns the page in UTF-8, with all texts escaped."""
    title, lead = html.escape(head.title), html.escape(head.lead)
    figures = "".join(
        f"<div><dt>{what}</dt><dd>{number}</dd><dd>{remark}</dd></div>"
        for what, number, remark in (map(html.escape, one) for one in head.figures)
    )
    links = "".join(
        f'<a href="#s{i}">{html.escape(section.title)}</a>'
        for i, section in enumerate(sections)
    )
    body = "\n".join(_section(i, section) for i, section in enumerate(sections))
    page = f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="{POLICY}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title>
<link rel="icon" href="data:,">
<style>{STYLE}</style>
</head>
<body>
<h1>{title}</h1>
<p class="lead">{lead}</p>
<dl class="figures">{figures}</dl>
<nav>{links}</nav>
{body}
</body>
</html>
"""
    # JSON and file names may contain lone surrogates, which UTF-8 cannot encode.
    return page.encode(errors="backslashreplace")


def _section(number: int, section: Section) -> str:
    kind = ' class="warning"' if section.is_warning else ""
    notes = [f"<p{kind}>{html.escape(note)}</p>" for note in section.notes]
    pictures = "".join(_picture(picture) for picture in section.pictures)
    shown = "".join(_table(table) for table in section.tables if not table.folded_as)
    folded = "".join(_table(table) for table in section.tables if table.folded_as)
    side = ' class="side"' if pictures else ""
    return "\n".join(
        [
            f'<section id="s{number}">\n<h2>{html.escape(section.title)}</h2>',
            *notes,
            f"<div{side}>{pictures}{shown}</div>{folded}",
            "</section>",
        ]
    )


def _picture(picture: Picture) -> str:
    data = base64.b64encode(picture.svg).decode()
    alt = html.escape(picture.alt)
    return f'<figure><img alt="{alt}" src="data:image/svg+xml;base64,{data}"></figure>'


def _table(table: Table) -> str:
    aligned = [
        ' class="number"' if value and not isinstance(value[0], str) else ""
        for value in zip(*table.rows, strict=True)
    ]
    head = "".join(
        f"<th{kind}>{html.escape(name)}</th>"
        for kind, name in zip(aligned, table.head, strict=True)
    )
    rows = "\n".join(
        f"<tr>{''.join(_cell(value) for value in row)}</tr>" for row in table.rows
    )
    shown = f"<table>\n<tr>{head}</tr>\n{rows}\n</table>"
    shown = f'<div class="scroll" tabindex="0">{shown}</div>'
    if not table.folded_as:
        return shown
    name = html.escape(table.folded_as)
    return f"<details><summary>{name}</summary>{shown}</details>"


def _cell(value: str | float | int) -> str:
    if isinstance(value, str):
        kind = ' class="long"' if len(value) > 60 else ""
        return f"<td{kind}>{html.escape(value)}</td>"
    shown = f"{value:.1%}" if isinstance(value, float) else f"{value:,}"
    return f'<td class="number">{shown}</td>'
