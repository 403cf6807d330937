"""Wrong twins of what a run shows: where its time went, what it leaves to TensorBoard, what a quick run claims, runs side by side. A named check
rejects each."""

from __future__ import annotations

import contextlib

import pytest

from deepwright import trackers
from deepwright.recipe import times
from deepwright.report import comparison, frame, stages, timing
from tests import test_trackers as events
from tests.broken.patched import must_reject
from tests.recipe import test_runs as runs
from tests.recipe import test_times as clocks
from tests.report import test_browser as pages
from tests.report import test_opening as page


def charged_twice(original):
    """What is opened inside counts for what is around it as well."""

    @contextlib.contextmanager
    def of(self, stage, part):
        begun, around = self._clock(), list(self._open)
        with original(self, stage, part):
            yield
        for outer, its in around:
            self._spent[outer][its] += self._clock() - begun

    return of


def rest_forgotten(original):
    return lambda run: 0.0


def rest_of_everything(original):
    return lambda run: run.seconds


def only_added_to(original):
    """As an event file is: what was taken back stays in it."""
    return lambda self, step: None


def claims_of_any_run(original):
    return "It goes the published way."


def first_less_second(original):
    return lambda new, old: original(old, new)


def errors_added(original):
    return lambda new, old: (original(new, old)[0], (new[1] or 0) + (old[1] or 0))


def tables_as_wide_as_they_are(original):
    return original.replace(".scroll{overflow-x:auto", ".scroll{")


def first_column_goes_away(original):
    return original.replace("position:sticky", "position:static")


TWINS = [
    (clocks.the_parts_add_up, times.Times, "of", charged_twice),
    (page.the_rows_add_up_to_the_wall_time, timing, "unassigned", rest_forgotten),
    (page.the_rows_add_up_to_the_wall_time, timing, "unassigned", rest_of_everything),
    (page.a_quick_run_claims_nothing, stages, "_QUICK", claims_of_any_run),
    (events.every_step_stands_once_after_records_were_taken_back, trackers.EventFile, "forget", only_added_to),
    (runs.figures_stand_beside_each_other, comparison, "difference", first_less_second),
    (runs.figures_stand_beside_each_other, comparison, "difference", errors_added),
    (pages.check_pages, frame, "STYLE", tables_as_wide_as_they_are),
    pytest.param(pages.check_pages, frame, "STYLE", first_column_goes_away, marks=pytest.mark.slow),
]  # fmt: skip


@pytest.mark.parametrize("check, owner, name, wrong", TWINS)
def test_the_check_rejects_the_twin_and_passes_without_it(check, owner, name, wrong, tmp_path):
    must_reject(check, owner, name, wrong, tmp_path)
