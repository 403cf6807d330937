"""The block pool's books, and the paged view against a contiguous cache."""

from __future__ import annotations

import pytest
import torch

from deepwright.inference.paged_cache import BlockPool, PagedView


def pool(tokens=None) -> BlockPool:
    return BlockPool(
        layers=2, width=3, block=4, tokens=tokens, dtype=torch.float32, device=torch.device("cpu")
    )


def test_blocks_are_counted_and_a_leak_is_seen():
    fixed = pool(tokens=22)  # 5 whole blocks
    assert fixed.room(5) and not fixed.room(6)
    taken = fixed.take(3)
    assert 0 not in taken and len(set(taken)) == 3
    fixed.share(taken[:2], 2)
    fixed.release(torch.tensor(taken))
    assert not fixed.room(5) and fixed.room(3)
    with pytest.raises(AssertionError, match="leak"):
        fixed.drop()
    fixed.release(torch.tensor([*taken[:2], *taken[:2]]))
    fixed.drop()
    assert fixed.total == 0 and sum(layer.numel() for layer in fixed.layers) == 0
    assert fixed.room(5)
    with pytest.raises(AssertionError, match="more often"):
        fixed.release(torch.tensor([1]))


def test_growing_keeps_what_is_stored():
    growing = pool()
    assert growing.room(1)
    (block,) = growing.take(1)
    view = PagedView(growing, torch.arange(4) + 4 * block, torch.tensor([[block]]))
    entries = torch.randn(1, 4, 3)
    view.update(1, torch.arange(4)[None], entries)
    assert growing.room(1000) and growing.total >= 1001
    assert torch.equal(growing.layers[1].view(-1, 4, 3)[block], entries[0])
    assert (
        len(set(growing.free)) == len(growing.free) == growing.total - 1
        and block not in growing.free
    )


def test_view_gathers_each_rows_keys_in_order_and_padding_touches_nobody():
    p = pool()
    p.room(8)
    a, b = p.take(2), p.take(1)
    table = torch.tensor([a, [*b, 0]])
    slots = torch.tensor(
        [[a[0] * 4 + i for i in range(4)] + [a[1] * 4], [b[0] * 4, b[0] * 4 + 1, 0, 0, 0]]
    ).reshape(-1)
    entries = torch.randn(2, 5, 3)
    keys = PagedView(p, slots, table).update(0, torch.zeros(2, 5), entries)
    assert keys.shape == (2, 8, 3)
    assert (
        torch.equal(keys[0, :5], entries[0])
        and torch.equal(keys[1, :2], entries[1, :2])
        and not keys[1, 2:4].any()
    )
    assert torch.isfinite(keys).all()


def test_copy_on_write():
    p = pool()
    p.room(4)
    source, target = p.take(1), p.take(1)
    for layer in p.layers:
        layer.view(-1, 4, 3)[source[0]] = torch.randn(4, 3)
    p.copy(source, target)
    for layer in p.layers:
        assert torch.equal(layer.view(-1, 4, 3)[source[0]], layer.view(-1, 4, 3)[target[0]])
