"""The network once more, written out in float64 from the papers' equations: slow, independent of deepwright.model, differentiable.

It reads official checkpoint names and uses no function of the package but the config's fields. One sequence at a time, one head
at a time, one token's routing at a time. V3 section 2 (equations 1-25), V2 section 2, YaRN as in DeepSeek's inference code.

S positions, D width, R rotary width.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor

from deepwright.config import ModelConfig


@dataclass
class Pass:
    """What one forward gave: `states` after each block [S, D], `final` after the last norm, `choices[layer][position]` expert ids."""

    states: list[Tensor] = field(default_factory=list)
    choices: list[list[list[int]]] = field(default_factory=list)
    final: Tensor | None = None
    logits: Tensor | None = None


class Reference:
    """`tensors` maps official names to float64 tensors (which may require gradients)."""

    def __init__(self, config: ModelConfig, tensors: Mapping[str, Tensor]) -> None:
        self.config, self.tensors = config, tensors

    def forward(self, tokens_S: Tensor) -> Pass:
        result = Pass()
        x_SD = self.tensors["model.embed_tokens.weight"][tokens_S]
        for layer in range(self.config.num_hidden_layers):
            x_SD = self._block(f"model.layers.{layer}.", layer, x_SD, result)
            result.states.append(x_SD)
        result.final = self._norm(x_SD, "model.norm.weight")
        result.logits = result.final @ self._head().T
        return result

    def multi_token(self, final_SD: Tensor, tokens_S: Tensor) -> list[Tensor]:
        """Logits [S - k, V] of MTP modules k = 1.. : position i predicts token i + k + 1 (eq. 21-23)."""
        previous, out = final_SD, []
        for k in range(1, self.config.num_nextn_predict_layers + 1):
            layer = self.config.num_hidden_layers + k - 1
            prefix = f"model.layers.{layer}."
            embedded = self.tensors["model.embed_tokens.weight"][tokens_S[k:]]
            joined = (
                self._norm(embedded, prefix + "enorm.weight"),
                self._norm(previous[: len(embedded)], prefix + "hnorm.weight"),
            )
            merged = torch.cat(joined, dim=-1) @ self.tensors[prefix + "eh_proj.weight"].T
            previous = self._norm(
                self._block(prefix, layer, merged, Pass()), prefix + "shared_head.norm.weight"
            )
            out.append(previous @ self._head().T)
        return out

    def _head(self) -> Tensor:
        return self.tensors[
            "model.embed_tokens.weight" if self.config.tie_word_embeddings else "lm_head.weight"
        ]

    def _norm(self, x: Tensor, name: str, eps: float | None = None) -> Tensor:
        return (
            self.tensors[name]
            * x
            / torch.sqrt(
                (x * x).mean(-1, keepdim=True) + (self.config.rms_norm_eps if eps is None else eps)
            )
        )

    def _block(self, prefix: str, layer: int, x_SD: Tensor, result: Pass) -> Tensor:
        x_SD = x_SD + self._attention(
            prefix + "self_attn.", self._norm(x_SD, prefix + "input_layernorm.weight")
        )
        h_SD = self._norm(x_SD, prefix + "post_attention_layernorm.weight")
        if not self.config.is_moe(layer):
            return x_SD + self._mlp(prefix + "mlp.", h_SD)
        return x_SD + self._experts(prefix + "mlp.", h_SD, result)

    def _attention(self, prefix: str, h_SD: Tensor) -> Tensor:
        c, w = self.config, lambda name: self.tensors[f"{prefix}{name}.weight"]
        if c.q_lora_rank is None:
            q = h_SD @ w("q_proj").T
        else:
            q = (
                self._norm(h_SD @ w("q_a_proj").T, prefix + "q_a_layernorm.weight", 1e-6)
                @ w("q_b_proj").T
            )
        a = h_SD @ w("kv_a_proj_with_mqa").T
        latent = self._norm(a[:, : c.kv_lora_rank], prefix + "kv_a_layernorm.weight", 1e-6)
        key_rope = rotated(a[:, c.kv_lora_rank :], c)  # one for all heads, not normed
        kv = latent @ w("kv_b_proj").T
        n, r, v = c.qk_nope_head_dim, c.qk_rope_head_dim, c.v_head_dim
        heads = []
        for head in range(c.num_attention_heads):
            q_h, kv_h = (
                q[:, head * (n + r) : (head + 1) * (n + r)],
                kv[:, head * (n + v) : (head + 1) * (n + v)],
            )
            score = q_h[:, :n] @ kv_h[:, :n].T + rotated(q_h[:, n:], c) @ key_rope.T
            score = score * (n + r) ** -0.5 * softmax_magnitude(c)
            rows = [
                torch.softmax(score[i, : i + 1], dim=0) @ kv_h[: i + 1, n:]
                for i in range(len(h_SD))
            ]
            heads.append(torch.stack(rows))
        return torch.cat(heads, dim=-1) @ w("o_proj").T

    def _mlp(self, prefix: str, h: Tensor) -> Tensor:
        gate, up, down = (
            self.tensors[f"{prefix}{name}_proj.weight"] for name in ("gate", "up", "down")
        )
        z = h @ gate.T
        return (z * torch.sigmoid(z) * (h @ up.T)) @ down.T

    def _experts(self, prefix: str, h_SD: Tensor, result: Pass) -> Tensor:
        c, rows, choices = self.config, [], []
        bias = (
            self.tensors[prefix + "gate.e_score_correction_bias"].tolist()
            if c.topk_method == "noaux_tc"
            else None
        )
        for h_D in h_SD:
            logits = self.tensors[prefix + "gate.weight"] @ h_D
            scores = (
                torch.sigmoid(logits)
                if c.scoring_func == "sigmoid"
                else torch.softmax(logits, dim=0)
            )
            ids = chosen_experts(scores.tolist(), bias, c)
            y = sum(
                combine_weight(scores, ids, e, c) * self._mlp(f"{prefix}experts.{e}.", h_D)
                for e in ids
            )
            if c.n_shared_experts:
                y = y + self._mlp(prefix + "shared_experts.", h_D)
            rows.append(y)
            choices.append(ids)
        result.choices.append(choices)
        return torch.stack(rows)


def chosen_experts(scores: list[float], bias: list[float] | None, c: ModelConfig) -> list[int]:
    """Ids of the experts of one token, best first, ties to the lowest index (V3 eq. 14-16), in plain Python."""
    z = scores if bias is None else [s + b for s, b in zip(scores, bias, strict=True)]
    size = c.n_routed_experts // c.n_group
    groups = [range(g * size, (g + 1) * size) for g in range(c.n_group)]
    if c.topk_method == "noaux_tc":
        value = [sum(sorted((z[e] for e in group), reverse=True)[:2]) for group in groups]
    else:
        value = [max(z[e] for e in group) for group in groups]
    kept = sorted(range(c.n_group), key=lambda g: (-value[g], g))[: c.topk_group]
    allowed = [e for g in kept for e in groups[g]]
    return sorted(allowed, key=lambda e: (-z[e], e))[: c.num_experts_per_tok]


def combine_weight(scores: Tensor, ids: list[int], expert: int, c: ModelConfig) -> Tensor:
    """The unbiased score, divided by the sum over the chosen ones where asked, times the scaling factor."""
    weight = scores[expert]
    if c.norm_topk_prob:
        weight = weight / (sum(scores[e] for e in ids) + 1e-20)
    return weight * c.routed_scaling_factor


def yarn_frequency(k: int, c: ModelConfig) -> float:
    """Angle per position of channel pair k."""
    width, base, s = c.qk_rope_head_dim, c.rope_theta, c.rope_scaling
    f = base ** (-2 * k / width)
    if s is None:
        return f
    low, high = (
        width
        * math.log(s.original_max_position_embeddings / (2 * math.pi * n))
        / (2 * math.log(base))
        for n in (s.beta_fast, s.beta_slow)
    )
    low, high = max(math.floor(low), 0), min(math.ceil(high), width - 1)
    ramp = min(max((k - low) / (high - low if high != low else 0.001), 0.0), 1.0)
    return f / s.factor * ramp + f * (1 - ramp)


def softmax_magnitude(c: ModelConfig) -> float:
    """YaRN's m^2 in the softmax scale."""
    s = c.rope_scaling
    return (
        1.0
        if s is None or s.factor <= 1
        else (0.1 * s.mscale_all_dim * math.log(s.factor) + 1) ** 2
    )


def rotated(x_SR: Tensor, c: ModelConfig) -> Tensor:
    """Channel pairs turned by position * frequency; row i is position i. Adjacent channels pair up (interleaved) or halves."""
    s, half = c.rope_scaling, c.qk_rope_head_dim // 2
    length = 1.0
    if s is not None and s.factor > 1:
        length = (0.1 * s.mscale * math.log(s.factor) + 1) / (
            0.1 * s.mscale_all_dim * math.log(s.factor) + 1
        )
    out = [x_SR[:, j] for j in range(2 * half)]
    positions = torch.arange(len(x_SR), dtype=torch.float64)
    for k in range(half):
        i, j = (2 * k, 2 * k + 1) if c.rope_interleave else (k, k + half)
        cos, sin = (
            torch.cos(positions * yarn_frequency(k, c)) * length,
            torch.sin(positions * yarn_frequency(k, c)) * length,
        )
        out[i], out[j] = x_SR[:, i] * cos - x_SR[:, j] * sin, x_SR[:, i] * sin + x_SR[:, j] * cos
    return torch.stack(out, dim=-1)
