"""What a command does before its work: threads, the run folder of a training command, the model in a folder that it is given."""

from __future__ import annotations

import contextlib
import re
import tomllib
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import torch

from deepwright import numerics
from deepwright.files import write_whole
from deepwright.recipe.resolve import VERSION_KEY, to_table, to_toml
from deepwright.recipe.settings import STAGES as RECIPE
from deepwright.refusals import changes
from deepwright.rl.grpo import FREE_SETTINGS as FREE_RL
from deepwright.train.checkpoint import find_damage
from deepwright.train.pretrain import FREE_SETTINGS as FREE_PRETRAIN
from deepwright.weights.layouts import describe

if TYPE_CHECKING:
    from deepwright.recipe.settings import PretrainSettings, R1Settings, RLSettings, RunSettings

T = TypeVar("T", bound="RunSettings")
CONFIG = "config.toml"
# Where a run folder keeps its model, the later stage first. A distilled student is another model.
STAGES = (*(stage for stage in reversed(RECIPE) if stage != "distill"), ".")
# May differ between the two halves of a resumed run. Budgets and stages can also be added to a finished one.
FREE = {
    *FREE_PRETRAIN,
    *FREE_RL,
    "run",
    "threads",
    "sampler.url",
    "sampler.reload",
    "evaluation.budgets",
    "stages",
}


def use_threads(threads: int) -> None:
    """0 leaves the number to torch."""
    if threads < 0:
        raise ValueError(f"threads is {threads}, expected 0 (torch decides) or a positive number")
    if threads:
        torch.set_num_threads(threads)
    numerics.keep_heap()


def open_run(settings: R1Settings | PretrainSettings | RLSettings, resume: bool) -> Path:
    """The run folder, with the resolved settings in it. A run that exists is only gone on with, and only with the settings it has.

    Raises ValueError: it exists and `resume` is false; it was started with other settings."""
    folder, config = settings.folder, settings.folder / CONFIG
    if config.exists():
        if not resume:
            raise ValueError(
                f"the run {folder} exists: --resume goes on with it, --run NAME starts another"
            )
        check_same(folder, tomllib.loads(config.read_text()), to_table(settings))
    elif folder.exists() and any(folder.iterdir()):
        raise ValueError(
            f"{folder} is not empty and has no {CONFIG}: --run NAME chooses another folder"
        )
    folder.mkdir(parents=True, exist_ok=True)
    write_whole(config, to_toml(settings))
    return folder


def with_formats(settings: T, resume: bool) -> T:
    """The settings with every number format decided: of a run that is gone on with as it began,
    wherever it goes on; else by what is faster here."""
    kept = None
    with contextlib.suppress(OSError, tomllib.TOMLDecodeError):  # which `open_run` refuses
        kept = tomllib.loads((settings.folder / CONFIG).read_text()) if resume else None
    return numerics.settled(settings, kept)


def check_same(folder: Path, before: dict, asked: dict) -> None:
    for name, old, new in changes(before, asked):
        if name != VERSION_KEY and not any(
            name == free or name.endswith(f".{free}") for free in FREE
        ):
            raise ValueError(
                f"the run {folder} was started with {name} = {old!r}, asked for now is {new!r}: go on with the old value, or --run NAME starts another"
            )


def model_folder(folder: str | Path, stages: tuple[str, ...] = STAGES) -> Path:
    """A Hugging Face folder as it is; of a run folder the last whole checkpoint. Only reads: the run may still be going on."""
    folder = Path(folder)
    if (folder / "config.json").is_file():
        return folder
    for stage in stages:
        steps = sorted((folder / stage / "checkpoints").glob("step-*"), key=step_of, reverse=True)
        for checkpoint in steps:
            if step_of(checkpoint) >= 0 and find_damage(checkpoint) is None:
                return checkpoint
    if not folder.is_dir():
        hint = f": `deepwright convert {folder} OUT` makes one of the file"
        gguf = folder.suffix == ".gguf" and folder.is_file()
        raise ValueError(f"there is no folder {folder}{hint if gguf else ''}")
    if what := describe(folder):
        raise ValueError(f"{folder} holds {what}")
    raise ValueError(
        f"{folder} holds no model: expected a config.json in it, or a run folder with a whole checkpoint"
    )


def step_of(checkpoint: Path) -> int:
    match = re.fullmatch(r"step-(\d+)", checkpoint.name)
    return int(match[1]) if match else -1
