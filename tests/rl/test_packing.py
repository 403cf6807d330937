"""A group trained as one sequence, prompt once: the same log-probabilities, loss and gradient as a row for each completion."""

import dataclasses

import pytest

from deepwright.rl.losses import VARIANTS, Coefficients
from deepwright.rl.types import micro_batches, pack_rows
from deepwright.rl.update import accumulate_gradient, row_log_probs
from deepwright.verify.cases import ALL_CASES, random_model
from tests.rl.fakes import row

NAMES = (
    "v3 query compression",
    "v3 yarn",
    "v2",
    "llama, llama3 stretching",
    "qwen2",
    "qwen3, yarn",
)


def rows_of():
    """Three prompts, of which two are met twice or more, in mixed order, with ragged completions."""
    prompts = ([3, 9, 4, 7, 1], [5], [8, 2, 2])
    made = [
        (0, [4, 5, 6]),
        (1, [7]),
        (0, [9]),
        (2, [1, 2, 3, 4]),
        (0, [4, 5, 9, 9, 2]),
        (2, [6, 6]),
    ]
    return [
        row(prompts[p], ids, advantage=0.3 * i - 0.5, weight=1 / 16)
        for i, (p, ids) in enumerate(made)
    ]


def test_one_sequence_for_each_prompt():
    rows = rows_of()
    order = [place for part in micro_batches(rows, 100, packed=True) for place in part]
    assert sorted(order) == list(range(6))
    batch = pack_rows([rows[place] for place in order], 0)
    assert batch.tokens_BS.shape[0] == 3 and batch.targets_T.tolist() == [
        t for place in order for t in rows[place].completion_ids
    ]
    one = pack_rows([rows[0], rows[2]], 0)
    assert one.tokens_BS.tolist() == [
        [3, 9, 4, 7, 1, 4, 5, 6, 9]
    ] and one.positions_BS.tolist() == [[0, 1, 2, 3, 4, 5, 6, 7, 5]]
    assert one.branch_BS.tolist() == [[0, 0, 0, 0, 0, 1, 1, 1, 2]] and one.sources[1].tolist() == [
        4,
        5,
        6,
        4,
    ]


@pytest.mark.invariant
@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("budget", [1, 14, 100])
def test_packed_equals_a_row_for_each(name, budget):
    """fp32: sums of up to 40 keys and 32 channels in another order through 3 layers, about 2^-24 * 40 * 10 of a log-probability of order 4."""
    model, rows, coefficients = (
        random_model(ALL_CASES[name]),
        rows_of(),
        Coefficients(float("inf"), 0.0),
    )
    for a, b in zip(
        row_log_probs(model, rows, 0.7, budget, True),
        row_log_probs(model, rows, 0.7, 100),
        strict=True,
    ):
        assert a == pytest.approx(b, abs=1e-4)
    gradients = []
    for packed in (False, True):
        model.zero_grad()
        accumulate_gradient(
            model, rows, VARIANTS["grpo_token_mean"], coefficients, 0.7, budget, {}, packed
        )
        gradients.append(
            {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
        )
    assert gradients[0].keys() == gradients[1].keys()
    for key, one in gradients[0].items():
        assert (one - gradients[1][key]).abs().max() <= 2e-4 * max(one.abs().max(), 1e-3), key


def test_branches_do_not_see_each_other():
    """Broken twin: were all completions one branch, a later one would change with an earlier one."""
    model, rows = random_model(ALL_CASES["qwen2"]), rows_of()
    other = [dataclasses.replace(rows[0], completion_ids=(9, 9, 9)), *rows[1:]]
    same = [
        a == b
        for a, b in zip(
            row_log_probs(model, rows, 1.0, 100, True),
            row_log_probs(model, other, 1.0, 100, True),
            strict=True,
        )
    ]
    assert same == [False, True, True, True, True, True]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            "deepwright.rl.update.pack_rows",
            lambda *a: (
                (b := pack_rows(*a)) and dataclasses.replace(b, branch_BS=b.branch_BS.clamp(max=1))
            ),
        )
        leaking = row_log_probs(model, other, 1.0, 100, True)
        assert [
            a == b for a, b in zip(row_log_probs(model, rows, 1.0, 100, True), leaking, strict=True)
        ].count(False) > 1
