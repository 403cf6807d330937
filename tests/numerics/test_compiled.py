"""The compiled operations of a decoding step equal the torch ones: over generated shapes, with odd widths, and through a whole model.

Tolerance: sums of n <= 512 products in another order, 512 * 2^-24 relative to the largest element (see test_twins.py); bf16 weights are
exact in fp32, and a bf16 result is rounded once more, 2^-8 of its own size.
"""

import dataclasses
import os
import subprocess
import sys

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from deepwright.inference.paged_cache import BlockPool, PagedView
from deepwright.model import experts
from deepwright.numerics import compiled, plain
from deepwright.verify.cases import ALL_CASES, CASES, random_model

BOUND = 512 * 2.0**-24
pytestmark = pytest.mark.skipif(not compiled.reason()[0], reason=compiled.reason()[1])


def random(*shape, seed=0, dtype=torch.float32):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)).to(dtype)


def close(a, b, bound=BOUND):
    error = (a.double() - b.double()).abs().max() / b.double().abs().max().clamp(min=1e-30)
    assert error <= bound, f"relative error {error:.2e} > {bound:.2e}"


@settings(max_examples=60, deadline=None)
@given(
    st.integers(1, 70),
    st.integers(1, 70),
    st.integers(1, 200),
    st.sampled_from([torch.float32, torch.bfloat16]),
)
def test_linear(rows, outputs, inputs, dtype):
    x, weight = random(rows, inputs, dtype=dtype), random(outputs, inputs, seed=1, dtype=dtype)
    with torch.inference_mode():
        assert compiled.takes(x, weight)
        close(
            compiled.linear(x, weight),
            x.double() @ weight.double().t(),
            BOUND if dtype is torch.float32 else 2.0**-8,
        )
        apart = torch.cat((x, x), dim=1)[:, :inputs]  # rows that lie apart
        close(
            compiled.linear(apart, weight),
            compiled.linear(x, weight),
            BOUND if dtype is torch.float32 else 2.0**-8,
        )


@settings(max_examples=40, deadline=None)
@given(
    st.integers(1, 40),
    st.integers(1, 9),
    st.integers(1, 4),
    st.integers(1, 50),
    st.integers(1, 50),
    st.integers(0, 99),
)
def test_expert_mlp(tokens, experts, k, width, inner, seed):
    k = min(k, experts)
    ids = (
        torch.rand(tokens, experts, generator=torch.Generator().manual_seed(seed))
        .pow(4)
        .topk(k, dim=-1)
        .indices
    )
    x, weights = random(tokens, width), random(tokens, k, seed=1)
    gate_up, down = random(experts, 2 * inner, width, seed=2), random(experts, width, inner, seed=3)
    with torch.inference_mode():
        close(
            compiled.expert_mlp(x, ids, weights, gate_up, down),
            plain.expert_mlp(x, ids, weights, gate_up, down),
        )
        sliced = torch.cat((ids, ids), dim=1)[:, :k]  # as a sort leaves them
        assert torch.equal(
            compiled.expert_mlp(x, sliced, weights, gate_up, down),
            compiled.expert_mlp(x, ids, weights, gate_up, down),
        )
        close(
            compiled.feed_forward(x, gate_up[0], down[0]),
            plain.swiglu(x @ gate_up[0].t()) @ down[0].t(),
        )


def step_by_step(model, tokens_BS, compiled_too, block=4):
    """Final states, tokens fed one at a time into a paged cache; with or without the compiled operations."""
    rows, length = tokens_BS.shape
    config = model.config
    pool = BlockPool(
        config.num_hidden_layers,
        config.cache_width,
        block,
        None,
        model.compute_dtype,
        torch.device("cpu"),
    )
    blocks = -(-length // block)
    assert pool.room(rows * blocks)
    # rows' blocks lie scattered
    table_BM = torch.tensor(pool.take(rows * blocks)).view(blocks, rows).t().contiguous()
    states = []
    with torch.inference_mode() if compiled_too else torch.no_grad():
        for i in range(length):
            slots_B = table_BM[:, i // block] * block + i % block
            view = PagedView(pool, slots_B, table_BM[:, : i // block + 1])
            states.append(
                model.hidden(tokens_BS[:, i : i + 1], torch.full((rows, 1), i), cache=view)[
                    :, 0
                ].clone()
            )
    return torch.stack(states, dim=1)


@pytest.mark.parametrize("name", ALL_CASES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["fp32", "bf16"])
def test_whole_models(name, dtype):
    """Group limits, biases, softmax gates, no query compression, half-split rotary pairs, YaRN: every kind of model that verify knows."""
    config = ALL_CASES[name]
    model = random_model(config)
    if dtype is torch.bfloat16:
        for parameter in model.parameters():
            parameter.data = parameter.data.to(dtype)
        model.compute_dtype = dtype
    tokens = torch.randint(
        0, config.vocab_size, (3, 11), generator=torch.Generator().manual_seed(3)
    )
    fast, slow = step_by_step(model, tokens, True), step_by_step(model, tokens, False)
    if dtype is torch.float32:
        close(fast, slow, 4 * BOUND)
    else:  # a choice between experts may fall the other way where bf16 makes scores tie: compare the middle of the errors
        error = (fast.float() - slow.float()).abs().flatten(1).median(
            1
        ).values / slow.float().abs().max()
        assert error.max() <= 4 * 2.0**-8


def test_ties_and_negative_biases_choose_as_torch_does():
    config = dataclasses.replace(CASES["v3"], hidden_size=16)
    layer = experts.MixtureOfExperts(config, 1)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.normal_(0.0, 0.5, generator=generator)
        layer.router.weight[3] = layer.router.weight[2]  # always a tie
        layer.router.bias.uniform_(-2.0, -1.0, generator=generator)
        layer.router.bias[3] = layer.router.bias[2]
        x = torch.randn(1, 50, 16, generator=generator)
        slow, (slow_ids, slow_weights, slow_scores) = layer(x)
    with torch.inference_mode():
        fast, (ids, weights, scores) = layer(x)
    assert torch.equal(ids, slow_ids)
    for a, b in ((weights, slow_weights), (scores, slow_scores), (fast, slow)):
        close(a, b)


def test_without_a_compiler_torch_takes_over(tmp_path):
    """Another process whose compiler fails: the reason is said, the result is the same."""
    code = (
        "import torch; from deepwright import numerics\n"
        "with torch.inference_mode(): print(float(numerics.linear(torch.ones(1, 3), torch.ones(2, 3)).sum()))\n"
        "print(numerics.compiled.reason())"
    )
    wrong = tmp_path / "cc"
    wrong.write_text(
        '#!/bin/sh\n[ "$1" = --version ] && echo broken && exit 0\necho no such machine >&2; exit 1\n'
    )
    wrong.chmod(0o755)
    for setting, said in (
        ({"CC": str(wrong), "XDG_CACHE_HOME": str(tmp_path)}, "no such machine"),
        ({"DEEPWRIGHT_COMPILED": "0"}, "DEEPWRIGHT_COMPILED"),
    ):
        run = subprocess.run(
            [sys.executable, "-c", code],
            env=os.environ | setting,
            capture_output=True,
            text=True,
            check=True,
        )
        assert run.stdout.startswith("6.0\n(False, ") and said in run.stdout
        assert not list(tmp_path.rglob("*.so"))
