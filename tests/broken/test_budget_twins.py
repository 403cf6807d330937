"""Wrong twins of inference-time scaling: each makes one mistake in closing thoughts, counting votes or drawing, and a named check must reject it."""

from dataclasses import replace

import pytest

from deepwright.evaluate import budget
from deepwright.evaluate.estimators import pass_at_k
from deepwright.report import records, scaling
from tests.broken.patched import must_reject
from tests.evaluate import test_budget as checks
from tests.report import test_scaling as charts


def never_closed(_):
    return lambda self, prompt, ids: ()


def closed_again(_):
    """Also where the thought has ended, or never began."""
    return lambda self, prompt, ids: self.closing_ids


def half_a_tag_is_none(original):
    return lambda self, prompt, ids: self.closing_ids if original(self, prompt, ids) else ()


def ids_decide(original):
    """A tag counts where its own tokens stand, so one whose last token holds a line break is closed twice."""

    def missing(self, prompt, ids):
        tag = self.closing_ids
        there = any(ids[start : start + len(tag)] == tag for start in range(len(ids)))
        return () if there else original(self, prompt, ()) or original(self, prompt, ids)

    return missing


def prompt_overlooked(original):
    return lambda self, prompt, ids: original(self, (), ids)


def forced_tokens_dropped(original):
    return lambda thought, forced, answer: original(thought, (), answer)


class Bent:
    """A sampler that is asked otherwise."""

    def __init__(self, inner, ask):
        self.inner, self.ask = inner, ask

    def sample(self, prompts, sampling):
        return self.ask(self.inner, prompts, sampling)


def every_answer_in_a_call_of_its_own(original):
    """Each is then prompt 0, and all draw the same numbers."""

    def alone(inner, prompts, sampling):
        return (
            inner.sample(prompts, sampling)
            if sampling.n > 1
            else [inner.sample([prompt], sampling)[0] for prompt in prompts]
        )

    return lambda self, *asked: original(replace(self, sampler=Bent(self.sampler, alone)), *asked)


def seed_of_the_thought(original):
    def same(self, prompts, sampling):
        bent = Bent(
            self.sampler,
            lambda inner, prompts, one: inner.sample(prompts, replace(one, seed=sampling.seed)),
        )
        return original(replace(self, sampler=bent), prompts, sampling)

    return same


def stopped_ones_go_on(_):
    return lambda self, one: True


def one_right_answer_is_enough(_):
    return lambda answers_Pn, correct_Pn, k: pass_at_k(correct_Pn, k)


def linear_axis(original):
    return lambda low, high, *rest, log=False: original(low, high, *rest)


def first_record_counts(original):
    def curves(run):
        return original(replace(run, evaluations=run.evaluations[::-1]))

    return curves


def errors_twice(original):
    return lambda line, *rest: original(
        replace(line, errors=[error and 2 * error for error in line.errors]), *rest
    )


def vote_of_one_forgotten(original):
    return lambda evaluation: {k: point for k, point in original(evaluation).items() if k > 1}


def budgets_in_the_headline(_):
    return property(
        lambda self: [e for e in self.evaluations if e.get("split", "held_out") == "held_out"]
    )


TWINS = [
    (checks.test_thought_over_its_budget_is_closed_by_force, budget.Budgeted, "missing_ids", never_closed),
    (checks.test_thought_closed_in_time_goes_on_as_it_is, budget.Budgeted, "missing_ids", closed_again),
    (checks.test_completion_that_never_opens_a_thought_has_none_to_close, budget.Budgeted, "missing_ids", closed_again),
    (checks.test_tag_of_several_tokens, budget.Budgeted, "missing_ids", half_a_tag_is_none),
    (checks.test_tag_whose_last_token_holds_more_is_seen, budget.Budgeted, "missing_ids", ids_decide),
    (checks.test_prompt_that_opened_the_thought, budget.Budgeted, "missing_ids", prompt_overlooked),
    (checks.test_thought_over_its_budget_is_closed_by_force, budget, "joined", forced_tokens_dropped),
    (checks.test_answers_have_streams_of_their_own, budget.Budgeted, "sample", every_answer_in_a_call_of_its_own),
    (checks.test_answers_have_streams_of_their_own, budget.Budgeted, "sample", seed_of_the_thought),
    (checks.test_completions_that_stopped_stay_and_need_no_second_call, budget.Budgeted, "_goes_on", stopped_ones_go_on),
    (checks.test_votes_by_hand, budget, "cons_at_k", one_right_answer_is_enough),
    (charts.test_accuracy_against_budget, scaling, "Axis", linear_axis),
    (charts.test_accuracy_against_budget, scaling, "budget_curves", first_record_counts),
    (charts.test_accuracy_against_budget, scaling, "_curve", errors_twice),
    (charts.test_accuracy_against_votes, scaling, "_votes", vote_of_one_forgotten),
    (charts.test_budgets_stay_out_of_the_headline, records.Run, "held_out", budgets_in_the_headline),
]  # fmt: skip


@pytest.mark.parametrize(
    "check, owner, name, wrong", TWINS, ids=[twin[3].__name__ for twin in TWINS]
)
def test_the_check_rejects_the_twin_and_passes_without_it(check, owner, name, wrong, tmp_path):
    must_reject(check, owner, name, wrong, tmp_path)
