"""Number work: the one seam through which every linear layer, expert, attention and vocabulary loss goes.

`plain.py` holds a readable twin of each operation. `table()` says which implementation runs here and why.
"""

from deepwright.numerics import compiled
from deepwright.numerics.attention import (
    PagedKeys,
    absorbed_attention,
    attention,
    attention_at,
    branched_attention,
    cached_grouped_attention,
    expanded_attention,
    grouped_attention,
)
from deepwright.numerics.experts import expert_mlp
from deepwright.numerics.formats import check_format, compute_dtype, settled
from deepwright.numerics.loss import cross_entropy, selected_log_probs, table_log_probs
from deepwright.numerics.memory import keep_heap
from deepwright.numerics.pointwise import adamw_half_, feed_forward, linear, rms_norm, swiglu
from deepwright.numerics.precision import Casts, cast, keep_casts

__all__ = [
    "Casts", "PagedKeys", "absorbed_attention", "adamw_half_", "attention", "attention_at",
    "branched_attention", "cached_grouped_attention", "cast", "check_format", "compiled",
    "compute_dtype", "cross_entropy", "expanded_attention", "expert_mlp", "feed_forward",
    "grouped_attention", "keep_casts", "keep_heap", "linear", "rms_norm", "selected_log_probs",
    "settled", "swiglu", "table", "table_log_probs",
]  # fmt: skip


def table() -> list[tuple[str, str, str]]:
    """(operation, implementation that runs, reason) for every operation of this package."""
    dtype, reason = compute_dtype("auto")
    built, why = compiled.reason()
    passes = "compiled C, one pass over memory" if built else "torch, own autograd functions"
    return [
        ("compute 'auto'", str(dtype).removeprefix("torch."), reason),
        (
            "linear",
            "torch matmul in the input's dtype",
            "the vendor BLAS reaches the machine's GEMM rate",
        ),
        (
            "expert_mlp",
            "sort, then two grouped matmuls",
            "wastes no row when loads are uneven; batched where widths are no multiple of 16 bytes",
        ),
        (
            "attention",
            "blocked batched matmul",
            "faster than scaled_dot_product_attention on a CPU at head widths below 64",
        ),
        ("rms_norm, swiglu, dispatch, combine", passes, why),
        (
            "cross_entropy, selected_log_probs",
            "chunked over rows",
            "[tokens, vocabulary] is never held whole",
        ),
        (
            "decoding, few rows",
            "compiled C, weights read once" if built else "the operations above",
            why,
        ),
    ]
