"""Where programs can be confined, and where that is beside the point."""

import pytest

from deepwright.tasks import sandbox


@pytest.fixture
def confined():
    if not sandbox.confinement():
        pytest.skip("neither bwrap nor unshare works on this machine")


@pytest.fixture
def anywhere(monkeypatch):
    """Whether programs can be confined here has nothing to do with how rows are read."""
    monkeypatch.setattr("deepwright.tasks.files.confined_or_refused", lambda allowed: "")
