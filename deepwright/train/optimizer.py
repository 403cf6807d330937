"""One optimizer step on named parameters: clipping, a policy for numbers that are not finite, AdamW
or Muon, averaged weights.

A gradient that is not finite moves nothing and is counted; several in a row end the run, as do
weights that no longer are after a step, and a loss that is none when the run would be done
(`require_finite`). What a run had saved before stays, and nothing that is not finite is ever saved.

AdamW is V3's choice (section 4.2: betas 0.9 and 0.95, weight decay 0.1). Muon (momentum, orthogonalised by Newton-Schulz iteration) is an
option for the matrices inside the blocks; embedding, head, norms and router stay with AdamW. Muon's update is scaled to a fixed root mean
square, so both share one learning rate. State is a flat dict of named tensors: it goes into safetensors and comes back bit-equal.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from deepwright.model.finite import first_bad
from deepwright.numerics import adamw_half_, check_format, compute_dtype
from deepwright.numerics.precision import NAMES
from deepwright.refusals import expect, expect_each

# Quintic a*x + b*x^3 + c*x^5 of Jordan et al. (2024): few iterations push every singular value into about [0.7, 1.2].
NEWTON_SCHULZ = (3.4445, -4.7750, 2.0315)


class TrainingDiverged(ValueError):
    """Weights, loss or gradients are no longer finite; the message names step and bad module."""


def is_finite(values: Mapping[str, Any], losses: Sequence[str]) -> bool:
    """Whether those of these losses that a step's metrics have are numbers."""
    return all(math.isfinite(values.get(name, 0.0)) for name in losses)


def require_finite(values: Mapping[str, Any], losses: Sequence[str], step: int) -> None:
    """TrainingDiverged where a step's metrics are not `is_finite`."""
    for name in losses:
        if not is_finite(values, [name]):
            raise TrainingDiverged(
                f"step {step}: {name} is {values[name]}; lower the learning rate"
            )


@dataclass(frozen=True)
class OptimizerConfig:
    """How parameters move. Decay is decoupled (times the learning rate) and applies to matrices only, never to norms."""

    name: str = "adamw"  # adamw | muon
    beta1: float = 0.9
    beta2: float = 0.95
    eps: float = 1e-8  # V3 does not state it
    weight_decay: float = 0.1
    moments: str = "float32"  # AdamW's: float32 | bfloat16 (as V3 keeps them, section 3.3.2: 4 bytes less for each parameter)
    clip_norm: float = 1.0  # global norm; 0 switches clipping off
    muon_momentum: float = 0.95
    muon_rms: float = (
        0.2  # root mean square of a Muon update at learning rate 1; 0.2 is about AdamW's own
    )
    muon_iterations: int = 5
    muon_dtype: str = (
        "float32"  # of the iteration: float32 | bfloat16 | auto (what trains faster here)
    )
    skip_limit: int = 3  # this many non-finite gradients in a row end the run

    def __post_init__(self) -> None:
        expect(self.name in ("adamw", "muon"), "optimizer name", self.name, "'adamw' or 'muon'")
        check_format(self.muon_dtype, "muon_dtype")
        expect_each(
            self,
            ("beta1", "beta2", "muon_momentum"),
            lambda value: 0 <= value < 1,
            "a number in [0, 1)",
        )
        expect(self.moments in NAMES, "moments", self.moments, " or ".join(map(repr, NAMES)))
        # a decay of less than bfloat16's spacing would be rounded away, and the moment would never
        # fall
        if self.moments != "float32":
            expect(
                max(self.beta1, self.beta2) <= 0.98,
                "beta1 and beta2",
                (self.beta1, self.beta2),
                "at most 0.98 with moments in bfloat16",
            )
        sizes = ("eps", "weight_decay", "clip_norm", "muon_rms")
        expect_each(self, sizes, lambda value: 0 <= value < float("inf"), "0 or a positive number")
        expect_each(self, ("muon_iterations", "skip_limit"), lambda value: value >= 1, "at least 1")


@dataclass(frozen=True)
class Update:
    """What one optimizer step did."""

    grad_norm: float
    applied: bool  # False: the gradient was not finite and nothing moved


class Optimizer:
    """Owns the moments of a model's parameters. `step` reads `.grad`, moves the parameters in place and clears the gradients."""

    def __init__(self, model: nn.Module, config: OptimizerConfig | None = None) -> None:
        self.config = config or OptimizerConfig()
        self.parameters = {name: p for name, p in model.named_parameters() if p.requires_grad}
        self.skipped = 0  # steps left out so far
        self.skipped_in_a_row = 0
        muon = self.config.name == "muon"
        self._muon_dtype = compute_dtype(self.config.muon_dtype)[0] if muon else None
        self.momentum = {
            name: torch.zeros_like(p)
            for name, p in self.parameters.items()
            if muon and _is_inner_matrix(name, p)
        }
        self._adamw = self._make_adamw()
        self._buckets = _bucket_by_shape({name: self.parameters[name] for name in self.momentum})

    def _make_adamw(self) -> torch.optim.AdamW:
        c = self.config
        rest = {name: p for name, p in self.parameters.items() if name not in self.momentum}
        groups = [
            {"params": [p for p in rest.values() if p.ndim >= 2], "weight_decay": c.weight_decay},
            {"params": [p for p in rest.values() if p.ndim < 2], "weight_decay": 0.0},
        ]
        kind = torch.optim.AdamW if c.moments == "float32" else _HalfMoments
        # Fused: measured 4 to 6 times faster than the other two on a CPU at 3M parameters.
        return kind(
            [g for g in groups if g["params"]],
            lr=0.0,
            betas=(c.beta1, c.beta2),
            eps=c.eps,
            fused=True,
        )

    def step(self, learning_rate: float, number: int) -> Update:
        """Step `number` of the run: clips, then moves every parameter. A gradient that is not
        finite moves nothing and is counted. TrainingDiverged: too many of them in a row; weights
        that are no longer finite, or so large that their squares are not."""
        gradients = {name: p.grad for name, p in self.parameters.items() if p.grad is not None}
        norm = clip_by_global_norm(list(gradients.values()), self.config.clip_norm)
        if norm == norm and norm != float("inf"):
            self.skipped_in_a_row = 0
            self._step_adamw(learning_rate)
            self._step_muon(learning_rate)
            self._require_finite_weights(number)
        else:
            self._count_skip(gradients, norm, number)
        self.zero_grad()
        return Update(norm, applied=self.skipped_in_a_row == 0)

    def zero_grad(self) -> None:
        for p in self.parameters.values():
            p.grad = None

    def _require_finite_weights(self, number: int) -> None:
        norms = torch._foreach_norm(list(self.parameters.values()), 2.0, dtype=torch.float32)
        finite = torch.stack(norms).isfinite()
        if not bool(finite.all()):
            name = list(self.parameters)[int((~finite).nonzero()[0])]
            largest = float(self.parameters[name].detach().abs().max())
            raise TrainingDiverged(
                f"step {number}: the largest weight of {name} is {largest:.3g}; "
                "lower the learning rate"
            )

    def _count_skip(self, gradients: Mapping[str, Tensor], norm: float, number: int) -> None:
        self.skipped += 1
        self.skipped_in_a_row += 1
        if self.skipped_in_a_row >= self.config.skip_limit:
            bad = first_bad(gradients.items())
            where = (
                f"first bad parameter: {bad}"
                if bad
                else "each gradient is finite, their norm overflows"
            )
            raise TrainingDiverged(
                f"step {number}: gradient norm was {norm} in {self.skipped_in_a_row} steps in a "
                f"row ({where}); lower the learning rate"
            )

    def _step_adamw(self, learning_rate: float) -> None:
        for group in self._adamw.param_groups:
            group["lr"] = learning_rate
        self._adamw.step()
        torch.autograd.graph.increment_version(
            [p for group in self._adamw.param_groups for p in group["params"]]
        )  # the fused one does not

    @torch.no_grad()
    def _step_muon(self, learning_rate: float) -> None:
        """m <- mu m + (1 - mu) g;  W <- (1 - lr wd) W - lr rms sqrt(max(out, in)) orthogonal((1 - mu) g + mu m), equal shapes at once."""
        c = self.config
        for (rows, columns), names in self._buckets.items():
            names = [name for name in names if self.parameters[name].grad is not None]
            if not names:
                continue
            updates = [self._look_ahead(name).view(-1, rows, columns) for name in names]
            step_Nrc = orthogonalize(torch.cat(updates), c.muon_iterations, self._muon_dtype)
            # entries of an orthogonal matrix have rms max(r, c)^-1/2
            scale = learning_rate * c.muon_rms * max(rows, columns) ** 0.5
            for name, step in zip(names, step_Nrc.split([len(u) for u in updates]), strict=True):
                p = self.parameters[name]
                p.mul_(1 - learning_rate * c.weight_decay).sub_(step.reshape(p.shape), alpha=scale)

    def _look_ahead(self, name: str) -> Tensor:
        gradient, mu = self.parameters[name].grad, self.config.muon_momentum
        momentum = self.momentum[name].lerp_(gradient, 1 - mu)
        return gradient.lerp(momentum, mu)

    def tensors(self) -> dict[str, Tensor]:
        """All moments by name, for an exact resume. They share memory with the optimizer."""
        out = {f"momentum.{name}": m for name, m in self.momentum.items()}
        for name, p in self.parameters.items():
            for key, value in self._adamw.state.get(p, {}).items():
                out[f"{key}.{name}"] = value
        return out

    def counts(self) -> dict[str, int]:
        return {"skipped": self.skipped, "skipped_in_a_row": self.skipped_in_a_row}

    def load(self, tensors: Mapping[str, Tensor], counts: Mapping[str, int]) -> None:
        """Restores `tensors()` and `counts()`. A missing, left-over or mis-shaped tensor is a ValueError naming it."""
        left = dict(tensors)
        for name, momentum in self.momentum.items():
            momentum.copy_(_take(left, f"momentum.{name}", momentum.shape))
        for name, p in self.parameters.items():
            # A parameter that never had a gradient (an unused module) has no moments yet.
            if name not in self.momentum and f"step.{name}" in left:
                moments = {
                    key: _take(left, f"{key}.{name}", p.shape)
                    .to(p.device, NAMES[self.config.moments])
                    .clone()
                    for key in ("exp_avg", "exp_avg_sq")
                }
                self._adamw.state[p] = {
                    "step": _take(left, f"step.{name}", torch.Size([])).to(torch.float32).clone(),
                    **moments,
                }
        if left:
            raise ValueError(
                f"optimizer state holds {sorted(left)[0]!r}, expected only state of {self.config.name!r} for this model"
            )
        self.skipped, self.skipped_in_a_row = counts["skipped"], counts["skipped_in_a_row"]


class _HalfMoments(torch.optim.AdamW):
    """The same rule and the same names of what it keeps; both moments in bfloat16, weights in fp32."""

    @torch.no_grad()
    def step(self) -> None:
        for group in self.param_groups:
            for p in (p for p in group["params"] if p.grad is not None):
                state = self.state[p]
                if not state:
                    state |= {
                        name: torch.zeros_like(p, dtype=torch.bfloat16)
                        for name in ("exp_avg", "exp_avg_sq")
                    }
                    state["step"] = torch.zeros(())
                state["step"] += 1
                adamw_half_(
                    p, p.grad, state["exp_avg"], state["exp_avg_sq"], step=int(state["step"]), rate=group["lr"], betas=group["betas"],
                    eps=group["eps"], decay=group["weight_decay"],
                )  # fmt: skip


class Average:
    """Exponential moving average of a model's parameters (V3 section 3.2.3 keeps one to judge late learning-rate decay early)."""

    def __init__(self, model: nn.Module, decay: float) -> None:
        expect(0 < decay < 1, "decay of averaged weights", decay, "a number in (0, 1)")
        self.decay = decay
        self.parameters = dict(model.named_parameters())
        self.weights = {name: p.detach().clone() for name, p in self.parameters.items()}

    @torch.no_grad()
    def update(self) -> None:
        for name, p in self.parameters.items():
            self.weights[name].lerp_(p, 1 - self.decay)

    @contextlib.contextmanager
    def applied(self) -> Iterator[None]:
        """The model computes with the averaged weights inside the `with` block, and with its own bits again after it."""
        own = {name: p.data for name, p in self.parameters.items()}
        try:
            for name, p in self.parameters.items():
                p.data = self.weights[name]
            yield
        finally:
            for name, p in self.parameters.items():
                p.data = own[name]

    def tensors(self) -> dict[str, Tensor]:
        return {f"average.{name}": weight for name, weight in self.weights.items()}

    def load(self, tensors: Mapping[str, Tensor]) -> None:
        for name, weight in self.weights.items():
            weight.copy_(_take(dict(tensors), f"average.{name}", weight.shape))


@torch.no_grad()
def clip_by_global_norm(gradients: list[Tensor], limit: float) -> float:
    """Scales all gradients in place so that their joint Euclidean norm is at most `limit` (0: no limit). Returns the norm before."""
    if not gradients:
        return 0.0
    norm = torch.stack(torch._foreach_norm(gradients, 2.0, dtype=torch.float32)).norm()
    if limit and torch.isfinite(norm) and norm > limit:
        torch._foreach_mul_(gradients, limit / norm)
    return float(norm)


def orthogonalize(x_Nmn: Tensor, iterations: int = 5, dtype: torch.dtype = torch.float32) -> Tensor:
    """About the nearest semi-orthogonal matrix of each [m, n] matrix: its singular vectors, with singular values in about [0.7, 1.2].

    X <- a X + (b X X^T + c (X X^T)^2) X from X / |X|, on the smaller side. A zero matrix stays zero.
    """
    a, b, c = NEWTON_SCHULZ
    wide = x_Nmn.shape[-2] <= x_Nmn.shape[-1]
    x = x_Nmn if wide else x_Nmn.mT
    x = (x / (x.norm(dim=(-2, -1), keepdim=True) + 1e-12)).to(dtype)
    for _ in range(iterations):
        gram = x @ x.mT
        x = torch.baddbmm(x, torch.baddbmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return x if wide else x.mT


def _is_inner_matrix(name: str, p: Tensor) -> bool:
    """Matrices inside blocks; not embedding, head, router."""
    outer = name.startswith(("embed.", "head.")) or ".router." in name
    return p.ndim >= 2 and not outer


def _bucket_by_shape(parameters: Mapping[str, Tensor]) -> dict[tuple[int, int], list[str]]:
    """Names by the shape of the matrices in them. `gate_up` stores two matrices, one above the other: each is orthogonalised alone."""
    buckets: dict[tuple[int, int], list[str]] = {}
    for name, p in parameters.items():
        rows = p.shape[-2] // (2 if "gate_up" in name else 1)
        buckets.setdefault((rows, p.shape[-1]), []).append(name)
    return buckets


def _take(tensors: dict[str, Tensor], name: str, shape: torch.Size) -> Tensor:
    if name not in tensors:
        raise ValueError(f"trainer state lacks {name!r}: it belongs to another model or optimizer")
    tensor = tensors.pop(name)
    if tensor.shape != shape:
        raise ValueError(
            f"trainer state {name!r} has shape {tuple(tensor.shape)}, expected {tuple(shape)}"
        )
    return tensor
