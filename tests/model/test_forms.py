"""One network, several ways to run it: absorbed = expanded, chunked = whole, padded = alone, recomputed = kept.

Tolerance: two fp32 evaluations in another order differ by about sqrt(n) u per product of length n; through 3 blocks with n <= 128
and logits of order 1, 2e-5 of the largest value (the parity bound of this project) is generous and still 500 times below any real slip.
"""

import pytest
import torch

from deepwright.config import ModelConfig, RopeScaling
from deepwright.model import ContiguousCache, Transformer, experts
from deepwright.model.experts import auxiliary_loss, sequence_balance_loss, update_bias

BOUND = 2e-5


def small(**changes) -> ModelConfig:
    sizes = dict(vocab_size=50, hidden_size=32, intermediate_size=64, moe_intermediate_size=16, num_hidden_layers=3, first_k_dense_replace=1,
                 num_attention_heads=4, n_routed_experts=8, n_shared_experts=1, num_experts_per_tok=2, kv_lora_rank=16, qk_nope_head_dim=8,
                 qk_rope_head_dim=8, v_head_dim=8, n_group=4, topk_group=2, routed_scaling_factor=2.5, initializer_range=0.1)  # fmt: skip
    return ModelConfig(**{**sizes, **changes})


def make(**changes) -> Transformer:
    model = Transformer(small(**changes), torch.Generator().manual_seed(1))
    for layer in model.layers[1:]:
        layer.ffn.router.bias.normal_(-0.5, 0.3, generator=torch.Generator().manual_seed(2))
    return model


def close(a, b, bound=BOUND):
    error = ((a - b).abs().max() / b.abs().max()).item()
    assert error <= bound, f"relative error {error:.2e} > {bound:.2e}"


VARIED = [
    {},
    {"q_lora_rank": 12},
    {"rope_scaling": RopeScaling(8.0, 16, mscale=1.0, mscale_all_dim=1.0)},
    {"rope_interleave": False},
]


@pytest.mark.parametrize("changes", VARIED)
def test_absorbed_equals_expanded_with_gradients(changes):
    model, tokens, probe = make(**changes), torch.randint(0, 50, (3, 70)), torch.randn(3, 70, 32)
    grads, outs = [], []
    for form in ("expanded", "absorbed"):
        model.zero_grad()
        h = model.hidden(tokens, form=form)
        # a random direction: the norm of h is fixed by the final RMSNorm
        (h * probe).sum().backward()
        outs.append(h.detach())
        grads.append([p.grad.clone() for p in model.parameters() if p.grad is not None])
    close(outs[0], outs[1])
    for a, b in zip(*grads, strict=True):
        close(a, b, 10 * BOUND)  # gradients sum over 210 tokens with cancellation


DENSE = dict(model_type="qwen3", vocab_size=50, hidden_size=36, intermediate_size=64, num_hidden_layers=3, num_attention_heads=6,
             num_key_value_heads=2, head_dim=8, attention_bias=True, rope_scaling=RopeScaling(8.0, 16), initializer_range=0.1,
             tie_word_embeddings=True)  # fmt: skip


def test_recomputation_and_padding_change_nothing_in_a_dense_model():
    model, tokens, probe = (
        Transformer(ModelConfig(**DENSE), torch.Generator().manual_seed(1)),
        torch.randint(0, 50, (3, 70)),
        torch.randn(3, 70, 36),
    )
    grads = []
    for recompute in (False, True):
        model.zero_grad()
        (model.hidden(tokens, recompute=recompute) * probe).sum().backward()
        grads.append([p.grad.clone() for p in model.parameters()])
    assert all(torch.equal(a, b) for a, b in zip(*grads, strict=True))
    valid, whole = torch.arange(70) < torch.tensor([[12], [70], [5]]), model.hidden(tokens).detach()
    padded = model.hidden(torch.where(valid, tokens, 3)).detach()
    close(padded[valid], whole[valid])
    close(model.hidden(tokens[2:, :5]).detach(), whole[2:, :5])


@pytest.mark.parametrize("form", ["expanded", "absorbed", None])
def test_chunked_with_cache_equals_whole(form):
    model, generator = make(), torch.Generator().manual_seed(3)
    tokens = torch.randint(0, 50, (2, 40), generator=generator)
    whole = model.hidden(tokens).detach()
    for _ in range(20):
        cuts = sorted(set(torch.randint(1, 40, (4,), generator=generator).tolist())) + [40]
        cache, start, parts = ContiguousCache(model.config, 2, 40), 0, []
        for end in cuts:
            positions = torch.arange(start, end).expand(2, -1)
            parts.append(
                model.hidden(tokens[:, start:end], positions, cache=cache, form=form).detach()
            )
            start = end
        close(torch.cat(parts, 1), whole)


def test_rows_do_not_see_each_other_nor_the_future_nor_padding():
    model, tokens = make(), torch.randint(0, 50, (3, 20))
    whole = model.hidden(tokens).detach()
    close(model.hidden(tokens[1:2]).detach(), whole[1:2])
    changed = tokens.clone()
    changed[:, 12:] = 7
    close(model.hidden(changed).detach()[:, :12], whole[:, :12])
    valid = torch.arange(20) < torch.tensor([[12], [20], [5]])
    records, padded = [], []
    model.hidden(tokens, valid_BS=valid, routing=records)
    model.hidden(torch.where(valid, tokens, 3), valid_BS=valid, routing=padded)
    for a, b in zip(records, padded, strict=True):
        assert torch.equal(a.load_E, b.load_E) and a.load_E.sum() == valid.sum() * 2
        close(sequence_balance_loss(a), sequence_balance_loss(b))


def test_recomputation_changes_nothing():
    model, tokens, probe = (
        make(num_nextn_predict_layers=1),
        torch.randint(0, 50, (2, 16)),
        torch.randn(2, 16, 32),
    )
    results = []
    for recompute in (False, True):
        model.zero_grad()
        routing = []
        h = model.hidden(tokens, routing=routing, recompute=recompute)
        drafted = model.mtp_hidden(h, tokens, routing=routing, recompute=recompute)[0]
        (
            (h * probe).sum()
            + (drafted * probe[:, 1:]).sum()
            + sum(map(sequence_balance_loss, routing))
        ).backward()
        results.append(
            (
                [p.grad.clone() for p in model.parameters() if p.grad is not None],
                [r.load_E for r in routing],
            )
        )
    assert all(torch.equal(a, b) for a, b in zip(results[0][0], results[1][0], strict=True))
    assert len(results[0][1]) == 3 and all(
        torch.equal(a, b) for a, b in zip(results[0][1], results[1][1], strict=True)
    )


def test_balance_losses_by_hand_and_gradient():
    """Two tokens of one sequence, three experts, one choice each: f = E/(K T) * count, P = mean share."""
    model = make()
    routing = []
    model.hidden(torch.randint(0, 50, (4, 10)), routing=routing)
    loss = sequence_balance_loss(routing[0])
    loss.backward()
    assert model.layers[1].ffn.router.weight.grad.abs().max() > 0
    ids, scores = torch.tensor([[0], [1]]), torch.tensor([[0.6, 0.2, 0.2], [0.1, 0.8, 0.1]])
    by_hand = 3 / 2 * ((0.6 + 0.1) / 2 + (0.2 + 0.8) / 2)
    record = type(routing[0])(0, ids, scores.gather(1, ids), scores, torch.tensor([1, 1, 0]), 1)
    assert (
        sequence_balance_loss(record).item()
        == pytest.approx(by_hand)
        == auxiliary_loss(record).item()
    )


def test_sequence_loss_does_not_depend_on_the_micro_batch_split():
    model, tokens = make(), torch.randint(0, 50, (4, 12))

    def total(parts):
        out = 0.0
        for part in parts:
            routing = []
            model.hidden(part, routing=routing)
            out = out + sum(sequence_balance_loss(r) for r in routing) * len(part) / len(tokens)
        return out

    close(total(tokens.split(1)), total([tokens]))


def test_bias_rule_and_its_dtype():
    assert torch.equal(
        update_bias(torch.zeros(4), torch.tensor([10, 2, 6, 6]), 0.001),
        torch.tensor([-0.001, 0.001, 0.0, 0.0]),
    )
    model = make()
    weights = [p.grad for p in model.parameters()]
    assert (
        all(w is None for w in weights) and model.layers[1].ffn.router.bias.dtype == torch.float32
    )
    assert "layers.1.ffn.router.bias" in model.state_dict()


def test_mtp_sees_the_next_token_and_not_the_one_it_predicts():
    """State i may depend on tokens 0..i+1 only: it predicts token i+2."""
    model, tokens = make(num_nextn_predict_layers=2), torch.randint(0, 49, (1, 12))
    first, second = model.mtp_hidden(model.hidden(tokens), tokens)
    assert first.shape[1] == 11 and second.shape[1] == 10
    changed = tokens.clone()
    changed[:, 6] = 49
    first2, second2 = model.mtp_hidden(model.hidden(changed), changed)
    for before, after, seen in ((first, first2, 5), (second, second2, 4)):
        close(after[:, :seen], before[:, :seen])
        assert (after[:, seen] - before[:, seen]).abs().max() > 1000 * BOUND * before.abs().max()


def test_both_ways_to_find_the_best_agree_on_ties(monkeypatch):
    """Scores from a few values, so that ties abound, minus infinity among them."""
    scores = torch.tensor([0.0, 0.25, 0.5, float("-inf")])[
        torch.randint(0, 4, (200, 12), generator=torch.Generator().manual_seed(5))
    ]
    sorted_once = experts.top_ids(scores, 3)
    monkeypatch.setattr(experts, "SORTED_NUMBERS", 0)
    in_passes = experts.top_ids(scores, 3)
    finite = scores.gather(1, sorted_once) > float("-inf")
    assert torch.equal(sorted_once[finite], in_passes[finite]) and torch.equal(
        finite, scores.gather(1, in_passes) > float("-inf")
    )
    for row, found in zip(scores.tolist(), sorted_once.tolist(), strict=True):
        assert found == sorted(range(12), key=lambda i: (-row[i], i))[:3]
