"""Local files: layouts, splits, rows left out, and each row's own check."""

import json
import time
import warnings

import pytest

from deepwright.files import read_rows
from deepwright.tasks import Verdict, make_task, score_all
from deepwright.tasks.layouts import read_row


@pytest.fixture
def write(tmp_path):
    def write(rows, name="rows.jsonl"):
        (tmp_path / name).write_text("".join(json.dumps(row) + "\n" for row in rows))
        return f"file:{tmp_path / name}"

    return write


GSM8K = {
    "question": "Tom has 3 boxes of 400. How many?",
    "answer": "3*400=<<3*400=1200>>1200\n#### 1,200",
}
MATH = {
    "problem": "Solve.",
    "level": "Level 5",
    "type": "Algebra",
    "solution": r"It is \boxed{3}? No: $\boxed{\frac{x}{2}}$.",
}
AIME = {"ID": "2024-I-1", "Problem": "Find it.", "Solution": "Long. " * 60, "Answer": 204}
MBPP = {"text": "Add one.", "code": "def f(x): return x + 1", "test_list": ["assert f(1) == 2"]}
CHAT = {
    "messages": [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "What is 2 + 2?"},
    ],
    "answer": "4",
}


@pytest.mark.parametrize(
    "row, question, answer, kind",
    [
        (GSM8K, GSM8K["question"], "1,200", "all"),
        (MATH, "Solve.", r"\frac{x}{2}", "level Level 5"),
        (AIME, "Find it.", "204", "all"),
        (MBPP, "Add one.", MBPP["code"], "all"),
        (CHAT, "What is 2 + 2?", "4", "all"),
        (
            {"prompt": "Capital?", "answer": "Paris", "difficulty": 3},
            "Capital?",
            "Paris",
            "difficulty 3",
        ),
        ({"prompt": [{"role": "user", "content": "2?"}], "solution": "2"}, "2?", "2", "all"),
        ({"prompt": "zero?", "answer": 0}, "zero?", "0", "all"),
    ],
)
def test_layouts(row, question, answer, kind):
    problem = read_row(row)
    assert (problem.prompt, problem.answer, problem.kind) == (question, answer, kind)


@pytest.mark.parametrize(
    "row, said",
    [
        ({"prompt": "?"}, "no answer"), ({"prompt": "?", "answer": None}, "no answer"), ({"prompt": "?", "answer": " "}, "no answer"),
        ({"answer": "1"}, "no question"),
        ({"prompt": "?", "answer": [1, 2]}, "no answer"), ({"problem": "?", "solution": "Long. " * 60}, "no answer"),
        ({"prompt": "?", "tests": ["f(1) < 2"]}, "asserts nothing"),
        ({"messages": [{"role": "assistant", "content": "4"}], "answer": "4"}, "role 'assistant'"), ({"prompt": 3, "answer": "1"}, "no question"),
    ],
)  # fmt: skip
def test_rows_that_cannot_be_used(row, said):
    with pytest.raises(ValueError, match=said):
        read_row(row)


def test_rows_without_answer_are_counted_and_named(write):
    rows = [{"prompt": f"{n}?", "answer": str(n)} for n in range(60)] + [
        {"prompt": "a?"},
        {"prompt": "b?", "answer": ""},
    ]
    task = make_task(write(rows))
    with pytest.warns(
        UserWarning, match="2 rows are left out. line 61: no answer.*; line 62: no answer"
    ):
        sizes = task.size("train"), task.size("held_out")
    assert sum(sizes) == 60 and sizes[1] > 0


def test_the_split_is_by_the_question_alone(write):
    rows = [{"prompt": f"{n}?", "answer": str(n)} for n in range(200)]
    sides = []
    for order in (rows, rows[::-1], rows + rows[:50]):
        task = make_task(write(order), held_out_of=4)
        sides.append(
            {
                split: {task.problem(i, split).prompt for i in range(task.size(split))}
                for split in ("train", "held_out")
            }
        )
    assert sides[0] == sides[1] == sides[2] and not sides[0]["train"] & sides[0]["held_out"]
    assert 25 < len(sides[0]["held_out"]) < 80  # 50 expected, standard deviation 6


def test_examples_are_shown_and_never_asked(write):
    task = make_task(write([{"prompt": f"{n}?", "answer": str(n)} for n in range(60)]), examples=2)
    problem = task.problem(0, "train")
    shown = {
        turn["content"].partition("\n")[0]
        for turn in problem.messages[:-1]
        if turn["role"] == "user"
    }
    assert len(shown) == 2 and not shown & {
        task.problem(i, split).prompt
        for split in ("train", "held_out")
        for i in range(task.size(split))
    }


def test_a_conversation_keeps_its_turns(write):
    rows = [
        CHAT
        | {
            "messages": [*CHAT["messages"][:1], {"role": "user", "content": f"What is 2 + {n}?"}],
            "answer": str(2 + n),
        }
        for n in range(40)
    ]
    task = make_task(write(rows))
    assert [turn["role"] for turn in task.problem(0, "train").messages] == ["system", "user"]
    assert (
        task.problem(0, "train")
        .messages[1]["content"]
        .endswith("\nPut the final answer in \\boxed{}.")
    )


def test_parquet(tmp_path):
    pyarrow, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    rows = [{"question": f"{n} boxes of 2?", "answer": f"so\n#### {2 * n}"} for n in range(60)]
    parquet.write_table(pyarrow.Table.from_pylist(rows), tmp_path / "rows.parquet")
    task = make_task(f"file:{tmp_path / 'rows.parquet'}")
    problem = task.problem(0, "held_out")
    assert task.score(problem, f"\\boxed{{{problem.answer}}}").verdict is Verdict.CORRECT
    (tmp_path / "cut.parquet").write_bytes((tmp_path / "rows.parquet").read_bytes()[:200])
    with pytest.raises(ValueError, match="not a Parquet file"):
        list(read_rows(tmp_path / "cut.parquet"))


@pytest.mark.parametrize(
    "text, said",
    [
        ("{", "line 1: not JSON"),
        ('{"prompt": "?"}\n[1]', "line 2: expected a JSON object"),
        ("", "there are no rows in it"),
        ('{"prompt": "\\ud800"}', "line 1: not JSON"),
        ("\udcff{}", "line 1: not JSON"),
    ],
)
def test_damaged_files(tmp_path, text, said):
    (tmp_path / "x.jsonl").write_text(
        text, errors="surrogateescape"
    )  # the last: a byte that is no UTF-8
    with pytest.raises(ValueError, match=said):
        make_task(f"file:{tmp_path / 'x.jsonl'}").size("train")
    with pytest.raises(ValueError, match=r"expected a \.jsonl, \.json or \.parquet"):
        list(read_rows(tmp_path / "x.csv"))
    with pytest.raises(FileNotFoundError):
        list(read_rows(tmp_path / "gone.jsonl"))


def scores(task, problem, answers):
    return [
        score.verdict
        for score in score_all(
            task, [problem] * len(answers), [f"so \\boxed{{{answer}}}" for answer in answers]
        )
    ]


RIGHT, WRONG, FAILED = Verdict.CORRECT, Verdict.WRONG, Verdict.FAILED
HANGS = " + ".join(  # two seconds each
    rf"\sum_{{k=1}}^{{n}} k^{{{power}}}" for power in range(99990, 100000)
)


def test_maths_by_math_verify(write):
    pytest.importorskip("math_verify", reason="the extra `tasks` is not installed")
    rows = [
        {"problem": f"Expand $(x+{n})^2 - {n * n}$.", "solution": f"\\boxed{{x^2+{2 * n}x}}"}
        for n in range(2, 40)
    ]
    file = write(rows)
    task = make_task(file, seconds=60.0)
    problem = next(
        p for i in range(task.size("train")) if (p := task.problem(i, "train")).answer == "x^2+10x"
    )
    answers = [
        "x^2+10x",
        "x(x+10)",
        "10x + x^2",
        "x^2+11x",
        "(x+5)^2 - 25",
        "x^2+10x or 7",
        "\\text{nothing}",
        "7x^2+10x7",
    ]
    assert scores(task, problem, answers) == [
        RIGHT,
        RIGHT,
        RIGHT,
        WRONG,
        WRONG,
        WRONG,
        WRONG,
        WRONG,
    ]
    task = make_task(file, seconds=2.0)
    start = time.monotonic()
    assert scores(task, problem, [HANGS, "x(x+10)", "9^{9^{9}}", "x^2+10x", "99999999!!!"]) == [
        FAILED,
        RIGHT,
        WRONG,
        RIGHT,
        WRONG,
    ]
    assert time.monotonic() - start < 20


def test_numbers_and_words_need_no_package(write, monkeypatch):
    import importlib.util

    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    task = make_task(
        write(
            [{"prompt": f"{n} dollars?", "answer": str(n)} for n in range(30)]
            + [{"prompt": f"City {n}?", "answer": "Paris"} for n in range(30)]
        )
    )
    number = next(p for i in range(60) if (p := task.problem(i, "train")).answer == "12")
    words = next(p for i in range(60) if (p := task.problem(i, "train")).answer == "Paris")
    assert (
        scores(task, number, ["12", "12.0", r"12\text{ dollars}", "121", "6 + 6", "12 or 13"])
        == [RIGHT] * 3 + [WRONG] * 3
    )
    assert (
        scores(
            task, words, ["Paris", "paris.", r"\text{Paris}", "Pairs", "not Paris", "Paris or Rome"]
        )
        == [RIGHT] * 3 + [WRONG] * 3
    )
    with pytest.raises(
        ValueError, match=r"neither numbers nor words needs the package 'math-verify'"
    ):
        make_task(write([{"prompt": f"{n}?", "answer": "x^2"} for n in range(60)])).size("train")


@pytest.mark.usefixtures("confined")
def test_code_rows_are_judged_in_the_sandbox(write):
    rows = [
        {
            "text": f"Write f(x) that adds {n}.",
            "code": f"def f(x): return x + {n}",
            "test_list": [f"assert f(1) == {1 + n}"],
        }
        for n in range(30)
    ]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        task = make_task(write(rows))
        problem = task.problem(0, "train")
    fence = "```python\n{}\n```"
    assert scores(
        task, problem, [fence.format(problem.answer), fence.format("def f(x): return x - 1")]
    ) == [RIGHT, WRONG]


def test_code_is_refused_where_nothing_confines_it(write, monkeypatch):
    from deepwright.tasks import sandbox

    monkeypatch.setattr(sandbox, "confinement", lambda: "")
    rows = [
        {"text": f"{n}", "code": "f = abs", "test_list": ["assert f(1) == 1"]} for n in range(60)
    ]
    with pytest.raises(ValueError, match="code cannot be judged here"):
        make_task(write(rows)).size("train")
