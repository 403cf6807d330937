"""Evaluation of scripted samplers on Countdown: every figure by hand, records that come back, and an exact account of a rise."""

from __future__ import annotations

import json
from dataclasses import replace
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deepwright.evaluate import Evaluation, decompose, evaluate, write_generations
from deepwright.evaluate.evaluation import Generation, measure, reading_of
from deepwright.evaluate.reasoning import Reasoning, analyse, answer_value, habits
from deepwright.metrics import GLOSSARY
from deepwright.sampler import Completion, StopReason
from deepwright.tasks import Calc3, Countdown, Problem, Score, Verdict
from deepwright.text import number_tokenizer

TASK = Countdown(held_out=20)
TOKENIZER = number_tokenizer(TASK.tokenizer_words(), TASK.largest_number)
PROBLEM = Problem(0, "nums 3 7 1 make 20 :", "( 3 * 7 ) - 1", "1 solution")

RIGHT_AT_ONCE = "<think> 3 * 7 = 21 , 21 - 1 = 20 yes </think> <answer> ( 3 * 7 ) - 1 </answer>"
SEARCHED = "<think> 3 + 7 = 10 , 10 + 1 = 11 wait 3 * 7 = 21 , 21 - 1 = 20 yes </think> <answer> ( 3 * 7 ) - 1 </answer>"
FALSE_YES = "<think> 3 + 7 = 10 , 10 + 1 = 12 yes </think> <answer> 3 + 7 + 1 </answer>"
NO_FORMAT = "3 * 7 = 21 , 21 - 1 = 20 yes"
NO_ATTEMPT = "<think> answer </think> <answer> 3 + 7 + 1 </answer>"


class OneProblem(Countdown):
    """Every held-out item is the same known problem."""

    def problem(self, i, split):
        return replace(PROBLEM, index=i)


class Script:
    """Gives the same texts to every prompt. A text with a star is cut by the limit."""

    def __init__(self, *texts: str) -> None:
        self.texts = texts

    def sample(self, prompts, sampling):
        assert all(prompt[0] == TOKENIZER.bos_id for prompt in prompts)
        return [
            [self._completion(self.texts[j % len(self.texts)]) for j in range(sampling.n)]
            for _ in prompts
        ]

    def _completion(self, text: str) -> Completion:
        cut = text.startswith("*")
        ids = TOKENIZER.encode(text.removeprefix("*")) + ([] if cut else [TOKENIZER.eos_id])
        return Completion(
            tuple(ids), (-1.0,) * len(ids), StopReason.LENGTH if cut else StopReason.STOP
        )


def measured(*texts: str, task=None, **options) -> Evaluation:
    settings = {"problems": 2, "samples": len(texts), "max_tokens": 64, "ks": []} | options
    return evaluate(Script(*texts), TOKENIZER, task or OneProblem(held_out=20), **settings)


def test_every_figure_by_hand():
    result = measured(RIGHT_AT_ONCE, SEARCHED, FALSE_YES, NO_FORMAT, "*" + RIGHT_AT_ONCE, ks=[1, 5])
    # both problems alike
    assert result.pass_at_1 == pytest.approx(2 / 5) and result.pass_at_1_se == 0
    assert result.format_rate == pytest.approx(3 / 5) and result.truncated_rate == pytest.approx(
        1 / 5
    )
    assert result.pass_at_k == {"1": pytest.approx(2 / 5), "5": 1.0}
    # 20, 20, 11; the answer without format and the cut one abstain
    assert result.cons_at_k["5"] == 1.0
    assert result.by_kind == {"1 solution": (pytest.approx(2 / 5), 2)}
    assert result.self_check_rate == pytest.approx(
        1 / 5
    ) and result.self_checks_per_answer == pytest.approx(1 / 5)
    assert (
        result.accuracy_with_self_check == 1.0
        and result.accuracy_without_self_check == pytest.approx(1 / 4)
    )
    assert result.turned_right_rate == pytest.approx(1 / 5) and result.turned_right_share == 1.0
    # verdicts: yes on 20 four times (one of them cut), wait on 11 once, yes on 12 once; equations: 11 of 12 right
    assert result.checker_yes == 1.0 and result.checker_no == 0.5
    assert result.equations_right == pytest.approx(11 / 12)
    assert result.attempts_per_answer == pytest.approx(6 / 5)


def test_a_format_that_pays_nothing_is_kept_all_the_same():
    """format_reward = 0 once made every answer look malformed, and right answers outside the format a contradiction."""
    found, again = (
        measured(RIGHT_AT_ONCE, NO_FORMAT, task=OneProblem(held_out=20, format_reward=pay))
        for pay in (0.0, 0.1)
    )
    assert found.format_rate == again.format_rate == 0.5 and found.pass_at_1 == 0.5
    assert decompose(found, found).parts == decompose(again, again).parts


REASONING = Reasoning()
GENERATION = Generation(
    problem=0,
    sample=0,
    kind="all",
    prompt="",
    text="",
    verdict="wrong",
    value=0.0,
    detail="",
    formatted=True,
    truncated=False,
    length=1,
)


def test_lengths_count_the_stop_token():
    assert measured(NO_FORMAT).mean_length == len(TOKENIZER.encode(NO_FORMAT)) + 1


def test_a_record_comes_back_and_holds_only_json():
    result = measured(RIGHT_AT_ONCE, FALSE_YES, ks=[2])
    record = json.loads(json.dumps(result.record("base", 0, "base T=0.6"), allow_nan=False))
    assert (
        record["stage"] == "base"
        and record["label"] == "base T=0.6"
        and record["by_kind"] == {"1 solution": [0.5, 2]}
    )
    assert Evaluation.from_record(record) == result
    assert record.pop("reading") == "strict" and Evaluation.from_record(record) == result
    with pytest.raises(ValueError, match="unknown key 'odd'"):
        Evaluation.from_record(record | {"odd": 1})
    for k in ("", "0", "x", "-1", "9" * 5000):
        with pytest.raises(ValueError, match="k is '.*, expected a positive number of samples"):
            Evaluation.from_record(record | {"cons_at_k": {k: 0.5, "2": 0.5}})
    del record["seed"]
    with pytest.raises(ValueError, match="lacks key 'seed'"):
        Evaluation.from_record(record)


def test_the_error_of_language_consistency_is_that_of_the_mean_over_problems():
    """By hand: problems keep to their language in 0.8, 0.5 and (of one thought with words) 1.0; mean 23/30, sd / sqrt(3)."""
    kept = [(0.6, 1.0), (0.5, 0.5), (None, 1.0), (None, None)]
    generations = [
        [
            replace(GENERATION, problem=p, reasoning=replace(REASONING, consistency=c))
            for c in of_problem
        ]
        for p, of_problem in enumerate(kept)
    ]
    found = measure(generations, [1])
    assert found["language_consistency"] == pytest.approx((0.6 + 1.0 + 0.5 + 0.5 + 1.0) / 5)
    assert found["language_consistency_se"] == pytest.approx(
        ((1 / 30) ** 2 + (8 / 30) ** 2 + (7 / 30) ** 2) ** 0.5 / 2**0.5 / 3**0.5
    )
    assert measure([[replace(GENERATION, reasoning=None)]], [1])["language_consistency_se"] is None


def test_a_single_problem_has_no_standard_error():
    assert measured(RIGHT_AT_ONCE, problems=1).pass_at_1_se is None


def test_impossible_requests_are_refused():
    with pytest.raises(ValueError, match="pass@4 was asked for with 2 samples"):
        measured(RIGHT_AT_ONCE, FALSE_YES, ks=[4])
    with pytest.raises(ValueError, match="problems is 21, expected 1 to 20"):
        measured(RIGHT_AT_ONCE, problems=21)


def test_default_ks_are_those_the_samples_allow():
    result = measured(RIGHT_AT_ONCE, samples=5, ks=None)
    assert list(result.pass_at_k) == ["4"] and list(result.cons_at_k) == ["4"]


class SometimesBroken(OneProblem):
    def score(self, problem, completion):
        if problem.index == 1 and "wait" in completion:
            raise RuntimeError("lost its connection")
        return super().score(problem, completion)


class AlwaysBroken(OneProblem):
    def score(self, problem, completion):
        raise RuntimeError("lost its connection")


def test_problems_with_a_failed_verifier_are_left_out_and_counted():
    result = measured(RIGHT_AT_ONCE, SEARCHED, task=SometimesBroken(held_out=20))
    assert (
        result.pass_at_1 == 1.0
        and result.verifier_failures == 1
        and result.by_kind["1 solution"][1] == 1
    )
    with pytest.raises(ValueError, match=r"failed on 4 completions.*lost its connection"):
        measured(RIGHT_AT_ONCE, SEARCHED, task=AlwaysBroken(held_out=20))


class Plain:
    """A task that offers no reading of its answers."""

    name = "plain"

    def size(self, split):
        return 5

    def problem(self, i, split):
        return Problem(i, "make 1 :", "yes", "only")

    def score(self, problem, completion):
        verdict = Verdict.CORRECT if completion == "yes" else Verdict.WRONG
        return Score(1.0, verdict, "", {"accuracy": 0.0, "format": 1.0})


@pytest.mark.parametrize("reading, rate", [("strict", 0.0), ("usual", 1.0)])
def test_an_evaluation_says_how_completions_were_read(reading, rate):
    """An answer given twice is one as usual, and votes."""

    class Same(Calc3):
        def problem(self, i, split):
            return Problem(i, "make 1 :", "5", "only")

        def score_many(self, problems, completions):
            return super().score_many(problems, [TWICE] * len(completions))

    result = measured("yes", task=Same(reading=reading))
    assert (result.reading, result.pass_at_1) == (reading, rate)
    assert reading_of(Plain()) == "strict"
    assert answer_value(TWICE, reading) == (5 if rate else None)


TWICE = r"<think> </think> So \boxed{5}. **Answer:** \boxed {5}"


def test_a_task_that_cannot_be_read_is_not_described():
    result = measured("yes", "wait", task=Plain())
    assert (
        result.pass_at_1 == 0.5
        and result.self_check_rate is None
        and result.turned_right_rate is None
    )


def test_generations_are_saved_whole(tmp_path):
    result = measured(RIGHT_AT_ONCE, NO_FORMAT)
    write_generations(result.generations, tmp_path / "generations.jsonl")
    lines = [json.loads(line) for line in (tmp_path / "generations.jsonl").read_text().splitlines()]
    assert [line["text"] for line in lines] == [RIGHT_AT_ONCE, NO_FORMAT] * 2
    assert [line["answer"] for line in lines] == ["20", None] * 2
    assert lines[0]["reasoning"]["attempts"] == 1 and not list(tmp_path.glob("*.draft"))


@pytest.mark.parametrize(
    "texts",
    [("1,200", "1200", "$1200$", "1200.0"), ("1/2", "0.5", "\\frac{1}{2}"), ("Paris", "paris.")],
)
def test_answers_that_a_check_takes_for_equal_vote_together(texts):
    assert len({answer_value(f"so \\boxed{{{text}}}") for text in texts}) == 1


def test_answers_are_compared_by_value():
    assert answer_value(RIGHT_AT_ONCE) == Fraction(20)
    assert answer_value("<think> 1 </think> <answer> yes   wait </answer>") == "yes wait"
    assert answer_value(NO_FORMAT) is None


def test_reading_of_reasoning():
    searched = analyse(TASK, PROBLEM, SEARCHED)
    assert (searched.attempts, searched.self_checks, searched.first_failed) == (2, 1, True)
    direct = analyse(TASK, PROBLEM, NO_ATTEMPT)
    assert (direct.attempts, direct.self_checks, direct.first_failed) == (0, 0, False)
    nothing = habits([(direct, False)])
    assert (
        nothing.accuracy_with_self_check is None
        and nothing.checker_yes is None
        and nothing.turned_right_share is None
    )


def test_a_rise_is_accounted_for_exactly_by_hand():
    # format 1/2; right given format 1/2, all without search
    base = measured(RIGHT_AT_ONCE, FALSE_YES, NO_FORMAT, NO_FORMAT)
    # format 1; guessed 1/4, searched 1/2
    after = measured(RIGHT_AT_ONCE, SEARCHED, SEARCHED, FALSE_YES)
    found = decompose(base, after)
    assert found.rise == pytest.approx(0.5)
    assert found.format == pytest.approx((1 - 0.5) * 0.5)
    assert found.guessing == pytest.approx(1 * (0.25 - 0.5))
    assert found.searching == pytest.approx(0.5)
    assert sum(found.parts.values()) == pytest.approx(found.rise, abs=1e-12)
    for words in (
        "from 25.0% to 75.0%",
        "+25.0 are format",
        "-25.0 are answers right without",
        "+50.0 are answers found after",
    ):
        assert words in found.sentence
    assert found.record()["parts"]["searching"] == pytest.approx(0.5)


@given(
    st.lists(st.tuples(st.floats(0, 1), st.floats(0, 1), st.floats(0, 1)), min_size=2, max_size=2)
)
def test_parts_always_sum_to_the_rise(shares):
    blank = measured(RIGHT_AT_ONCE)
    pair = [
        replace(blank, format_rate=f, pass_at_1=f * a, turned_right_rate=f * a * s)
        for f, a, s in shares
    ]
    found = decompose(*pair)
    assert sum(found.parts.values()) == pytest.approx(found.rise, abs=1e-9)


def test_only_like_is_compared_with_like():
    base = measured(RIGHT_AT_ONCE)
    with pytest.raises(ValueError, match="temperature is 1.0 before and 0.6 after"):
        decompose(base, measured(RIGHT_AT_ONCE, temperature=0.6))
    unread = replace(base, turned_right_rate=None, format_rate=1.0)
    assert decompose(unread, unread).parts == {"format": 0.0, "better answers": 0.0}


def test_shares_have_the_glossarys_meaning():
    for name in (
        "pass_at_1",
        "pass_at_k",
        "cons_at_k",
        "format_rate",
        "self_check_rate",
        "turned_right_rate",
    ):
        assert name in GLOSSARY
    assert (
        "Share of completions whose first attempt was wrong"
        in GLOSSARY["turned_right_rate"].sentence
    )
