"""Checkpoints that are either whole or not there: `checkpoints/step-N/` of a run folder, written beside its place and renamed into it.

    step-N/                     a Hugging Face folder (config.json, *.safetensors, tokenizer ...), readable by other software
    step-N/trainer/tensors.safetensors, state.json      what an exact resume needs besides the weights
    step-N/trainer/manifest.json                        sha256 of every other file

A kill at any moment leaves the previous checkpoint in place; a draft that was being written is removed at the next save. A folder whose
files do not match its manifest is named and skipped. Nothing is ever unpickled. Shared by pre-training, fine-tuning and RL.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import shutil
import warnings
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import safetensors.torch
from safetensors import SafetensorError
from torch import Tensor, nn

from deepwright import weights
from deepwright.files import DRAFT, read_json
from deepwright.model.finite import first_bad
from deepwright.refusals import changes, expect, expect_fields, grew, quoted, words_of

TENSORS, STATE = "trainer/tensors.safetensors", "trainer/state.json"
MANIFEST = "trainer/manifest.json"
# prefix of folders that are no checkpoint: being written, or on their way out
DRAFT_OF = f"{DRAFT}-"


class CheckpointError(ValueError):
    """A checkpoint could not be written or read; the message says which and what to do."""


class _State(dict[str, Any]):
    """What an exact resume needs; a part that is not there is said in a sentence."""

    def __init__(self, folder: Path, values: Mapping[str, Any]) -> None:
        super().__init__(values)
        self.folder = folder

    def __missing__(self, key: str) -> Any:
        raise CheckpointError(
            f"{self.folder / STATE} lacks {key}: another version wrote it, or it is no checkpoint "
            "of such a run"
        )


def _parts(folder: Path, value: Any) -> Any:
    return _State(folder, value) if isinstance(value, dict) else value


@dataclass(frozen=True)
class Checkpoint:
    """A whole checkpoint on disk. `state` and `tensors` are what `save_checkpoint` was given."""

    step: int
    folder: Path

    @cached_property
    def tensors(self) -> dict[str, Tensor]:
        try:
            return safetensors.torch.load_file(self.folder / TENSORS)
        except (SafetensorError, KeyError) as error:  # KeyError: a type that torch has not
            raise CheckpointError(
                f"{self.folder / TENSORS} is no file of tensors ({words_of(error)})"
            ) from error

    @cached_property
    def state(self) -> dict[str, Any]:
        state = read_json(self.folder / STATE)
        expect_fields(
            state, str(self.folder / STATE), {"counters": dict[str, int], "settings": dict}
        )
        return state

    def load_model_into(self, model: nn.Module) -> None:
        """Copies the saved parameters and buffers into `model`, bit for bit. ValueError when the model is of another shape."""
        weights.load_into(model, self.folder)


def save_checkpoint(
    run_dir: str | Path,
    step: int,
    model: nn.Module,
    tokenizer: Any | None,
    trainer_tensors: Mapping[str, Tensor],
    trainer_state: Mapping[str, Any],
    keep: int = 2,
) -> Path:
    """Writes `run_dir/checkpoints/step-<step>/`, all or nothing, and removes older checkpoints beyond `keep`. Returns the folder.

    Raises CheckpointError in one sentence when the disk is full or cannot be written, or a number
    is not finite; nothing half-written stays.
    """
    expect(keep >= 1, "keep", keep, "at least 1 checkpoint")
    bad = first_bad((*model.state_dict().items(), *trainer_tensors.items()))
    if bad is not None:
        raise CheckpointError(f"step {step} is not saved: {bad} is not finite")
    parent = Path(run_dir) / "checkpoints"
    target, draft = parent / f"step-{step}", parent / f"{DRAFT_OF}step-{step}"
    try:
        for place in (parent.parent, parent):  # but not the run folder: it was there at the start
            place.mkdir(exist_ok=True)
        remove_drafts(run_dir)
        _write_model(model, tokenizer, draft)
        _write_trainer(draft, trainer_tensors, trainer_state)
        _write_manifest(draft)
        if target.exists():  # a damaged one of the same step: the run is repeating it
            target.rename(parent / f"{DRAFT_OF}replaced-{step}")
        draft.rename(target)
        _sync(parent)
        _remove_older(parent, step, keep)
    except (OSError, SafetensorError) as error:
        shutil.rmtree(draft, ignore_errors=True)
        raise CheckpointError(
            f"could not save checkpoint {target}: {_reason(error)}; earlier checkpoints are untouched"
        ) from error
    return target


def latest_checkpoint(run_dir: str | Path) -> Checkpoint | None:
    """The whole checkpoint with the highest step, None if the run has none yet. Every damaged one is named in a warning and skipped.

    Raises CheckpointError when there are checkpoints and all of them are damaged: starting over must be the user's decision.
    """
    remove_drafts(run_dir)
    found = by_step(run_dir)
    for step, folder in reversed(found):
        damage = find_damage(folder)
        if damage is None:
            return Checkpoint(step, folder)
        warnings.warn(f"checkpoint {folder} is damaged ({damage}) and is skipped", stacklevel=2)
    if found:
        raise CheckpointError(
            f"every checkpoint in {found[0][1].parent} is damaged; remove that folder to start the run afresh"
        )
    return None


@contextlib.contextmanager
def taking_over(checkpoint: Checkpoint) -> Iterator[None]:
    """Around the code that goes on from a checkpoint: whatever is missing in it or of another kind
    (one of an older version, or forged: its checksums may be right) is a CheckpointError that names
    it."""
    try:
        yield
    except CheckpointError:
        raise
    except (ValueError, LookupError, TypeError, AttributeError, RuntimeError, ArithmeticError,
            SafetensorError) as error:  # fmt: skip
        what = str(error) if isinstance(error, ValueError) else f"{type(error).__name__}: {error}"
        raise CheckpointError(
            f"{checkpoint.folder} is not what this run can go on from: {what[:300]}"
        ) from error


def find_damage(folder: Path) -> str | None:
    """What is wrong with a checkpoint, in words, or None when every file matches the manifest."""
    path = folder / MANIFEST
    if not path.is_file():
        return f"{MANIFEST} is missing"
    try:
        manifest = read_json(path)
    except ValueError:
        manifest = {}
    if not {TENSORS, STATE} <= manifest.keys():
        return f"{MANIFEST} is not a list of checksums"
    there = {str(path.relative_to(folder)): path for path in folder.rglob("*") if path.is_file()}
    unlisted = [name for name in _own_files(folder) if name not in manifest]
    if unlisted:
        return f"{MANIFEST} says nothing of {unlisted[0]}"
    for name, digest in manifest.items():
        if name not in there:  # also one that lies elsewhere, or is no name at all
            return f"{name[:100]} is missing"
        if _sha256(there[name]) != digest:
            return f"{name[:100]} does not match its checksum"
    return None


def _own_files(folder: Path) -> list[str]:
    """What a checkpoint cannot do without, whatever its manifest says; a reader's notes may lie
    beside."""
    return [path.name for path in sorted([*folder.glob("*.json"), *folder.glob("*.safetensors")])]


def remove_drafts(run_dir: str | Path) -> None:
    """Removes what an interrupted save left behind."""
    for draft in (Path(run_dir) / "checkpoints").glob(f"{DRAFT_OF}*"):
        shutil.rmtree(draft)


def remove_checkpoints_after(run_dir: str | Path, step: int) -> None:
    """Gives up what a run did after `step`. The oldest checkpoint stays whatever its step; a kill in between leaves whole ones only."""
    found = by_step(run_dir)
    # newest first: what is left never has a gap
    for _, folder in [pair for pair in found[1:] if pair[0] > step][::-1]:
        folder.rename(folder.with_name(f"{DRAFT_OF}{folder.name}"))
    remove_drafts(run_dir)


def _write_model(model: nn.Module, tokenizer: Any | None, folder: Path) -> None:
    if tokenizer is None:
        weights.save_model(model, folder)
    else:
        weights.save(model, tokenizer, folder)


def _write_trainer(folder: Path, tensors: Mapping[str, Tensor], state: Mapping[str, Any]) -> None:
    (folder / "trainer").mkdir()
    data = safetensors.torch.save(
        {name: t.detach().cpu().contiguous() for name, t in tensors.items()}
    )
    (folder / TENSORS).write_bytes(data)
    (folder / STATE).write_text(json.dumps(state, indent=1), encoding="utf-8")


def _write_manifest(folder: Path) -> None:
    """Checksums last: a folder without them is not whole. Everything reaches the disk before the rename."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    manifest = {str(path.relative_to(folder)): _sha256(path) for path in files}
    (folder / MANIFEST).write_text(json.dumps(manifest, indent=1), encoding="utf-8")
    for path in [*files, folder / MANIFEST, folder / "trainer", folder]:
        _sync(path)


def by_step(run_dir: str | Path) -> list[tuple[int, Path]]:
    """(step, folder) of what lies where checkpoints do, whole or not, the last step last."""
    parent = Path(run_dir) / "checkpoints"
    named = [(re.fullmatch(r"step-([0-9]+)", path.name), path) for path in parent.glob("step-*")]
    return sorted((int(match[1]), path) for match, path in named if match and path.is_dir())


def _remove_older(parent: Path, step: int, keep: int) -> None:
    """Renames before it deletes, so that a kill in between leaves no checkpoint with missing files."""
    older = [folder for other, folder in by_step(parent.parent) if other < step]
    for folder in older[: max(0, len(older) - (keep - 1))]:
        folder.rename(folder.with_name(f"{DRAFT_OF}{folder.name}"))
    remove_drafts(parent.parent)


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _reason(error: Exception) -> str:
    no_space = getattr(error, "errno", None) == 28 or "No space left" in str(error)
    return "no space left on the disk" if no_space else str(error)


def check_settings(
    checkpoint: Checkpoint,
    asked: Mapping[str, Any],
    free: Collection[str],
    growing: Collection[str] = (),
) -> None:
    """Raises CheckpointError naming the first setting, but those in `free`, in which the saved run
    differs from the one asked for now. Those in `growing` may have been raised: the run goes on
    from where it is, on the schedule of the new length."""
    for name, old, new in changes(checkpoint.state["settings"], json.loads(json.dumps(asked))):
        if name not in free and not (name in growing and grew(old, new)):
            raise CheckpointError(
                f"{checkpoint.folder} was trained with {quoted(name)[1:-1]} {quoted(old)}, now it"
                f" is {quoted(new)}; set it back or use a new run folder"
            )
