"""Every fast operation equals its plain twin, value and gradients, over generated shapes.

Tolerance: fp32 has a unit roundoff u = 2^-24; a sum of n products in another order differs by at most about n * u times the sum of
magnitudes, in practice sqrt(n) * u. With n <= 512 here, 512 * 2^-24 = 3e-5 relative to the largest element bounds all of them.
"""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from deepwright import numerics
from deepwright.numerics import compiled, experts, loss, plain
from deepwright.numerics.attention import _blocks

BOUND = 512 * 2.0**-24


@pytest.fixture(scope="module", autouse=True, params=["compiled", "torch"])
def passes(request):
    """Every test twice: with the compiled passes (where they can be built) and with torch's."""
    if request.param == "compiled" and not compiled.reason()[0]:
        pytest.skip(compiled.reason()[1])
    with pytest.MonkeyPatch.context() as patch:
        if request.param == "torch":
            patch.setattr(compiled, "_load", lambda: (None, "switched off by a test"))
        yield


def agree(fast, twin, inputs, extra=(), bound=BOUND):
    """Compares outputs and, under a random upstream gradient, the gradients of all floating inputs."""
    results = []
    for function in (fast, twin):
        leaves = [x.clone().requires_grad_() for x in inputs]
        out = function(*leaves, *extra)
        out = out[0] if isinstance(out, tuple) else out
        upstream = torch.randn(out.shape, generator=torch.Generator().manual_seed(7))
        results.append((out.detach(), *torch.autograd.grad(out, leaves, upstream.to(out.dtype))))
    for name, a, b in zip(
        ("output", *(f"gradient {i}" for i in range(len(inputs)))), *results, strict=True
    ):
        error = (a - b).abs().max() / b.abs().max().clamp(min=1e-6)
        assert error <= bound, f"{name}: relative error {error:.2e} > {bound:.2e}"


@settings(max_examples=20, deadline=None)
@given(st.integers(1, 40), st.integers(8, 130), st.integers(0, 9))
def test_rms_norm_and_swiglu(tokens, width, seed):
    g = torch.Generator().manual_seed(seed)
    x, w = torch.randn(tokens, width, generator=g), torch.randn(width, generator=g)
    agree(
        lambda a, b: numerics.rms_norm(a, b, 1e-6), lambda a, b: plain.rms_norm(a, b, 1e-6), (x, w)
    )
    agree(numerics.swiglu, plain.swiglu, (torch.randn(tokens, 2 * width, generator=g),))


@settings(max_examples=25, deadline=None)
@given(st.integers(1, 60), st.integers(1, 8), st.integers(1, 4), st.integers(0, 99))
def test_expert_mlp(tokens, n_experts, k, seed):
    """Every way to multiply: grouped with and without gradient, batched, and one token alone."""
    g = torch.Generator().manual_seed(seed)
    k = min(k, n_experts)
    # uneven loads, some experts idle
    ids = torch.rand(tokens, n_experts, generator=g).pow(4).topk(k, dim=-1).indices
    x, weights = torch.randn(tokens, 24, generator=g), torch.rand(tokens, k, generator=g)
    gate_up, down = (
        torch.randn(n_experts, 32, 24, generator=g),
        torch.randn(n_experts, 24, 16, generator=g),
    )
    for multiply in (experts._grouped, experts._batched):

        def fast(a, w, u, d, multiply=multiply):
            return multiply(a, ids, w, u.transpose(1, 2), d.transpose(1, 2))

        agree(
            fast, lambda a, w, u, d: plain.expert_mlp(a, ids, w, u, d), (x, weights, gate_up, down)
        )
    reference = plain.expert_mlp(x, ids, weights, gate_up, down)
    with torch.no_grad():
        whole, one = (
            numerics.expert_mlp(x, ids, weights, gate_up, down),
            numerics.expert_mlp(x[:1], ids[:1], weights[:1], gate_up, down),
        )
    assert (whole - reference).abs().max() <= BOUND * reference.abs().max()
    assert (one - reference[:1]).abs().max() <= BOUND * reference.abs().max()


@pytest.mark.parametrize("multiply", [experts._grouped, experts._batched])
def test_unused_expert_rows_do_not_leak(multiply):
    """An idle expert and padded rows: poisoned weights of the idle expert must not reach any result or gradient."""
    x = torch.randn(6, 8)
    ids, weights = torch.tensor([[0], [0], [0], [2], [2], [0]]), torch.ones(6, 1)
    gate_up, down = torch.randn(3, 8, 8), torch.randn(3, 8, 4)
    gate_up[1], down[1] = float("nan"), float("nan")
    x.requires_grad_()
    out = multiply(x, ids, weights, gate_up.transpose(1, 2), down.transpose(1, 2))
    out.sum().backward()
    assert out.isfinite().all() and x.grad.isfinite().all()


def test_expert_rows_are_disjoint_and_complete():
    ids = torch.randint(0, 5, (50, 1))
    row, token, rows = experts.padded_rows(ids, 5)
    assert row.unique().numel() == 50 and torch.equal(row[:, 0] // rows, ids[:, 0])
    assert torch.equal(token[row[:, 0]], torch.arange(50))
    row, token, load = experts.sorted_rows(ids, 5)
    assert torch.equal(row.flatten().sort().values, torch.arange(50)) and torch.equal(
        token[row[:, 0]], torch.arange(50)
    )
    assert torch.equal(ids.flatten()[token], ids.flatten().sort().values) and load.sum() == 50


@pytest.mark.parametrize("heads", [1, 3])
@pytest.mark.parametrize("positions", [1, 2, 63, 64, 65, 150])
def test_attention(positions, heads):
    q, k, v = (
        torch.randn(4, positions * heads, 12),
        torch.randn(4, positions, 12),
        torch.randn(4, positions, 20),
    )
    agree(
        lambda *a: numerics.attention(*a, 0.3, heads),
        lambda *a: plain.attention(*a, 0.3, heads),
        (q, k, v),
    )
    at = numerics.attention_at(
        q, k, v, 0.3, torch.arange(positions).repeat_interleave(heads).expand(4, -1)
    )
    assert (at - plain.attention(q, k, v, 0.3, heads)).abs().max() <= BOUND * at.abs().max()


@pytest.mark.parametrize(
    ("heads", "plain_width", "rotary", "values"), [(3, 12, 8, 10), (1, 32, 16, 32), (2, 5, 2, 7)]
)
@pytest.mark.parametrize("positions", [2, 63, 64, 65, 150])
def test_expanded_attention(positions, heads, plain_width, rotary, values):
    q, key = (
        torch.randn(2, positions, heads, plain_width + rotary),
        torch.randn(2, positions, rotary),
    )
    kv = torch.randn(2, positions, heads, plain_width + values)

    def twin(q, kv, key):
        k = torch.cat((kv[..., :plain_width], key[:, :, None].expand(-1, -1, heads, -1)), dim=-1)
        each = (x.transpose(1, 2).flatten(0, 1) for x in (q, k, kv[..., plain_width:]))
        return plain.attention(*each, 0.3, 1).view(2, heads, positions, values).transpose(1, 2)

    agree(lambda *a: numerics.expanded_attention(*a, 0.3, None), twin, (q, kv, key))
    with torch.no_grad():
        assert torch.equal(
            numerics.expanded_attention(q, kv, key, 0.3, None),
            numerics.expanded_attention(q.requires_grad_(), kv, key, 0.3, None),
        )


@pytest.mark.parametrize("rows_at_a_time", [1, 5, 1000])
def test_vocabulary_losses(rows_at_a_time, monkeypatch):
    monkeypatch.setattr(loss, "CHUNK_NUMBERS", rows_at_a_time * 30)
    h, head, targets, weights = (
        torch.randn(17, 8),
        torch.randn(30, 8),
        torch.randint(0, 30, (17,)),
        torch.rand(17),
    )
    agree(numerics.cross_entropy, plain.cross_entropy, (h, head), (targets, weights))
    agree(numerics.selected_log_probs, plain.selected_log_probs, (h, head), (targets, 0.6))
    entropy, reference = (
        numerics.selected_log_probs(h, head, targets, 0.6)[1],
        plain.selected_log_probs(h, head, targets, 0.6)[1],
    )
    assert (entropy - reference).abs().max() <= BOUND * reference.max()
    assert numerics.selected_log_probs(h[:0], head, targets[:0], 1.0)[0].shape == (0,)
    found = {}
    # the value stays as it is; gradients are those of bf16 products: inputs and result are rounded
    for dtype in (torch.float32, torch.bfloat16):
        leaves = [x.clone().requires_grad_() for x in (h, head)]
        selected = numerics.selected_log_probs(*leaves, targets, 0.6, dtype)[0]
        found[dtype] = (selected, *torch.autograd.grad((selected * weights).sum(), leaves))
    assert torch.equal(found[torch.float32][0], found[torch.bfloat16][0])
    for exact, rounded in zip(*(values[1:] for values in found.values()), strict=True):
        assert 0 < (rounded - exact).abs().max() <= 3 * 2**-8 * exact.abs().max() * math.sqrt(30)


def test_attention_blocks_are_covered_once():
    for positions in (1, 64, 100, 129):
        blocks = _blocks(positions)
        assert [p for start, end in blocks for p in range(start, end)] == list(range(positions))
