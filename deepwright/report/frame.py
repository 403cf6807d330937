"""The frame of a report: one HTML document with its style and its few lines of script inside, and nothing fetched from anywhere."""

from __future__ import annotations

import json
from pathlib import Path

from deepwright.report.chinese import translations
from deepwright.report.figures import escape

_HERE = Path(__file__).parent
STYLE = (_HERE / "page.css").read_text(encoding="utf-8")
SCRIPT = (_HERE / "page.js").read_text(encoding="utf-8")


def document(title: str, body: str, *, running: bool, written: float) -> str:
    """The whole HTML text. `body` is HTML; `title` is text; `written` is in seconds since 1970."""
    words = json.dumps(translations(body), ensure_ascii=False).replace("<", "\\u003c")
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width,initial-scale=1">'
        '<meta name="referrer" content="no-referrer"><link rel="icon" href="data:,">'
        f"<title>{escape(title)}</title><style>{STYLE}</style></head>"
        f'<body data-running="{int(running)}" data-written="{written:.0f}">{body}<script>var chinese = {words};\n{SCRIPT}</script></body></html>\n'
    )


def section(name: str, title: str, *parts: str) -> str:
    """One part of the page under a heading that can be linked to; where there is nothing to show it says so."""
    content = "".join(parts) or not_yet("this part has no data so far.")
    return f'<section id="{escape(name)}"><h2>{escape(title)}</h2>{content}</section>'


def not_yet(what: str) -> str:
    return f'<p class="yet">Not yet: {escape(what)}</p>'


def paragraph(text: str, kind: str = "") -> str:
    return f'<p class="{kind}">{escape(text)}</p>' if kind else f"<p>{escape(text)}</p>"


def grid(*figures: str) -> str:
    """Figures side by side where there is room; "" if none was drawn."""
    drawn = "".join(figures)
    return f'<div class="grid">{drawn}</div>' if drawn else ""


def table(head: list[str], rows: list[list[str]], numeric: int = 1) -> str:
    """Cells are HTML. Columns from `numeric` on are set flush right."""

    def row(cells: list[str], tag: str) -> str:
        return (
            "<tr>"
            + "".join(
                f"<{tag}{' class=n' if i >= numeric else ''}>{cell}</{tag}>"
                for i, cell in enumerate(cells)
            )
            + "</tr>"
        )

    return f'<div class="scroll"><table>{row([escape(h) for h in head], "th")}{"".join(row(r, "td") for r in rows)}</table></div>'


def fold(summary: str, *parts: str) -> str:
    return f"<details><summary>{escape(summary)}</summary>{''.join(parts)}</details>"
