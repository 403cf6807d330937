"""Where the time of a run goes, and how long it still takes; by hand, with a clock that is moved by hand."""

from __future__ import annotations

import dataclasses

import pytest

from deepwright.recipe.plan import ASKED, READ, Plan, Work, works_of
from deepwright.recipe.resolve import split_words
from deepwright.recipe.settings import R1Settings, resolve_for
from deepwright.recipe.times import EVALUATION, SAMPLING, TRAINING, Times


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def the_parts_add_up() -> None:
    """What is evaluated within training is charged once, and what is between the stages to nobody."""
    clock = Clock()
    times = Times({"base": {TRAINING: 5.0}}, clock)
    clock.now += 1  # nobody's
    with times.of("zero", TRAINING):
        clock.now += 10
        with times.of("zero", EVALUATION):
            clock.now += 3
        clock.now += 10
        assert times.table()["zero"] == {TRAINING: 20.0, EVALUATION: 3.0}
    clock.now += 2
    table = times.table()
    assert table == {"base": {TRAINING: 5.0}, "zero": {TRAINING: 20.0, EVALUATION: 3.0}}
    assert sum(sum(parts.values()) for parts in table.values()) == 5.0 + clock.now - 100.0 - 1 - 2


def test_the_parts_add_up():
    the_parts_add_up()


def test_an_error_ends_what_was_open():
    clock = Clock()
    times = Times(clock=clock)
    with pytest.raises(KeyError), times.of("base", TRAINING):
        clock.now += 4
        raise KeyError
    clock.now += 50
    assert times.table() == {"base": {TRAINING: 4.0}}


WORKS = [
    Work("a", TRAINING, READ, 10),
    Work("a", EVALUATION, ASKED, 4),
    Work("b", TRAINING, READ, 5),
    Work("b", EVALUATION, ASKED, 2),
]


def test_what_is_left_is_told_at_the_pace_of_its_kind():
    plan = Plan(WORKS, Times({"a": {TRAINING: 100.0, EVALUATION: 8.0}}))
    assert plan.left("b") == 5 * 10 + 2 * 2
    half = Plan(WORKS, Times({"a": {TRAINING: 100.0, EVALUATION: 8.0}, "b": {TRAINING: 20.0}}))
    pace = (100 + 20) / (10 + 2.5)
    assert half.left("b", TRAINING, 30.0, 0.5) == 30.0 + 2 * 2
    assert pace == 9.6 and half.left("a", EVALUATION, 0.0, 1.0) == pytest.approx(5 * 10 + 2 * 2)


def test_a_kind_that_was_not_seen_leaves_the_whole_unknown():
    begun = Plan(WORKS, Times({"a": {TRAINING: 50.0}}))
    assert begun.left("a", TRAINING, 50.0, 0.5) is None, "nothing was asked yet"
    assert begun.left("a") is None and begun.left("c") is None


def test_the_work_of_the_recipe_has_every_stage_that_is_judged():
    settings = resolve_for("r1", split_words(["--quick"]))
    works = works_of(settings, 21)
    judged = [work.stage for work in works if work.part == EVALUATION]
    assert judged == ["base", "zero", "cold_start", "reasoning_rl", "without_language_reward",
                      "finetune", "align", "student", "distill", "student_by_rl"]  # fmt: skip
    assert {work.stage for work in works if work.part == SAMPLING} == {"cold_start", "finetune"}
    assert all(work.amount > 0 for work in works)
    alone = dataclasses.replace(settings, stages=("zero",), start="models/x")
    assert [work.stage for work in works_of(alone, 0)] == ["base", "zero", "zero"]
    assert isinstance(settings, R1Settings)
