"""Where a reference stands in a cell, by stated rules; what none finds is no reference."""

import decimal

import pytest

from deepwright.tasks.references import reference

FOUND = [
    # numbers and lists of one
    (6, "6"),
    (6.0, "6"),
    (0.5, "0.5"),
    (1e-7, "0.0000001"),
    (decimal.Decimal("2.50"), "2.50"),
    (10**30, "1" + "0" * 30),
    (True, "True"),
    (["$6$"], "$6$"),
    ([6, "6"], "6"),
    (("6", None), "6"),
    ('["\\\\frac{1}{2}"]', "\\frac{1}{2}"),
    ("['2']", "2"),
    (r"['\\frac{1}{2}']", r"\frac{1}{2}"),
    ("<think>6? No.</think> <answer>5</answer>", "5"),
    ("<answer> \\boxed{5} </answer>", "5"),
    # boxes
    ("Thus $y = 4$ and then $x = \\boxed 9$, since $x - y = 5$.", "9"),
    ("... the answer is $\\boxed 2$.", "2"),
    ("\\boxed {\\frac13}", "\\frac13"),
    ("\\fbox{7}", "7"),
    ("\\boxed{3}? No: \\boxed{\\frac{x}{2}}.", "\\frac{x}{2}"),
    ("#### Conclusion\nso $\\boxed{5}$", "5"),
    ("\\boxed x", "x"),
    ("so \\boxed{12} dollars", "12"),
    # behind ####
    ("3*400=1200\n#### 1,200", "1,200"),
    ("5 * 3 = 15\n#### 15 dollars", "15"),
    ("#### 16\nThe answer is 16", "16"),
    ("so\n#### 1 200", "1200"),
    ("so\n#### 1 200 apples", "1200"),
    ("so\n#### Paris", "Paris"),
    ("#### 5%", "5%"),
    ("#### -3\n", "-3"),
    # behind "the answer is"
    ("The answer is: 5", "5"),
    ("The answer is 3.5.", "3.5"),
    ("**Answer:** B. Because it is", "B"),
    ("ANSWER = 7", "7"),
    ("First 6. The final answer is $\\frac{1}{2}$. I hope it is correct.", "$\\frac{1}{2}$"),
    ("答案是：12。", "12"),
    # the text itself
    ("5", "5"),
    (" 5 ", "5"),
    ("$18", "$18"),
    ("15 dollars", "15 dollars"),
    ("9 (apples)", "9"),
    ("x^2+10x", "x^2+10x"),
    ("yes.", "yes"),
    ("1 200", "1200"),
    ("x = 5", "x = 5"),
    ("Paris", "Paris"),
    ("Gabriel García Márquez", "Gabriel García Márquez"),
    ("\\infty", "\\infty"),
    ("\\begin{pmatrix} 1 \\\\ 2 \\end{pmatrix}", "\\begin{pmatrix} 1 \\\\ 2 \\end{pmatrix}"),
    ("北京", "北京"),
    ("(3, \\frac{\\pi}{2})", "(3, \\frac{\\pi}{2})"),
    ("\\text{even}", "\\text{even}"),
    ("2 or 3", "2 or 3"),
]
NONE = [
    None,
    "",
    " ",
    [],
    {},
    {"a": 1},
    b"6",
    float("nan"),
    float("inf"),
    ["1", "2"],
    [[6]],
    object(),
    "He has 5 apples left.",
    "Thus x is five, since y is four.",
    "Water boils at one hundred degrees.",
    "#### Conclusion\nSo it is 5",
    "The answer is that he has five apples and three pears left",
    "They are equal",
    "We get x = 5",
    "#### ",
    "\\boxed{}",
    "\\boxed{",
    "def f():\n    return 1",
    "import math\nprint(math.pi)",
    "class Solution:\n    pass",
    '{"answer": 3}',
    "['2', '3']",
    "['2",
    "['2' + '3']",
    "proof",
    "notfound",
    "N/A",
    "-",
    "?",
    "x" * 500,
    "Long. " * 60,
    "so it goes " * 3,
]


def references_hold():
    for cell, answer in FOUND:
        assert reference(cell) == answer, cell
    for cell in NONE:
        with pytest.raises(ValueError, match="answer") as caught:
            reference(cell)
        assert len(str(caught.value)) < 200, cell


def test_references_stand_where_the_rules_say():
    references_hold()


def test_no_text_is_slow():
    """Linear in the length: a megabyte of each takes a moment."""
    for piece in ("\\boxed{", "#### ", "the answer is ", "5 ", ". ", "(", "1 000", "\n", "* "):
        with pytest.raises(ValueError, match="no answer"):
            reference(piece * (1_000_000 // len(piece)))
