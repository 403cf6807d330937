"""Wrong variants of the compiled decoding step, each rejected by the comparison with torch in tests/numerics/test_compiled.py."""

import pytest

from deepwright.numerics import compiled
from tests.numerics import test_compiled as checks

pytestmark = checks.pytestmark


def one_key_too_many(original):
    return lambda q, keys, table, block, kv_b, scale, positions, rotary: original(
        q, keys, table, block, kv_b, scale, positions + 1, rotary
    )


def blocks_in_place_of_the_table(original):
    return lambda q, keys, table, *rest: original(
        q, keys, table.sort(dim=1).values.flip(1).contiguous(), *rest
    )


def scale_forgotten(original):
    return lambda q, keys, table, block, kv_b, scale, positions, rotary: original(
        q, keys, table, block, kv_b, 1.0, positions, rotary
    )


def keys_turned_twice(original):
    def project(*arguments):
        q, entries = original(*arguments)
        rotary = 2 * arguments[7].shape[-1]
        return q, compiled.torch.cat((entries[..., :-rotary], entries[..., -rotary:].flip(-1)), -1)

    return project


def bias_in_the_weights(original):
    def mixture(x, router, bias, *rest):
        y, (ids, weights, scores) = original(x, router, bias, *rest)
        return y if bias is None else y * (1 + bias[ids].sum(-1, keepdim=True)), (
            ids,
            weights,
            scores,
        )

    return mixture


@pytest.mark.parametrize(
    "name, wrong",
    [
        ("absorbed_attention", one_key_too_many),
        ("absorbed_attention", blocks_in_place_of_the_table),
        ("absorbed_attention", scale_forgotten),
        ("latent_projections", keys_turned_twice),
        ("mixture", bias_in_the_weights),
    ],
    ids=lambda value: getattr(value, "__name__", value),
)
def test_twin_is_rejected(name, wrong, monkeypatch):
    monkeypatch.setattr(compiled, name, wrong(getattr(compiled, name)))
    with pytest.raises(AssertionError, match="relative error"):
        checks.test_whole_models("v3 query compression", checks.torch.float32)
