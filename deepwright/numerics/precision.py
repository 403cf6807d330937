"""Casts of master weights to the format that blocks compute in, and layouts of them, made once."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Iterator

import torch
from torch import Tensor

NAMES = {"float32": torch.float32, "bfloat16": torch.bfloat16}
Casts = dict[tuple[int, torch.dtype | str], Tensor]  # by address and what became of the weight
_kept: Casts | None = None


@contextlib.contextmanager
def keep_casts(store: Casts) -> Iterator[None]:
    """Inside the `with`, and without gradient, a master weight is cast to the compute format once and found again in `store`, which its
    owner must empty when the weights change. A decoding step of few rows would otherwise cast every weight again."""
    global _kept
    before, _kept = _kept, store
    try:
        yield
    finally:
        _kept = before


def cast(weight: Tensor, dtype: torch.dtype) -> Tensor:
    """The weight in `dtype`; itself where it has that already."""
    if weight.dtype == dtype:
        return weight
    if _kept is None or torch.is_grad_enabled():
        return weight.to(dtype)
    key = (weight.data_ptr(), dtype)
    if key not in _kept:
        _kept[key] = weight.to(dtype)
    return _kept[key]


def packed_linear(x: Tensor, weight: Tensor) -> Tensor | None:
    """x @ weight^T in bfloat16 with the weight laid out once as the vendor's product reads it, where casts are kept (the same bits: a plain call
    lays it out every time, which at 16 rows costs as much as the product). None where that is not to be had."""
    if (
        _kept is None
        or x.dtype is not torch.bfloat16
        or not x.is_cpu
        or torch.is_grad_enabled()
        or not _packs()
    ):
        return None
    key = (weight.data_ptr(), "packed")
    if key not in _kept:
        _kept[key] = torch.ops.mkldnn._reorder_linear_weight(weight.to(x.dtype))
    return torch.ops.mkldnn._linear_pointwise(x, _kept[key], None, "none", [], "")


@functools.cache
def _packs() -> bool:
    """Whether this build of torch has the two operations, and works with them on this processor."""
    try:
        packed = torch.ops.mkldnn._reorder_linear_weight(torch.zeros(16, 16, dtype=torch.bfloat16))
        torch.ops.mkldnn._linear_pointwise(
            torch.zeros(1, 16, dtype=torch.bfloat16), packed, None, "none", [], ""
        )
    except (AttributeError, RuntimeError):
        return False
    return True
