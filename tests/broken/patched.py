"""A wrong twin put in the place of something by name: a named check must reject it by an assertion, and pass without it."""

import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest


def must_reject(
    check: Callable[..., None], owner: Any, name: str, wrong: Callable[[Any], Any], folder: Path
) -> None:
    """`wrong` makes the twin of what `owner` has as `name`. A check that takes an argument is given a folder of its own each time."""

    def asked(place: str) -> list[Path]:
        (folder / place).mkdir()
        return [folder / place] if inspect.signature(check).parameters else []

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(owner, name, wrong(vars(owner)[name]))
        with pytest.raises(AssertionError):
            check(*asked("twin"))
    check(*asked("right"))
