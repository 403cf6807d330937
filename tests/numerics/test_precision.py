"""Casts and layouts that are kept while a model decodes: the same bits as without them, one for each weight, gone when their owner empties the store."""

import pytest
import torch
import torch.nn.functional as F

from deepwright import numerics
from deepwright.numerics import precision


def check_products_of_kept_weights():
    draw = torch.Generator().manual_seed(0)
    # 20 rows: more than the compiled products take
    x, store = (torch.randn(4, 5, 48, generator=draw).bfloat16(), {})
    weights = [torch.randn(rows, 48, generator=draw) for rows in (32, 32, 7)]
    with torch.no_grad(), numerics.keep_casts(store):
        for _ in range(2):  # laid out, then found again
            for weight in weights:
                assert torch.equal(numerics.linear(x, weight), F.linear(x, weight.bfloat16()))
        weights[0].mul_(2)
        store.clear()
        assert torch.equal(numerics.linear(x, weights[0]), F.linear(x, weights[0].bfloat16()))
    return store


@pytest.mark.skipif(
    not precision._packs(),
    reason="this build of torch has no product with weights laid out beforehand",
)
def test_a_weight_is_laid_out_once_and_the_bits_are_those_of_a_plain_product():
    assert [kind for _, kind in check_products_of_kept_weights()] == ["packed"]


def test_without_that_product_casts_are_kept(monkeypatch):
    monkeypatch.setattr(precision, "_packs", lambda: False)
    assert [kind for _, kind in check_products_of_kept_weights()] == [torch.bfloat16]


def test_nothing_is_kept_where_gradients_are_wanted():
    weight, store = torch.nn.Parameter(torch.ones(8, 16)), {}
    with numerics.keep_casts(store):
        numerics.linear(torch.ones(20, 16, dtype=torch.bfloat16), weight).sum().backward()
    assert not store and torch.equal(weight.grad, torch.full((8, 16), 20.0))
