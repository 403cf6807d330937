"""The training loss does not depend on how a batch is split or recomputed; experts are counted and biases moved once per step."""

from dataclasses import replace

import pytest
import torch

from deepwright.model.experts import update_bias
from deepwright.train.objective import (
    Batch,
    Terms,
    accumulate_gradients,
    add_loads,
    max_violation,
    routers,
    update_biases,
    validate,
)
from deepwright.train.pretrain import Trainer
from tests.train.tiny import CONFIG, LENGTH, MODEL, make_model, random_tokens

ROWS = 4
FULL = Terms(mtp=0.3, sequence=0.01)


def gradients(batch: Batch, terms: Terms = FULL, **options):
    model = make_model()
    sums = accumulate_gradients(model, batch, terms, **options)
    return sums, {name: p.grad for name, p in model.named_parameters() if p.grad is not None}


def assert_same(first: dict, second: dict, splits: int = 1):
    # fp32: a gradient entry is a sum over 48 tokens; cutting that sum anew changes it by at most (splits + 48) half-units of its largest
    # partial sum, relative to the norm: 52 * 6e-8 = 3e-6.
    assert first.keys() == second.keys()
    for name, expected in first.items():
        assert (second[name] - expected).norm() <= (48 + splits) * 6e-8 * expected.norm() + 1e-10, (
            name
        )


@pytest.mark.invariant
@pytest.mark.parametrize("micro_rows", [2, 3, 1])
def test_micro_batches_give_the_same_gradient(micro_rows):
    batch = Batch(random_tokens(ROWS))
    whole_sums, whole = gradients(batch)
    sums, split = gradients(batch, micro_rows=micro_rows)
    assert_same(whole, split, splits=ROWS)
    for name in ("loss", "mtp_loss", "balance_loss", "total_loss"):
        assert getattr(sums, name) == pytest.approx(getattr(whole_sums, name), rel=3e-6)
    assert all(torch.equal(load, sums.loads[layer]) for layer, load in whole_sums.loads.items())


@pytest.mark.invariant
def test_loss_masks_and_padding_split_the_same():
    draw = torch.Generator().manual_seed(5)
    lengths = torch.tensor([LENGTH, 3, 7, 10])  # ragged: a mean of micro-batch means would differ
    valid_BS = torch.arange(LENGTH) < lengths[:, None]
    weights_BS = (torch.rand(ROWS, LENGTH, generator=draw) < 0.6).float() * valid_BS
    batch = Batch(random_tokens(ROWS), weights_BS, valid_BS)
    sums, whole = gradients(batch)
    for micro_rows in (1, 2):
        split_sums, split = gradients(batch, micro_rows=micro_rows)
        assert_same(whole, split, splits=ROWS)
        assert all(torch.equal(load, split_sums.loads[layer]) for layer, load in sums.loads.items())
    assert int(sums.loads[1].sum()) == int(valid_BS.sum()) * MODEL.num_experts_per_tok


@pytest.mark.invariant
def test_recomputing_changes_no_bit_and_counts_once():
    batch = Batch(random_tokens(ROWS))
    sums, plain = gradients(batch)
    again, recomputed = gradients(batch, recompute=True)
    assert all(torch.equal(plain[name], recomputed[name]) for name in plain)
    assert all(torch.equal(load, again.loads[layer]) for layer, load in sums.loads.items())


def test_loss_equals_plain_autograd_by_hand():
    """The whole objective from logits, log_softmax and explicit target shifts."""
    model, tokens = make_model(), random_tokens(ROWS)
    inputs, routing = tokens[:, :-1], []
    h = model.hidden(inputs, routing=routing)
    (h1,) = model.mtp_hidden(h, inputs, routing=routing)
    main = -torch.log_softmax(h @ model.head_weight.T, -1).gather(-1, tokens[:, 1:, None]).mean()
    mtp = -torch.log_softmax(h1 @ model.head_weight.T, -1).gather(-1, tokens[:, 2:, None]).sum() / (
        ROWS * LENGTH
    )
    balance = 0.0
    for record in routing:
        scores = record.scores_TE.view(ROWS, -1, MODEL.n_routed_experts)
        chosen = torch.zeros_like(record.scores_TE).scatter_(1, record.ids_TK, 1.0).view_as(scores)
        f = chosen.mean(1) * MODEL.n_routed_experts / MODEL.num_experts_per_tok
        balance = balance + (f * (scores / scores.sum(-1, keepdim=True)).mean(1)).sum(-1).mean()
    (main + FULL.mtp * mtp + FULL.sequence * balance).backward()
    sums, ours = gradients(Batch(tokens))
    assert (sums.loss, sums.mtp_loss, sums.balance_loss) == pytest.approx(
        (main.item(), mtp.item(), balance.item()), rel=2e-6
    )
    assert_same({name: p.grad for name, p in model.named_parameters()}, ours)


def test_a_term_of_weight_zero_is_not_there():
    sums, grads = gradients(Batch(random_tokens(2)), Terms())
    assert sums.mtp_loss == sums.balance_loss == 0.0 and sums.total_loss == sums.loss
    assert not any(name.startswith("mtp") for name in grads) and set(sums.loads) == {1, 2}


@pytest.mark.parametrize("terms", [Terms(sequence=1.0), Terms(auxiliary=1.0)])
def test_balance_losses_reach_the_router(terms):
    batch = Batch(
        random_tokens(2), weights_BS=torch.zeros(2, LENGTH).index_fill_(1, torch.tensor([0]), 1e-20)
    )
    # token weights of almost nothing at one position: what is left comes from the balance loss
    _, grads = gradients(batch, terms)
    _, without = gradients(batch, Terms())
    assert (
        grads["layers.1.ffn.router.weight"] - without["layers.1.ffn.router.weight"]
    ).norm() > 1e-4


def test_auxiliary_loss_refuses_a_split():
    with pytest.raises(ValueError, match="micro_rows is 2 of 4 rows"):
        gradients(Batch(random_tokens(4)), Terms(auxiliary=0.1), micro_rows=2)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"micro_rows": 1},
        {"micro_rows": 3},
        {"recompute": True},
        {"recompute": True, "micro_rows": 2},
    ],
)
def test_every_choice_is_counted_once_and_the_bias_moves_once(options):
    config = replace(CONFIG, **options)
    trainer = Trainer(config, make_model())
    tokens = random_tokens(ROWS)
    expected = {}
    routing = []
    with torch.no_grad():  # the loads that this batch causes under the present weights and biases
        h = trainer.model.hidden(tokens[:, :-1], routing=routing)
        trainer.model.mtp_hidden(h, tokens[:, :-1], routing=routing)
    add_loads(expected, routing)
    assert {layer: int(load.sum()) for layer, load in expected.items()} == {
        1: ROWS * LENGTH * 2, 2: ROWS * LENGTH * 2, 3: ROWS * (LENGTH - 1) * 2,
    }  # fmt: skip
    trainer.step(tokens)
    speed = config.schedule.bias_speed
    for layer, router in routers(trainer.model).items():
        # Each bias is a whole number of steps of `speed`, one at most, downwards exactly where the load is above its mean.
        steps = (router.bias / speed).round()
        torch.testing.assert_close(router.bias, steps * speed)
        assert torch.equal(
            steps,
            torch.sign(expected[layer].sum() - expected[layer] * MODEL.n_routed_experts).float(),
        )


def test_the_mtp_router_can_be_left_out():
    trainer = Trainer(replace(CONFIG, bias_in_mtp=False), make_model())
    trainer.step(random_tokens(ROWS))
    moved = {layer: bool(router.bias.any()) for layer, router in routers(trainer.model).items()}
    assert moved == {1: True, 2: True, 3: False}


def test_bias_speed_zero_freezes_the_bias():
    model = make_model()
    update_biases(model, {1: torch.tensor([8, 0, 0, 0, 0, 0, 0, 0])}, 0.0)
    assert not any(router.bias.any() for router in routers(model).values())
    change = update_bias(torch.zeros(4), torch.tensor([10, 2, 6, 6]), 0.001)
    torch.testing.assert_close(change, torch.tensor([-0.001, 0.001, 0.0, 0.0]))


def test_validation_leaves_everything_alone():
    model = make_model()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    torch.manual_seed(0)
    state = torch.get_rng_state()
    batches = [random_tokens(3, seed=1), random_tokens(2, seed=2)]
    loss, max_vio = validate(model, batches)
    assert torch.equal(state, torch.get_rng_state())
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    assert all(p.grad is None for p in model.parameters())
    tokens = torch.cat(batches)  # unequal batches: a mean over tokens, not over batches
    by_hand = -torch.log_softmax(model(tokens[:, :-1]), -1).gather(-1, tokens[:, 1:, None]).mean()
    assert loss == pytest.approx(by_hand.item(), rel=1e-6)
    routing = []
    model.hidden(tokens[:, :-1], routing=routing)
    assert max_vio == pytest.approx(
        sum(r.load_E.max() / (r.load_E.sum() / 8) - 1 for r in routing).item() / 2, rel=1e-6
    )
    with pytest.raises(ValueError, match="no validation batches"):
        validate(model, [])


def test_max_violation():
    assert max_violation(
        [torch.tensor([10, 2, 6, 6]), torch.tensor([3, 3, 3, 3])]
    ) == pytest.approx((10 / 6 - 1) / 2)
    assert max_violation([]) == 0.0
