"""Which files a path means, and their rows as problems: those left out are counted and named.

A folder, as cloned from a hub, stands for the one file (or the shards of one) of the split that is
asked for. Left out: configurations of a set by name; where several files fit, one has to be named.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path

from deepwright.files import ROW_FILES, hidden, read_rows
from deepwright.refusals import quoted
from deepwright.tasks.layouts import BENCHMARKS, UNREAD, layout_of, lowered, read_row
from deepwright.tasks.task import Problem, Split

FOREIGN = 0.1  # share of rows of another layout from which on a file is not the benchmark named
LONGEST_REASON = 200  # characters, of up to three that are shown
_SHARD = re.compile(r"(.*)-(\d{5})-of-(\d{5})$")


def read_problems(path: str, benchmark: str, split: Split) -> list[Problem]:
    """The usable rows of a file or folder; of those left out a warning tells how many, and why.
    `benchmark`: a name of BENCHMARKS whose rows they must be, or ''.

    ValueError where nothing is usable, or the rows are none of the benchmark's."""
    problems: list[Problem] = []
    left_out: list[tuple[str, str]] = []  # (where, why)
    foreign: list[tuple[str, str]] = []
    for where, row in _rows(files_of(Path(path), split)):
        try:
            problem = read_row(row)
        # Recursion: tests are read as Python, whose nesting nothing else bounds.
        except (ValueError, RecursionError, MemoryError) as error:
            left_out.append((where, " ".join(str(error).split()) or type(error).__name__))
            continue
        if why := _misfit(row, problem, benchmark):
            foreign.append((where, why))
        else:
            problems.append(problem)
    usable = len(problems) + len(foreign)
    if len(foreign) > FOREIGN * usable:
        raise ValueError(
            f"{path} is not {benchmark}, expected {BENCHMARKS[benchmark].expected}: of its {usable}"
            f" usable rows {len(foreign)} are others. {_reasons(foreign)}"
        )
    _tell(path, problems, left_out + foreign)
    return problems


def _misfit(row: dict, problem: Problem, name: str) -> str:
    """Why a usable row is none of the benchmark's, or ''."""
    if not name:
        return ""
    benchmark, layout = BENCHMARKS[name], layout_of(lowered(row)).name
    if layout not in benchmark.layouts:
        return f"its columns are those of the layout {layout}"
    return (
        "" if benchmark.answers(problem.answer) else f"its answer is {quoted(problem.answer, 40)}"
    )


def _tell(path: str, problems: list[Problem], left_out: list[tuple[str, str]]) -> None:
    if not problems and not left_out:
        raise ValueError(f"{path}: there are no rows in it")
    if not problems:
        count = f"none of its {len(left_out)} rows can be used"
        raise ValueError(f"{path}: {count}. {_reasons(left_out)}")
    if left_out:
        warnings.warn(f"{path}: {_rows_are(left_out)} left out. {_reasons(left_out)}", stacklevel=2)
    if unread := [problem.columns[UNREAD] for problem in problems if UNREAD in problem.columns]:
        said = (
            f"{_rows_are(unread)} judged by the other tests alone: {'; '.join(sorted(set(unread)))}"
        )
        warnings.warn(f"{path}: {said}", stacklevel=2)


def _rows_are(counted: Sequence[object]) -> str:
    return "1 row is" if len(counted) == 1 else f"{len(counted)} rows are"


def _reasons(left_out: list[tuple[str, str]]) -> str:
    """ "line 3 and 20 more: no answer": each reason once, with the first place that has it."""
    places: dict[str, list[str]] = {}
    for where, why in left_out:
        places.setdefault(why[:LONGEST_REASON], []).append(where)
    said = [
        f"{where}{f' and {len(others)} more' if others else ''}: {why}"
        for why, (where, *others) in list(places.items())[:3]
    ]
    return "; ".join([*said, *(["and other reasons"] if len(places) > 3 else [])])


def _rows(paths: list[Path]) -> Iterator[tuple[str, dict]]:
    for path in paths:
        for where, row in read_rows(path):
            yield where if len(paths) == 1 else f"{path.name}, {where}", row


def files_of(path: Path, split: Split) -> list[Path]:
    """The file itself; of a folder the file, or all shards of it, that holds the split: `held_out`
    is what hubs call test. ValueError listing the candidates where there are several."""
    if not path.is_dir():
        return [path]
    found = sorted(
        file
        for file in path.rglob("*")
        if file.name.endswith(ROW_FILES) and file.is_file() and not hidden(file, path)
    )
    found = [file for file in found if file.suffix != ".json"] or found  # those describe the set
    wanted = "test" if split == "held_out" else "train"
    named = [file for file in found if wanted in _words(file.relative_to(path))] or found
    if len({_set_of(file) for file in named}) == 1:
        return _whole(named)
    if not found:
        raise ValueError(f"{path} holds no {', '.join(ROW_FILES)} file")
    listed = ", ".join(str(file.relative_to(path)) for file in named[:8])
    more = f" and {len(named) - 8} more" if len(named) > 8 else ""
    raise ValueError(f"{path} holds several files, name one of them: {listed}{more}")


def _words(file: Path) -> list[str]:
    """data/test-00000-of-00001.parquet -> data, test, of, parquet"""
    return re.split(r"[^a-z]+", str(file).lower())


def _set_of(file: Path) -> Path:
    """The same for all shards of one file."""
    shard = _SHARD.fullmatch(file.stem)
    return file.with_name(f"{shard[1]}-of-{shard[3]}{file.suffix}") if shard else file


def _whole(shards: list[Path]) -> list[Path]:
    shard = _SHARD.fullmatch(shards[0].stem)
    if shard and len(shards) != int(shard[3]):
        raise ValueError(f"{shards[0]}: {len(shards)} of its {int(shard[3])} shards are there")
    return shards
