"""The suite's own behaviour: what it prints, when it fails, that a missing package skips."""

import pytest

from deepwright import verify
from deepwright.verify.check import CHECKS, Check, Result, largest


@pytest.fixture
def only(monkeypatch):
    """Replaces the registry by one check."""

    def put(result, needs=()):
        monkeypatch.setattr(
            "deepwright.verify.CHECKS",
            {
                "sums": Check(
                    "sums", "One sum with another.", "anything else.", lambda: result, needs
                )
            },
        )

    return put


@pytest.mark.parametrize(
    ("error", "code", "word"), [(1e-7, 0, "ok"), (1e-3, 1, "FAILED"), (float("nan"), 1, "FAILED")]
)
def test_exit_code_and_words(only, error, code, word):
    only(Result(error, 1e-5))
    lines = []
    assert verify.run(lines.append) == code
    assert lines[0].startswith(word)
    assert "bound 1e-05" in lines[0]
    assert "Not established: anything else." in lines[2]


@pytest.mark.parametrize("need", ["no_such_package", "torch>=99.0"])
def test_missing_package_skips(only, need):
    only(Result(1.0, 0.0), needs=(need,))
    lines = []
    assert verify.run(lines.append) == 0
    assert lines[0] == f"skipped  sums: {need} not installed"
    assert "0 passed, 1 skipped, 0 failed" in lines[-1]


def test_not_a_number_is_the_largest_error():
    assert "at b" in largest({"a": 1.0, "b": float("nan"), "c": 2.0}, 5.0).detail


def test_every_check_says_what_it_does_not_establish():
    assert all(
        check.compares.endswith(".") and check.leaves_open.endswith(".")
        for check in CHECKS.values()
    )
