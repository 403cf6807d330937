"""Models by their name on a hub, and what to do about a name that is no folder.

`HF:ORG/NAME` is fetched through the package huggingface_hub (an extra) into its own cache, from its
own endpoint (HF_ENDPOINT), with its own key. What describes the model comes first: one that does
not open here is refused before its weights are asked for. Never a pickle.
"""

from __future__ import annotations

import difflib
import functools
import re
from pathlib import Path

from deepwright.refusals import expect, quoted, require, words_of
from deepwright.weights.convert import RELEASES
from deepwright.weights.layouts import is_gguf
from deepwright.weights.loading import read_config

HUB = "HF:"
NAME = re.compile(r"\w[\w.-]*/\w[\w.-]*", re.ASCII)
# Files at the top of a repository; those in folders are for other software.
DESCRIBING, WEIGHTS, BELOW = ("*.json", "*.jinja"), ("*.safetensors",), ("*/*",)
PLACES = ("models", "runs")  # where folders of models usually lie


def on_hub(place: str | Path) -> bool:
    return str(place).startswith(HUB)


@functools.cache  # a command asks several times, the hub is asked once
def fetched(name: str) -> Path:
    """The folder of `HF:ORG/NAME` or `HF:ORG/NAME@REVISION`, fetched where it is not there yet.

    ValueError in one sentence: the package is not installed, the hub is not reached, the model is
    not known there, is gated, does not open here, or has no safetensors."""
    repository, _, revision = name.removeprefix(HUB).partition("@")
    expected = f"{HUB}ORG/NAME or {HUB}ORG/NAME@REVISION"
    expect(NAME.fullmatch(repository) is not None, "a model's name", name, expected)
    require("huggingface_hub", f"fetching {name}", "hub")
    folder = _snapshot(name, repository, revision, DESCRIBING)
    if not (folder / "config.json").is_file():
        raise ValueError(
            f"{name} has no config.json, expected a model of transformers' layout: of a repository "
            "of .gguf files fetch one (`hf download ORG/NAME FILE.gguf`), and name that file"
        )
    try:
        read_config(folder)
    except ValueError as error:
        raise ValueError(str(error).replace(str(folder), name)) from error
    folder = _snapshot(name, repository, revision, (*DESCRIBING, *WEIGHTS))
    if not any(folder.glob(WEIGHTS[0])):
        raise ValueError(
            f"{name} has no {WEIGHTS[0]}, and nothing else is fetched: a pickle can run code"
        )
    return folder


def _snapshot(name: str, repository: str, revision: str, patterns: tuple[str, ...]) -> Path:
    from huggingface_hub import snapshot_download

    try:
        return Path(
            snapshot_download(
                repository,
                revision=revision or None,
                allow_patterns=list(patterns),
                ignore_patterns=list(BELOW),
            )
        )
    except Exception as error:  # whatever the libraries below it raise
        if isinstance(error, OSError) and error.errno:  # a full disk, a cache of somebody else's
            raise
        raise ValueError(f"{name}: {_reason(repository, revision, error)}") from error


def _reason(repository: str, revision: str, error: Exception) -> str:
    from huggingface_hub import constants, errors

    by_hand = f"`hf download {repository} --local-dir DIR` where it is, and then DIR"
    cause = error.__cause__ if isinstance(error, errors.LocalEntryNotFoundError) else None
    status = getattr(getattr(cause or error, "response", None), "status_code", None)
    if isinstance(error, errors.GatedRepoError):
        return "it is gated: ask for access on its page at the hub, then `hf auth login` here"
    if isinstance(error, errors.RevisionNotFoundError):
        return f"the hub has no revision {quoted(revision)} of it"
    if isinstance(error, errors.RepositoryNotFoundError) or status in (401, 404):
        return "the hub knows no such model, or it is private: `hf auth login` says who asks"
    if status is not None:
        return f"the hub ({constants.ENDPOINT}) answered {status}: try again later, or {by_hand}"
    said = words_of(cause or error, 80)
    return f"the hub ({constants.ENDPOINT}) is not reached from here ({said}): {by_hand}"


def absent(name: str) -> str:
    """What to do about a name of a model that is no folder and no file here, in one sentence."""
    if Path(name).is_file():
        return f"{name} is a file, expected a folder with a model, or a .gguf file"
    said = f"there is no {'file' if is_gguf(name) else 'folder'} {name}"
    for place in PLACES:
        if (Path(place) / name).is_dir():
            return f"{said}; did you mean {place}/{name}?"
    for release, known in RELEASES.items():
        if name.lower() in (release, known.hub.lower(), known.hub.lower().rpartition("/")[2]):
            return f"{said}: `deepwright get {release}` makes models/{release} of it"
    parent = Path(name).parent
    if parent != Path() and parent.is_dir():
        there = [path.name for path in parent.iterdir() if path.is_dir() or is_gguf(path)]
        near = difflib.get_close_matches(Path(name).name, there, n=1, cutoff=0.75)
        return f"{said}; did you mean {parent / near[0]}?" if near else said
    if NAME.fullmatch(name) and parent.name not in PLACES:
        return (
            f"{said}: a model of this name on a hub is {HUB}{name} (with pip install "
            f"'deepwright[hub]'), or `hf download {name} --local-dir DIR` and then DIR; "
            "`deepwright get` lists what needs no hub"
        )
    return said
