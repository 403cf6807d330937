"""Tests of programs read from every layout of public sets; what no verdict can be drawn from is
refused by name."""

import json

import pytest

from deepwright.tasks.code_tests import Call, read_tests

HUMANEVAL = """METADATA = {"author": "x"}


def check(candidate):
    assert candidate([1.0, 2.0], 0.3) == True, "first"
    assert True, "This prints if this assert fails"
    assert candidate([], 0.5) == False
"""
PROMPT = """from typing import List


def near(numbers: List[float], gap: float) -> bool:
    '''Whether two are near.'''
"""


def test_assert_statements_become_calls():
    read = read_tests(
        "assert f([1]) == {'a': (1, None)}\nassert g() is True\nassert 3 == f(2), 'so'"
    )
    wanted = {"dict": [["a", {"tuple": [1, None]}]]}
    assert read.calls == (Call("f([1])", wanted), Call("g()", True, "is"), Call("f(2)", 3))
    listed = read_tests(["assert f(1) == -2.5", "assert f(2) == {1, 2}"])
    assert [call.wanted for call in listed.calls] == [-2.5, {"set": [1, 2]}] and not listed.script
    assert read_tests(["assert f(1) == 2"], "K = 3").setup == "K = 3"
    assert read_tests(["assert f(1) == 2"], ["import math", "K = 3"]).setup == "import math\nK = 3"
    assert read_tests(["assert f(1) == 2"]).given == ["assert f(1) == 2"]


def test_a_function_may_have_the_name_of_pythons_own():
    """Then the program must define it."""
    read = read_tests(["assert sum(10, 15) == 6"])
    assert read.calls == (Call("'sum' in globals()", True, "is"), Call("sum(10, 15)", 6))


def test_other_assertions_become_a_script_with_the_programs_names():
    read = read_tests(
        ["assert abs(f(1) - K) < 1e-6", "assert g(len('a')) == f(2)"], "import math\nK = 3"
    )
    assert not read.calls and read.names == ("f", "g") and "abs(f(1) - K)" in read.script
    assert read.setup == "import math"  # no data: it could hold what is expected
    assert read_tests("x = [2, 1]\ns(x)\nassert x == [1, 2]").names == ("s",)
    assert read_tests("assert [f(i) for i in range(3)] == g()").names == ("f", "g")


def test_humaneval():
    read = read_tests(HUMANEVAL, PROMPT, entry_point="near")
    assert read.calls == (Call("near([1.0, 2.0], 0.3)", True), Call("near([], 0.5)", False))
    assert "import List" in read.setup and "def near" not in read.setup  # which only stands for it
    loop = (
        "def check(candidate):\n    for n in range(3):\n        assert candidate(n) == helper(n)\n"
    )
    prompt = "def helper(n):\n    return n\n\ndef near(n):\n    '''The same.'''\n"
    read = read_tests(loop, prompt, entry_point="near")
    assert read.names == ("near",) and read.script.rstrip().endswith("check(near)")
    assert "def helper" in read.script and "def near" not in read.script


def test_inputs_and_outputs():
    pairs = (("1", "2"), ("3", "4"))
    table = {"inputs": ["1", "3"], "outputs": ["2", "4"]}
    rows = [{"input": "1", "output": "2"}, {"input": "3", "output": "4", "testtype": "stdin"}]
    for tests in (table, json.dumps(table), rows, json.dumps(rows)):
        assert read_tests(tests).streams == pairs
    lines = read_tests({"inputs": [["1", "2"]], "outputs": [["3"]]})
    assert lines.streams == (("1\n2", "3"),)


def test_inputs_and_outputs_of_a_function():
    table = {"fn_name": "add", "inputs": [[1, [2]], [3, None]], "outputs": [3, [4]]}
    read = read_tests(table)
    assert [call.wanted for call in read.calls] == [3, [4]]
    assert all(call.how == "printed" and "Solution().add" in call.expression for call in read.calls)
    rows = [{"input": '[1, 2]\n"a"', "output": "[true]", "testtype": "functional"}]
    (call,) = read_tests(rows, entry_point="add").calls
    assert call.expression.endswith("(*[[1, 2], 'a'])") and call.wanted == [True]


@pytest.mark.parametrize(
    "tests",
    [
        [],
        "",
        None,
        3,
        {},
        ["f(1) == 2"],
        ["import os"],
        ["assert"],
        ["assert f(1) =="],
        [{"input": 1}],
        [3],
        ["assert f(1) == 2", 3],
        ["assert True"],
        ["assert 1 + 1 == 2"],
        "assert (1).real + len([1]) == 2",
        {"inputs": [1], "outputs": []},
        {"inputs": "12", "outputs": "34"},
        {"inputs": [1], "outputs": [2]},
        [{"input": "1", "output": "2"}, "assert f(1)"],
        HUMANEVAL,
        "def check(f):\n    assert f(1) == 2",
        [{"input": "[1", "output": "1", "testtype": "functional"}],
        {"fn_name": "a b", "inputs": [[1]], "outputs": [1]},
        "class T:\n    def test(self): self.assertEqual(f(1), 2)",
        {"fn_name": "f", "inputs": [3], "outputs": [1]},
        "\0",
        "(" * 5000,
        "{" * 50,
        "[" * 100_000,
        "assert f(1) == " + "1 + " * 20_000 + "1",
        "assert f(1) == " + "[" * 150 + "]" * 150,
        "assert f(" + "-" * 3000 + "1) == 1",
        "assert f(" + "a." * 2000 + "b) == 1",
        "x" * 5_000_000,
    ],
    ids=lambda tests: repr(tests)[:40].encode("unicode_escape").decode(),
)
def test_tests_that_cannot_be_judged_are_named(tests):
    with pytest.raises(ValueError, match=r"test") as caught:
        read_tests(tests)
    assert len(str(caught.value)) < 600


def test_a_setup_that_is_no_code_is_named():
    with pytest.raises(ValueError, match="the set-up of the tests 'def f' is not Python"):
        read_tests(["assert f(1) == 2"], "def f")
