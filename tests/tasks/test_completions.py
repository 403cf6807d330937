"""Where an answer stands in a completion, strictly and as usual."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deepwright.tasks import Problem, Verdict, make_task
from deepwright.tasks.answers import same_here
from deepwright.tasks.completions import (
    boxes,
    braced,
    last_boxed,
    read_boxed,
    read_completion,
)
from deepwright.tasks.files import DataFile
from deepwright.tasks.task import paid


@pytest.mark.parametrize(
    "completion, answer",
    [
        (r"3 + 4 = 7. \boxed{7}", "7"),
        (r"\boxed{7}", "7"),
        (r"so $\boxed{\frac{1}{2}}$.", r"\frac{1}{2}"),
        (r"<think> 3 + 4 </think> \boxed{7}", "7"),
        (r"3 + 4 </think> \boxed{7}", "7"),  # the prompt opened the thought
        (r"<think> is it \boxed{8}? no </think> \boxed{7}", "7"),  # boxes in a thought are thoughts
        (r"\boxed{\{1, 2\}}", r"\{1, 2\}"),
        (r"\boxed{\\}", r"\\"),  # an escaped backslash does not escape the brace
        (r"So \boxed {7}.", "7"),
        ("So \\boxed\n{7}.", "7"),
        (r"So \boxed 7.", "7"),
        (r"So $x = \boxed 7$, which is right", "7"),
        (r"\(\boxed -7\)", "-7"),
        (r"\boxed7", "7"),
    ],
)
def test_one_box(completion, answer):
    assert read_boxed(completion)[1] == answer
    assert read_completion(completion, "boxed", "usual")[1] == answer


@pytest.mark.parametrize(
    "completion, said",
    [
        ("7", "0 times"),
        (r"\boxed{7} \boxed{7}", "2 times"),
        (r"\boxed{7} \boxed{8}", "2 times"),
        (r"\boxed{\boxed{7}}", "2 times"),
        (r"<think></think>\boxed{7}", "thought is empty"),
        ("<think> \n </think>\\boxed{7}", "thought is empty"),
        (r"</think>\boxed{7}", "thought is empty"),
        (r"<think> \boxed{7} </think>", "after the thought"),
        (r"\boxed{7} <think> so </think>", "before the thought"),
        (r"<think> so </think> <think> so </think> \boxed{7}", "2 times"),
        (r"<think> so \boxed{7}", "thought that ends"),
        (r"so </think> <think> \boxed{7}", "before the thought"),
        (r"\boxed{7", "balanced"),
        (r"\boxed{{7}", "balanced"),
        (r"\boxed{7\}", "balanced"),
        (r"\boxed 7 + 1", "balanced"),
        (r"\boxed 7 or 8", "balanced"),
        (r"\boxed 7 \pm 1000", "balanced"),
        (r"\fbox{7}", "0 times"),
        (r"\boxed{ }", "is empty"),
    ],
)
def test_other_layouts_are_refused(completion, said):
    assert said in read_boxed(completion)


@given(
    st.lists(
        st.sampled_from(["<think>", "</think>", "\\boxed{", "\\boxed", "{", "}", "\\", "7", " "])
    ).map("".join)
)
def test_every_text_gets_an_answer_or_a_reason(text):
    for reading in ("strict", "usual"):
        for layout in ("boxed", "tags"):
            found = read_completion(text, layout, reading, same_here)
            assert isinstance(found, str) or (found[1].strip() and found[1] in text)


USUAL = [
    (r"So x = \boxed{5}. \n\n**Final answer:** \boxed{5}", "5"),
    (r"\boxed{0.5} \boxed{\frac12}", r"\frac12"),
    (r"\boxed{x = 5}, so $\boxed{5}$", "5"),
    (r"\boxed{\boxed{5}}", "5"),
    ("<think>\n\n</think>\n\nThe answer is \\boxed{5}.", "5"),
    (r"<think> \boxed{7}? no </think> \boxed{5}", "5"),
    (r"so it is \boxed{7}? no </think> \boxed{5}", "5"),
    (r"a </think> b </think> \boxed{5}", "5"),
    (r"It is \boxed 5 and so on", "5"),
    (r"\fbox{5}", "5"),
    (r"**Final answer:** $$\boxed{5}$$ Let me know if you have questions!", "5"),
    (r"\boxed{} \boxed{5}", "5"),
]


@pytest.mark.parametrize("completion, answer", USUAL)
def test_the_usual_reading_takes_what_other_models_write(completion, answer):
    assert read_completion(completion, "boxed", "usual", same_here)[1] == answer


@pytest.mark.parametrize(
    "completion, said",
    [
        (r"\boxed{5} or \boxed{6}", "2 answers that are not the same"),
        (r"\boxed{5} \boxed{6} \boxed{5}", "3 answers"),
        (r"\boxed{5\text{ cm}} \boxed{5\text{ m}}", "not the same"),
        (r"<think> \boxed{5}", "does not end"),
        (r"\boxed{5} <think> wait", "does not end"),
        (r"<think> \boxed{5} </think> so", "no \\boxed after"),
        ("5", "no \\boxed"),
        (r"\boxed{5", "no \\boxed"),
    ],
)
def test_the_usual_reading_wants_one_answer(completion, said):
    assert said in read_completion(completion, "boxed", "usual", same_here)


def test_tags_as_usual():
    def usual(text):
        return read_completion(text, "tags", "usual", same_here)

    given = "<answer> 5 </answer>"
    assert usual(f"<think></think> {given}")[1] == usual(f"{given} again {given}")[1] == " 5 "
    assert usual(f"so </think> {given} I hope this helps")[1] == " 5 "
    assert usual(r"<answer> \boxed{5} </answer>")[1] == "5"
    assert "not the same" in usual(f"{given} <answer> 6 </answer>")
    assert "no answer" in usual("<answer> 5") and "does not end" in usual(f"<think> so {given}")
    assert "times" in read_completion(f"<think> so </think> {given} {given}", "tags", "strict")


def test_a_task_reads_as_it_is_told():
    problem = Problem(0, "How much?", "5", "all")
    completion = USUAL[0][0]
    usual = DataFile("x.jsonl")
    assert paid(usual).score(problem, completion).verdict is Verdict.MALFORMED
    assert usual.score(problem, completion).verdict is Verdict.CORRECT
    assert usual.score(problem, r"\boxed{5} or \boxed{6}").verdict is Verdict.MALFORMED
    sums = make_task("calc3")
    asked = sums.problem(0, "held_out")
    twice = f"\\boxed{{{asked.answer}}} \\boxed{{{asked.answer}}}"
    assert sums.score(asked, twice).verdict is Verdict.CORRECT
    told = make_task("calc3", reading="usual")
    assert paid(told) == told and paid(sums) == make_task("calc3", reading="strict")
    with pytest.raises(ValueError, match="reading is 'loose', expected 'strict' or 'usual'"):
        make_task("calc3", reading="loose")


def test_boxes_of_solutions():
    assert last_boxed(r"First \boxed{1}, so \boxed{\frac{1}{2}}.") == r"\frac{1}{2}"
    assert last_boxed("none") is None and last_boxed(r"\boxed{1") is None
    for text in (r"$x = \boxed 9$, since", r"\boxed {9}", r"\fbox{9}", r"\boxed9.", r"\fbox 9"):
        assert last_boxed(text) == "9", text
    assert last_boxed(r"\boxed{\text{(B) } {3}}") == r"\text{(B) } {3}"
    assert last_boxed(r"so \boxed 1,200 in all") == "1,200" and last_boxed(r"\boxed -2") == "-2"
    assert last_boxed(r"so $\boxed Evelyn$") == "Evelyn"
    assert boxes(r"\boxed{1} \boxed{\boxed{2}} \fbox{3} \boxedx") == ["1", r"\boxed{2}", "3"]
    assert braced("{a{b}c}d") == "a{b}c" and braced("x") is None
