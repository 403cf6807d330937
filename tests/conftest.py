"""What every test gets: one thread (tiny tensors run slower on two), derandomised hypothesis, a skip where no accelerator is."""

import os

# before torch is imported; processes that a test starts inherit it
os.environ.setdefault("OMP_NUM_THREADS", "1")

import hypothesis
import pytest

# Derandomised: a red run is red again. No deadline: the machine may be busy with something else.
hypothesis.settings.register_profile(
    "project", deadline=None, derandomize=True, max_examples=50, database=None
)
hypothesis.settings.load_profile("project")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    marked = [item for item in items if "gpu" in item.keywords]
    if not marked:
        return
    import torch

    if not torch.cuda.is_available():
        for item in marked:
            item.add_marker(pytest.mark.skip(reason="no accelerator here"))
