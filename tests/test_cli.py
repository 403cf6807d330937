"""The command line: quick help without torch, one clear sentence for what a user can get wrong, exit codes."""

import os
import subprocess
import sys
import warnings
from pathlib import Path

import pytest

from deepwright import cli

ROOT = Path(__file__).resolve().parent.parent


def run(*args: str, **environment: str) -> subprocess.CompletedProcess:
    command = [sys.executable, "-m", "deepwright", *args]
    return subprocess.run(
        command,
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, **environment},
    )


def said_by(capsys, *args: str) -> tuple[int, str]:
    """(exit code, stderr) of the command, run in this process."""
    code = cli.main(args)
    return code, capsys.readouterr().err


def test_help_lists_every_command_and_loads_no_torch():
    script = "import sys; from deepwright.cli import main; main(['--help']); sys.exit(any(m in sys.modules for m in ('torch', 'numpy', 'tyro')))"
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert all(f"deepwright {name}" in done.stdout for name in cli.COMMANDS)


def test_no_command_shows_the_same_help(capsys):
    assert cli.main([]) == 0
    assert capsys.readouterr().out.strip() == cli.overview()


def test_version(capsys):
    assert cli.main(["--version"]) == 0
    assert capsys.readouterr().out.strip()[0].isdigit()


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (["evl"], "there is no command 'evl'; did you mean eval?"),
        (["eval", "x", "--sample", "3"], "unknown option --sample; did you mean --samples?"),
        (["eval", "x", "--samples", "many"], "many"),
        (["generate", "no/such/folder", "hello"], "no/such/folder"),
        (["generate", "x", "hello", "--threads", "100000"], "threads is 100000, expected 0"),
        (["generate", "x", "hello", "--temperature", "nan"], "temperature is nan"),
        (["eval", "x", "--threads", "-1"], "threads is -1, expected 0"),
        (["eval", "x", "--problems", "99999999999999999999"], "problems is a whole number of 67"),
        (["chat", "no/such/folder"], "no/such/folder"),
        (["eval", "no/such/folder"], "no/such/folder"),
        (["generate", "x"], "PROMPT"),
        (["doctor", "--fast"], "takes no options, but was given '--fast'"),
    ],
)
def test_user_error_is_one_sentence_and_exit_code_2(capsys, args, said):
    code, error = said_by(capsys, *args)
    assert code == 2
    assert error.startswith("deepwright: ") and error.count("\n") == 1
    assert said in error


def test_whole_process_exits_with_2_and_no_traceback():
    done = run("generate", "no/such/folder", "hello")
    assert (done.returncode, done.stdout) == (2, "")
    assert "Traceback" not in done.stderr and done.stderr.count("\n") == 1


def test_a_terminal_without_box_characters_gets_a_sentence_too():
    done = run("generate", "x", "hello", "--n", "many", PYTHONIOENCODING="ascii", COLUMNS="40")
    assert done.returncode == 2
    assert done.stderr == ("deepwright: --n: invalid literal for int() with base 10: 'many'\n")


def test_a_sentence_is_short_whatever_file_it_is_about():
    said = cli.sentence(OSError(36, "File name too long", "n" * 10_000))
    assert len(said) <= cli.LONGEST_SENTENCE and said.endswith("file name too long")


def test_traceback_on_request(monkeypatch):
    monkeypatch.setenv("DEEPWRIGHT_TRACEBACK", "1")
    with pytest.raises(ValueError, match="there is no command"):
        cli.main(["nothing-like-it"])


@pytest.mark.parametrize(
    ("error", "code", "said"),
    [
        (ValueError("a\n  b"), 2, "deepwright: a b\n"),
        (
            OSError(28, "No space left on device", "runs/x/metrics.jsonl"),
            2,
            "deepwright: runs/x/metrics.jsonl: no space left on device\n",
        ),
        (
            FileNotFoundError(2, "No such file or directory", "x.toml"),
            2,
            "deepwright: x.toml: no such file or directory\n",
        ),
        (MemoryError(), 2, "deepwright: not enough memory\n"),
        (KeyboardInterrupt(), 130, "deepwright: interrupted\n"),
    ],
)
def test_what_a_command_raises_becomes_a_sentence(monkeypatch, capsys, error, code, said):
    def fail(args):
        raise error

    monkeypatch.setitem(cli.COMMANDS, "doctor", cli.Command("", "", fail))
    assert said_by(capsys, "doctor") == (code, said)


def test_torch_without_memory_is_a_sentence_and_no_other_error_of_torch_is(monkeypatch, capsys):
    import torch

    def too_large(args):
        torch.empty(1 << 50)

    def wrong(args):
        torch.ones(2) @ torch.ones(3)

    monkeypatch.setitem(cli.COMMANDS, "doctor", cli.Command("", "", too_large))
    code, said = said_by(capsys, "doctor")
    assert code == 2 and said.startswith("deepwright: not enough memory: 4,503,599.6 GB more")
    monkeypatch.setitem(cli.COMMANDS, "doctor", cli.Command("", "", wrong))
    with pytest.raises(RuntimeError):
        cli.main(["doctor"])


def test_warning_is_a_sentence_too(monkeypatch, capsys):
    def warn(args):
        warnings.warn("checkpoint x is damaged and is skipped", stacklevel=1)
        return 0

    monkeypatch.setitem(cli.COMMANDS, "doctor", cli.Command("", "", warn))
    assert said_by(capsys, "doctor") == (0, "deepwright: checkpoint x is damaged and is skipped\n")


def test_own_mistakes_are_not_dressed_up(monkeypatch):
    def fail(args):
        raise AssertionError("an invariant")

    monkeypatch.setitem(cli.COMMANDS, "doctor", cli.Command("", "", fail))
    with pytest.raises(AssertionError):
        cli.main(["doctor"])


def test_reader_that_has_seen_enough_is_no_error():
    done = subprocess.run(
        f"{sys.executable} -m deepwright doctor | head -1",
        cwd=ROOT,
        shell=True,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout == "machine\n" and done.stderr == ""


def test_doctor_names_machine_rates_and_implementations(capsys):
    assert cli.main(["doctor"]) == 0
    out = capsys.readouterr().out
    assert all(
        word in out
        for word in (
            "python",
            "torch",
            "fp32 matrix product",
            "memory bandwidth",
            "expert_mlp",
            "transformers",
            "confined by",
        )
    )


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("rl --task calc", "task is 'calc', expected one of"),
        (
            "rl --task calc3 --task.options terms=abc",
            "option 'terms' of task 'calc3' is 'abc', expected a whole number",
        ),
        ("rl --start nowhere --task calc3", "there is no folder nowhere"),
        ("r1 --task calc3", "pre-training has a corpus for 'countdown' and 'needle'"),
        ("rl --task calc3 --task.reward broken.py:pay", "broken.py:1 is not Python"),
    ],
)
def test_what_cannot_be_trained_leaves_no_run_behind(line, said, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    Path("broken.py").write_text("def pay(:\n")
    assert cli.main([*line.split(), "--run", "new"]) == 2
    assert said in capsys.readouterr().err and not Path("runs").exists()
