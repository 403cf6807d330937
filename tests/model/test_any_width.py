"""A hundred small random configurations, whatever is legal: odd widths, one expert to a group, a
vocabulary that is a multiple of nothing. Each trains a step and samples, in float32 and bfloat16.

float32: losses against the network written out in float64 (verify/reference.py; a dense model:
itself in float64), gradients against the same model in float64, at the bound of `verify`, 2e-5.
bfloat16: every product and norm rounds at 2^-9. A block has about 14, forward and backward; two
blocks and the head add up in quadrature to sqrt(2 * 30) * 2^-9 = 1.5% of the gradient's norm, and
attention and norms may magnify that threefold. Its experts are those that float32 chose: near ties
fall either way, so of sampled log-probabilities the middle error counts, at sqrt(30) * 2^-9.
"""

import random
import statistics

import pytest
import torch
import torch.nn.functional as F

from deepwright import numerics
from deepwright.config import ModelConfig
from deepwright.inference.engine import Engine
from deepwright.numerics import plain
from deepwright.rl.update import replayed
from deepwright.sampler import Sampling
from deepwright.train import objective
from deepwright.verify.cases import random_model
from deepwright.verify.checks_model import BOUND, reference_of

QUICK, COUNT = 40, 100  # the others take as long again
PLAIN, ALL = objective.Terms(), objective.Terms(mtp=0.3, sequence=0.01)
ROUNDED = 2.0**-9


def legal(seed: int) -> ModelConfig:
    draw = random.Random(seed)
    n = draw.randint
    both = dict(
        vocab_size=n(5, 75),
        hidden_size=draw.choice([n(1, 70), 36, 60, 63]),
        intermediate_size=n(1, 70),
        num_hidden_layers=n(1, 2),
        num_attention_heads=n(1, 5),
        max_position_embeddings=64,
        tie_word_embeddings=draw.random() < 0.3,
    )
    kind = draw.choice(["deepseek_v3", "deepseek_v3", "deepseek_v2", "llama", "qwen2", "qwen3"])
    if kind in ("llama", "qwen2", "qwen3"):
        groups = draw.choice([g for g in (1, 2, 3, 5) if both["num_attention_heads"] % g == 0])
        width = 2 * n(1, 9)
        return ModelConfig(**both, model_type=kind, num_key_value_heads=groups, head_dim=width)
    groups, size = n(1, 4), n(1 + (kind == "deepseek_v3"), 4)
    kept = n(1, groups)
    more = dict(
        moe_intermediate_size=draw.choice([n(1, 9), n(1, 70)]),
        first_k_dense_replace=n(0, 1),
        n_routed_experts=groups * size,
        n_shared_experts=n(0, 2),
        n_group=groups,
        topk_group=kept,
        num_experts_per_tok=n(1, kept * size),
        kv_lora_rank=n(1, 33),
        qk_nope_head_dim=n(1, 17),
        qk_rope_head_dim=2 * n(1, 5),
        v_head_dim=n(1, 17),
        q_lora_rank=draw.choice([None, n(1, 20)]),
        routed_scaling_factor=draw.choice([1.0, 2.5]),
    )
    if kind == "deepseek_v2":
        more |= dict(scoring_func="softmax", norm_topk_prob=False)
        more |= dict(topk_method="group_limited_greedy")
    else:
        more |= dict(rope_interleave=draw.random() < 0.5, num_nextn_predict_layers=n(0, 2))
    return ModelConfig(**both, **more, model_type=kind)


def rows_of(config: ModelConfig, seed: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(config.vocab_size, (2, 9), generator=generator)


def widened(config: ModelConfig, seed: int) -> torch.nn.Module:
    model = random_model(config, seed)
    model.compute_dtype = torch.float64
    for p in model.parameters():
        p.data = p.data.double()
    return model


def step(model, tokens, terms, dtype):
    """A training step in `dtype`: what it added up, and the gradients by name."""
    model.zero_grad()
    with model.computing(dtype):
        sums = objective.accumulate_gradients(model, objective.Batch(tokens), terms, micro_rows=1)
    return sums, {name: p.grad for name, p in model.named_parameters() if p.grad is not None}


def reference_losses(wide, tokens) -> tuple[float, float]:
    """Main and MTP loss by the float64 reference."""
    main, mtp, depths = 0.0, 0.0, max(1, len(wide.mtp))
    reference = None if wide.config.is_dense else reference_of(wide)
    for row in tokens:
        inputs, count = row[:-1], tokens[:, 1:].numel()
        if reference is None:
            main += F.cross_entropy(wide(inputs[None])[0], row[1:], reduction="sum").item() / count
            continue
        seen = reference.forward(inputs)
        main += F.cross_entropy(seen.logits, row[1:], reduction="sum").item() / count
        for k, logits in enumerate(reference.multi_token(seen.final, inputs), 1):
            lost = F.cross_entropy(logits, row[k + 1 :], reduction="sum").item()
            mtp += lost / count / depths
    return main, mtp


def distance(ours, theirs) -> float:
    """Of all gradients together, relative."""
    assert ours.keys() == theirs.keys()
    pairs = [(ours[name].double(), theirs[name].double()) for name in theirs]
    off, size = (
        sum(float(x.square().sum()) for x in xs)
        for xs in ([a - b for a, b in pairs], [b for _, b in pairs])
    )
    return (off / size) ** 0.5


def check_training(model, wide, tokens):
    sums, gradients = step(model, tokens, ALL, torch.float32)
    main, mtp = reference_losses(wide, tokens)
    assert abs(sums.loss - main) <= BOUND * main and abs(sums.mtp_loss - mtp) <= BOUND * main
    assert distance(gradients, step(wide, tokens, ALL, torch.float64)[1]) <= BOUND
    routing, one = [], tokens[:1]
    with torch.no_grad():
        model.hidden(one[:, :-1], routing=routing)
    chosen = torch.stack([record.ids_TK for record in routing]) if routing else None
    with replayed(model, chosen):
        half, whole = (step(model, one, PLAIN, d)[1] for d in (torch.bfloat16, torch.float32))
    assert distance(half, whole) <= 3 * 60**0.5 * ROUNDED


def check_sampling(model, tokens):
    prompts = [tokens[0, :5].tolist(), [0]]
    for dtype, bound in ((torch.float32, BOUND), (torch.bfloat16, 30**0.5 * ROUNDED)):
        with model.computing(dtype), torch.no_grad():
            groups, gaps = Engine(model, block=4).sample(prompts, Sampling(6, n=3, seed=1)), []
            for prompt, group in zip(prompts, groups, strict=True):
                ids = torch.tensor([[*prompt, *one.token_ids] for one in group])
                table = model(ids)[:, len(prompt) - 1 : -1].log_softmax(-1)
                seen = table.gather(2, ids[:, len(prompt) :, None])[..., 0]
                gaps += (
                    (seen - torch.tensor([one.log_probs for one in group])).abs().flatten().tolist()
                )
        middle = max if dtype is torch.float32 else statistics.median
        assert middle(gaps) <= bound * max(1.0, float(seen.abs().max()))


SEEDS = [*range(QUICK), *(pytest.param(n, marks=pytest.mark.slow) for n in range(QUICK, COUNT))]


@pytest.mark.parametrize("seed", SEEDS)
def test_a_legal_configuration_trains_and_samples(seed):
    config = legal(seed)
    model, tokens = random_model(config, seed), rows_of(config, seed)
    check_training(model, widened(config, seed), tokens)
    check_sampling(model, tokens)


@pytest.mark.parametrize("width", [36, 60, 63])
@pytest.mark.parametrize("inner", [1, 7, 9, 64])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_experts_of_odd_widths(width, inner, dtype):
    """Where torch has no grouped product, the padded one runs, and equals the plain twin."""
    draw = torch.Generator().manual_seed(width * inner)
    x, weights = torch.randn(40, width, generator=draw), torch.rand(40, 2, generator=draw)
    gate_up, down = (
        torch.randn(5, 2 * inner, width, generator=draw),
        torch.randn(5, width, inner, generator=draw),
    )
    ids = torch.rand(40, 5, generator=draw).pow(4).topk(2).indices
    wide = [t.to(dtype).double().requires_grad_() for t in (x, gate_up, down)]
    ours = [t.to(dtype).requires_grad_() for t in (x, gate_up, down)]
    y = numerics.expert_mlp(ours[0], ids, weights, *ours[1:])
    expected = plain.expert_mlp(wide[0], ids, weights.double(), *wide[1:])
    upstream = torch.randn(y.shape, generator=draw).to(dtype)
    found = torch.autograd.grad(y, ours, upstream)
    exact = torch.autograd.grad(expected, wide, upstream.double())
    # A value goes through four roundings: two products, the gate, the sum.
    bound = BOUND if dtype is torch.float32 else 4 * 2 * ROUNDED
    for a, b in zip((y, *found), (expected, *exact), strict=True):
        assert (a.double() - b).norm() <= bound * b.norm()
