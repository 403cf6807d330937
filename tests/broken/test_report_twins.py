"""Wrong twins of the report on the whole recipe, of its Chinese page and of runs side by side: each makes one mistake in reading, comparing, drawing or
looking up, and a named check must reject it."""

import math
from dataclasses import replace

import pytest

from benchmarks import seeds
from deepwright.refusals import changes
from deepwright.report import chinese, curves, records, samples, spread, stages
from tests.broken.patched import must_reject
from tests.report import test_chinese as words
from tests.report import test_seeds as side_by_side
from tests.report import test_stages as checks
from tests.report.test_spread import tells_only_runs_like_those


def any_difference_counts(original):
    return lambda one, new, old: original(one, (new[0], new[1] and 1e-9), (old[0], old[1] and 1e-9))


def errors_added(_):
    return lambda *errors: sum(errors)


def always_as_published(original):
    def agreeing(one, new, old):
        said = original(one, new, old)
        return [*said[:-1], stages._SEEN] if one.benchmark else said

    return agreeing


def published_is_always_higher(original):
    return lambda one, new, old: original(
        replace(one, benchmark="AIME 2024", new="align", old="base"), new, old
    )


def order_of_the_alphabet(original):
    return dict(sorted(original.items()))


def first_evaluation_counts(original):
    return lambda self, label: original(replace(self, evaluations=self.evaluations[::-1]), label)


def shares_of_what_was_kept(original):
    return lambda size, total, why: original(size, total / 2, why)


def training_samples_too(original):
    return lambda run: original(
        replace(run, samples=[{**one, "split": "held_out"} for one in run.samples])
    )


def every_stage_from_the_base(original):
    return dict.fromkeys(original, "base")


def no_win_at_the_start(original):
    def later_only(run):
        line = original(run)
        return replace(line, points=line.points[1:], errors=line.errors[1:])

    return later_only


def requests_are_problems(_):
    return property(
        lambda self: [e for e in self.evaluations if " budget=" not in str(e.get("label"))]
    )


def shortest_entry_counts(original):
    return original[::-1]


def sentences_that_are_known(original):
    """The others are left out in silence."""

    def partly(text):
        found = [original(sentence) for sentence in chinese._SENTENCE_END.split(text)]
        return original(text) or "".join(filter(None, found)) or None

    return partly


def blanks_kept_out(original):
    return lambda text: (original(text) or "").strip() or None


def code_too(original):
    return chinese.re.compile("(?!)")


def spread_of_the_population(original):
    return lambda values: original(values) * math.sqrt((len(values) - 1) / len(values))


def runs_that_have_it(original):
    """A mean over those runs that have the figure, as if it were of all."""
    return lambda figures, signed=False: original([found for found in figures if found], signed)


def any_side_counts(original):
    return lambda figures, even=0.0: original(
        [found and (found[0], 0.0) for found in figures], even
    )


def compared_with_nothing(original):
    return lambda figures, even=0.0: original(figures)


def first_stage_is_new(original):
    return lambda run, one: original(run, replace(one, new=one.old, old=one.new))


def of_every_run(_):
    return lambda measured, run: True


def new_settings_make_another_recipe(_):
    free = (*spread.FREE, "pretrain.compute")
    return lambda measured, run: all(
        name in free for name, *_ in changes(measured.settings, run.config)
    )


TWINS = [
    (tells_only_runs_like_those, spread.Spread, "is_of", of_every_run),
    (tells_only_runs_like_those, spread.Spread, "is_of", new_settings_make_another_recipe),
    (checks.test_no_chance_difference_is_a_finding, stages, "verdict", any_difference_counts),
    (checks.test_errors_add_in_squares, stages.math, "hypot", errors_added),
    (checks.test_preferred_less_than_half_the_time_is_the_other_way, stages, "verdict", always_as_published),
    (checks.test_a_lower_published_figure_is_a_direction_too, stages, "verdict", published_is_always_higher),
    (checks.test_the_table_has_every_stage_in_the_order_of_the_recipe, stages, "STAGES", order_of_the_alphabet),
    (checks.test_the_last_evaluation_of_a_stage_counts, records.Run, "labelled", first_evaluation_counts),
    (checks.test_samples_kept_and_dropped, samples, "_bar", shares_of_what_was_kept),
    (checks.test_one_problem_by_every_stage, samples, "across", training_samples_too),
    (checks.test_curves_start_at_the_model_that_a_stage_starts_from, curves, "STARTS", every_stage_from_the_base),
    (checks.test_win_rate_goes_from_half_to_what_the_run_ended_with, curves, "_wins", no_win_at_the_start),
    (checks.test_the_rise_of_zero_stays_that_of_zero, records.Run, "held_out", requests_are_problems),
    (side_by_side.test_a_stage_has_each_seed_and_the_mean_with_the_error_of_the_spread, seeds.statistics, "stdev", spread_of_the_population),
    (side_by_side.test_a_comparison_that_a_run_lacks_has_no_mean, seeds, "_cells", runs_that_have_it),
    (side_by_side.test_differences_are_taken_within_a_run_and_counted_beyond_two_errors, seeds, "_outcome", any_side_counts),
    (side_by_side.test_differences_are_taken_within_a_run_and_counted_beyond_two_errors, seeds, "difference", first_stage_is_new),
    (side_by_side.test_win_rates_are_compared_with_one_half, seeds, "_outcome", compared_with_nothing),
    (words.test_lookup_of_the_closest_entry, chinese, "_GAPPED", shortest_entry_counts),
    (words.test_a_text_is_translated_whole_or_not_at_all, chinese, "chinese", sentences_that_are_known),
    (words.test_blanks_around_a_text_stay, chinese, "chinese", blanks_kept_out),
    (words.test_what_a_reader_sees, chinese, "_AS_IT_STANDS", code_too),
]  # fmt: skip


@pytest.mark.parametrize(
    "check, owner, name, wrong", TWINS, ids=[twin[3].__name__ for twin in TWINS]
)
def test_the_check_rejects_the_twin_and_passes_without_it(
    check, owner, name, wrong, tmp_path, monkeypatch
):
    # it remembers what it looked up, a twin's finds as well
    monkeypatch.setattr(chinese, "chinese", chinese.chinese.__wrapped__)
    must_reject(check, owner, name, wrong, tmp_path)
