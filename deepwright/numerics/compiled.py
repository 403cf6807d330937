"""The C files beside this one, built at first use (build.py) and called without copies: decoding
steps (decode.c), the passes over memory between the matrix products of training (pointwise.c), and
its small products (attention.c).

Decoding steps are taken where nothing is to be learned (inside `torch.inference_mode`, as the
engine runs) and rows are few. A machine without a C compiler, or where building goes wrong, does
everything in torch, slower; `reason()` says what was found. DEEPWRIGHT_COMPILED=0 turns it off.
"""

from __future__ import annotations

import ctypes
import functools
import os
import warnings
from ctypes import c_float, c_int, c_long, c_void_p
from pathlib import Path

import torch
from torch import Tensor

from deepwright.numerics import build
from deepwright.refusals import words_of

# Up to these the compiled products win; the vendor's bf16 ones have instructions of their own.
FEW_ROWS = {torch.float32: 128, torch.bfloat16: 8}

_P, _N, _I, _F = c_void_p, c_long, c_int, c_float
_SIGNATURES = {
    "linear": (_P, _N, _P, _I, _P, _N, _N, _N),
    "rms_norm": (_P, _N, _P, _F, _P, _N, _P, _N, _N),
    "rms_norm_backward": (_P, _P, _N, _P, _P, _P, _P, _N, _N, _N),
    "swiglu_forward": (_P, _P, _N, _N),
    "swiglu_backward": (_P, _P, _P, _N, _N),
    "dispatch": (_P, _P, _P, _N, _N, _N),
    "combine": (_P, _P, _P, _P, _N, _N, _N),
    "combine_backward": (_P, _P, _P, _P, _P, _P, _N, _N, _N),
    "log_probs": (_P, _P, _F, _P, _P, _N, _N),
    "log_prob_gradient": (_P, _P, _P, _F, _P, _N, _N),
    "adamw_half": (_P, _P, _P, _P, *[_F] * 6, _N),
    "use_sgemm": (_P,),
    "expanded_attention": (_P, _P, _P, _F, _P, _P, *[_N] * 6),
    "expanded_attention_backward": (_P, _P, _P, _P, _P, _F, _P, _P, _P, *[_N] * 6),
    "expert_mlp": (_P, _P, _P, _P, _P, _I, _P, _N, _N, _N, _N, _N),
    "latent_projections": (_P, _P, _P, _P, _P, _P, _I, _F, _P, _I, _P, _P, *[_N] * 7),
    "absorbed_attention": (_P, _P, _P, _N, _N, _P, _I, _P, _F, _P, *[_N] * 8),
    "grouped_attention": (_P, _P, _P, _N, _N, _I, _P, _F, _P, *[_N] * 6),
    "mixture": (_P, _P, _P, _I, _I, _I, _F, _P, _P, _P, _P, _I, _P, _P, _P, _P, *[_N] * 8),
}


@functools.cache
def _load() -> tuple[ctypes.CDLL | None, str]:
    if os.environ.get("DEEPWRIGHT_COMPILED") == "0":
        return None, "torch operations: DEEPWRIGHT_COMPILED is 0"
    try:
        library = ctypes.CDLL(str(build.library(tuple(_SIGNATURES))))
        functions = [(getattr(library, name), types) for name, types in _SIGNATURES.items()]
    except (build.BuildError, OSError, AttributeError) as error:
        why = words_of(error, 400)
        if not isinstance(error, build.NoCompiler):
            warnings.warn(f"torch computes what C would, slower: {why}", stacklevel=2)
        return None, f"torch operations: {why}"
    for function, arguments in functions:
        function.argtypes, function.restype = arguments, None
    library.use_sgemm(_blas_routine())
    return library, "one pass over memory, and one call, where torch makes several"


def library() -> ctypes.CDLL:
    """To be called where `takes` or `fuses` said yes."""
    return _load()[0]


def reason() -> tuple[bool, str]:
    """Whether the compiled operations run here, and why (not)."""
    library, why = _load()
    return library is not None, why


def takes(x: Tensor, *weights: Tensor) -> bool:
    """Whether these operands can go to the compiled operations: no gradient, on the CPU, weights as they lie and of x's dtype."""
    if not (
        torch.is_inference_mode_enabled()
        and x.is_cpu
        and (x.dtype is torch.float32 or x.dtype is torch.bfloat16)
    ):
        return False
    for weight in weights:
        if weight.dtype is not x.dtype or not weight.is_contiguous():
            return False
    return _load()[0] is not None


def few(x: Tensor) -> bool:
    """So few rows that reading the weights is what costs."""
    return x.numel() <= FEW_ROWS.get(x.dtype, 0) * x.shape[-1]


def decodes(x: Tensor, *weights: Tensor) -> bool:
    return few(x) and takes(x, *weights)


def fuses(*tensors: Tensor) -> bool:
    """Whether a pass over these operands can be one compiled call (with or without gradient): on the CPU, fp32, as they lie."""
    for tensor in tensors:
        if not (tensor.is_cpu and tensor.dtype is torch.float32 and tensor.is_contiguous()):
            return False
    return _load()[0] is not None


@functools.cache
def _blas_routine() -> c_void_p:
    """The matrix product that torch carries, where it shows one."""
    try:
        return ctypes.cast(
            ctypes.CDLL(str(Path(torch.__file__).parent / "lib" / "libtorch_cpu.so")).sgemm_,
            c_void_p,
        )
    except (OSError, AttributeError):
        return c_void_p()


def multiplies() -> bool:
    """Whether the compiled operations have a BLAS routine to multiply with."""
    return _load()[0] is not None and bool(_blas_routine().value)


def _rows(x: Tensor) -> Tensor:
    """fp32 with adjacent numbers in a row (rows may lie apart). Every call counts here: a step makes a hundred of these operations."""
    x = x if x.dtype is torch.float32 else x.float()
    return x if x.stride(-1) == 1 else x.contiguous()


# whatever torch's defaults are
_numbers = functools.partial(torch.empty, dtype=torch.float32, device="cpu")


def _as(y: Tensor, dtype: torch.dtype) -> Tensor:
    return y if dtype is torch.float32 else y.to(dtype)


def _address(tensor: Tensor | None) -> int | None:
    return None if tensor is None else tensor.data_ptr()


def linear(x: Tensor, weight_NK: Tensor) -> Tensor:
    x32, (n, k) = _rows(x), weight_NK.shape
    if x32.dim() > 2 and not x32.is_contiguous():
        x32 = x32.contiguous()
    y = _numbers((*x.shape[:-1], n))
    rows, half = x32.numel() // k, weight_NK.dtype is torch.bfloat16
    library().linear(
        x32.data_ptr(),
        x32.stride(0) if x32.dim() == 2 else k,
        weight_NK.data_ptr(),
        half,
        y.data_ptr(),
        rows,
        n,
        k,
    )
    return _as(y, x.dtype)


def feed_forward(x_TD: Tensor, gate_up_FD: Tensor, down_DI: Tensor) -> Tensor:
    """down(silu(gate x) * up x): the one expert that every row goes to."""
    return expert_mlp(x_TD, None, None, gate_up_FD[None], down_DI[None])


def expert_mlp(
    x_TD: Tensor,
    ids_TK: Tensor | None,
    weights_TK: Tensor | None,
    gate_up_EFD: Tensor,
    down_EDI: Tensor,
) -> Tensor:
    x32_TD, (experts, width, inner) = _rows(x_TD).contiguous(), down_EDI.shape
    y_TD = _numbers(len(x_TD), width)
    chosen = 1
    if ids_TK is not None:
        # ids may be a slice of a sort
        chosen, ids_TK, weights_TK = (ids_TK.shape[1], ids_TK.contiguous(), weights_TK.contiguous())
    library().expert_mlp(
        x32_TD.data_ptr(), _address(ids_TK), _address(weights_TK), gate_up_EFD.data_ptr(), down_EDI.data_ptr(),
        down_EDI.dtype is torch.bfloat16, y_TD.data_ptr(), len(x_TD), chosen, experts, width, inner,
    )  # fmt: skip
    return _as(y_TD, x_TD.dtype)


def latent_projections(x_BSD: Tensor, q_a: Tensor | None, q_a_norm: Tensor | None, q_b: Tensor, kv_a: Tensor, kv_a_norm: Tensor, eps: float,
                       turn_BSR: Tensor, interleave: bool, heads: int) -> tuple[Tensor, Tensor]:  # fmt: skip
    """-> queries [B, S, H, N + R], rotary part turned, and cache entries [B, S, C + R]. Norm weights in fp32; q_a None: no compression."""
    x, (batch, positions, width), latent, rotary = (
        _rows(x_BSD).contiguous(),
        x_BSD.shape,
        kv_a_norm.numel(),
        2 * turn_BSR.shape[-1],
    )
    q_width = q_b.shape[0] // heads
    q_BSHQ, entries_BSE = (
        _numbers(batch, positions, heads, q_width),
        _numbers(batch, positions, latent + rotary),
    )
    library().latent_projections(
        x.data_ptr(), _address(q_a), _address(q_a_norm), q_b.data_ptr(), kv_a.data_ptr(), kv_a_norm.data_ptr(), q_b.dtype is torch.bfloat16,
        eps, turn_BSR.data_ptr(), interleave, q_BSHQ.data_ptr(), entries_BSE.data_ptr(), batch * positions, width, q_b.shape[1], heads,
        q_width - rotary, rotary, latent,
    )  # fmt: skip
    return _as(q_BSHQ, x_BSD.dtype), _as(entries_BSE, x_BSD.dtype)


def absorbed_attention(q_BSHQ: Tensor, keys_UE: Tensor, table_BM: Tensor, block: int, kv_b_XC: Tensor, scale: float, positions_BS: Tensor,
                       rotary: int) -> Tensor:  # fmt: skip
    """keys [blocks * block, E], of which row b sees the blocks table[b]; kv_b [H * (N + V), C] -> [B, S, H, V]."""
    q, (batch, positions, heads, q_width) = _rows(q_BSHQ).contiguous(), q_BSHQ.shape
    values = kv_b_XC.shape[0] // heads - q_width + rotary
    y_BSHV = _numbers(batch, positions, heads, values)
    positions_BS = positions_BS.contiguous()
    library().absorbed_attention(
        q.data_ptr(), keys_UE.data_ptr(), table_BM.data_ptr(), table_BM.stride(0), block, kv_b_XC.data_ptr(), kv_b_XC.dtype is torch.bfloat16,
        positions_BS.data_ptr(), scale, y_BSHV.data_ptr(), batch * positions, positions, table_BM.shape[1] * block, heads,
        q_width - rotary, rotary, values, kv_b_XC.shape[1],
    )  # fmt: skip
    return _as(y_BSHV, q_BSHQ.dtype)


def grouped_attention(
    q_BSHd: Tensor,
    entries_UE: Tensor,
    table_BM: Tensor,
    block: int,
    scale: float,
    positions_BS: Tensor,
) -> Tensor:
    """Grouped-query attention over cache pages, entries [K keys | K values] of width d each -> [B, S, H, d]."""
    q, (batch, positions, heads, width) = _rows(q_BSHd).contiguous(), q_BSHd.shape
    y_BSHd = _numbers(q.shape)
    positions_BS = positions_BS.contiguous()
    library().grouped_attention(
        q.data_ptr(), entries_UE.data_ptr(), table_BM.data_ptr(), table_BM.stride(0), block, entries_UE.dtype is torch.bfloat16,
        positions_BS.data_ptr(), scale, y_BSHd.data_ptr(), batch * positions, positions, table_BM.shape[1] * block, heads,
        entries_UE.shape[1] // (2 * width), width,
    )  # fmt: skip
    return _as(y_BSHd, q_BSHd.dtype)


def mixture(x_TD: Tensor, router: Tensor, bias_E: Tensor | None, gate_up: Tensor, down: Tensor, shared_gate_up: Tensor | None,
            shared_down: Tensor | None, config) -> tuple[Tensor, tuple[Tensor, Tensor, Tensor]]:  # fmt: skip
    """A whole MoE layer: -> y [T, D], (ids_TK, weights_TK, scores_TE), as model.experts has it (`config` is the model's)."""
    x, (tokens, width), (experts, _, inner) = _rows(x_TD).contiguous(), x_TD.shape, down.shape
    ids_TK = torch.empty(tokens, config.num_experts_per_tok, dtype=torch.int64, device="cpu")
    weights_TK, scores_TE, y_TD = (
        _numbers(ids_TK.shape),
        _numbers(tokens, experts),
        _numbers(tokens, width),
    )
    library().mixture(
        x.data_ptr(), router.data_ptr(), _address(bias_E), config.scoring_func == "sigmoid", config.topk_method == "noaux_tc",
        config.norm_topk_prob, config.routed_scaling_factor, gate_up.data_ptr(), down.data_ptr(), _address(shared_gate_up), _address(shared_down),
        down.dtype is torch.bfloat16, ids_TK.data_ptr(), weights_TK.data_ptr(), scores_TE.data_ptr(), y_TD.data_ptr(), tokens, width, experts,
        config.num_experts_per_tok, config.n_group, config.topk_group, inner, 0 if shared_down is None else shared_down.shape[1],
    )  # fmt: skip
    return _as(y_TD, x_TD.dtype), (ids_TK, weights_TK, scores_TE)
