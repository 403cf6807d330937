"""Nothing in this folder is about power failures: what runs in this process waits for no disk."""

import os

import pytest


@pytest.fixture(autouse=True, scope="module")
def quick_disk():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", lambda descriptor: None)
        yield
