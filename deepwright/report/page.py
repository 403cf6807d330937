"""Writes a run's report: one HTML file that needs nothing else, cheap enough to rewrite every half minute."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from deepwright.files import write_whole
from deepwright.report.background import corpus, glossary, limits, settings
from deepwright.report.curves import fine_tuning, later, pre_training, reinforcement, stretched
from deepwright.report.frame import LANGUAGES, document, footer
from deepwright.report.identity import about, title
from deepwright.report.opening import opening
from deepwright.report.records import Run, read_run
from deepwright.report.result import decomposition, headline
from deepwright.report.samples import across, continued, kept, samples, tuned
from deepwright.report.scaling import scaling
from deepwright.report.stages import recipe
from deepwright.report.timing import timing


@dataclass(frozen=True)
class Part:
    """A part of the page: what writes it ("" where a run has nothing of the kind), and one of the stages without which it has no place."""

    name: str
    words: str  # of its link
    write: Callable[[Run], str]
    stages: tuple[str, ...] = ()

    def of(self, run: Run) -> str:
        return self.write(run) if not self.stages or any(map(run.has, self.stages)) else ""


PARTS = (
    Part("recipe", "the recipe", recipe),
    Part("result", "result", headline, ("zero",)),
    Part("rise", "what the rise is made of", decomposition, ("zero",)),
    Part("scaling", "thinking longer, voting", scaling),
    Part("across", "one problem, every stage", across),
    Part("zero", "reinforcement learning", reinforcement, ("zero",)),
    Part("samples", "samples", samples, ("zero",)),
    Part("later", "after R1-Zero", later),
    Part("kept", "samples kept", kept),
    Part("sft", "fine-tuning", fine_tuning, ("sft",)),
    Part("tuned", "samples", tuned, ("sft",)),
    Part("base", "base model", pre_training, ("base",)),
    Part("stretched", "longer context", stretched),
    Part("continued", "texts", continued),
    Part("corpus", "corpus", corpus, ("base",)),
    Part("time", "time", timing),
    Part("limits", "limits", limits),
    Part("settings", "settings", settings),
    Part("glossary", "glossary", glossary),
)


def write_report(run_dir: str | Path, path: Path | None = None) -> Path:
    """Reads a run folder as it is now and writes `report.html` into it, or the page to `path`; by rename, so that a reader never sees half a page.

    Files that are not there yet leave a line that says so. ValueError names a file that is there and damaged.
    """
    run = read_run(run_dir)
    path = path or run.folder / "report.html"
    text = page(run, time.time())
    # a run's files may hold half characters
    write_whole(path, text.encode(errors="replace").decode())
    return path


def page(run: Run, now: float) -> str:
    """The HTML text of a run's report, written at `now` (seconds since 1970)."""
    parts = [(part, text) for part in PARTS if (text := part.of(run))]
    links = "".join(f'<a href="#{part.name}">{part.words}</a>' for part, _ in parts)
    body = (
        f"<header>{LANGUAGES}{title(run)}</header><main>{opening(run)}{about(run)}<nav>{links}</nav>"
        f"{''.join(text for _, text in parts)}{footer(now)}</main>"
    )
    return document(
        f"{run.folder.resolve().name}: run report", body, running=run.running, written=now
    )
