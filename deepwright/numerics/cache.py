"""A folder of the user's own for what is made once per machine: compiled code, which format is
faster.

What lies there is executed or believed, so a folder or file counts only where it belongs to this
user and nobody else can write to it. Places are tried in turn: $XDG_CACHE_HOME, ~/.cache, and for a
home that is absent or read-only the folder for temporary files.
"""

from __future__ import annotations

import os
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path

NAME = "deepwright"


class NoFolder(OSError):
    """There is nowhere to keep things; the message says what is wrong with each place."""


def places() -> Iterator[Path]:
    """Where the folder may be, best first."""
    given = os.environ.get("XDG_CACHE_HOME", "")
    if os.path.isabs(given):  # a relative one counts for nothing by its specification
        yield Path(given) / NAME
    home = os.path.expanduser("~")
    if os.path.isabs(home):
        yield Path(home) / ".cache" / NAME
    yield Path(tempfile.gettempdir()) / f"{NAME}-{os.geteuid()}"


def folder() -> Path:
    """The first of `places` that is there, or can be made, and is this user's alone. NoFolder."""
    wrong = []
    for place in dict.fromkeys(places()):
        try:
            place.mkdir(mode=0o700, parents=True, exist_ok=True)
            why = not_trusted(place) or _not_writable(place)
        except OSError as error:
            why = f"{place}: {(error.strerror or str(error)).lower()}"
        if why is None:
            return place
        wrong.append(why)
    raise NoFolder(f"no folder to keep compiled code in ({'; '.join(wrong)})")


def not_trusted(path: Path) -> str | None:
    """Why what lies at `path` may be somebody else's work, or None. OSError where nothing does."""
    found = path.stat()
    if found.st_uid != os.geteuid():
        return f"{path} belongs to another user"
    if found.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        return f"{path} can be written to by others"
    return None


def _not_writable(place: Path) -> str | None:
    return None if os.access(place, os.W_OK | os.X_OK) else f"{place} is read-only"
