"""One process at a time owns a run folder: an OS lock on a file in it.

The kernel lets go of the lock when its process ends, however it ends, so nothing has to be cleaned
up after a kill. Readers (chat, eval, the report) ask for nothing. The file also tells whether the
folder is still the one that the run began in: deleted, renamed or replaced, it is not.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import platform
import time
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from deepwright.files import naming
from deepwright.refusals import quoted

LOCK = ".lock"
SIGNED = 160  # bytes that are read of what a lock file says
NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.EINVAL)  # some network file systems


class FolderGone(ValueError):
    """The run folder was deleted, renamed or replaced under its run."""


@dataclass(frozen=True)
class Owner:
    """What its process holds of a run folder."""

    folder: Path
    descriptor: int  # of the lock file; what the process starts does not inherit it

    def check(self) -> None:
        """FolderGone unless the folder is the one that was locked. Asked before the run writes."""
        if not _is_at(self.descriptor, self.folder / LOCK):
            raise FolderGone(
                f"the run folder {self.folder} was deleted, renamed or replaced while the run was"
                " going on: it ends here and writes nothing more"
            )


@contextlib.contextmanager
def owning(folder: Path) -> Iterator[Owner]:
    """The folder, which must exist, as this process's own until the end of the block.

    ValueError in one sentence where another process has it. Where the file system has no locks, a
    warning says so."""
    path = folder / LOCK
    descriptor = _locked(path)
    try:
        with naming(path):
            _sign(descriptor)
        yield Owner(folder, descriptor)
    finally:
        if _is_at(descriptor, path):
            with contextlib.suppress(OSError):  # the folder has become read-only
                path.unlink()
        os.close(descriptor)


def _locked(path: Path) -> int:
    """Descriptor of the lock file, locked. One that its owner removed meanwhile does not count."""
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o644)
        try:
            _lock(descriptor, path.parent)
            if _is_at(descriptor, path):
                return descriptor
        except BaseException:
            os.close(descriptor)
            raise
        os.close(descriptor)


def _lock(descriptor: int, folder: Path) -> None:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise ValueError(
            f"the run {folder} is being worked on by {_signature(descriptor)}: wait until it has"
            " ended, or --run NAME starts another"
        ) from None
    except OSError as error:
        if error.errno not in NO_LOCKS:
            raise
        warnings.warn(
            f"the file system of {folder} has no locks, so nothing keeps a second process out of"
            " this run: see to it that there is none",
            stacklevel=2,
        )


def _sign(descriptor: int) -> None:
    since = time.strftime("%Y-%m-%d %H:%M:%S")
    os.ftruncate(descriptor, 0)
    os.pwrite(descriptor, f"process {os.getpid()} on {platform.node()} since {since}".encode(), 0)


def _signature(descriptor: int) -> str:
    said = os.pread(descriptor, SIGNED, 0).decode(errors="replace")
    if not said:
        return "another process"
    return said if said.isprintable() else quoted(said)


def _is_at(descriptor: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(descriptor), os.stat(path, follow_symlinks=False))
    except OSError:
        return False


def is_owned(folder: Path) -> bool:
    """Whether a process is working on a run at this moment. Only looks."""
    try:
        descriptor = os.open(folder / LOCK, os.O_RDONLY | os.O_NOFOLLOW)
    except OSError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError as error:
        return isinstance(error, BlockingIOError)
    finally:
        os.close(descriptor)
    return False
