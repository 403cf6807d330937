"""Seeded sampling: a random number per (seed, prompt, sample, position), then inversion of the truncated distribution.

No generator state: the number drawn for a token depends on those four counters alone, so what else is in the batch, chunking and
preemption cannot change it. Tokens keep the vocabulary's order in the inverted sum on every path, so neither can a neighbour's top-k.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from deepwright.numerics import table_log_probs
from deepwright.sampler import NotFinite

STRETCH = 64  # ids summed before one of them is looked for


def _mix(x: Tensor) -> Tensor:
    """The finaliser of splitmix64 (Steele et al. 2014) on int64: multiplication wraps, shifts are made logical by a mask."""
    x = (x ^ ((x >> 30) & ((1 << 34) - 1))) * -0x40A7B892E31B1A47
    x = (x ^ ((x >> 27) & ((1 << 37) - 1))) * -0x6B2FB644ECCEEE15
    return x ^ ((x >> 31) & ((1 << 33) - 1))


_GOLDEN = -0x61C8864680B583EB  # 2**64 / golden ratio, odd, as a signed number: splitmix64's step


def stream_keys(seeds: list[int], prompts: list[int], samples: list[int]) -> Tensor:
    """int64 [R]: one key per sequence; `uniform` turns it and a position into a number."""
    key_R = torch.zeros(len(seeds), dtype=torch.int64)
    for numbers in (seeds, prompts, samples):
        signed = [(n + 2**63) % 2**64 - 2**63 for n in numbers]
        key_R = _mix((key_R ^ torch.tensor(signed, dtype=torch.int64)) + _GOLDEN)
    return key_R


def uniform(key_R: Tensor, position_R: Tensor) -> Tensor:
    """float64 [R] in [0, 1): 53 bits, so 1 is never reached."""
    bits = _mix(key_R + (position_R + 1) * _GOLDEN)
    return ((bits >> 11) & ((1 << 53) - 1)).double() * 2.0**-53


def draw(
    logits_RV: Tensor,
    u_R: Tensor | None,
    temperature: float | Tensor,
    top_k_R: Tensor | None = None,
    top_p_R: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Token ids int64 [R] and their log-probabilities fp32 [R] (nats, under softmax(logits / temperature) before truncation).

    `temperature` is one number for all rows or a tensor [R]; 0 is greedy, with log-probabilities at temperature 1. `top_k_R` (0: no
    limit) and `top_p_R` (1: no limit) come together or not at all. All rows greedy need no `u_R`. Overwrites `logits_RV` (fp32).
    NotFinite where a row holds a NaN, an infinity, or -infinity alone.
    """
    if not isinstance(temperature, Tensor) and temperature == 0:
        ids_R = logits_RV.argmax(-1)
        log_probs_R = table_log_probs(logits_RV, ids_R, 1.0)[0]
        _require_finite(log_probs_R)
        return ids_R, log_probs_R
    # before the division: a tiny temperature must not overflow
    shifted_RV = logits_RV.sub_(logits_RV.amax(-1, keepdim=True))
    if isinstance(temperature, Tensor):
        shifted_RV.div_(torch.where(temperature == 0, 1.0, temperature)[:, None])
    elif temperature != 1:
        shifted_RV.div_(temperature)
    weights_RV = shifted_RV.exp()
    log_total_R = weights_RV.sum(-1).log_()
    _require_finite(log_total_R)  # one number that is none makes its row's sum none
    kept_RV = weights_RV if top_k_R is None else truncate(weights_RV, top_k_R, top_p_R)
    ids_R = invert(kept_RV, u_R)
    if isinstance(temperature, Tensor):
        ids_R = torch.where(temperature == 0, shifted_RV.argmax(-1), ids_R)
    return ids_R, shifted_RV.gather(1, ids_R[:, None])[:, 0] - log_total_R


def _require_finite(numbers_R: Tensor) -> None:
    finite_R = torch.isfinite(numbers_R)
    if not bool(finite_R.all()):
        bad = (~finite_R).nonzero()[:, 0].tolist()
        raise NotFinite(f"the logits of {len(bad)} of {len(finite_R)} rows are not finite", bad[0])


def invert(weights_RV: Tensor, u_R: Tensor) -> Tensor:
    """First id whose running sum exceeds u * total: id i is drawn with probability weights[i] / total, never where weights[i] is 0.

    In two steps, first to a stretch of ids and then inside it: in a running sum over a whole vocabulary every addition waits for the one
    before. Sums are kept in double, so a probability is off by no more than the rounding of its own fp32 weight.
    """
    rows, vocab = weights_RV.shape
    weights_RNS = F.pad(weights_RV, (0, -vocab % STRETCH)).view(rows, -1, STRETCH)
    ends_RN = weights_RNS.sum(-1, dtype=torch.float64).cumsum(-1)
    wanted_R1 = _below(u_R[:, None] * ends_RN[:, -1:], ends_RN)
    stretch_R1 = torch.searchsorted(ends_RN, wanted_R1, right=True)
    started_R1 = F.pad(ends_RN, (1, 0)).gather(1, stretch_R1)
    inside_RS = weights_RNS[torch.arange(rows, device=u_R.device), stretch_R1[:, 0]].cumsum(
        -1, dtype=torch.float64
    )
    place_R1 = torch.searchsorted(inside_RS, _below(wanted_R1 - started_R1, inside_RS), right=True)
    return (stretch_R1 * STRETCH + place_R1)[:, 0]


def _below(wanted_R1: Tensor, sums_RN: Tensor) -> Tensor:
    """Below the last sum, which rounding may have reached: what is found there has a weight."""
    last_R1 = sums_RN[:, -1:]
    return torch.minimum(wanted_R1, torch.nextafter(last_R1, torch.zeros_like(last_R1)))


def truncate(weights_RV: Tensor, top_k_R: Tensor, top_p_R: Tensor) -> Tensor:
    """Weights with 0 outside the top k, then outside the smallest set of mass >= top_p of what is left. Ties of the last one stay in."""
    vocab = weights_RV.shape[1]
    k_R = torch.where(top_k_R > 0, top_k_R.clamp(max=vocab), vocab)
    limited = k_R < vocab
    width = 64
    if bool(limited.any()):
        width = max(width, int(k_R[limited].max()))
    best_RW, _ = weights_RV.topk(min(width, vocab))
    kth_R = best_RW.gather(1, (k_R - 1).clamp(max=best_RW.shape[1] - 1)[:, None])[:, 0]
    weights_RV = weights_RV.where(weights_RV >= torch.where(limited, kth_R, 0.0)[:, None], 0.0)
    wanted_R = top_p_R.double() * weights_RV.sum(-1, dtype=torch.float64)
    needs = top_p_R < 1
    while bool(needs.any()):
        best_RW, _ = weights_RV.topk(min(width, vocab))
        mass_RW = best_RW.cumsum(-1, dtype=torch.float64)
        last_R = (mass_RW < wanted_R[:, None]).sum(-1)  # index of the token that reaches the mass
        if width >= vocab or bool((last_R < best_RW.shape[1])[needs].all()):
            floor_R = best_RW.gather(1, last_R.clamp(max=best_RW.shape[1] - 1)[:, None])[:, 0]
            return weights_RV.where(weights_RV >= torch.where(needs, floor_R, 0.0)[:, None], 0.0)
        width *= 8  # a flat distribution: look further
    return weights_RV
