"""How a stage is judged: which figures, how many samples, and that nothing is asked twice; by hand with a sampler whose accuracy is known."""

from __future__ import annotations

import dataclasses

import pytest

from deepwright.files import read_records
from deepwright.recipe.journal import Journal
from deepwright.recipe.judge import Judge
from deepwright.recipe.r1 import check
from deepwright.recipe.settings import STAGES, EvaluationSettings, R1Settings
from deepwright.sampler import Completion, StopReason
from deepwright.tasks import Countdown
from tests.evaluate.test_budget import WORDS, Author, OneProblem

ASKED = EvaluationSettings(problems=3, samples=2, also=(0.0,), budgets=(24, 25), votes=5)


def judge_in(folder, **changes) -> Judge:
    return Judge(
        dataclasses.replace(ASKED, **changes),
        OneProblem(held_out=20),
        Author(),
        WORDS,
        Journal(folder),
        50,
        0,
    )


class Silent:
    def sample(self, prompts, sampling):
        return [
            [Completion((WORDS.eos_id,), (0.0,), StopReason.STOP)] * sampling.n for _ in prompts
        ]


def found_in(folder) -> dict[str, dict]:
    records = read_records(folder / "evaluations.jsonl")
    assert len({record["label"] for record in records}) == len(records)
    return {record["label"]: record for record in records}


def test_last_stage_is_judged_at_each_budget_and_by_more_votes(tmp_path):
    """The author's solution stands in its thought after 25 tokens: closed by force at 24 no answer is right, at 25 every one is."""
    judge = judge_in(tmp_path)
    judge.in_full("zero", 3)
    judge.in_full("align", 7, last=True)
    found = found_in(tmp_path)
    assert list(found) == [
        "zero",
        "zero greedy",
        "align",
        "align greedy",
        "align budget=24",
        "align budget=25",
    ]
    assert {label: e["samples"] for label, e in found.items()} == dict(
        zip(found, (2, 1, 5, 1, 2, 2))
    )
    assert {label: e["pass_at_1"] for label, e in found.items()} == dict(
        zip(found, (1, 1, 1, 1, 0, 1))
    )
    assert {label: e["max_tokens"] for label, e in found.items()} == dict(
        zip(found, (50, 50, 50, 50, 74, 75))
    )
    assert (
        found["align"]["cons_at_k"] == {"2": 1, "4": 1}
        and found["zero"]["cons_at_k"] == found["align budget=24"]["cons_at_k"] == {}
    )
    assert {(e["stage"], e["step"]) for label, e in found.items() if label.startswith("align")} == {
        ("align", 7)
    }
    assert {r["stage"] for r in read_records(tmp_path / "samples.jsonl")} == {"zero", "align"}
    # answers under a budget are no samples of the model as it is
    assert len(read_records(tmp_path / "samples.jsonl")) == 2 * 3


def test_what_is_in_the_journal_is_not_asked_again_and_a_budget_can_be_added(tmp_path):
    judge_in(tmp_path).in_full("align", 7, last=True)
    before = (tmp_path / "evaluations.jsonl").read_bytes()
    again = judge_in(tmp_path, budgets=(24, 5, 25))
    again.in_full("align", 7, last=True)
    written = (tmp_path / "evaluations.jsonl").read_bytes()
    assert (
        written.startswith(before)
        and list(found_in(tmp_path))[-1] == "align budget=5"
        and written.count(b"\n") == before.count(b"\n") + 1
    )
    assert [call.max_tokens for call in again.sampler.calls] == [5, 50]


def test_short_evaluations_after_the_step_gone_back_to_are_made_again(tmp_path):
    """After a roll-back they are of another policy. Full ones and those of other stages stay."""
    judge = judge_in(tmp_path)
    for stage, step in (("zero", 2), ("align", 2), ("align", 4), ("align", 6)):
        judge.on_the_way(stage, step)
    judge.in_full("align", 6)
    judge.journal.tracker.rewind("align", 3)
    left = [
        (e["stage"], e["step"], e["label"]) for e in read_records(tmp_path / "evaluations.jsonl")
    ]
    assert left == [
        ("zero", 2, "on the way"),
        ("align", 2, "on the way"),
        ("align", 6, "align"),
        ("align", 6, "align greedy"),
    ]


def test_a_torn_line_is_cut_off_before_the_next_evaluation(tmp_path):
    judge_in(tmp_path).in_full("zero", 3)
    for name in ("evaluations.jsonl", "samples.jsonl"):
        with (tmp_path / name).open("a") as file:
            file.write('{"stage": "zero", "st')
    judge_in(tmp_path).in_full("align", 7)
    assert list(found_in(tmp_path)) == ["zero", "zero greedy", "align", "align greedy"]
    assert {record["stage"] for record in read_records(tmp_path / "samples.jsonl")} == {
        "zero",
        "align",
    }


def test_every_stage_is_asked_what_nothing_was_trained_on(tmp_path):
    """The same author meets another task: its own solution is right there no more."""
    other = Countdown(count=4, held_out=20)
    judge = dataclasses.replace(judge_in(tmp_path, problems_between=2), transfer={"count=4": other})
    judge.in_full("zero", 3)
    found = found_in(tmp_path)
    assert list(found) == ["zero", "zero greedy", "zero on count=4"]
    assert (
        found["zero on count=4"]["problems"],
        found["zero on count=4"]["samples"],
        found["zero on count=4"]["pass_at_1"],
    ) == (2, 1, 0)
    assert {r["prompt"] for r in read_records(tmp_path / "samples.jsonl")} <= {
        OneProblem(held_out=20).problem(0, "held_out").prompt
    }
    judge.in_full("zero", 3)
    assert len(found_in(tmp_path)) == 3  # and not asked again


def test_another_task_is_judged_as_the_model_is(tmp_path):
    dataclasses.replace(judge_in(tmp_path), suffix=" requests").in_full("align", 7, last=True)
    assert list(found_in(tmp_path)) == ["align requests"]


def test_without_votes_the_last_stage_has_as_many_samples_as_the_others(tmp_path):
    judge_in(tmp_path, votes=0, samples=4).in_full("align", 7, last=True)
    assert found_in(tmp_path)["align"]["samples"] == 4 and found_in(tmp_path)["align"][
        "cons_at_k"
    ] == {"4": 1}


@pytest.mark.parametrize(
    ("stages", "last"),
    [
        (STAGES, "align"),
        (("base", "zero"), "zero"),
        (("zero", "base", "distill"), "zero"),
        (("distill",), ""),
        (("finetune", "base"), "finetune"),
    ],
)
def test_the_last_stage_is_that_of_the_large_model(stages, last):
    assert R1Settings(stages=stages).last == last


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"budgets": (8, 0)}, r"budgets is \(8, 0\), expected at least 1 token each"),
        ({"votes": -1}, "votes is -1, expected 0 or a positive number"),
    ],
)
def test_what_cannot_be_asked_is_refused(changes, said):
    with pytest.raises(ValueError, match=said):
        dataclasses.replace(ASKED, **changes)


def test_an_option_that_makes_no_task_is_refused_before_a_run_begins():
    settings = R1Settings(evaluation=dataclasses.replace(ASKED, transfer=("cuont=4",)))
    with pytest.raises(
        ValueError, match="option 'cuont' of task 'countdown' is unknown; did you mean count?"
    ):
        check(settings)


def test_a_rise_is_that_over_the_model_that_was_pre_trained(tmp_path):
    """The base says nothing, the student before it is taught all that it says afterwards: what it has learned is nothing, and not all."""
    dataclasses.replace(judge_in(tmp_path), sampler=Silent()).in_full("base", 0)
    judge = judge_in(tmp_path)
    for stage, step in (("zero", 3), ("student", 0), ("distill", 9)):
        judge.in_full(stage, step)
    rises = {
        label: sum(e["decomposition"]["parts"].values())
        for label, e in found_in(tmp_path).items()
        if label in ("zero", "distill")
    }
    assert rises == {"zero": 1, "distill": 0}


class Told(Author):
    """An author that tells of every answer, as the engine does."""

    def __init__(self):
        super().__init__()
        self.told, self.watch = [], self.nobody

    def nobody(self, ended, running):
        raise AssertionError("nobody watches any more")

    def sample(self, prompts, sampling):
        found = super().sample(prompts, sampling)
        for group in found:
            self.told.append(self.watch)
            self.watch(len(group), 0)
        return found


def test_answers_are_watched_while_they_are_sampled_and_no_longer(tmp_path):
    judge = dataclasses.replace(judge_in(tmp_path), sampler=Told())
    judge.in_full("align", 7, last=True)  # also at budgets, through a sampler around this one
    judge.on_the_way("align", 2)
    assert judge.sampler.watch == judge.sampler.nobody and len(judge.sampler.told) > 10
    assert judge.journal.times.table().keys() == {"align"}


def test_the_report_is_drawn_anew_while_any_stage_goes_on(tmp_path, monkeypatch):
    journal, drawn = Journal(tmp_path), []
    monkeypatch.setattr("deepwright.recipe.journal.write_report", drawn.append)
    journal.tracker.log("align", 1, {"reward": 0.5})
    journal.tracker.log("align", 2, {"reward": 0.5})
    assert drawn == [tmp_path], "at once, and then when it is old enough"
    journal._written -= 60
    journal.tracker.log("reward_safe", 1, {"reward_model_loss": 0.5})
    assert len(drawn) == 2
