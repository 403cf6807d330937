"""generate and eval on a saved model: the held-out problems are the run's."""

import dataclasses
import io
import json
import re

import pytest

from deepwright.cli import main
from deepwright.recipe import use
from deepwright.recipe.requests import EvalRequest, GenerateRequest
from deepwright.recipe.settings import TaskChoice
from deepwright.sampler import Sampling
from deepwright.tasks import Countdown
from tests.recipe.player import PROMPT, save_player, save_reader


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """An untrained model in a run folder's place for one."""
    place = tmp_path_factory.mktemp("run") / "zero" / "checkpoints" / "step-3"
    place.parent.mkdir(parents=True)
    return save_player(place)


def test_generate_gives_n_seeded_texts(folder):
    request = GenerateRequest(str(folder), PROMPT, n=3, max_tokens=8, threads=1)
    texts = list(use.generate_texts(request))
    assert len(texts) == 3 and texts == list(use.generate_texts(request))
    assert texts != list(use.generate_texts(dataclasses.replace(request, seed=1)))


def test_held_out_problems_are_those_of_the_run(folder):
    run = folder.parents[2]
    (run / "config.toml").write_text('[task]\nseed = 7\noptions = ["largest=9"]\n')
    for place in (folder, run):
        assert use.task_of(EvalRequest(str(place))) == Countdown(seed=7, largest=9)
        assert use.task_of(EvalRequest(str(place), task_seed=1)) == Countdown(seed=1, largest=9)
    assert use.task_of(EvalRequest(str(run.parent)), "countdown") == Countdown()


def test_eval_reads_as_usual_and_a_run_strictly(folder):
    asked = EvalRequest(str(folder.parents[3]))
    assert use.task_of(asked, "calc3").reading == "usual"
    assert use.task_of(dataclasses.replace(asked, reading="strict"), "calc3").reading == "strict"
    assert TaskChoice("calc3").judge().reading == "strict"  # what the stages of a recipe ask
    assert use.task_of(asked, "countdown") == Countdown()  # has one way alone


def test_eval_judges_by_the_task_s_own_check_whatever_the_run_paid(tmp_path):
    (tmp_path / "pay.py").write_text(
        "def pay(completions, **columns):\n    return [1.0] * len(completions)\n"
    )
    (tmp_path / "config.toml").write_text(
        f'[task]\nname = "countdown"\nseed = 7\nreward = "{tmp_path / "pay.py"}:pay"\n'
    )
    assert use.task_of(EvalRequest(str(tmp_path))) == Countdown(seed=7)


def test_eval_command_prints_figures_with_error_bars(folder, capsys):
    assert (
        main(
            [
                "eval",
                str(folder),
                "--problems",
                "3",
                "--samples",
                "4",
                "--max-tokens",
                "8",
                "--threads",
                "1",
            ]
        )
        == 0
    )
    out = capsys.readouterr().out
    assert "3 held-out problems of countdown, 4 samples each" in out and "(of 600)" in out
    assert (
        re.search(r"pass@1 +0\.\d{3}.* \(95%: 0\.\d{3} to [01]\.\d{3}\)", out) and "pass@4" in out
    )


def test_eval_command_prints_a_row_for_each_budget(folder, capsys):
    few = ["--problems", "3", "--samples", "4", "--max-tokens", "8", "--threads", "1"]
    assert main(["eval", str(folder), "--budgets", "2", "16", *few]) == 0
    heading, names, *rows = capsys.readouterr().out.splitlines()
    assert heading.startswith("3 held-out problems of countdown, 4 samples each")
    assert names.split() == ["budget", "pass@1", "cons@2", "cons@4", "length"]
    assert [row.split()[0] for row in rows] == ["2", "16"] and all(
        len(re.findall(r"0\.\d{3} (?:±|to) [01]\.\d{3}", row)) == 3 for row in rows
    )
    request = EvalRequest(str(folder), budgets=(2, 16), problems=3, max_tokens=8, threads=1)
    # thought and answer
    assert [found.max_tokens for found in use.evaluate_all(request)] == [10, 24]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["generate", PROMPT + " 5" * 600], "the context holds 512"),
        (["generate", "hello"], "'hello' is no word of this model's. It reads 18 words and the"),
        (["generate", "hello"], "; for example: nums "),
        (["generate", PROMPT, "--temperature", "-1"], "temperature is -1.0"),
        (["eval", "--tasks", "chess"], "task is 'chess'"),
        (["eval", "--problems", "100000"], "problems is 100000"),
        (["eval", "--split", "dev"], "dev"),
        (["eval", "--budgets", "8", "0"], "budget is 0, expected at least 1 token"),
    ],
)
def test_what_a_user_gets_wrong_is_one_sentence(folder, arguments, said, capsys):
    command, *rest = arguments
    assert main([command, str(folder), *rest, "--threads", "1"]) == 2
    error = capsys.readouterr().err
    assert error.startswith("deepwright: ") and said in error and error.count("\n") == 1


# ---- files of other people, asked as a whole

AIME = [{"ID": f"2024-I-{n}", "Problem": f"Find {n}.", "Answer": 100 + n} for n in range(30)]
FEW = ["--samples", "2", "--max-tokens", "3", "--threads", "1"]


@pytest.fixture(scope="module")
def reader(tmp_path_factory):
    """An untrained model that reads any text."""
    return save_reader(tmp_path_factory.mktemp("models") / "reader")


def write(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.mark.parametrize("rows", [30, 3, 1])
def test_the_line_of_the_readme_asks_every_row(reader, tmp_path, rows, capsys):
    path = write(tmp_path / "aime.jsonl", AIME[:rows])
    line = f"--tasks file:{path} --temperature 0.6 --top-p 0.95".split()
    assert main(["eval", str(reader), *line, *FEW]) == 0
    out = capsys.readouterr().out
    assert out.startswith(f"{rows} held-out problems of file:{path}, 2 samples each, T = 0.6")
    assert out.splitlines()[0].endswith("(all there are)")
    high = 3.841459 / (rows + 3.841459)  # none is right
    assert f"pass@1        0.000 (95%: 0.000 to {high:.3f})" in out


def test_of_many_rows_200_are_asked_and_as_many_as_wanted(reader, tmp_path, capsys):
    rows = [{"question": f"{n}?", "answer": str(n)} for n in range(230)]
    tasks = ["--tasks", f"file:{write(tmp_path / 'rows.jsonl', rows)}"]
    assert main(["eval", str(reader), *tasks, *FEW]) == 0
    assert re.match(r"200 held-out .*\(of 230\)\n", capsys.readouterr().out)
    assert main(["eval", str(reader), *tasks, "--problems", "230", *FEW]) == 0
    assert re.match(r"230 held-out .*\(all there are\)\n", capsys.readouterr().out)
    assert main(["eval", str(reader), *tasks, "--problems", "231", *FEW]) == 2
    assert "problems is 231, expected 1 to 230" in capsys.readouterr().err
    assert main(["eval", str(reader), *tasks, "--split", "train", *FEW]) == 2
    assert "rows.jsonl has no train problems" in capsys.readouterr().err


def asked_by(model, name, *options):
    task = use.task_of(EvalRequest(str(model), options=options), name)
    return {task.problem(i, "held_out").answer for i in range(task.size("held_out"))}


def what_was_trained_on_is_not_asked(folder):
    """Of the file that its own run has learned from a model is asked what was held out, whatever
    the file is called; of every other file all of it."""
    learned = write(folder / "learned.jsonl", AIME)
    other = write(folder / "other.jsonl", AIME)
    (folder / "config.toml").write_text(
        f'[task]\nname = "file:{learned}"\noptions = ["held_out_of=3"]\n'
    )
    held_out = asked_by(folder, "")
    assert 2 <= len(held_out) <= 20
    for name in (
        f"file:{learned}",
        f"aime:{learned}",
        f"file:{folder}/../{folder.name}/learned.jsonl",
    ):
        assert asked_by(folder, name) == held_out
    assert len(asked_by(folder, f"file:{other}")) == 30
    assert len(asked_by(folder, f"file:{other}", "held_out_of=3")) < 30


def test_what_a_model_was_trained_on_is_not_asked(tmp_path):
    what_was_trained_on_is_not_asked(tmp_path)


def test_of_a_folder_that_was_trained_on_the_test_split_is_asked_whole(tmp_path):
    (tmp_path / "set").mkdir()
    learned = write(tmp_path / "set" / "train.jsonl", AIME)
    (tmp_path / "config.toml").write_text(f'[task]\nname = "aime:{tmp_path}/set"\n')
    held_out = asked_by(tmp_path, "")
    assert 0 < len(held_out) < 20
    for name in (f"file:{learned}", f"aime:{tmp_path}/set"):  # all there is of it was learned
        assert asked_by(tmp_path, name) == held_out
    write(tmp_path / "set" / "test.jsonl", AIME[:4])
    assert asked_by(tmp_path, f"aime:{tmp_path}/set") == {"100", "101", "102", "103"}


def test_rows_left_out_are_told_and_the_rest_is_asked(reader, tmp_path, capsys, monkeypatch):
    path = write(tmp_path / "rows.jsonl", [*AIME[:4], {"question": "write f", "tests": None}])
    monkeypatch.setenv("PYTHONWARNINGS", "ignore")
    assert main(["eval", str(reader), "--tasks", f"aime:{path}", *FEW]) == 0
    said = capsys.readouterr()
    assert said.out.startswith("4 held-out problems of aime:")
    assert said.err.startswith(f"deepwright: {path}: 1 row is left out. line 5: no answer: rename")


def test_a_file_of_another_set_is_refused_by_name(reader, tmp_path, capsys):
    path = write(tmp_path / "aime.jsonl", AIME)
    assert main(["eval", str(reader), "--tasks", f"gsm8k:{path}", *FEW]) == 2
    error = capsys.readouterr().err
    assert (
        "is not gsm8k, expected question, and answer with ####" in error and error.count("\n") == 1
    )


# ---- how far it is, and Ctrl-C


def test_progress_is_plain_lines_where_there_is_no_terminal(reader, tmp_path, capsys):
    path = write(tmp_path / "aime.jsonl", AIME)
    assert main(["eval", str(reader), "--tasks", f"file:{path}", *FEW]) == 0
    sampled, judged = capsys.readouterr().err.splitlines()
    assert re.fullmatch(
        r"sampling 60/60 answers \| [\d,.]+ answers/s \| 0:00:00 left \| 0 running", sampled
    )
    assert re.fullmatch(r"judging 60/60 answers \| [\d,.]+ answers/s \| 0:00:00 left \| ", judged)


class Terminal(io.StringIO):
    def isatty(self):
        return True


def test_progress_is_a_bar_on_a_terminal(reader, tmp_path, monkeypatch):
    screen = Terminal()
    monkeypatch.setattr("sys.stderr", screen)
    path = write(tmp_path / "aime.jsonl", AIME)
    assert main(["eval", str(reader), "--tasks", f"file:{path}", *FEW]) == 0
    assert "sampling" in screen.getvalue() and "judging" in screen.getvalue()
    assert "answers/s" in screen.getvalue() and "100%" in screen.getvalue()


def test_progress_tells_the_engine_s_completions_once(reader):
    engine, tokenizer, _ = use.open_engine(str(reader), 1)
    told = []
    engine.watch = lambda ended, running: told.append((ended, running))
    engine.sample([tokenizer.encode_prompt("a"), tokenizer.encode_prompt("b c")], Sampling(5, n=3))
    assert sum(ended for ended, _ in told) == 6 and max(running for _, running in told) == 6


def test_ctrl_c_ends_with_nothing_half_written(reader, tmp_path, capsys, monkeypatch):
    """What a task before it said stays, on the screen and in the file."""
    first, second = (write(tmp_path / f"{n}.jsonl", AIME[:n]) for n in (3, 4))
    saved, evaluate = tmp_path / "saved.jsonl", use.evaluate

    def interrupted(sampler, tokenizer, task, **asked):
        if task.name.endswith("4.jsonl"):
            raise KeyboardInterrupt
        return evaluate(sampler, tokenizer, task, **asked)

    monkeypatch.setattr(use, "evaluate", interrupted)
    tasks = ["--tasks", f"file:{first}", f"file:{second}", "--save", str(saved)]
    assert main(["eval", str(reader), *tasks, *FEW]) == 130
    said = capsys.readouterr()
    assert said.out.startswith("3 held-out problems") and said.out.count("problems of") == 1
    assert said.err.endswith("deepwright: interrupted\n")
    assert len(saved.read_text().splitlines()) == 6 and not list(tmp_path.glob("*.draft"))
