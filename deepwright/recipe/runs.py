"""`deepwright runs`: the runs of a folder, one run's figures, several runs in one page, and a run's records for other tools. No torch."""

from __future__ import annotations

from pathlib import Path

from deepwright.recipe.owner import is_owned
from deepwright.recipe.requests import RunsRequest
from deepwright.refusals import expect
from deepwright.report import write_report
from deepwright.report.comparison import write_comparison
from deepwright.report.listing import Glance, glance, is_run, listed, runs_under
from deepwright.report.records import read_run
from deepwright.report.summary import summary
from deepwright.trackers import to_csv, to_tensorboard

RUNS = Path("runs")
METRICS = "metrics.jsonl"


def answer(asked: RunsRequest) -> list[str]:
    """The lines that are printed. ValueError for a folder that is not there, and for what one run alone, or several, can be asked."""
    folders = [_folder(name) for name in asked.runs] or [RUNS]
    one, several = len(folders) == 1 and is_run(folders[0]), len(folders) > 1
    for option, fits, expected in (
        ("csv", one, "one run"),
        ("tensorboard", one, "one run"),
        ("page", one or several, "one run or more"),
    ):
        if getattr(asked, option) and not fits:
            raise ValueError(f"--{option} is for {expected}, asked for was {_names(folders)}")
        above = Path(getattr(asked, option)).parent
        expect(above.is_dir(), f"--{option}", getattr(asked, option), "a file in a folder that is there")  # fmt: skip
    if several:
        return _compared(folders, asked.page)
    return _one(folders[0], asked) if one else _list(folders[0])


def _list(folder: Path) -> list[str]:
    found = [_glance(run, str(run.relative_to(folder))) for run in runs_under(folder)]
    return listed(found) if found else [f"there is no run in {folder}"]


def _one(folder: Path, asked: RunsRequest) -> list[str]:
    """Its line, the table of its figures, and what was written of it."""
    seen = _glance(folder, folder.name)
    lines = listed([seen])
    if not seen.fault:
        lines += ["", *summary(read_run(folder))]
    if asked.page:
        write_report(folder, Path(asked.page))
        lines.append(f"The report: {asked.page}")
    for target, write in ((asked.csv, to_csv), (asked.tensorboard, to_tensorboard)):
        if target:
            write(folder / METRICS, Path(target))
            lines.append(f"written: {target}")
    return lines


def _compared(folders: list[Path], page: str) -> list[str]:
    for folder in folders:
        if not is_run(folder):
            raise ValueError(f"{folder} is no run: expected a folder with config.toml or run.json")
    names = "-".join(folder.resolve().name for folder in folders)[:120]
    path = Path(page) if page else folders[0].resolve().parent / f"comparison-{names}.html"
    write_comparison([read_run(folder) for folder in folders], path)
    lines = listed([_glance(folder, folder.name) for folder in folders])
    return [*lines, f"The comparison: {path}"]


def _glance(folder: Path, name: str) -> Glance:
    return glance(folder, name, is_owned)


def _folder(name: str) -> Path:
    """A folder as given, or a run by its name under runs/."""
    for folder in (Path(name), RUNS / name):
        if folder.is_dir():
            return folder
    raise ValueError(f"there is no folder {name}, nor {RUNS / name}: `deepwright runs` lists them")


def _names(folders: list[Path]) -> str:
    return " ".join(map(str, folders))
