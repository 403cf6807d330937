"""The program in an answer, fenced in every way that models have of doing so."""

import time

import pytest

from deepwright.tasks.fences import blocks, program_of


@pytest.mark.parametrize(
    "answer, program",
    [
        ("```python\na\n``` or\n```py\nb\n```", "b\n"),
        ("x = 1", "x = 1"),
        ("Here:\n```python3\na\n```\nDone.", "a\n"),
        ("```Python\na\n```", "a\n"),
        ("```\na\n```", "a\n"),
        ("~~~python\na\n~~~", "a\n"),
        ("~~~\n```\na\n~~~", "```\na\n"),
        ("````python\n```\na\n````", "```\na\n"),
        ("1. So:\n   ```python\n   if x:\n       a\n   ```", "if x:\n    a\n"),
        ("```{.python .numberLines}\na\n```", "a\n"),
        ('```python title="x.py"\na\n```', "a\n"),
        ("```python3.11\na\n```", "a\n"),
        ("```py\na\n```\nOutput:\n```\n3\n```", "a\n"),
        ("```python\na\n```\n```bash\npython a.py\n```", "a\n"),
        ("```python\na\n```\n```text\n3\n```", "a\n"),
        ("```\nold\n```\n```\nnew\n```", "new\n"),
        ("```python\na\nb", "a\nb"),
        ("It is ```python\na\n```", "a\n"),
        ("Use ```x``` here\n```py\na\n```", "a\n"),
        ("<code>a</code>", "<code>a</code>"),
        ("```javascript\na\n```", "a\n"),
        ("```pytorch\nx\n```\n```py\na\n```", "a\n"),
        ("``` python\na\n```", "a\n"),
        ("```python\r\na\r\n```\r\n", "a\r\n"),
        ("```python\n```", ""),
        ("`a`", "`a`"),
        ("```py\na\n```\n```python\nb", "b"),
    ],
)
def test_the_last_python_block_is_the_program(answer, program):
    assert program_of(answer) == program


@pytest.mark.parametrize(
    "shown",
    ["print(f(2))", "x = f(2)\nassert x == 4", "from program import f\nf(1)", "g = f", "f(2) == 4"],
)
def test_an_example_of_its_use_behind_the_program_is_not_the_program(shown):
    answer = f"```python\ndef f(x):\n    return x\n```\nUse it:\n```python\n{shown}\n```"
    assert program_of(answer, ("Solution", "f")) == "def f(x):\n    return x\n"
    assert program_of(answer) == shown + "\n"


@pytest.mark.parametrize(
    "code",
    ["def f(x):\n    0", "async def f(x):\n    0", "class f:\n    0", "f = abs", "f: int = 0"],
)
def test_of_two_programs_the_last_counts(code):
    first = "def f(x):\n    return 1"
    answer = f"```python\n{first}\n```\nBetter:\n```python\n{code}\n```\n```\n4\n```"
    assert program_of(answer, ("f",)) == code + "\n"


def test_blocks_are_found_in_linear_time():
    begun = time.process_time()
    assert len(list(blocks("```\n" * 100_001))) == 50_001
    for hostile in ("`" * 10**6, "~~ `" * 250_000, "```a" * 250_000, "``` ~~~" * 100_000):
        program_of(hostile)
    assert time.process_time() - begun < 5
