"""Wrong twins of reward models: mistakes made elsewhere, put in place of one function, and the test that must then fail."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass

import pytest
import torch

from deepwright.rl import alarms, reward_model
from deepwright.rl.reward_model import Labelled, RewardModel
from tests.rl import test_alarms
from tests.rl import test_reward_model as tests

CASE = tests.ARCHITECTURES[0]


def alone(_folder):
    tests.test_a_score_is_the_head_times_the_state_of_the_last_token(CASE)


def company(_folder):
    tests.test_neither_company_nor_order_nor_padding_moves_a_score()


def pairwise(_folder):
    tests.test_pairwise_loss_by_hand()


def pointwise(_folder):
    tests.test_pointwise_loss_by_hand()


def ranking(_folder):
    tests.test_ranked_right_by_hand()


def gradient(_folder):
    tests.test_gradient_is_that_of_plain_autograd_for_any_micro_batches(tests.pairs, 40)


def gradient_of_labels(_folder):
    tests.test_gradient_is_that_of_plain_autograd_for_any_micro_batches(tests.labelled, 40)


def budget(_folder):
    with pytest.MonkeyPatch.context() as patch:
        tests.test_a_micro_batch_holds_whole_pairs_within_the_budget(patch)


def resume(folder):
    tests.test_stopped_anywhere_and_started_again_it_ends_bit_equal(folder, tests.pairs)


def order(folder):
    with pytest.MonkeyPatch.context() as patch:
        tests.test_each_example_is_read_once_in_an_epoch_in_an_order_of_its_own(folder, patch)


def folder_round_trip(folder):
    tests.test_a_saved_reward_model_opens_again_and_its_trunk_as_any_model(folder)


def over_optimised(_folder):
    test_alarms.test_over_optimisation_needs_a_rise_of_the_models_own_reward_and_a_fall_of_the_judges()


def late_preference(_folder):
    test_alarms.test_rounds_before_a_preference_was_paid_do_not_count()


def read_in_the_last_column(original):
    """Of the padded rows, as a head on `hidden[:, -1]` does."""

    def pad_rows(rows, pad_id, device="cpu"):
        batch = original(rows, pad_id, device)
        last = torch.zeros_like(batch.completion_BS)
        last[:, -1] = True
        return dataclasses.replace(batch, completion_BS=last)

    return pad_rows


def read_before_the_last_token(original):
    def pad_rows(rows, pad_id, device="cpu"):
        batch = original(rows, pad_id, device)
        return dataclasses.replace(batch, completion_BS=batch.completion_BS.roll(-1, dims=1))

    return pad_rows


def scores_in_order_of_length(original):
    """Micro-batches one after the other, never put back in order."""
    return lambda self, rows, token_budget=2048: original(self, sorted(rows, key=len), token_budget)


def state_before_the_final_norm(original):
    def forward(self, rows):
        norm, self.trunk.norm = self.trunk.norm, torch.nn.Identity()
        try:
            return original(self, rows)
        finally:
            self.trunk.norm = norm

    return forward


def sides_swapped(original):
    return lambda chosen_n, rejected_n: original(rejected_n, chosen_n)


def hinge(_):
    return lambda chosen_n, rejected_n: (1 - chosen_n + rejected_n).clamp(min=0)


def log_of_the_sigmoid_written_out(_):
    """Overflows to infinity where a pair is very wrong."""
    return lambda chosen_n, rejected_n: -torch.log(torch.sigmoid(chosen_n - rejected_n))


def only_good_texts_count(original):
    return lambda scores_B, good_B: original(scores_B, good_B) * good_B


def mean_of_each_micro_batch(original):
    """Its own mean, counted as often as it has examples: what the sum over the whole batch divides by again."""

    def loss(chosen_n, rejected_n):
        return original(chosen_n, rejected_n) / len(chosen_n)

    return loss


def labels_from_the_other_end(original):
    """The order of a micro-batch's texts is not that of its labels."""

    def texts(examples, device):
        rows, good_B = original(examples, device)
        return rows[::-1], good_B

    return texts


def a_pair_as_large_as_one_text(original):
    """What a micro-batch takes is counted without the second text of each pair."""
    return lambda rows, token_budget: original(rows, 2 * token_budget)


def ties_count_as_right(_):
    def ranked(scores_B, good_B):
        pairs = list(zip(scores_B[good_B], scores_B[~good_B], strict=False))
        return sum(bool(good >= bad) for good, bad in pairs) / len(pairs) if pairs else float("nan")

    return ranked


def the_same_order_in_every_epoch(original):
    return lambda size, count, seed, round_: [
        place % size for place in range(round_ * count, (round_ + 1) * count)
    ]


def moments_forgotten(original):
    def resume(checkpoint, model, optimizer, settings):
        step = original(checkpoint, model, optimizer, settings)
        optimizer._adamw.state.clear()
        return step

    return resume


def head_forgotten(original):
    def resume(checkpoint, model, optimizer, settings):
        before = model.head_D.detach().clone()
        step = original(checkpoint, model, optimizer, settings)
        model.head_D.data.copy_(before)
        return step

    return resume


def a_new_head_when_opened(original):
    def opened(folder, dtype=None):
        model, tokenizer = original(folder, dtype)
        return RewardModel(model.trunk), tokenizer

    return opened


def alarm_by_the_reward_alone(_):
    return lambda records, c: (
        "up" if records[-1]["reward"] - records[0]["reward"] > c.reward_rise else None
    )


def alarm_by_the_whole_reward(original):
    return lambda records, c: original(
        [{k: v for k, v in record.items() if k != "reward_helpful"} for record in records], c
    )


def alarm_by_any_two_evaluations(original):
    return lambda records, c: original(records, dataclasses.replace(c, evaluations=2))


def judged_from_the_first_round(_):
    """Evaluations before a preference was paid stand beside the reward of later rounds."""

    def found(records, c, judge, paid, by_halves=False):
        judged = [record[judge] for record in records if judge in record][-c.evaluations :]
        values = [record[paid] for record in records if paid in record]
        return (
            (judged[0], judged[-1], values[0], values[-1])
            if len(judged) == c.evaluations and judged == sorted(judged)[::-1]
            else None
        )

    return found


@dataclass(frozen=True)
class Twin:
    """`wrong` gets what it replaces and returns the mistaken version; `check` must then fail."""

    owner: object
    attribute: str
    wrong: Callable
    check: Callable


TWINS = [
    Twin(reward_model, "pad_rows", read_in_the_last_column, company),
    Twin(reward_model, "pad_rows", read_before_the_last_token, alone),
    Twin(RewardModel, "scores", scores_in_order_of_length, company),
    Twin(RewardModel, "forward", state_before_the_final_norm, alone),
    Twin(tests, "pairwise_loss", sides_swapped, pairwise),
    Twin(tests, "pairwise_loss", hinge, pairwise),
    Twin(tests, "pairwise_loss", log_of_the_sigmoid_written_out, pairwise),
    Twin(tests, "pointwise_loss", only_good_texts_count, pointwise),
    Twin(reward_model, "pairwise_loss", sides_swapped, gradient),
    Twin(reward_model, "pairwise_loss", mean_of_each_micro_batch, gradient),
    Twin(reward_model, "_texts", labels_from_the_other_end, gradient_of_labels),
    Twin(reward_model, "micro_batches", a_pair_as_large_as_one_text, budget),
    Twin(
        Labelled,
        "texts",
        lambda original: lambda self: [(self.ids, not self.good)],
        gradient_of_labels,
    ),
    Twin(tests, "ranked_right", ties_count_as_right, ranking),
    Twin(reward_model, "problem_indices", the_same_order_in_every_epoch, order),
    Twin(reward_model, "_resume", moments_forgotten, resume),
    Twin(reward_model, "_resume", head_forgotten, resume),
    Twin(tests, "load_reward_model", a_new_head_when_opened, folder_round_trip),
    Twin(alarms.RULES, "over_optimised", alarm_by_the_reward_alone, over_optimised),
    Twin(alarms.RULES, "over_optimised", alarm_by_the_whole_reward, over_optimised),
    Twin(alarms.RULES, "over_optimised", alarm_by_any_two_evaluations, over_optimised),
    Twin(alarms, "_never_better", judged_from_the_first_round, late_preference),
]


@pytest.mark.parametrize("twin", TWINS, ids=lambda twin: twin.wrong.__name__)
def test_twin_is_rejected(twin, tmp_path):
    with pytest.MonkeyPatch.context() as patch:
        if isinstance(twin.owner, dict):
            patch.setitem(twin.owner, twin.attribute, twin.wrong(twin.owner[twin.attribute]))
        else:
            patch.setattr(twin.owner, twin.attribute, twin.wrong(vars(twin.owner)[twin.attribute]))
        with pytest.raises(AssertionError):
            twin.check(tmp_path)


@pytest.mark.parametrize(
    "check", sorted({twin.check for twin in TWINS}, key=lambda check: check.__name__)
)
def test_check_passes_without_its_twins(check, tmp_path):
    check(tmp_path)
