"""The frame of a report: one HTML document with its style and its few lines of script inside, and nothing fetched from anywhere."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from deepwright.report.chinese import translations
from deepwright.report.columns import meaning
from deepwright.report.figures import escape

_HERE = Path(__file__).parent
STYLE = (_HERE / "page.css").read_text(encoding="utf-8")
SCRIPT = (_HERE / "page.js").read_text(encoding="utf-8")
LANGUAGES = (
    '<p class="languages"><a href="#en" lang="en" translate="no">English</a>'
    '<a href="#zh" lang="zh" translate="no">中文</a></p>'
)


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


def table(
    head: Sequence[str],
    rows: Sequence[Sequence[str]],
    numeric: int = 1,
    meanings: Mapping[str, str] = {},
) -> str:
    """Cells are HTML. Columns from `numeric` on are set flush right; the first one stays in sight where a narrow screen scrolls. Heads that
    columns.py knows, or `meanings`, are explained."""
    said = {one: found for one in head if (found := meanings.get(one) or meaning(one))}

    def cell(place: int, content: str, tag: str, title: str = "") -> str:
        hint = f' title="{escape(title)}"' if title else ""
        return f"<{tag}{' class=n' if place >= numeric else ''}{hint}>{content}</{tag}>"

    top = "".join(cell(i, escape(one), "th", said.get(one, "")) for i, one in enumerate(head))
    below = ("".join(cell(i, one, "td") for i, one in enumerate(row)) for row in rows)
    drawn = "".join(f"<tr>{row}</tr>" for row in (top, *below))
    return f'<div class="scroll"><table>{drawn}</table></div>{_explained(said)}'


def _explained(said: Mapping[str, str]) -> str:
    if len(said) < 2:
        return ""
    listed = "".join(f"<dt>{escape(one)}</dt><dd>{escape(text)}</dd>" for one, text in said.items())
    return fold("What the columns mean", f"<dl>{listed}</dl>")


def fold(summary: str, *parts: str) -> str:
    return f"<details><summary>{escape(summary)}</summary>{''.join(parts)}</details>"


def footer(now: float) -> str:
    written = time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime(now))
    return f'<footer>Written {escape(written)} by Deepwright.<span id="age"></span></footer>'
