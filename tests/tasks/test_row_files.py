"""Which files a path means, whose rows they must be, and how they are split or asked whole."""

import gzip
import json

import pytest

from deepwright.files import read_rows
from deepwright.tasks import Verdict, make_task
from deepwright.tasks.layouts import BENCHMARKS
from deepwright.tasks.row_files import files_of
from tests.tasks.published_rows import ROWS

pytestmark = pytest.mark.usefixtures("anywhere")
AIME = [{"ID": f"2024-I-{n}", "Problem": f"Find {n}.", "Answer": 100 + n} for n in range(30)]
GSM8K = [{"question": f"{n} and {n}?", "answer": f"so\n#### {2 * n}"} for n in range(30)]
MATH = [
    {"problem": f"Half of {n}?", "level": "Level 1", "solution": f"\\boxed{{{n}/7}}"}
    for n in range(30)
]


def write(path, rows):
    path.parent.mkdir(parents=True, exist_ok=True)
    text = "".join(json.dumps(row) + "\n" for row in rows).encode()
    path.write_bytes(gzip.compress(text) if path.suffix == ".gz" else text)
    return path


def refusal(name, path):
    """Why the rows of a file are not taken, or ''."""
    try:
        return "" if make_task(f"{name}:{path}", held_out_of=1).size("held_out") else "none"
    except ValueError as error:
        return str(error)


# ---- asked whole, or split


def every_row_is_asked(folder):
    """With held_out_of = 1 a file has no side to train on, however small it is."""
    for rows in (AIME, AIME[:3], AIME[:1]):
        path = write(folder / "aime.jsonl", rows)
        assert refusal("file", path) == ""
        task = make_task(f"file:{path}", held_out_of=1)
        asked = [task.problem(i, "held_out").answer for i in range(task.size("held_out"))]
        assert asked == [str(row["Answer"]) for row in rows] and task.size("train") == 0


def test_every_row_of_a_file_is_asked(tmp_path):
    every_row_is_asked(tmp_path)
    task = make_task(f"file:{tmp_path / 'aime.jsonl'}", held_out_of=1)
    with pytest.raises(ValueError, match="has no train problems"):
        task.problem(0, "train")


def test_examples_of_a_whole_file_are_shown_and_not_asked(tmp_path):
    task = make_task(f"file:{write(tmp_path / 'a.jsonl', AIME)}", held_out_of=1, examples=2)
    problem = task.problem(0, "held_out")
    assert task.size("held_out") == 28 and problem.answer == "102"
    assert [turn["role"] for turn in problem.messages] == ["user", "assistant"] * 2 + ["user"]
    assert problem.messages[1]["content"] == "Answer: \\boxed{100}"


def test_examples_of_programs_stand_in_a_block(tmp_path):
    rows = [ROWS["mbpp"][0] | {"text": f"Write add, {n}."} for n in range(3)]
    task = make_task(f"file:{write(tmp_path / 'a.jsonl', rows)}", held_out_of=1, examples=1)
    _, shown, _ = task.problem(0, "held_out").messages
    assert shown["content"] == "```python\ndef add(a, b):\n    return a + b\n```"


def test_a_file_too_small_to_split_is_refused_with_what_to_do(tmp_path):
    path = write(tmp_path / "a.jsonl", AIME[:3])
    with pytest.raises(ValueError, match="its 3 usable rows .* smaller held_out_of, or let eval"):
        make_task(f"file:{path}").size("train")
    with pytest.raises(ValueError, match="its 3 usable rows without the 3 shown leave none to ask"):
        make_task(f"file:{path}", held_out_of=1, examples=3).size("held_out")
    with pytest.raises(ValueError, match="held_out_of is 0, expected at least 1"):
        make_task(f"file:{path}", held_out_of=0)


def test_a_file_of_which_nothing_fits_says_what_to_rename(tmp_path):
    path = write(tmp_path / "a.jsonl", [{"ask": f"{n}?", "reply": n} for n in range(40)])
    said = "none of its 40 rows can be used. line 1 and 39 more: no question: rename the column of"
    with pytest.raises(ValueError, match=said) as caught:
        make_task(f"file:{path}", held_out_of=1).size("held_out")
    assert len(str(caught.value)) < 800


# ---- benchmarks by name

OF_NAME = {
    "aime": ["aime", "aime in capitals", "aime of questions", "aime of solutions"],
    "amc": ["amc", "aime"],
    "apps": ["apps", "apps with a function"],
    "taco": ["taco with a class"],
    "dapo": ["verl", "verl with a list in a text"],
    "verl": ["verl", "verl with a program"],
    "gsm8k": ["gsm8k", "gsm8k with a unit"],
    "math": ["math", "math500"],
    "math500": ["math500"],
    "humaneval": ["humaneval"],
    "mbpp": ["mbpp", "mbpp, sanitized"],
    "olympiadbench": ["olympiadbench"],
    "livecodebench": ["livecodebench", "livecodebench with a method"],
}


def names_hold(
    folder, names=tuple(BENCHMARKS), others=("mbpp", "humaneval", "gsm8k", "verl", "choices")
):
    """Every benchmark takes its rows, and none those of a set with other columns."""
    for name in names:
        own = write(folder / "own.jsonl", [ROWS[one][0] for one in OF_NAME[name]])
        assert refusal(name, own) == "", name
        for other in others:
            if other not in BENCHMARKS[name].layouts:
                said = refusal(name, write(folder / "other.jsonl", [ROWS[other][0]]))
                assert f"is not {name}, expected" in said and f"the layout {other}" in said, name
                assert len(said) < 800


def test_a_benchmark_takes_its_rows_and_no_others(tmp_path):
    names_hold(tmp_path)


def test_an_aime_answer_is_a_whole_number_up_to_999(tmp_path):
    with pytest.raises(
        ValueError, match="is not aime, .* of its 30 usable rows 25 are others. line 2.*1/7"
    ):
        make_task(f"aime:{write(tmp_path / 'math.jsonl', MATH)}", held_out_of=1).size("held_out")


def test_one_damaged_row_does_not_make_it_another_set(tmp_path):
    rows = [*GSM8K, {"question": "?", "answer": "6"}]
    with pytest.warns(UserWarning, match="1 row is left out. line 31: .* layout plain"):
        assert (
            make_task(f"gsm8k:{write(tmp_path / 'a.jsonl', rows)}", held_out_of=1).size("held_out")
            == 30
        )


def test_a_name_that_is_none_lists_those_there_are():
    with pytest.raises(
        ValueError, match="task is 'aimee:x.jsonl', expected .*'file:PATH'.* aime, amc"
    ):
        make_task("aimee:x.jsonl")
    with pytest.raises(ValueError, match=r"; did you mean file:my/aime.jsonl\?$"):
        make_task("my/aime.jsonl")
    with pytest.raises(ValueError, match="option 'benchmark' of task"):
        make_task("aime:x.jsonl", benchmark="gsm8k")


# ---- files and folders


@pytest.mark.parametrize(
    "files, held_out, train",
    [
        (["train.jsonl", "test.jsonl", "README.md"], ["test.jsonl"], ["train.jsonl"]),
        (
            ["data/train-00000-of-00001.parquet"],
            ["data/train-00000-of-00001.parquet"],
            ["data/train-00000-of-00001.parquet"],
        ),
        (
            ["data/HumanEval.jsonl.gz", "dataset_infos.json"],
            ["data/HumanEval.jsonl.gz"],
            ["data/HumanEval.jsonl.gz"],
        ),
        (
            [
                "a/test-00000-of-00002.parquet",
                "a/test-00001-of-00002.parquet",
                "a/train-00000-of-00001.parquet",
            ],
            ["a/test-00000-of-00002.parquet", "a/test-00001-of-00002.parquet"],
            ["a/train-00000-of-00001.parquet"],
        ),
        (["test/a.jsonl", "train/a.jsonl"], ["test/a.jsonl"], ["train/a.jsonl"]),
        ([".cache/test.jsonl", "x_test.json"], ["x_test.json"], ["x_test.json"]),
    ],
)
def test_a_folder_as_cloned_stands_for_the_split_that_is_asked(files, held_out, train, tmp_path):
    for name in files:
        write(tmp_path / name, AIME)
    assert files_of(tmp_path, "held_out") == [tmp_path / name for name in held_out]
    assert files_of(tmp_path, "train") == [tmp_path / name for name in train]


@pytest.mark.parametrize(
    "files, said",
    [
        (
            ["main/test-00000-of-00001.parquet", "socratic/test-00000-of-00001.parquet"],
            "name one of them: main/test-.*, socratic/test-",
        ),
        (
            ["test.jsonl", "test2.jsonl", "train.jsonl"],
            "name one of them: test.jsonl, test2.jsonl$",
        ),
        (["a.jsonl", "b.jsonl"], "several files, name one of them: a.jsonl, b.jsonl$"),
        ([f"{n}.jsonl" for n in range(20)], "and 12 more$"),
        (["README.md"], "holds no .jsonl"),
        ([], "holds no .jsonl"),
        (["test-00000-of-00002.parquet"], "1 of its 2 shards are there"),
    ],
)
def test_what_a_folder_leaves_open_is_listed(files, said, tmp_path):
    for name in files:
        write(tmp_path / name, AIME)
    with pytest.raises(ValueError, match=said) as caught:
        files_of(tmp_path, "held_out")
    assert len(str(caught.value)) < 800


def test_rows_of_shards_and_of_a_packed_file_are_all_read(tmp_path):
    write(tmp_path / "set" / "test-00000-of-00002.jsonl", AIME[:20])
    write(tmp_path / "set" / "test-00001-of-00002.jsonl", [{"id": 1}, *AIME[20:]])
    task = make_task(f"aime:{tmp_path / 'set'}", held_out_of=1)
    with pytest.warns(
        UserWarning, match="1 row is left out. test-00001-of-00002.jsonl, line 1: no question"
    ):
        assert task.size("held_out") == 30
    packed = make_task(f"aime:{write(tmp_path / 'aime.jsonl.gz', AIME)}", held_out_of=1)
    problem = packed.problem(29, "held_out")
    assert packed.score(problem, "so \\boxed{129}").verdict is Verdict.CORRECT


def test_a_file_that_is_not_whole_is_one_sentence(tmp_path):
    path = write(tmp_path / "a.jsonl.gz", AIME)
    whole = path.read_bytes()
    for content in (whole[: len(whole) // 2], b"no gzip", whole[:-9] + b"\0" * 9, b""):
        path.write_bytes(content)
        if content:
            with pytest.raises(ValueError, match="not a whole gzip file"):
                list(read_rows(path))
    (tmp_path / "b.parquet").write_bytes(
        b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n"
    )
    with pytest.raises(ValueError, match=r"b\.parquet is a pointer of Git LFS: `git lfs pull`"):
        list(read_rows(tmp_path / "b.parquet"))


def test_times_that_python_cannot_hold_leave_the_other_columns(tmp_path):
    pyarrow, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    far = pyarrow.array([9 * 10**18], pyarrow.timestamp("us"))
    fine = pyarrow.array([1234567891], pyarrow.timestamp("ns"))
    table = pyarrow.table({"question": ["?"], "answer": ["6"], "far": far, "fine": fine})
    parquet.write_table(table, tmp_path / "a.parquet")
    ((_, row),) = read_rows(tmp_path / "a.parquet")
    assert row == {"question": "?", "answer": "6", "far": None, "fine": None}
