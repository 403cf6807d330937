"""What a run ends with on a terminal: the report's table of stages in a few lines, or the last losses of a run that is asked no problems."""

from __future__ import annotations

from collections.abc import Sequence

from deepwright.report.figures import GLUE, count, duration
from deepwright.report.records import STAGES, Run
from deepwright.report.stages import stage_table

COLUMNS = ("stage", "pass@1", "one language", "requests", "length", "training")


def summary(run: Run) -> list[str]:
    """Aligned lines of plain text."""
    head, rows = stage_table(run)
    wanted = [place for place, name in enumerate(head) if name in COLUMNS]
    named = [[STAGES[stage], *cells] for stage, *cells in rows]
    lines = aligned([[row[place] for place in wanted] for row in (head, *named)]) if rows else []
    lines += _losses(run)
    if rows and not run.beyond_zero and (said := run.decomposition.get("sentence")):
        lines.append(str(said))
    if run.setting("quick") is True:
        lines.append("A quick run: these figures prove nothing.")
    return lines


def aligned(rows: Sequence[Sequence[str]], left: int = 1) -> list[str]:
    """Rows of cells as lines with columns of one width; those from `left` on flush right. Blanks at line ends are left out."""
    rows = [[cell.replace(GLUE, " ") for cell in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "  ".join(
            f"{cell:<{width}}" if place < left else f"{cell:>{width}}"
            for place, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]


def _losses(run: Run) -> list[str]:
    lines = []
    for stage in ("base", *run.phases, "sft"):
        loss, held = run.last(stage, "loss"), run.last(stage, "validation_loss")
        if loss is None or run.labelled("base"):
            continue
        tokens, spent = run.last(stage, "tokens"), run.spent(stage)
        beside = "" if held is None else f", validation {held:.3f}"
        bits = run.last(stage, "bits_per_byte")
        of_text = "" if bits is None else f", {bits:.3f} bits/byte"
        lines.append(
            f"{stage}: loss {loss:.3f}{beside} nats/token{of_text} after {count(tokens)} tokens in {duration(spent)}"
        )
    return lines
