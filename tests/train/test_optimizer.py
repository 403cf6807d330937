"""The optimizer against float64 references written out here, its policy for bad gradients, and its exact state."""

import pytest
import torch
from torch import nn

from deepwright.numerics import compiled
from deepwright.train.optimizer import (
    NEWTON_SCHULZ,
    Average,
    Optimizer,
    OptimizerConfig,
    TrainingDiverged,
    clip_by_global_norm,
    orthogonalize,
)
from tests.train.tiny import make_model

MUON = OptimizerConfig(name="muon")


class Blocks(nn.Module):
    """One parameter of every kind, under the names of the real model."""

    def __init__(self, seed: int = 0) -> None:
        super().__init__()
        draw = torch.Generator().manual_seed(seed)
        shapes = {
            "embed.weight": (10, 4), "head.weight": (10, 4), "norm.weight": (4,), "ffn.router.weight": (3, 4), "attention.o.weight": (4, 8),
            "ffn.experts.gate_up": (3, 12, 4), "ffn.experts.down": (3, 4, 6), "ffn.shared.gate_up.weight": (12, 4),
        }  # fmt: skip
        self.values = {
            name: nn.Parameter(torch.randn(shape, generator=draw)) for name, shape in shapes.items()
        }

    def named_parameters(self, *args, **kwargs):
        return iter(self.values.items())

    def set_gradients(self, seed: int) -> dict[str, torch.Tensor]:
        draw = torch.Generator().manual_seed(seed)
        for p in self.values.values():
            p.grad = torch.randn(p.shape, generator=draw)
        return {name: p.grad.double() for name, p in self.values.items()}


def adamw_reference(weight, gradients, rate, decay, c):
    """Loshchilov and Hutter, algorithm 2, in float64."""
    m = v = torch.zeros_like(weight)
    for t, g in enumerate(gradients, 1):
        m, v = c.beta1 * m + (1 - c.beta1) * g, c.beta2 * v + (1 - c.beta2) * g * g
        step = (m / (1 - c.beta1**t)) / ((v / (1 - c.beta2**t)).sqrt() + c.eps)
        weight = weight - rate * decay * weight - rate * step
    return weight


def polynomial_reference(matrix, iterations):
    """What Newton-Schulz does to one matrix: the same quintic on each singular value."""
    a, b, c = NEWTON_SCHULZ
    u, s, vh = torch.linalg.svd(matrix.double(), full_matrices=False)
    s = s / s.norm()
    for _ in range(iterations):
        s = a * s + b * s**3 + c * s**5
    return u @ torch.diag(s) @ vh


def newton_schulz_reference(x, iterations):
    """The same without a decomposition and without batching, in float64, as the formula stands."""
    a, b, c = NEWTON_SCHULZ
    x = x.double() / x.double().norm()
    for _ in range(iterations):
        x = a * x + b * x @ x.T @ x + c * x @ x.T @ x @ x.T @ x
    return x


def muon_reference(weight, gradients, rate, c):
    m = torch.zeros_like(weight)
    for g in gradients:
        m = c.muon_momentum * m + (1 - c.muon_momentum) * g
        step = newton_schulz_reference(
            c.muon_momentum * m + (1 - c.muon_momentum) * g, c.muon_iterations
        )
        weight = (
            weight * (1 - rate * c.weight_decay)
            - rate * c.muon_rms * max(weight.shape) ** 0.5 * step
        )
    return weight


@pytest.mark.parametrize(
    "config",
    [OptimizerConfig(clip_norm=0.0), OptimizerConfig(name="muon", clip_norm=0.0)],
    ids=lambda c: c.name,
)
def test_steps_equal_a_float64_reference(config):
    model, rate = Blocks(), 0.02
    before = {name: p.detach().double() for name, p in model.values.items()}
    optimizer, gradients = Optimizer(model, config), []
    for seed in range(4):
        gradients.append(model.set_gradients(seed))
        optimizer.step(rate, 1)
    for name, p in model.values.items():
        history = [g[name] for g in gradients]
        if config.name == "adamw" or name in (
            "embed.weight",
            "head.weight",
            "norm.weight",
            "ffn.router.weight",
        ):
            expected = adamw_reference(
                before[name], history, rate, 0.0 if p.ndim == 1 else config.weight_decay, config
            )
        else:
            split = (2 if "gate_up" in name else 1) * (p.shape[0] if p.ndim == 3 else 1)
            parts = [part.reshape(split, -1, p.shape[-1]) for part in (before[name], *history)]
            expected = torch.stack(
                [
                    muon_reference(parts[0][i], [h[i] for h in parts[1:]], rate, config)
                    for i in range(split)
                ]
            ).view(p.shape)
        # fp32 rounds at 2^-24; each of 4 steps passes about 30 operations (5 iterations of 6), each of which the quintic can stretch
        # by its slope at 0 (3.4) only for singular values that stay small: 4 * 30 * 3.4 * 6e-8 = 2.5e-5 of a step of at most 0.05.
        torch.testing.assert_close(p.detach().double(), expected, rtol=2e-6, atol=2.5e-6)


def half_moments_reference(weight, gradients, rate, decay, c):
    """The same with moments that are rounded to bfloat16 between two steps, and used before they are."""
    m = v = torch.zeros_like(weight)
    for t, g in enumerate(gradients, 1):
        m, v = c.beta1 * m + (1 - c.beta1) * g, c.beta2 * v + (1 - c.beta2) * g * g
        weight = weight * (1 - rate * decay) - rate * (m / (1 - c.beta1**t)) / (
            (v / (1 - c.beta2**t)).sqrt() + c.eps
        )
        m, v = m.bfloat16().double(), v.bfloat16().double()
    return weight, m


@pytest.mark.parametrize("built", [True, False], ids=["as it runs here", "without a compiler"])
def test_moments_in_bfloat16(built, monkeypatch):
    if not built:
        monkeypatch.setattr(compiled, "fuses", lambda *_: False)
    check_moments_in_bfloat16()


def check_moments_in_bfloat16():
    config, rate, weight = (
        OptimizerConfig(moments="bfloat16", clip_norm=0.0),
        0.02,
        nn.Parameter(torch.linspace(-1, 1, 4000).view(50, 80)),
    )
    model = nn.Module()
    model.register_parameter("weight", weight)
    before, optimizer, gradients = weight.detach().double(), Optimizer(model, config), []
    for seed in range(12):
        weight.grad = torch.randn(weight.shape, generator=torch.Generator().manual_seed(seed))
        gradients.append(weight.grad.double())
        optimizer.step(rate, 1)
    expected, first = half_moments_reference(before, gradients, rate, config.weight_decay, config)
    kept = optimizer.tensors()["exp_avg.weight"]
    assert kept.dtype is torch.bfloat16
    # fp32 and float64 round to different neighbours where they fall beside a tie: few numbers, one spacing (2^-8) of one moment each.
    assert ((kept.double() - first).abs() > 1e-9).double().mean() < 0.01
    wrong = (weight.detach().double() - expected).abs() > 1e-6
    assert wrong.double().mean() < 0.01


def test_muon_scale_gives_the_asked_root_mean_square():
    model = Blocks()
    before = model.values["attention.o.weight"].detach().clone()
    model.set_gradients(1)
    Optimizer(model, OptimizerConfig(name="muon", weight_decay=0.0)).step(0.1, 1)
    moved = (model.values["attention.o.weight"].detach() - before) / 0.1
    # Singular values end in about [0.68, 1.21], so does the ratio of the two root mean squares.
    assert 0.65 * 0.2 < moved.square().mean().sqrt() < 1.25 * 0.2


@pytest.mark.parametrize("shape", [(3, 16, 16), (2, 8, 24), (2, 24, 8), (1, 1, 5)])
def test_orthogonalize(shape):
    x = torch.randn(shape, generator=torch.Generator().manual_seed(3))
    y = orthogonalize(x)
    # 5 iterations of about 6 fp32 operations with sums over at most 24 terms; the quintic's slope is at most 3.44 in each: 5e-5 is generous
    # against 6e-8 * 24 * 5 * 3.44 = 2.5e-5.
    for matrix, result in zip(x, y, strict=True):
        torch.testing.assert_close(
            result.double(), polynomial_reference(matrix, 5), rtol=0, atol=5e-5
        )
        torch.testing.assert_close(
            result.double(), newton_schulz_reference(matrix, 5), rtol=0, atol=5e-5
        )
        values = torch.linalg.svdvals(result)
        share = torch.linalg.svdvals(matrix) / matrix.norm()
        # The quintic lifts a value by at least 3.44 in each of five steps until it is about 0.7, and never leaves 1.21 afterwards.
        assert values.max() < 1.22 and values[share > 0.7 / 3.44**4].min() > 0.67


def test_orthogonalize_in_bfloat16():
    x = torch.randn(3, 16, 24, generator=torch.Generator().manual_seed(4))
    values = torch.linalg.svdvals(orthogonalize(x, dtype=torch.bfloat16).float())
    # bfloat16 rounds at 2^-9; an iteration rounds four products of norm at most 4: 4 * 4 * 2^-9 = 0.03, in five 0.15 around [0.68, 1.21].
    assert values.min() > 0.53 and values.max() < 1.36


def test_zero_matrix_stays_zero():
    assert torch.equal(orthogonalize(torch.zeros(2, 3, 4)), torch.zeros(2, 3, 4))


def test_router_embedding_head_and_norms_are_adamws():
    optimizer = Optimizer(make_model(), MUON)
    others = optimizer.parameters.keys() - optimizer.momentum.keys()
    assert {name for name in others if "norm" not in name} == {
        "embed.weight", "head.weight", "layers.1.ffn.router.weight", "layers.2.ffn.router.weight", "mtp.0.block.ffn.router.weight",
    }  # fmt: skip
    assert not any("norm" in name for name in optimizer.momentum)


def test_clipping():
    gradients = [torch.full((3,), 2.0), torch.full((2, 2), -2.0)]
    assert clip_by_global_norm(gradients, 1.0) == pytest.approx(28**0.5, rel=1e-6)
    assert torch.cat([g.flatten() for g in gradients]).norm() == pytest.approx(1.0, rel=1e-6)
    small = [torch.full((4,), 0.1)]
    assert clip_by_global_norm(small, 1.0) == pytest.approx(0.2, rel=1e-6)
    assert torch.equal(small[0], torch.full((4,), 0.1))


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
@pytest.mark.parametrize("config", [OptimizerConfig(), MUON], ids=lambda c: c.name)
def test_a_bad_gradient_moves_nothing_and_the_third_in_a_row_stops(config, bad):
    model = Blocks()
    optimizer = Optimizer(model, config)
    model.set_gradients(0)
    assert optimizer.step(0.01, 1).applied
    before = {
        name: value.clone()
        for name, value in (
            {n: p.detach() for n, p in model.values.items()} | optimizer.tensors()
        ).items()
    }
    for attempt in range(3):
        model.set_gradients(attempt)
        model.values["ffn.experts.down"].grad[1, 2, 3] = bad
        if attempt < 2:
            assert not optimizer.step(0.01, 1).applied
            assert optimizer.skipped == attempt + 1
    with pytest.raises(TrainingDiverged, match=r"3 steps in a row .*ffn\.experts\.down"):
        optimizer.step(0.01, 1)
    after = {n: p.detach() for n, p in model.values.items()} | optimizer.tensors()
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_a_good_gradient_resets_the_count():
    model = Blocks()
    optimizer = Optimizer(model)
    for seed in range(8):
        model.set_gradients(seed)
        if seed % 2:
            model.values["norm.weight"].grad[0] = float("nan")
        assert optimizer.step(0.01, 1).applied == (seed % 2 == 0)
    assert optimizer.skipped == 4


@pytest.mark.parametrize(
    "config",
    [OptimizerConfig(), MUON, OptimizerConfig(moments="bfloat16")],
    ids=lambda c: f"{c.name} {c.moments}",
)
def test_state_goes_out_and_in_bit_equal(config):
    model, twin = Blocks(), Blocks(seed=1)
    optimizer = Optimizer(model, config)
    for seed in range(3):
        model.set_gradients(seed)
        optimizer.step(0.01, 1)
    for name, p in twin.values.items():
        p.data.copy_(model.values[name])
    resumed = Optimizer(twin, config)
    resumed.load(
        {name: tensor.clone() for name, tensor in optimizer.tensors().items()}, optimizer.counts()
    )
    for seed in range(3, 6):
        model.set_gradients(seed), twin.set_gradients(seed)
        optimizer.step(0.01, 1), resumed.step(0.01, 1)
    assert all(torch.equal(p, twin.values[name]) for name, p in model.values.items())
    assert all(
        torch.equal(value, resumed.tensors()[name]) for name, value in optimizer.tensors().items()
    )


def test_foreign_state_is_refused_by_name():
    model = Blocks()
    optimizer = Optimizer(model)
    model.set_gradients(0)
    optimizer.step(0.01, 1)
    state, counts = optimizer.tensors(), optimizer.counts()
    with pytest.raises(ValueError, match=r"lacks 'exp_avg\.norm\.weight'"):
        Optimizer(Blocks()).load(
            {k: v for k, v in state.items() if k != "exp_avg.norm.weight"}, counts
        )
    with pytest.raises(ValueError, match=r"shape \(5,\), expected \(4,\)"):
        Optimizer(Blocks()).load(state | {"exp_avg.norm.weight": torch.zeros(5)}, counts)
    with pytest.raises(ValueError, match="momentum"):
        Optimizer(Blocks(), MUON).load(state, counts)
    with pytest.raises(ValueError, match="expected only state of 'adamw'"):
        Optimizer(Blocks()).load(state | {"momentum.x": torch.zeros(1)}, counts)


def test_averaged_weights():
    model = nn.Linear(2, 2, bias=False)
    first = model.weight.detach().clone()
    average = Average(model, 0.75)
    with torch.no_grad():
        model.weight.add_(4.0)
    average.update()
    own = model.weight.detach().clone()
    with average.applied():
        torch.testing.assert_close(model.weight.detach(), first + 1.0)
    assert torch.equal(model.weight, own)
    with pytest.raises(ValueError, match=r"1\.0"):
        Average(model, 1.0)


@pytest.mark.parametrize("bad", [{"name": "sgd"}, {"beta2": 1.0}, {"weight_decay": -0.1}, {"skip_limit": 0}, {"muon_dtype": "float16"}, {"moments": "float16"},
                                 {"beta2": 0.999, "moments": "bfloat16"}])  # fmt: skip
def test_refuses(bad):
    with pytest.raises(ValueError, match=next(iter(bad))):
        OptimizerConfig(**bad)
