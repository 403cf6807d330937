"""Writes a run's report: one HTML file that needs nothing else, cheap enough to rewrite every half minute."""

from __future__ import annotations

import time
from pathlib import Path

from deepwright.files import write_whole
from deepwright.report.curves import later, pre_training, reinforcement, timing
from deepwright.report.figures import escape
from deepwright.report.frame import document
from deepwright.report.records import Run, read_run
from deepwright.report.scaling import scaling
from deepwright.report.sections import (
    corpus,
    decomposition,
    glossary,
    headline,
    identity,
    limits,
    samples,
)
from deepwright.report.stages import across, kept, recipe

# (name, words for its link, what writes it, the stage without which it has no place); "" where a run has nothing of the kind
_PARTS = (
    ("recipe", "the recipe", recipe, ""),
    ("result", "result", headline, ""),
    ("rise", "what the rise is made of", decomposition, "zero"),
    ("scaling", "thinking longer, voting", scaling, ""),
    ("across", "one problem, every stage", across, ""),
    ("zero", "reinforcement learning", reinforcement, "zero"),
    ("samples", "samples", samples, "zero"),
    ("later", "after R1-Zero", later, ""),
    ("kept", "samples kept", kept, ""),
    ("base", "base model", pre_training, "base"),
    ("corpus", "corpus", corpus, "base"),
    ("time", "time", timing, ""),
    ("limits", "limits", limits, ""),
    ("glossary", "glossary", glossary, ""),
)


def write_report(run_dir: str | Path) -> Path:
    """Reads a run folder as it is now and writes `report.html` into it by rename, so that a reader never sees half a page.

    Files that are not there yet leave a line that says so. ValueError names a file that is there and damaged.
    """
    run = read_run(run_dir)
    path = run.folder / "report.html"
    text = page(run, time.time())
    # a run's files may hold half characters
    write_whole(path, text.encode(errors="replace").decode())
    return path


def page(run: Run, now: float) -> str:
    """The HTML text of a run's report, written at `now` (seconds since 1970)."""
    parts = [
        (name, words, text)
        for name, words, write, stage in _PARTS
        if (not stage or run.has(stage)) and (text := write(run))
    ]
    links = "".join(f'<a href="#{name}">{words}</a>' for name, words, _ in parts)
    written = time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime(now))
    footer = f'<footer>Written {escape(written)} by Deepwright.<span id="age"></span></footer>'
    languages = '<p class="languages"><a href="#en" lang="en" translate="no">English</a><a href="#zh" lang="zh" translate="no">中文</a></p>'
    body = f"<header>{languages}{identity(run)}<nav>{links}</nav></header><main>{''.join(text for _, _, text in parts)}{footer}</main>"
    return document(
        f"{run.folder.resolve().name}: run report", body, running=run.running, written=now
    )
