"""Rows of other people's data files as problems: one table of layouts, and the benchmarks by name.

A row has the first layout whose columns it holds; where question, answer, tests and kind stand then
follows. Names of columns are compared without case, and a column that is null or empty is not
there. Left out: pictures, tools, answers that another model must judge.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from deepwright.refusals import quoted
from deepwright.tasks import code_rows
from deepwright.tasks.answers import number
from deepwright.tasks.choices import ask_with_choices, letter
from deepwright.tasks.references import reference
from deepwright.tasks.task import Problem

Row = Mapping[str, Any]
Turns = tuple[Mapping[str, str], ...]
QUESTIONS = "prompt question problem messages text query content input instruction"
ANSWERS = "answer final_answer ground_truth expected_answer solution target"
KINDS = "level difficulty kind type subject"
# What a question may be about, or what to do with it, in a column of its own.
BEFORE = ("instruction", "passage", "context", "body")
PICTURES = ("image", "images", "image_1", "decoded_image")
ROLES = ("system", "developer", "user", "assistant", "tool")
LONGEST_KIND = 60  # characters
UNREAD = "unread_tests"  # the column that says which tests of a row were left unread


def _reference(row: Row, cell: object) -> str:
    return reference(cell)


def _ground_truth(row: Row, cell: object) -> str:
    """Of programs verl keeps the cases there, which are no answer."""
    return "" if code_rows.verl(row) else reference(cell)


def _as_it_is(row: Row, question: str) -> str:
    return question


@dataclass(frozen=True)
class RowLayout:
    """Where a row keeps what: names of columns, of which the first that holds something counts.

    `told_by`: all of these are there; "a|b" is either. "a.b": what stands under b in a."""

    name: str
    told_by: str
    question: str = QUESTIONS
    answer: str = ANSWERS
    kind: str = KINDS
    mark: str = ""  # stands in the answer and tells it from others with the same columns
    tests: Callable[[Row], code_rows.Judged | None] = lambda row: None
    asked: Callable[[Row, str], str] = _as_it_is  # what the model is shown, from the question
    read: Callable[[Row, Any], str] = _reference  # the answer, from its cell

    def fits(self, row: Row) -> bool:
        told = [either.split("|") for either in self.told_by.split()]
        marked = not self.mark or self.mark in str(first(row, self.answer))
        return all(any(holds(row.get(name)) for name in names) for names in told) and marked


# fmt: off
LAYOUTS = (
    RowLayout("livecodebench", "question_content public_test_cases|private_test_cases",
              "question_content", "", "difficulty platform",
              tests=code_rows.livecodebench, asked=code_rows.ask_program, read=code_rows.program),
    RowLayout("apps", "question input_output", "question", "solutions",
              tests=code_rows.apps, asked=code_rows.ask_program, read=code_rows.program),
    RowLayout("humaneval", "prompt test entry_point|canonical_solution",
              "prompt", "canonical_solution",
              tests=code_rows.humaneval, asked=code_rows.ask_completion, read=code_rows.completed),
    RowLayout("mbpp", "test_list", "text prompt question problem", "code",
              tests=code_rows.mbpp, asked=code_rows.ask_by_tests, read=code_rows.program),
    RowLayout("tests", "tests", answer="code solution",
              tests=code_rows.plain, read=code_rows.program),
    RowLayout("verl", "prompt reward_model", "prompt", "reward_model.ground_truth",
              "data_source ability", tests=code_rows.verl, read=_ground_truth),
    RowLayout("olympiadbench", "question final_answer", "question", "final_answer",
              "subfield subject"),
    RowLayout("choices", "question|problem|prompt choices|options", "question problem prompt",
              "answer label correct answerkey", asked=ask_with_choices, read=letter),
    RowLayout("gsm8k", "question answer", "question", "answer", mark="####"),
    RowLayout("math", "problem solution|answer", "problem", "answer solution"),
    RowLayout("plain", f"{QUESTIONS.replace(' ', '|')} {ANSWERS.replace(' ', '|')}"),
)
# fmt: on


@dataclass(frozen=True)
class Benchmark:
    """A set that people have on disk: the layouts it comes in, and what its answers are."""

    layouts: tuple[str, ...]
    expected: str
    answers: Callable[[str], bool] = lambda answer: True


def _up_to_999(answer: str) -> bool:
    value = number(answer)
    return value is not None and value.denominator == 1 and 0 <= value <= 999


_PROGRAMS = Benchmark(("apps",), "question and input_output")
_MATH = Benchmark(("math",), "problem, and solution or answer")
_VERL = Benchmark(("verl",), "prompt, and reward_model with its ground_truth")
BENCHMARKS = {
    "aime": Benchmark(
        ("math", "plain"), "a problem and its answer, a whole number from 0 to 999", _up_to_999
    ),
    "amc": Benchmark(
        ("math", "plain"),
        "a problem and its answer, a number",
        lambda text: number(text) is not None,
    ),
    "apps": _PROGRAMS,
    "dapo": _VERL,
    "gsm8k": Benchmark(("gsm8k",), "question, and answer with ####"),
    "humaneval": Benchmark(("humaneval",), "prompt, entry_point and test"),
    "livecodebench": Benchmark(("livecodebench",), "question_content and public_test_cases"),
    "math": _MATH,
    "math500": _MATH,
    "mbpp": Benchmark(("mbpp",), "text or prompt, and test_list"),
    "olympiadbench": Benchmark(("olympiadbench",), "question and final_answer"),
    "taco": _PROGRAMS,
    "verl": _VERL,
}


def read_row(row: Mapping[str, Any]) -> Problem:
    """A row of any known layout as a problem of index 0, whose messages are all but the words that
    say how to answer; its other columns stay. ValueError saying what it lacks."""
    low = lowered(row)
    layout = layout_of(low)
    if picture := next((name for name in PICTURES if holds(low.get(name))), ""):
        raise ValueError(f"its question needs a picture (column {picture})")
    turns, question = _question(low, layout)
    judged = layout.tests(low)
    cell = first(low, layout.answer)
    answer = layout.read(low, cell) if judged is None or cell is not None else ""
    columns = {name: value for name, value in row.items() if name != "tests"}
    if judged:
        columns |= {"tests": judged.tests} | ({UNREAD: judged.unread} if judged.unread else {})
    shown = {"role": "user", "content": layout.asked(low, question)}
    return Problem(0, question, answer, _kind(low, layout), (*turns, shown), columns)


def layout_of(low: Row) -> RowLayout:
    """The first that fits. ValueError naming the columns found, and what to rename."""
    for layout in LAYOUTS:
        if layout.fits(low):
            return layout
    lacks, rename = "answer", "the reference answer (or of unit tests) to answer (or tests)"
    if first(low, QUESTIONS) is None:
        lacks, rename = "question", "the question to question"
    columns = [name if holds(value) else f"{name} (empty)" for name, value in low.items()]
    listed = ", ".join(quoted(column, 40) for column in columns[:12])
    raise ValueError(f"no {lacks}: rename the column of {rename}; it has {listed}")


def lowered(row: Mapping[str, Any]) -> Row:
    """Names of columns in lower case; of two that then are one, one that holds something."""
    low: dict[str, Any] = {}
    for name, value in row.items():
        key = str(name).lower()
        if key not in low or not holds(low[key]):
            low[key] = value
    return low


def holds(value: object) -> bool:
    """Not null and not empty; 0 and false are something."""
    if isinstance(value, str):
        return bool(value) and not value.isspace()
    return value is not None and not (isinstance(value, (list, dict, tuple)) and not value)


def first(row: Row, names: str) -> Any:
    """The first of these columns that holds something, else None."""
    for name in names.split():
        column, _, inner = name.partition(".")
        value = row.get(column)
        if inner:
            value = code_rows.decoded(value, column)
            value = value.get(inner) if isinstance(value, Mapping) else None
        if holds(value):
            return value
    return None


def _question(low: Row, layout: RowLayout) -> tuple[Turns, str]:
    """(turns before it, the question)."""
    found = first(low, layout.question)
    if isinstance(found, str):
        before = [low.get(name) for name in BEFORE]
        parts = [part.strip() for part in before if isinstance(part, str) and holds(part)]
        question = found.strip()
        return (), "\n".join([*(part for part in parts if part != question), question])
    if not isinstance(found, Sequence) or isinstance(found, bytes):
        raise ValueError(f"no question: {quoted(found, 60)} is neither a text nor messages")
    turns = [_turn(turn) for turn in found]
    if turns[-1]["role"] != "user":
        raise ValueError(f"its messages end with the role {turns[-1]['role']!r}, expected 'user'")
    return tuple(turns[:-1]), turns[-1]["content"].strip()


def _turn(turn: object) -> dict[str, str]:
    """OpenAI's message; its content is a text, or parts of type text."""
    role = turn.get("role") if isinstance(turn, Mapping) else None
    content = turn.get("content") if isinstance(turn, Mapping) else None
    if isinstance(content, list):
        parts = [part.get("text") if isinstance(part, Mapping) else None for part in content]
        content = "\n".join(parts) if all(isinstance(part, str) for part in parts) else None
    if role not in ROLES or not isinstance(content, str):
        raise ValueError(
            f"no question: {quoted(turn, 60)} is no message with a role and a text as content"
        )
    return {"role": role, "content": content}


def _kind(low: Row, layout: RowLayout) -> str:
    for name in layout.kind.split():
        value = low.get(name)
        if isinstance(value, (str, int)) and holds(value) and len(str(value)) <= LONGEST_KIND:
            return f"{name} {value}"
    return "all"
