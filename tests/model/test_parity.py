"""The network equals transformers' (DeepSeek V3 and V2, Llama, Qwen2, Qwen3): logits, every block's state, every gradient.

Error of a tensor: max |ours - theirs| / max |theirs| over valid positions; bound 2e-5 (derived in deepwright/verify/checks_model.py).
The rows are ragged (40, 20 and 5 tokens) and run to five times the original context where YaRN is on.
"""

import pytest

from deepwright.verify import require
from deepwright.verify.cases import ALL_CASES, CASES, DENSE_CASES, random_model
from deepwright.verify.check import CHECKS
from deepwright.verify.checks_model import BOUND, compare_case
from deepwright.weights.saving import official_tensors


@pytest.mark.parametrize("name", ALL_CASES)
def test_equals_transformers(name):
    pytest.importorskip("transformers")
    found = compare_case(name)
    assert sum(part.startswith("state") for part in found) == ALL_CASES[name].num_hidden_layers
    worst = max(found, key=found.get)
    assert found[worst] <= BOUND, worst


def names_of(config):
    return {name for name, _ in official_tensors(random_model(config))}


def gradients_compared(name):
    return {
        part.removeprefix("gradient of ")
        for part in compare_case(name)
        if part.startswith("gradient")
    }


def test_every_parameter_has_its_gradient_compared():
    """By count: the official tensors that transformers keeps stacked (experts) count once, MTP and biases not at all."""
    pytest.importorskip("transformers")
    config = CASES["v3 query compression"]
    names = {
        name
        for name in names_of(config)
        if ".experts." not in name and not name.endswith("e_score_correction_bias")
    }
    assert len(gradients_compared("v3 query compression")) == len(names) + 2 * config.moe_layers


@pytest.mark.parametrize("name", DENSE_CASES)
def test_every_parameter_of_a_dense_model_has_its_gradient_compared(name):
    pytest.importorskip("transformers")
    assert gradients_compared(name) == names_of(DENSE_CASES[name])


@pytest.mark.parametrize(
    "name",
    [
        n
        for n, c in CHECKS.items()
        if c.run.__module__.endswith("checks_model") and n != "network_equals_transformers"
    ],
)
def test_check(name):
    require(name)
