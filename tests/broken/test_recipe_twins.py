"""Wrong twins of the recipe: each makes one mistake in how a stage is judged or goes on after a stop, and a named check must reject it."""

import dataclasses

import pytest

from deepwright.recipe import align, harvest, journal, judge
from tests.broken.patched import must_reject
from tests.recipe import test_judge as checks
from tests.recipe import test_stages as stage_checks


def never_closed(_):
    return lambda sampler, *_: sampler


def every_stage_is_the_last(original):
    return lambda self, stage, step, *, last=False: original(self, stage, step, last=True)


def no_stage_is_the_last(original):
    return lambda self, stage, step, *, last=False: original(self, stage, step)


def votes_of_a_budget_too(original):
    """Every figure gets the samples that are meant for votes."""
    return lambda self, stage, step, name, samples, *rest: original(
        self, stage, step, name, max(samples, self.asked.votes), *rest
    )


def usual_votes(original):
    return lambda self, problems, samples, temperature, ks=None, **shown: original(
        self, problems, samples, temperature, **shown
    )


def nothing_is_remembered(_):
    return lambda self, *_: None


def other_tasks_at_budgets_too(original):
    def in_full(self, stage, step, *, last=False):
        original(self, stage, step, last=last)
        original(dataclasses.replace(self, suffix=""), stage, step, last=last)

    return in_full


def worse_first(original):
    return lambda request, text: -original(request, text)


def anything_can_be_read(_):
    return lambda tokenizer, text: True


def always_the_best(_):
    return lambda request, text: 1.0


def malformed_ones_too(_):
    return -2.0


def students_rise_over_the_base(_):
    return ("nobody",)


def answers_as_requests(original):
    """Four answers to a request, each as if it were a request of its own."""
    return lambda values: original([value for value in values for _ in range(4)])


def gone_on_with(_):
    return lambda path, drop, *fields: 0


def whole_stage_anew(original):
    return lambda path, drop, *fields: original(path, lambda record: record["stage"] == "align")


def every_stage_anew(original):
    return lambda path, drop, *fields: original(
        path, lambda record: record.get("label") == "on the way"
    )


PAIRS = stage_checks.test_pairs_of_own_answers_are_ordered_by_the_rules
WINS = stage_checks.test_the_error_of_a_win_rate_takes_answers_to_a_request_as_one
TWINS = [
    (PAIRS, align, "preference", worse_first),
    (PAIRS, align, "preference", always_the_best),
    (PAIRS, align, "readable", anything_can_be_read),
    (PAIRS, align, "OUTSIDE", malformed_ones_too),
    (
        stage_checks.test_samples_with_a_token_that_is_no_word_are_not_kept,
        harvest,
        "readable",
        anything_can_be_read,
    ),
    (WINS, align, "over_problems", answers_as_requests),
    (
        checks.test_short_evaluations_after_the_step_gone_back_to_are_made_again,
        journal,
        "rewind_records",
        gone_on_with,
    ),
    (
        checks.test_short_evaluations_after_the_step_gone_back_to_are_made_again,
        journal,
        "rewind_records",
        whole_stage_anew,
    ),
    (
        checks.test_short_evaluations_after_the_step_gone_back_to_are_made_again,
        journal,
        "rewind_records",
        every_stage_anew,
    ),
    (
        checks.test_last_stage_is_judged_at_each_budget_and_by_more_votes,
        judge,
        "Budgeted",
        never_closed,
    ),
    (
        checks.test_last_stage_is_judged_at_each_budget_and_by_more_votes,
        judge.Judge,
        "in_full",
        every_stage_is_the_last,
    ),
    (
        checks.test_last_stage_is_judged_at_each_budget_and_by_more_votes,
        judge.Judge,
        "in_full",
        no_stage_is_the_last,
    ),
    (
        checks.test_last_stage_is_judged_at_each_budget_and_by_more_votes,
        judge.Judge,
        "_once",
        votes_of_a_budget_too,
    ),
    (
        checks.test_last_stage_is_judged_at_each_budget_and_by_more_votes,
        judge.Judge,
        "measure",
        usual_votes,
    ),
    (
        checks.test_what_is_in_the_journal_is_not_asked_again_and_a_budget_can_be_added,
        judge.Journal,
        "find",
        nothing_is_remembered,
    ),
    (
        checks.test_a_rise_is_that_over_the_model_that_was_pre_trained,
        judge,
        "STUDENTS",
        students_rise_over_the_base,
    ),
    (
        checks.test_another_task_is_judged_as_the_model_is,
        judge.Judge,
        "in_full",
        other_tasks_at_budgets_too,
    ),
]


@pytest.mark.parametrize(
    "check, owner, name, wrong", TWINS, ids=[twin[3].__name__ for twin in TWINS]
)
def test_the_check_rejects_the_twin_and_passes_without_it(check, owner, name, wrong, tmp_path):
    must_reject(check, owner, name, wrong, tmp_path)
