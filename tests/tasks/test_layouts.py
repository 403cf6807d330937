"""Rows in the columns of published sets: recognised, asked and judged; what fits none is named."""

import base64
import json
import os
import pickle
import zlib

import pytest

from deepwright.tasks import Verdict, make_task, score_all
from deepwright.tasks.layouts import BENCHMARKS, LAYOUTS, layout_of, lowered, read_row
from deepwright.tasks.sandbox import confinement
from deepwright.tasks.task import INSTRUCTIONS, paid
from tests.tasks.published_rows import CODE, FENCE, ROWS

PROGRAMS = {"humaneval", "mbpp", "apps", "livecodebench", "tests"}


def task_of(row, folder, name="file", **options):
    path = folder / "rows.jsonl"
    path.write_text(json.dumps(row) + "\n", encoding="utf-8")
    # Seconds: other work may share the machine, and here none is too slow.
    return make_task(f"{name}:{path}", held_out_of=1, unconfined=True, seconds=30.0, **options)


def verdicts_hold(folder, names=tuple(ROWS)):
    """Each row is told by its layout, and its right and wrong completion are judged so."""
    for name in names:
        row, layout, right, wrong = ROWS[name]
        assert layout_of(lowered(row)).name == layout, name
        task = task_of(row, folder)
        problem = task.problem(0, "held_out")
        found = [score.verdict for score in score_all(task, [problem] * 2, [right, wrong])]
        assert found == [Verdict.CORRECT, Verdict.WRONG], name


@pytest.mark.filterwarnings("ignore:.*nothing is unpickled")
@pytest.mark.parametrize("name", ROWS)
def test_every_layout_is_recognised_and_judged(name, tmp_path):
    if name in CODE and not confinement() and os.geteuid() == 0:
        pytest.skip("neither bwrap nor unshare works on this machine")
    verdicts_hold(tmp_path, [name])


def test_the_table_has_a_row_for_each_layout_and_each_has_been_tried():
    assert [layout.name for layout in LAYOUTS] == list(dict.fromkeys(one.name for one in LAYOUTS))
    assert {layout for _, layout, _, _ in ROWS.values()} == {layout.name for layout in LAYOUTS}
    assert {name for one in BENCHMARKS.values() for name in one.layouts} <= {
        layout.name for layout in LAYOUTS
    }


@pytest.mark.parametrize(
    "name, shown",
    [
        ("mbpp", ["Write add.", "must pass", "assert add(1, 2) == 3", "assert add(2, 2) == 4"]),
        (
            "humaneval",
            ["Complete this Python function", "```python\ndef add(a: int", '"""Adds."""'],
        ),
        ("apps", ["Double it.", "stdin", "stdout"]),
        ("apps with a function", ["Add them.", "Write the function `add`."]),
        ("taco with a class", ["Add them.", "Begin with this code:", "class Solution:"]),
        ("livecodebench", ["Double it.", "stdin"]),
        ("livecodebench with a method", ["Add.", "class Solution:"]),
        ("verl with a program", ["Double it."]),
        ("a story in front", ["There are 2 boxes of 3.\nHow many?"]),
        ("choices", ["2 * 3?\nA. 5\nB. 6\nC. 7\nD. 8\n", "letter"]),
        ("options that have letters", ["2 * 3?\nA. 5\nB. 6\nC. 7\n"]),
        ("messages", ["2 * 3?"]),
    ],
)
def test_what_a_model_is_shown(name, shown, tmp_path, anywhere):
    problem = task_of(ROWS[name][0], tmp_path).problem(0, "held_out")
    said = problem.messages[-1]["content"]
    program = "tests" in problem.columns
    assert all(piece in said for piece in shown)
    assert said.endswith("in a ```python block." if program else INSTRUCTIONS["boxed"])
    assert INSTRUCTIONS["boxed"] not in said or not program


def test_turns_before_the_question_stay(tmp_path):
    turns = task_of(ROWS["messages"][0], tmp_path).problem(0, "held_out").messages
    assert turns[0] == {"role": "system", "content": "Be brief."} and len(turns) == 2


THOUGHT = "<think>It adds.</think>"


@pytest.mark.parametrize(
    "completion, verdict",
    [
        (FENCE.format("def add(a, b):\n    return a + b"), Verdict.CORRECT),
        (THOUGHT + FENCE.format("def add(a, b):\n    return a + b"), Verdict.CORRECT),
        ("\\boxed{```python\ndef add(a, b):\n    return a + b\n```}", Verdict.CORRECT),
        ("so \\boxed{def add(a, b): return a + b}", Verdict.CORRECT),
        # A box that the program prints is none of the answer's.
        (FENCE.format("def add(a, b):\n    '\\\\boxed{1}'\n    return a + b"), Verdict.CORRECT),
        ("<think>" + FENCE.format("def add(a, b):\n    return a + b"), Verdict.MALFORMED),
        (
            "<think>" + FENCE.format("def add(a, b):\n    return a + b") + "</think>",
            Verdict.MALFORMED,
        ),
        (THOUGHT * 2 + FENCE.format("def add(a, b):\n    return a + b"), Verdict.MALFORMED),
        ("def add(a, b): return a + b", Verdict.MALFORMED),
    ],
)
@pytest.mark.usefixtures("confined")
def test_where_a_program_stands(completion, verdict, tmp_path):
    task = paid(task_of(ROWS["tests"][0], tmp_path))
    assert task.score(task.problem(0, "held_out"), completion).verdict is verdict


class Planted:
    """Unpickled, it leaves a trace."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return open, (self.path, "w")


def nothing_is_unpickled(folder):
    row = ROWS["livecodebench, pickled"][0]
    trap = base64.b64encode(zlib.compress(pickle.dumps(Planted(str(folder / "trace"))))).decode()
    for private in (trap, pickle.dumps("[]").hex()):
        assert read_row(row | {"private_test_cases": private}).columns["unread_tests"]
    assert not (folder / "trace").exists()


def test_pickled_tests_stay_pickled_and_it_is_said(tmp_path, anywhere):
    nothing_is_unpickled(tmp_path)
    with pytest.warns(UserWarning, match="1 row is judged by .* nothing is unpickled here"):
        assert task_of(ROWS["livecodebench, pickled"][0], tmp_path).size("held_out") == 1


@pytest.mark.parametrize(
    "row, said",
    [
        (
            {"body_text": "2 * 3?", "result": "6"},
            r"no question: rename .* to question; it has 'body_text', 'result'",
        ),
        (
            {"question": "2 * 3?", "result": "6"},
            r"no answer: rename .* to answer \(or tests\); it has 'question', 'result'",
        ),
        ({"question": "?", "input_output": ""}, r"no answer: .*'input_output \(empty\)'"),
        ({"text": "write f", "test_list": ["assert f(1) == 2"], "test_imports": 3}, "test_imports"),
        (
            {"prompt": "def f():", "entry_point": 3, "test": "def check(candidate): pass"},
            "entry_point is 3",
        ),
        (
            {"prompt": [{"role": "user", "content": "?"}], "reward_model": {"style": "model"}},
            "no answer",
        ),
        ({"prompt": [{"role": "user", "content": "?"}], "reward_model": [1]}, "no answer"),
        (
            {"prompt": [{"role": "user", "content": [{"type": "image"}]}], "answer": "6"},
            "no message",
        ),
        ({"prompt": [["user", "?"]], "answer": "6"}, "no message"),
        ({"question": "Which?", "answer": "6", "image": {"bytes": "x"}}, "needs a picture"),
        ({"question": "?", "choices": ["5", "6"], "answer": 7}, "none of the choices A, B"),
        ({"question": "?", "choices": ["5", "6"], "answer": "AB"}, "none of the choices"),
        ({"question": "?", "choices": [["5"], "6"], "answer": "A"}, "expected texts"),
    ],
)
def test_a_row_that_fits_no_layout_or_lacks_something_says_so(row, said):
    with pytest.raises(ValueError, match=said) as caught:
        read_row(row)
    assert len(str(caught.value)) < 400


@pytest.mark.parametrize(
    "row",
    [
        {"question": "?", "input_output": "{"},
        {"question": "?", "input_output": "[1, 2]"},
        {"question": "?", "input_output": '{"inputs": [], "outputs": []}'},
        {"question": "?", "input_output": '{"inputs": null, "outputs": null}'},
        {"question": "?", "input_output": '{"inputs": ["1"], "outputs": []}'},
        {"question": "?", "input_output": '{"inputs": [1], "outputs": ["1"]}'},
        {
            "question": "?",
            "input_output": '{"inputs": [[1]], "outputs": [1], "fn_name": "os.system"}',
        },
        {"question": "write f", "tests": {"inputs": None, "outputs": None}},
        {"question": "write f", "tests": {"inputs": "12", "outputs": "12"}},
        {"question": "write f", "tests": "{"},
        {"question": "write f", "tests": 3},
        {"text": "write f", "test_list": [None]},
        {"text": "write f", "test_list": {"a": 1}},
        {"text": "write f", "test_list": ["assert f(" + "(" * 5000]},
        {"prompt": "def f():", "entry_point": "f", "test": "def g(): pass"},
        {"prompt": "def f():", "entry_point": "f", "test": "def check(:"},
        {"prompt": "def f():", "entry_point": "f", "test": "def check(candidate): pass"},
        {
            "prompt": ["def f():"],
            "entry_point": "f",
            "test": "def check(candidate):\n assert candidate()",
        },
        {
            "prompt": [{"role": "user", "content": "?"}],
            "entry_point": "f",
            "test": "def check(f):\n assert f()",
        },
        {"question_content": "?", "public_test_cases": "[1]"},
        {"question_content": "?", "public_test_cases": "gANY"},
        {"question_content": "?", "public_test_cases": '[{"input": "1"}]'},
        {
            "question_content": "?",
            "metadata": None,
            "public_test_cases": '[{"input": "1", "output": "1", "testtype": "functional"}]',
        },
    ],
)
def test_tests_that_cannot_be_judged_by_are_refused(row):
    with pytest.raises(ValueError) as caught:
        read_row(row)
    assert len(str(caught.value)) < 400


@pytest.mark.parametrize(
    "row, answer",
    [
        ({"question": "?", "answer": None, "solution": "\\boxed{6}"}, "6"),
        ({"Question": None, "question": "2 * 3?", "ANSWER": "6"}, "6"),
        ({"problem": "?", "answer": "", "solution": "so \\boxed{6}"}, "6"),
        ({"prompt": "?", "tests": None, "answer": "6"}, "6"),
        ({"question": "?", "choices": None, "answer": "6"}, "6"),
        ({"question": "?", "answer": False}, "False"),
        ({"question": "?", "answer": 0}, "0"),
        ({"question": "2?", "choices": ["2", "3"], "answer": "3"}, "B"),
        ({"instruction": "Solve it.", "input": "2 * 3", "answer": "6"}, "6"),
    ],
)
def test_a_column_that_is_null_or_empty_is_not_there(row, answer):
    assert read_row(row).answer == answer


def test_an_instruction_stands_before_what_it_is_about():
    assert (
        read_row({"instruction": "Solve it.", "input": "2 * 3", "answer": "6"}).prompt
        == "Solve it.\n2 * 3"
    )
    assert read_row({"instruction": "2 * 3?", "answer": "6"}).prompt == "2 * 3?"


def test_a_kind_is_short_and_comes_from_the_layouts_columns():
    row = {"question": "?", "answer": "6", "level": "x" * 100, "subject": "sums"}
    assert read_row(row).kind == "subject sums"
    assert read_row(ROWS["verl"][0]).kind == "data_source gsm8k"
