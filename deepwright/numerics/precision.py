"""Which number format the blocks of a model compute in: decided once, here, with its reason."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Iterator

import torch
from torch import Tensor

from deepwright.refusals import expect

NAMES = {"float32": torch.float32, "bfloat16": torch.bfloat16}
_NATIVE = (
    "avx512_bf16",
    "amx_bf16",
    "bf16",
)  # CPU features that multiply bfloat16 in hardware; without them it is slower than float32


def compute_dtype(name: str, setting: str = "compute") -> tuple[torch.dtype, str]:
    """'float32', 'bfloat16', or 'auto': bfloat16 where the machine multiplies it natively. -> (dtype, reason). `setting` names it in an error.

    Measured on two cores with avx512_bf16: matrix products 2.3 times, a training step of the laptop model 1.4 times as fast.
    """
    if name in NAMES:
        return NAMES[name], "asked for"
    expect(name == "auto", setting, name, f"'auto', {' or '.join(map(repr, NAMES))}")
    if torch.cuda.is_available():
        return torch.bfloat16, "an accelerator is present"
    features = getattr(
        torch.cpu, "get_capabilities", dict
    )()  # newer torch only; without it nothing is known, and float32 is safe
    found = next((feature for feature in _NATIVE if features.get(feature)), None)
    return (
        (torch.bfloat16, f"the CPU has {found}")
        if found
        else (torch.float32, "the CPU has no native bfloat16 product")
    )


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
