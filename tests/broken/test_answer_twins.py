"""Wrong twins of the judge of answers and of the reader of completions: each makes one mistake that graders elsewhere make, and a named check
must reject it."""

import importlib.util
from pathlib import Path

import pytest

from deepwright.tasks import answers, comparing, completions, units, values, worker
from deepwright.tasks.answers import judge_answer, judgeable, same_here
from deepwright.tasks.comparing import Comparison
from deepwright.tasks.completions import last_boxed, read_completion
from tests.broken.patched import must_reject

_SPEC = importlib.util.spec_from_file_location("worker_of_twins", Path(worker.__file__))
PROCESS = importlib.util.module_from_spec(_SPEC)  # what runs in a verifier process
_SPEC.loader.exec_module(PROCESS)

WRONG = [  # (answer, reference), judged without a worker
    (r"5\text{ m}", r"5\text{ cm}"), ("5 km", "5 cm"), ("12 pears", "12 apples"), ("28%", "28"), ("10_3", "10_2"), ("10_2", "10"),
    ("10^{-21}", "10^{-20}"), ("0.333333", r"\frac13"), ("1.0000001", "1"), ("(2,1)", "(1,2)"), ("[0,1]", "[0,1)"), ("(0,1)", "[0,1)"),
    (r"\{1,2\}", "(1,2)"), ("Pairs", "Paris"), ("5 or 7", "5"), ("5, 7", "7"), ("3 + 4", "7"), ("1, 2, ..., 9", "1, 2, 9"), ("2", "1, 2"),
    (r"\begin{pmatrix}1&3\\2&4\end{pmatrix}", r"\begin{pmatrix}1&2\\3&4\end{pmatrix}"), ("3:03", "3:30"), ("1:10", "3:30"), ("y = 5", "x = 5"),
    ("AB = 5, CD = 4", "AB = 4, CD = 5"), ("x \\ge 5", "x > 5"), ("5 million", "5"), ("7 = 7", "7"), (r"7 \pm 0", "7"), ("x' + 1", "x + 1'"),
    ("y = 3, x = 4", "(3,4)"), ("2020", "2024-03-01"), ("12 sixths", "12"), ("12多个", "12"), ("g(x) = x", "f(x) = x"), ("C) and D)", "C"),
    ("x < 2 and x > 3", "x < 2 or x > 3"), ("(1011)_3", "1011_2"),
]  # fmt: skip
RIGHT = [
    (r"\$1{,}200", "1200"), ("5 cm", "5"), ("0.05 m", r"5\text{ cm}"), ("28 percent", r"28\%"), ("2, 1", "1, 2"), ("（1，2）", "(1,2)"),
    (r"1 \text{ and } 2", "1, 2"), ("north", "North"), ("1 1/2", r"1\frac12"), ("−5", "-5"), ("x_1 = 5", "5"), (r"\text{B}", "(B)"),
    ("y = 4, x = 3", "(3,4)"), ("2024/3/1", "2024-03-01"), ("option C", "C"), (r"\textbf{(C)}\ 12", "C"), ("A, B, D", "ABD"),
]  # fmt: skip


def verdicts_hold():
    values.read.cache_clear()
    units.read_unit.cache_clear()
    for answer, reference in WRONG:
        assert judge_answer(answer, reference).right is False, (answer, reference)
    for answer, reference in RIGHT:
        assert judge_answer(answer, reference).right is True, (answer, reference)
    repeated = judge_answer("(x+2)^2 - 4", "x^2+4x", "Expand (x+2)^2 - 4.")
    assert repeated.right is False


def nothing_is_lost_on_the_way():
    """What is asked of math-verify still tells the two apart."""
    for one, other in (
        ("x'", "x"),
        ("A+1", "a+1"),
        ("f'(x)", "f(x)"),
        (r"\cos 60^\circ", r"\cos 60"),
    ):
        judgement = judge_answer(one, other)
        assert judgement.right is False or all(a != b for _, a, b in judgement.asked), (one, other)


def expressions_are_exact():
    pytest.importorskip("math_verify", reason="the extra `tasks` is not installed")
    for how, one, other, same in (
        ("equal", r"\frac{1}{2^{99}}", r"\frac{1}{2^{98}}", False),
        ("equal", "10^{50}+1", "10^{50}", False),
        ("equal", "x(x+2)", "x^{2}+2x", True),
        ("equal", r"\sqrt{x^{2}}", "x", False),
        ("proportional", "(y)-(2x)", "(2y)-(4x)", True),
        ("positive", "(x)-(1)", "(1)-(x)", False),
    ):
        pairs = [[how, one, other], [how, other, one]]
        assert PROCESS.verify_math({"pairs": pairs}) == [same, same], (one, other)


def boxes_are_read():
    def usual(text):
        return read_completion(text, "boxed", "usual", same_here)

    assert usual(r"\boxed{5} so \boxed{5.0}")[1] == "5.0"
    assert usual("<think>\n\n</think>\\boxed {5}")[1] == "5"
    assert usual(r"is it \boxed{7}? </think> \boxed{5}")[1] == "5"
    for text in (r"\boxed{5} or \boxed{6}", r"\boxed{6} or \boxed{5}", r"<think> \boxed{5}"):
        assert isinstance(usual(text), str), text
    assert isinstance(read_completion(r"\boxed{5} \boxed{5}", "boxed", "strict"), str)
    assert isinstance(read_completion(r"<think></think> \boxed{5}", "boxed", "strict"), str)


def references_are_sorted():
    assert not judgeable("5") and not judgeable("p - q") and not judgeable("１，２")
    assert judgeable(r"\frac{1}{2") and judgeable("so " * 30) and judgeable("")
    assert last_boxed(r"$x = \boxed 9$, since") == last_boxed(r"\fbox{9}") == "9"


# --- the mistakes


def units_dropped(_):
    return lambda self, a, r: a.value == r.value


def rounded_at_six_places(_):
    return lambda answer, reference: round(float(answer - reference), 6) == 0


def tuples_as_sets(_):
    def any_order(self, a, r):
        return len(a) == len(r) and sorted(x.text for x in a) == sorted(x.text for x in r)

    return any_order


def lists_in_order(_):
    return lambda self, a, r: self._in_order(a.parts, r.parts)


def letters_in_any_order(original):
    return lambda text: "".join(sorted(original(text)))


def nothing_refused(_):
    return lambda answer, reference, question: ""


def relations_without_their_signs(original):
    return lambda self, a, r: self._in_order(a.parts, r.parts)


def names_forgotten(_):
    return lambda one, other: False


def times_as_fractions(_):
    return lambda value: False


def only_ascii_is_read(original):
    return lambda text: original(text) if text.isascii() else text


def primes_passed_over(original):
    return lambda text, sets=False: original(text.replace("'", ""), sets)


def case_passed_over(original):
    return lambda text, sets=False: (original(text, sets) or "").lower()


def degrees_passed_over(original):
    return lambda text, sets=False: original(text.replace("^{\\circ}", ""), sets)


def absolute_differences(_):
    def near(one, other):
        names = dict.fromkeys(one.free_symbols | other.free_symbols, 1.7)
        return bool(abs((one - other).evalf(subs=names)) < 1e-6)

    return near


def any_factor(original):
    return lambda one, other, positive: original(one, other, False)


def only_as_it_stands(_):
    return lambda one, other: bool(one == other)


def the_first_box(original):
    def read(completion, layout, same):
        found = completions.boxes(completion.rpartition("</think>")[2])
        return ("", found[0]) if found else original(completion, layout, same)

    return read


def the_last_box(original):
    def read(completion, layout, same):
        found = completions.boxes(completion.rpartition("</think>")[2])
        return ("", found[-1]) if found else original(completion, layout, same)

    return read


def boxes_in_the_thought_too(original):
    def read(completion, layout, same):
        return original(completion.replace("</think>", ""), layout, same)

    return read


def equal_boxes_are_two(original):
    return lambda completion, layout, same: original(completion, layout, str.__eq__)


def the_usual_reading_for_rewards(_):
    return lambda completion: completions._read_usual(completion, "boxed", str.__eq__)


def names_in_the_order_written(_):
    return lambda self, value: value.parts


def and_as_or(_):
    return lambda a, r: False


def any_text_that_begins_with_the_letter(_):
    return lambda answer: values.words(answer.text).lstrip("(")[:1].upper()


def nouns_of_any_kind(original):
    return lambda name, roman, apart: (
        original(name, roman, apart) or units.Unit(powers=((name, 1),))
    )


def braces_alone(_):
    return lambda text, start, strict=False: completions.braced(text[start:])


def braces_not_counted(_):
    return lambda text: (0, 0, 0)


TWINS = [
    (verdicts_hold, Comparison, "same_quantity", units_dropped),
    (verdicts_hold, comparing, "same_value", rounded_at_six_places),
    (verdicts_hold, Comparison, "_in_order", tuples_as_sets),
    (verdicts_hold, Comparison, "_without_order", lists_in_order),
    (verdicts_hold, comparing, "words", letters_in_any_order),
    (verdicts_hold, answers, "refused", nothing_refused),
    (verdicts_hold, Comparison, "_relations", relations_without_their_signs),
    (verdicts_hold, comparing, "_other_name", names_forgotten),
    (verdicts_hold, comparing, "_is_time", times_as_fractions),
    (verdicts_hold, Comparison, "_ordered", names_in_the_order_written),
    (verdicts_hold, comparing, "_other_logic", and_as_or),
    (verdicts_hold, comparing, "chosen", any_text_that_begins_with_the_letter),
    (verdicts_hold, units, "_named", nouns_of_any_kind),
    (verdicts_hold, values, "normal", only_ascii_is_read),
    (nothing_is_lost_on_the_way, comparing, "formula", primes_passed_over),
    (nothing_is_lost_on_the_way, comparing, "formula", case_passed_over),
    (nothing_is_lost_on_the_way, comparing, "formula", degrees_passed_over),
    (expressions_are_exact, PROCESS, "_equal", absolute_differences),
    (expressions_are_exact, PROCESS, "_equal", only_as_it_stands),
    (expressions_are_exact, PROCESS, "_in_proportion", any_factor),
    (boxes_are_read, completions, "_read_usual", the_first_box),
    (boxes_are_read, completions, "_read_usual", the_last_box),
    (boxes_are_read, completions, "_read_usual", boxes_in_the_thought_too),
    (boxes_are_read, completions, "_read_usual", equal_boxes_are_two),
    (boxes_are_read, completions, "read_boxed", the_usual_reading_for_rewards),
    (references_are_sorted, completions, "_boxed", braces_alone),
    (references_are_sorted, answers, "depths", braces_not_counted),
]  # fmt: skip


@pytest.mark.parametrize(
    "check, owner, name, wrong", TWINS, ids=[twin[3].__name__ for twin in TWINS]
)
def test_the_check_rejects_the_twin_and_passes_without_it(check, owner, name, wrong, tmp_path):
    must_reject(check, owner, name, wrong, tmp_path)
