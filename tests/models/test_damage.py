"""Damaged files of every kind: a model that opens or one sentence, within seconds and 2 GB, never a
traceback, hang or signal."""

import pytest

from tests.fuzz import survive

MODULE = "tests.models.damage"
CHECKS = (
    "config", "description", "generation", "tokenizer", "tokenizer_config", "text_alone", "index", "safetensors", "gguf",
    "resume",
)  # fmt: skip


def test_a_few_hundred_damaged_files():
    outcomes = survive(MODULE, CHECKS, range(40))
    for check in CHECKS:  # the damage is no empty one, and not all of it is fatal
        assert outcomes[check, "refused"] >= 10 and outcomes[check, "opened"] >= 1


@pytest.mark.slow
def test_thousands_of_damaged_files():
    outcomes = survive(MODULE, CHECKS, range(10_000, 10_500))
    assert sum(outcomes.values()) == 500 * len(CHECKS)
