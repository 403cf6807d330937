"""The runs in a folder, a line for each: what it is, how far it came, what it reached, how large it is. Reads the end of long files, never all of them.

A run that is damaged is a line that says how; nothing that a folder holds is a reason not to list the others.
"""

from __future__ import annotations

import os
import shlex
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from deepwright.files import last_record, read_json, read_records, read_toml
from deepwright.report.figures import GLUE, duration, number, or_unknown, percent
from deepwright.report.records import STAGES, STUDENTS
from deepwright.report.stages import share
from deepwright.report.summary import aligned

CONFIG, FACTS = "config.toml", "run.json"
DEEPEST = 2  # folders of runs in a folder of runs
LONGEST = 110  # characters of a cell
LONGEST_RUN = 1e9  # seconds
HEAD = ("run", "command", "stage", "status", "figures", "size", "started", "took")
Owned = Callable[[Path], bool]  # whether a process is working on a run


@dataclass(frozen=True)
class Glance:
    """What is known of a run without reading all of it. fault: why nothing is."""

    name: str
    command: str = ""
    stage: str = ""
    status: str = ""
    figures: str = ""
    bytes: int = 0
    started: str = ""
    seconds: float | None = None
    fault: str = ""

    def cells(self) -> list[str]:
        """What a terminal can show, each of bounded length."""
        known = self.seconds is not None and 0 <= self.seconds < LONGEST_RUN
        took = duration(self.seconds) if known else ""
        said = [self.command, self.stage, self.status, self.figures]
        return [_shown(cell) for cell in (self.name, *said, size(self.bytes), self.started, took)]


def _shown(text: str) -> str:
    spaced = text[: LONGEST + 1].replace(GLUE, " ")
    plain = "".join(letter if letter.isprintable() else "?" for letter in spaced)
    return plain if len(plain) <= LONGEST else f"{plain[: LONGEST - 4]} ..."


def is_run(folder: Path) -> bool:
    return (folder / CONFIG).is_file() or (folder / FACTS).is_file()


def runs_under(folder: Path, deepest: int = DEEPEST) -> Iterator[Path]:
    """Run folders in a folder, by name; those in folders of folders too. A link is not followed."""
    try:
        inside = sorted(entry.name for entry in os.scandir(folder) if entry.is_dir(follow_symlinks=False))  # fmt: skip
    except OSError:
        return
    for name in inside:
        if is_run(folder / name):
            yield folder / name
        elif deepest > 1 and not name.startswith("."):
            yield from runs_under(folder / name, deepest - 1)


def glance(folder: Path, name: str, owned: Owned) -> Glance:
    """One run. What cannot be read is said in the line."""
    try:
        return _glance(folder, name, owned)
    except (ValueError, OSError) as error:
        said = " ".join(str(error).split()).replace(f"{folder}/", "")

        return Glance(name, fault=said)


def _glance(folder: Path, name: str, owned: Owned) -> Glance:
    facts = read_json(folder / FACTS, constants="None") if (folder / FACTS).exists() else {}
    config = read_toml(folder / CONFIG) if (folder / CONFIG).exists() else {}
    judged = _judged(read_records(folder / "evaluations.jsonl"))
    last = last_record(folder / "metrics.jsonl") or {}
    status, newest = str(facts.get("status", "begun")), str(last.get("stage", ""))
    end = next(reversed(judged), "")  # reward models log too, and are no stages
    reached = end or newest if status == "finished" else newest or end
    if status == "running" and not owned(folder):
        status = "killed"
    step = "" if status == "finished" or not last else f", step {or_unknown(last.get('step'))}"
    return Glance(
        name,
        command_of(config, facts),
        f"{reached}{step}",
        status,
        _figures(judged, last),
        bytes_of(folder),
        str(facts.get("started", ""))[:16],
        number(facts.get("seconds")),
    )


def command_of(config: dict[str, Any], facts: dict[str, Any]) -> str:
    """r1, rl, pretrain or sft, as the settings say; else as the command was written."""
    for name, section in (("r1", "stages"), ("sft", "sft"), ("rl", "rl"), ("pretrain", "pretrain")):
        if section in config:
            return name
    try:
        words = shlex.split(str(facts.get("command", "")))
    except ValueError:
        return ""
    return words[1] if len(words) > 1 else ""


def _judged(records: Sequence[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """stage -> its last full held-out evaluation, in the order in which they were made."""
    found: dict[str, dict[str, Any]] = {}
    for record in records:
        if (stage := str(record.get("stage"))) == record.get("label"):
            found.pop(stage, None)
            found[stage] = record
    return found


def _figures(judged: dict[str, dict[str, Any]], last: dict[str, Any]) -> str:
    """pass@1 of the furthest stage of the large model and of the base; else the newest loss."""
    reached = [stage for stage in STAGES if stage in judged and stage not in STUDENTS]
    if reached:
        first, end = reached[0], reached[-1]
        start = number(judged[first].get("pass_at_1"))
        from_ = f" from {percent(start)}" if end != first else ""
        return f"{end} {share(judged[end])}{from_}"
    for name in ("validation_loss", "loss", "accuracy"):
        if (value := number(last.get(name))) is not None:
            return f"{name.replace('_', ' ')} {value:.3f}"
    return ""


def bytes_of(folder: Path) -> int:
    """What its files take, without what they link to."""
    total, waiting = 0, [str(folder)]
    while waiting:
        try:
            with os.scandir(waiting.pop()) as entries:
                for entry in entries:
                    if entry.is_dir(follow_symlinks=False):
                        waiting.append(entry.path)
                    else:
                        total += entry.stat(follow_symlinks=False).st_size
        except OSError:  # removed while we look
            continue
    return total


def size(count: int) -> str:
    """`41 MB`."""
    for unit, letter in ((1e9, "GB"), (1e6, "MB"), (1e3, "kB")):
        if count >= unit:
            return f"{count / unit:.3g} {letter}"
    return f"{count} B"


def listed(glances: Sequence[Glance]) -> list[str]:
    """Aligned lines under their heads, then those of damaged runs; columns that no run fills are left out."""
    rows = [one.cells() for one in glances if not one.fault]
    kept = [i for i in range(len(HEAD)) if any(row[i] for row in rows)]
    lines = aligned([[row[i] for i in kept] for row in (HEAD, *rows)], left=len(HEAD))
    damaged = [f"{_shown(one.name)}  damaged: {_shown(one.fault)}" for one in glances if one.fault]
    return (lines if rows else []) + damaged
