"""The network equals transformers' (DeepSeek V3 and V2, Llama, Qwen2, Qwen3): logits, every block's state, every gradient.

Error of a tensor: max |ours - theirs| / max |theirs| over valid positions; bound 2e-5 (derived in deepwright/verify/checks_model.py).
The rows are ragged (40, 20 and 5 tokens) and run to five times the original context where YaRN is on.
"""

import pytest

from deepwright.verify import require
from deepwright.verify.cases import ALL_CASES, CASES, DENSE_CASES
from deepwright.verify.check import CHECKS
from deepwright.verify.checks_model import BOUND, compare_case


@pytest.mark.parametrize("name", ALL_CASES)
def test_equals_transformers(name):
    pytest.importorskip("transformers")
    found = compare_case(name)
    assert found.logits <= BOUND
    assert max(found.states.values()) <= BOUND, found.states
    assert len(found.states) == ALL_CASES[name].num_hidden_layers
    worst = max(found.gradients, key=found.gradients.get)
    assert found.gradients[worst] <= BOUND, worst


def test_every_parameter_has_its_gradient_compared():
    """By count: the official tensors that transformers keeps stacked (experts) count once, MTP and biases not at all."""
    pytest.importorskip("transformers")
    config = CASES["v3 query compression"]
    names = {name for name in config.tensor_inventory() if ".experts." not in name and not name.endswith("e_score_correction_bias")}
    assert len(compare_case("v3 query compression").gradients) == len(names) + 2 * config.moe_layers


@pytest.mark.parametrize("name", DENSE_CASES)
def test_every_parameter_of_a_dense_model_has_its_gradient_compared(name):
    pytest.importorskip("transformers")
    assert set(compare_case(name).gradients) == set(DENSE_CASES[name].tensor_inventory())


COVERED = {"logits_equal_transformers", "states_equal_transformers", "gradients_equal_transformers"}


@pytest.mark.parametrize("name", [n for n, c in CHECKS.items() if c.run.__module__.endswith("checks_model") and n not in COVERED])
def test_check(name):
    require(name)
