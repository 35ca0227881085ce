"""Renders a report as one self-contained HTML page, without scripts."""

import base64
import dataclasses
import html
from collections.abc import Sequence

STYLE = """
:root { color-scheme: light; }
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 80rem; padding: 1rem; color: #1a1a1a;
       background: #fff; font: 1rem/1.5 system-ui, sans-serif;
       overflow-wrap: anywhere; }
h1 { font-size: 1.6rem; margin: .5rem 0; }
h2 { font-size: 1.2rem; margin: 2.5rem 0 .5rem; border-bottom: 1px solid #ccc; }
p { max-width: 48rem; margin: .5rem 0; }
.warning { border-left: .25rem solid #d55e00; padding-left: .75rem; }
.pictures { display: grid; gap: 1rem; align-items: start;
            grid-template-columns: repeat(auto-fill, minmax(min(100%, 26rem), 1fr)); }
figure { margin: 0; }
img { display: block; max-width: 100%; height: auto; }
.scroll { max-width: 100%; overflow-x: auto; }
table { border-collapse: collapse; font-size: .875rem; margin: .5rem 0;
        font-variant-numeric: tabular-nums; overflow-wrap: normal; }
th, td { border: 1px solid #ddd; padding: .2rem .6rem; text-align: left;
         vertical-align: top; max-width: 26rem; }
th { background: #f3f3f3; }
td.number { text-align: right; }
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
        png: the content of the PNG file.
        alt: description in words of what it shows.
    """

    name: str
    png: bytes
    alt: str


@dataclasses.dataclass(frozen=True)
class Table:
    """A table of the report.

    Attributes:
        head: names of the columns.
        rows: one value per column; numbers are aligned to the right.
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
        tables: shown below the pictures.
        is_warning: whether the notes are marked as a warning.
    """

    title: str
    notes: Sequence[str] = ()
    pictures: Sequence[Picture] = ()
    tables: Sequence[Table] = ()
    is_warning: bool = False


def render(title: str, sections: Sequence[Section]) -> bytes:
    """Returns the page in UTF-8, with all texts escaped."""
    body = "\n".join(_section(section) for section in sections)
    page = f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="{POLICY}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{html.escape(title)}</title>
<link rel="icon" href="data:,">
<style>{STYLE}</style>
</head>
<body>
<h1>{html.escape(title)}</h1>
{body}
</body>
</html>
"""
    # JSON and file names may contain lone surrogates, which UTF-8 cannot encode.
    return page.encode(errors="backslashreplace")


def _section(section: Section) -> str:
    kind = ' class="warning"' if section.is_warning else ""
    notes = [f"<p{kind}>{html.escape(note)}</p>" for note in section.notes]
    pictures = "".join(_picture(picture) for picture in section.pictures)
    return "\n".join(
        [
            f"<section>\n<h2>{html.escape(section.title)}</h2>",
            *notes,
            f'<div class="pictures">{pictures}</div>' if pictures else "",
            *(_table(table) for table in section.tables),
            "</section>",
        ]
    )


def _picture(picture: Picture) -> str:
    data = base64.b64encode(picture.png).decode()
    alt = html.escape(picture.alt)
    return f'<figure><img alt="{alt}" src="data:image/png;base64,{data}"></figure>'


def _table(table: Table) -> str:
    head = "".join(f"<th>{html.escape(name)}</th>" for name in table.head)
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
        return f"<td>{html.escape(value)}</td>"
    shown = f"{value:.4g}" if isinstance(value, float) else str(value)
    return f'<td class="number">{shown}</td>'
