"""What a command does before its work: threads, the run folder of a training command, the model in
a folder that it is given."""

from __future__ import annotations

import contextlib
import dataclasses
import warnings
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import torch

from deepwright import numerics, weights
from deepwright.files import DRAFT, read_toml, write_whole
from deepwright.recipe.owner import LOCK, Owner, owning
from deepwright.recipe.resolve import VERSION_KEY, to_table, to_toml
from deepwright.recipe.settings import LONG_CONTEXT, check_threads
from deepwright.recipe.settings import STAGES as RECIPE
from deepwright.refusals import changes, grew, quoted
from deepwright.rl.grpo import FREE_SETTINGS as FREE_RL
from deepwright.train.checkpoint import by_step, find_damage
from deepwright.train.pretrain import FREE_SETTINGS as FREE_PRETRAIN
from deepwright.weights import hub
from deepwright.weights.layouts import describe, is_gguf

if TYPE_CHECKING:
    from deepwright.model import Transformer
    from deepwright.recipe.settings import RunSettings
    from deepwright.text import Tokenizer

T = TypeVar("T", bound="RunSettings")
CONFIG = "config.toml"
# Where a run folder keeps its model, the later stage first: what was pre-trained, and all. A
# distilled student is another model.
PRETRAINED = (*reversed(LONG_CONTEXT), "base", ".")
STAGES = (
    *(stage for stage in reversed(RECIPE) if stage not in ("base", "distill")),
    *PRETRAINED,
)
# Which of a run that is to stand for a pre-trained base: that, or else the last.
BASE_FIRST = (*PRETRAINED[:-1], *STAGES)
# May differ between the two halves of a resumed run. Budgets and stages can also be added to a finished one.
FREE = {
    *FREE_PRETRAIN,
    *FREE_RL,
    "run",
    "threads",
    "track",
    "sampler.url",
    "sampler.reload",
    "evaluation.budgets",
    "stages",
}


def use_threads(threads: int) -> None:
    """0 leaves the number to torch."""
    check_threads(threads)
    if threads:
        torch.set_num_threads(threads)
    numerics.keep_heap()


@contextlib.contextmanager
def open_run(settings: RunSettings, resume: bool) -> Iterator[Owner]:
    """The run folder, with the resolved settings in it, as this process's own inside the block. A
    run that exists is only gone on with, and only with the settings it has.

    ValueError: it exists and `resume` is false; it was started with other settings; another process
    has it; the folder is something else's."""
    folder, written = settings.folder, to_toml(settings)
    _refuse_foreign(folder)
    folder.mkdir(parents=True, exist_ok=True)
    with owning(folder) as owner:
        if (folder / CONFIG).exists():
            if not resume:
                raise ValueError(
                    f"the run {folder} exists: --resume goes on with it, --run NAME starts another"
                )
            check_same(folder, read_toml(folder / CONFIG), to_table(settings), settings.grows)
        write_whole(folder / CONFIG, written)
        yield owner


def _refuse_foreign(folder: Path) -> None:
    """A run folder is a free name, empty, or a run's: what a kill left is as good as empty."""
    if folder.is_symlink() and not folder.exists():
        raise ValueError(f"{folder} is a link to nothing: --run NAME chooses another folder")
    if folder.exists() and not folder.is_dir():
        raise ValueError(f"{folder} is a file: --run NAME chooses another folder")
    if folder.exists() and not (folder / CONFIG).exists() and not _is_leftover(folder):
        raise ValueError(
            f"{folder} is not empty and has no {CONFIG}: --run NAME chooses another folder"
        )


def _is_leftover(folder: Path) -> bool:
    """Whether all that a folder holds are drafts, locks, and folders of the same kind."""
    return all(
        path.name == LOCK
        or path.name.endswith(DRAFT)
        or path.name.startswith(DRAFT)
        or (path.is_dir() and not path.is_symlink() and _is_leftover(path))
        for path in folder.iterdir()
    )


def with_formats(settings: T, resume: bool) -> T:
    """The settings with every number format decided: of a run that is gone on with as it began,
    wherever it goes on; else by what is faster here."""
    return numerics.settled(settings, kept_settings(settings.folder) if resume else None)


def kept_settings(folder: Path) -> dict[str, Any]:
    """The table of the settings that a run began with; empty where there is none to be read, which
    `open_run` refuses."""
    with contextlib.suppress(OSError, ValueError):
        return read_toml(folder / CONFIG)
    return {}


def with_start(
    settings: T, resume: bool, field: str = "start", order: tuple[str, ...] = STAGES
) -> tuple[T, str]:
    """The settings with the model that they start from as the folder of one (of a run its last
    one, or the first there is in `order`), and what to say of it: "" where it was named as it is.

    A run that is gone on with keeps the one it began from, also where that one's run has gone on."""
    named = getattr(settings, field)
    if not named:
        return settings, ""
    kept = kept_settings(settings.folder).get(field) if resume else None
    if isinstance(kept, str) and Path(kept).is_relative_to(named):
        return dataclasses.replace(settings, **{field: kept}), ""
    found = model_folder(named, order)
    if found == Path(named):
        return settings, ""
    return dataclasses.replace(settings, **{field: str(found)}), f"{field}: {found} (of {named})"


def check_same(folder: Path, before: dict, asked: dict, grows: Collection[str] = ()) -> None:
    """ValueError naming the first setting in which a run differs from what is asked for now, but
    those in FREE, and those of `grows` that were raised."""
    for name, old, new in changes(before, asked):
        free = any(name == one or name.endswith(f".{one}") for one in (*FREE, VERSION_KEY))
        if not free and not (name in grows and grew(old, new)):
            raise ValueError(
                f"the run {folder} was started with {quoted(name)[1:-1]} = {quoted(old)}, asked for"
                f" now is {quoted(new)}: go on with the old value, which stands in its {CONFIG}, or"
                " --run NAME starts another"
            )


def model_folder(folder: str | Path, stages: tuple[str, ...] = STAGES) -> Path:
    """What `weights.load` opens: a Hugging Face folder or a .gguf file as it is; of a run folder
    the last whole checkpoint, damaged ones named in a warning; of HF:ORG/NAME the folder that it is
    fetched to. Else only reads: the run may still be going on."""
    asked, folder = str(folder), Path(folder)
    if hub.on_hub(asked):
        return hub.fetched(asked)
    if is_gguf(folder) and folder.is_file():
        return folder
    if (folder / "config.json").is_file():
        return folder
    damaged = ""
    for stage in stages:
        for _, checkpoint in reversed(by_step(folder / stage)):
            if (damage := find_damage(checkpoint)) is None:
                return checkpoint
            damaged = f"checkpoint {checkpoint} is damaged ({damage})"
            warnings.warn(f"{damaged} and is skipped", stacklevel=2)
    if damaged:
        raise ValueError(f"{folder} holds no whole model: {damaged}")
    if not folder.is_dir():
        raise ValueError(hub.absent(asked))
    if what := describe(folder):
        raise ValueError(f"{folder} holds {what}")
    raise ValueError(
        f"{folder} holds no model: expected a config.json in it, or a run folder with a whole checkpoint"
    )


def own_base(folder: str | Path) -> Path:
    """The base model in a run folder, from which its other stages start."""
    return model_folder(folder, PRETRAINED)


def run_of(folder: Path) -> Path | None:
    """The run folder that a folder is, or lies in as `<run>/<stage>/checkpoints/step-N`."""
    if not folder.exists():  # a URL, a name on a hub
        return None
    folder = folder.resolve()
    places = (folder, *folder.parents[:3])
    return next((place for place in places if (place / CONFIG).is_file()), None)


def run_config(folder: Path) -> dict[str, Any]:
    """The settings of the run that a folder is, or lies in; {} where there is none."""
    run = run_of(folder)
    return read_toml(run / CONFIG) if run else {}


def load(place: str | Path, dtype: torch.dtype | None = None) -> tuple[Transformer, Tokenizer]:
    """Model and tokenizer of a Hugging Face folder, of a run folder (its last whole checkpoint), of
    a .gguf file, or of HF:ORG/NAME on a hub. `dtype`: as stored; of a .gguf file fp32 unless it is
    BF16.

    Raises ValueError in one sentence where there is none, or none that opens here."""
    return weights.load(model_folder(place), dtype)


def load_model(place: str | Path, dtype: torch.dtype | None = None) -> Transformer:
    """The model alone, as `load` opens it: no tokenizer is needed."""
    return weights.load_model(model_folder(place), dtype)
