"""One row of each layout that people have on disk, written here after the columns of the published
sets: a question whose right and wrong completion are known."""

import base64
import json
import pickle
import zlib
from typing import Any

BOX = "It follows that \\boxed{{{}}}."
FENCE = "Here it is:\n```python\n{}\n```\nThat is all."


def _json(value: Any) -> str:
    return json.dumps(value)


# name -> (row, layout, a right completion, a wrong one)
DOUBLE = FENCE.format("n = int(input())\nprint(2 * n)"), FENCE.format("print(2 + int(input()))")
ADD = FENCE.format("def add(a, b):\n    return a + b"), FENCE.format("def add(a, b):\n    return a")
SIX, SEVEN = BOX.format(6), BOX.format(7)
STREAMS = {"inputs": ["3\n", "5\n"], "outputs": ["6\n", "10\n"]}
ADDED = {"fn_name": "add", "inputs": [[1, 2], [3, 4]], "outputs": [3, 7]}
CHECKED = (
    'METADATA = {"author": "nobody"}\n\n\ndef check(candidate):\n    assert candidate(1, 2) == 3\n'
    '    assert candidate(-1, 1) == 0, "they cancel"\n    assert True, "no test"\n'
)

ROWS: dict[str, tuple[dict[str, Any], str, str, str]] = {
    "gsm8k": (
        {"question": "Two boxes of three?", "answer": "2 * 3 = <<2*3=6>>6\n#### 6"},
        "gsm8k",
        SIX,
        SEVEN,
    ),
    "gsm8k with a unit": (
        {"question": "Two boxes of 600?", "answer": "2 * 600 = 1200\n#### 1 200 apples"},
        "gsm8k",
        BOX.format("1,200"),
        BOX.format("12,00"),
    ),
    "math": (
        {"problem": "Solve.", "level": "Level 2", "type": "Algebra", "solution": "$\\boxed{6}$."},
        "math",
        SIX,
        SEVEN,
    ),
    "math with a bare box": (
        {"problem": "Solve.", "level": "Level 2", "solution": "So $y=4$ and $x = \\boxed 6$, as"},
        "math",
        SIX,
        BOX.format(4),
    ),
    "math500": (
        {
            "problem": "Solve.",
            "solution": "Long.",
            "answer": "6",
            "subject": "Algebra",
            "level": 3,
            "unique_id": "test/algebra/1.json",
        },
        "math",
        SIX,
        SEVEN,
    ),
    "aime in capitals": (
        {"ID": "2024-I-1", "Problem": "Find it.", "Solution": "Words.", "Answer": 6},
        "math",
        SIX,
        SEVEN,
    ),
    "aime": (
        {
            "id": 60,
            "problem": "Find it.",
            "solution": "Words.",
            "answer": "006",
            "url": "u",
            "year": "2024",
        },
        "math",
        SIX,
        SEVEN,
    ),
    "aime of questions": ({"question": "Find it.", "answer": "6"}, "plain", SIX, SEVEN),
    "aime of solutions": (
        {"problem": "Find it.", "solution": "\\boxed{006}", "url": "u"},
        "math",
        SIX,
        SEVEN,
    ),
    "amc": ({"id": 0, "problem": "Find it.", "answer": 6.0, "url": "u"}, "math", SIX, SEVEN),
    "olympiadbench": (
        {
            "id": 1,
            "subfield": "Algebra",
            "context": None,
            "question": "How many?",
            "solution": ["Long."],
            "final_answer": ["$6$"],
            "is_multiple_answer": False,
            "unit": None,
        },
        "olympiadbench",
        SIX,
        SEVEN,
    ),
    "a story in front": (
        {
            "Body": "There are 2 boxes of 3.",
            "Question": "How many?",
            "Answer": 6.0,
            "Type": "Product",
        },
        "plain",
        SIX,
        SEVEN,
    ),
    "verl": (
        {
            "data_source": "gsm8k",
            "prompt": [{"role": "user", "content": "2 * 3?"}],
            "ability": "math",
            "reward_model": {"style": "rule", "ground_truth": "6"},
            "extra_info": {"index": 0},
        },
        "verl",
        SIX,
        SEVEN,
    ),
    "verl with a list in a text": (
        {
            "prompt": [{"role": "user", "content": "2 * 3?"}],
            "ability": "math",
            "reward_model": {"style": "rule", "ground_truth": '["6"]'},
        },
        "verl",
        SIX,
        SEVEN,
    ),
    "verl with a program": (
        {
            "prompt": [{"role": "user", "content": "Double it."}],
            "ability": "code",
            "reward_model": {"style": "rule", "ground_truth": _json(STREAMS)},
        },
        "verl",
        *DOUBLE,
    ),
    "ground_truth": ({"prompt": "2 * 3?", "ground_truth": "6"}, "plain", SIX, SEVEN),
    "target": ({"input": "2 * 3?", "target": 6.0}, "plain", SIX, SEVEN),
    "expected_answer": ({"problem": "2 * 3?", "expected_answer": "6"}, "plain", SIX, SEVEN),
    "a solution that is the answer": ({"prompt": "2 * 3?", "solution": "6"}, "plain", SIX, SEVEN),
    "messages": (
        {
            "messages": [
                {"role": "system", "content": "Be brief."},
                {"role": "user", "content": [{"type": "text", "text": "2 * 3?"}]},
            ],
            "answer": "6",
        },
        "plain",
        SIX,
        SEVEN,
    ),
    "an answer in words": (
        {"question": "2 * 3?", "answer": "The answer is: 6"},
        "plain",
        SIX,
        SEVEN,
    ),
    "choices": (
        {"question": "2 * 3?", "subject": "sums", "choices": ["5", "6", "7", "8"], "answer": 1},
        "choices",
        BOX.format("B"),
        BOX.format("C"),
    ),
    "options that have letters": (
        {"question": "2 * 3?", "options": ["A)5", "B)6", "C)7"], "rationale": "r", "correct": "B"},
        "choices",
        BOX.format("B"),
        BOX.format("A"),
    ),
    "choices with labels": (
        {
            "question": "2 * 3?",
            "choices": {"text": ["5", "6"], "label": ["A", "B"]},
            "answerKey": "B",
        },
        "choices",
        BOX.format("B"),
        BOX.format("A"),
    ),
    "humaneval": (
        {
            "task_id": "x/0",
            "prompt": 'def add(a: int, b: int) -> int:\n    """Adds."""\n',
            "entry_point": "add",
            "canonical_solution": "    return a + b\n",
            "test": CHECKED,
        },
        "humaneval",
        *ADD,
    ),
    "mbpp": (
        {
            "text": "Write add.",
            "code": "def add(a, b):\n    return a + b",
            "task_id": 1,
            "test_setup_code": "",
            "test_list": ["assert add(1, 2) == 3", "assert add(2, 2) == 4"],
            "challenge_test_list": [],
        },
        "mbpp",
        *ADD,
    ),
    "mbpp, sanitized": (
        {
            "prompt": "Write add.",
            "code": "def add(a, b):\n    return a + b",
            "task_id": 1,
            "test_imports": ["import math"],
            "test_list": ["assert add(1, math.floor(2.5)) == 3"],
        },
        "mbpp",
        *ADD,
    ),
    "mbpp with set-up": (
        {
            "text": "Write add.",
            "code": "",
            "test_setup_code": "K = 2",
            "test_list": ["assert add(1, K) == 3"],
        },
        "mbpp",
        *ADD,
    ),
    "apps": (
        {
            "problem_id": 1,
            "question": "Double it.",
            "solutions": _json(["print(2 * int(input()))"]),
            "input_output": _json(STREAMS),
            "difficulty": "interview",
            "starter_code": "",
        },
        "apps",
        *DOUBLE,
    ),
    "apps with a function": (
        {
            "question": "Add them.",
            "solutions": "",
            "input_output": _json(ADDED),
            "starter_code": "",
        },
        "apps",
        *ADD,
    ),
    "apps with wrapped outputs": (
        {"question": "Add them.", "input_output": _json(ADDED | {"outputs": [[3], [7]]})},
        "apps",
        *ADD,
    ),
    "taco with a class": (
        {
            "question": "Add them.",
            "input_output": _json(ADDED),
            "starter_code": "class Solution:\n    def add(self, a, b):",
        },
        "apps",
        FENCE.format("class Solution:\n    def add(self, a, b):\n        return a + b"),
        FENCE.format("class Solution:\n    def add(self, a, b):\n        return b"),
    ),
    "livecodebench": (
        {
            "question_title": "Double",
            "question_content": "Double it.",
            "platform": "p",
            "starter_code": "",
            "difficulty": "easy",
            "metadata": "{}",
            "public_test_cases": _json([{"input": "3\n", "output": "6\n", "testtype": "stdin"}]),
            "private_test_cases": _json([{"input": "5\n", "output": "10\n", "testtype": "stdin"}]),
        },
        "livecodebench",
        *DOUBLE,
    ),
    "livecodebench with a method": (
        {
            "question_content": "Add.",
            "starter_code": "class Solution:\n    def add(self, a, b):\n",
            "metadata": _json({"func_name": "add"}),
            "public_test_cases": _json(
                [{"input": "1\n2", "output": "3", "testtype": "functional"}]
            ),
            "private_test_cases": "",
        },
        "livecodebench",
        FENCE.format("class Solution:\n    def add(self, a, b):\n        return a + b"),
        FENCE.format("class Solution:\n    def add(self, a, b):\n        return b"),
    ),
    "livecodebench, pickled": (
        {
            "question_content": "Double it.",
            "metadata": "{}",
            "public_test_cases": _json([{"input": "3\n", "output": "6\n", "testtype": "stdin"}]),
            "private_test_cases": base64.b64encode(zlib.compress(pickle.dumps("[]"))).decode(),
        },
        "livecodebench",
        *DOUBLE,
    ),
    "tests": ({"question": "Write add.", "tests": ["assert add(1, 2) == 3"]}, "tests", *ADD),
    "tests of streams": ({"prompt": "Double it.", "tests": STREAMS}, "tests", *DOUBLE),
}
CODE = {name for name, (_, _, right, _) in ROWS.items() if "```" in right}
