"""Every command line of README, CONTRIBUTING and docs is tried: really, with small models and files
of the same names and with small sizes added, or without its long part (--dry-run, make -n, --help).
A line without a trial fails."""

from __future__ import annotations

import contextlib
import gzip
import importlib
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields, is_dataclass, replace
from pathlib import Path

import pytest
import torch

from deepwright import cli, weights
from deepwright.model import Transformer
from deepwright.recipe import requests
from deepwright.recipe.resolve import WORDS, fill, read_settings, to_table
from deepwright.recipe.settings import PretrainSettings, R1Settings
from deepwright.recipe.sft import SFTSettings
from deepwright.refusals import flatten
from deepwright.verify.cases import ALL_CASES
from deepwright.weights.convert import convert
from tests.recipe.test_r1 import ZERO
from tests.rl.test_outside import Server
from tests.text import family

ROOT = Path(__file__).resolve().parent.parent
DOCUMENTS = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
COMMANDS = ("deepwright", "make", "python", "python3", "pytest")
PROGRAMS_HERE = (".ci/", ".venv/bin/")

# What stands in a line for something of the reader's: what it is here. {server}: the URL of the
# tests' own server.
PLACEHOLDERS = {
    "http://gpu:8000/v1": "{server}/v1",
    "ssh gpu reload {folder}": f"{sys.executable} reload.py {{server}}/reload {{folder}}",
    "FOLDER": "models/smollm2",
    "RUN RUN RUN": "runs/r1 runs/r1 runs/r1",
    "runs/NAME": "runs/r1",
    "r1-seed1": "r1",
    "step-40": "step-2",
    "configs/shows_work.py": str(ROOT / "configs" / "shows_work.py"),
    "--samples 64": "--samples 2",
    "reward test`": "reward test my.py:reward",
    "--data FILE": "--data chats.jsonl",
    "preview FILE": "preview chats.jsonl",
    "convert FILE OUT": "convert model.gguf tried",
}
FILES = {
    "my.jsonl": [{"question": f"What is {n} + 1?", "answer": str(n + 1)} for n in range(60)],
    "rows.jsonl.gz": [{"text": f"Row {n} has some words."} for n in range(9)],
    "aime.jsonl": [{"problem": f"Find {n} squared.", "answer": str(n * n)} for n in range(30)],
    "chats.jsonl": [
        {"messages": [{"role": "user", "content": f"{n}?"}, {"role": "assistant", "content": "4."}]}
        for n in range(6)
    ],
    "gsm8k/main/test.jsonl": [
        {"question": f"{n} apples and one more?", "answer": f"{n} + 1.\n#### {n + 1}"}
        for n in range(30)
    ],
    "HumanEval.jsonl.gz": [
        {
            "task_id": f"HumanEval/{n}",
            "prompt": f'def add(x):\n    """x + {n}"""\n',
            "canonical_solution": f"    return x + {n}\n",
            "entry_point": "add",
            "test": f"def check(candidate):\n    assert candidate(1) == {n + 1}\n",
        }
        for n in range(4)
    ],
}
TEXTS = {
    f"{place}{n}.{kind}": " ".join(f"{word}{n + k % 7}" for k in range(60) for word in ("a", "the"))
    for place, kind in (("my_texts/", "txt"), ("more/", "md"))
    for n in range(12)
} | {"notes.txt": "Some notes, not many of them.\n"}
PROGRAMS = {
    "my.py": "def reward(completions, **columns):\n"
    "    return [len(text) % 3 / 2 for text in completions]\n",
    "reload.py": "import json, sys, urllib.request as web\nurl, folder = sys.argv[1:]\n"
    "web.urlopen(web.Request(url, json.dumps({'model_path': folder}).encode())).read()\n",
}


# ---- the lines


def fences(text: str) -> Iterator[tuple[str, str]]:
    """(language, content) of each fenced block."""
    yield from re.findall(r"^```(\w*)\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)


def lines_of(text: str) -> Iterator[str]:
    """The command lines of a document: of its fenced blocks, without comments, and in code within
    its sentences."""
    for language, content in fences(text):
        if language in ("", "sh", "bash", "console"):
            for line in content.splitlines():
                yield re.sub(r"\s+#.*", "", line.strip()).removeprefix("$ ")
    prose = re.sub(r"^```.*?^```$", "", text, flags=re.DOTALL | re.MULTILINE)
    for code in re.findall(r"`([^`]+)`", prose):
        yield " ".join(code.split())


def is_command(line: str) -> bool:
    """A name alone (`make`) is no command line, a path to a program is one."""
    words = line.split()
    return line.startswith(PROGRAMS_HERE) or (len(words) > 1 and words[0] in COMMANDS)


def command_lines() -> dict[str, str]:
    """Every command line of the documents, with the first document that has it."""
    found: dict[str, str] = {}
    for document in DOCUMENTS:
        for line in lines_of(document.read_text(encoding="utf-8")):
            if is_command(line):
                found.setdefault(line, document.name)
    return found


# ---- how they are tried


@dataclass(frozen=True)
class Place:
    """A folder with what the lines name, in which they are tried, and a server."""

    folder: Path
    server: str

    def words(self, line: str) -> list[str]:
        for name, here in PLACEHOLDERS.items():
            line = line.replace(name, here.replace("{server}", self.server))
        return shlex.split(line)


Trial = Callable[[Place, str], None]


def run(words: list[str], codes: tuple[int, ...] = (0,)) -> None:
    try:
        code = cli.main(words)
    except SystemExit as stop:  # --help
        code = stop.code or 0
    assert code in codes, f"{shlex.join(words)}: ended with {code}"


def really(more: str = "", codes: tuple[int, ...] = (0,)) -> Trial:
    """As it stands, with options that make it small."""
    return lambda place, line: run([*place.words(line)[1:], *shlex.split(more)], codes)


def only(option: str) -> Trial:
    """Up to what --dry-run or --help says."""
    return lambda place, line: run([*place.words(line)[1:], option])


def of_another_run(more: str) -> Trial:
    """As it stands, but with the name of a run that is not there yet."""

    def trial(place: Place, line: str) -> None:
        words = [*place.words(line)[1:], *more.split()]
        run(words if "--run" in words else [*words, "--run", f"tried-{abs(hash(line))}"])

    return trial


def goes_on(first: str, more: str = "") -> Trial:
    """After a first run, which may be there already."""

    def trial(place: Place, line: str) -> None:
        words = place.words(first)
        if not (place.folder / "runs" / words[words.index("--run") + 1]).exists():
            run(words)
        run([*place.words(line)[1:], *shlex.split(more)])

    return trial


def made(place: Place, line: str) -> None:
    """What make would do: its own commands are there, and those of ours resolve."""
    if not shutil.which("make"):
        pytest.skip("no make here")
    told = subprocess.run(
        [*place.words(line), "-n"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert told.returncode == 0, told.stderr
    for command in re.findall(r"^\.venv/bin/(?:deepwright) .*", told.stdout, re.MULTILINE):
        words = shlex.split(command)[1:]
        run([*words, "--dry-run"] if words[0] != "get" else [words[0], "--help"])
    for script in re.findall(r"\b(?:benchmarks|tools)/\$?\w+\.py", told.stdout):
        assert "$" in script or (ROOT / script).is_file(), script


def script(*more: str) -> Trial:
    """A file of benchmarks/, in this process."""

    def trial(place: Place, line: str) -> None:
        _, path, *words = place.words(line)
        module = importlib.import_module(path.removesuffix(".py").replace("/", "."))
        with pytest.MonkeyPatch.context() as patch, contextlib.suppress(SystemExit):
            patch.setattr(sys, "argv", [path, *words, *more])
            assert module.main() is None
            return
        assert more == ("--help",)

    return trial


def is_there(place: Place, line: str) -> None:
    """A program or a file that the line names, which is not started."""
    path = shlex.split(line)[0] if not line.startswith("pytest") else shlex.split(line)[1]
    assert (ROOT / path).exists() or path.startswith(".venv/"), path


def talks(place: Place, line: str) -> None:
    said = iter(["nums 3 7 make 10 :", "/help", "/exit"])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("builtins.input", lambda prompt: next(said))
        run([*place.words(line)[1:], "--max-tokens", "8"])


def of_a_text(place: Place, line: str) -> None:
    """`pretrain --data` of what the reader's folder holds; a run or a folder of tokens that the
    line needs is made first."""
    words = place.words(line)[1:]
    if "tokens" in words and "--out" not in words and not Path("tokens").exists():
        run([*"data tokenize my_texts/ --out tokens --tokenizer train:400".split()])
    if "runs/text" in words and not Path("runs/text").exists():
        run(["pretrain", "--data", "my_texts/", *TEXT, "--tokenizer", "train:400"])
    if words[0] == "pretrain":
        small = [] if "--start" in words or "tokens" in words else ["--tokenizer", "train:400"]
        sizes = [] if "--start" in words else SMALL_MODEL.split()
        name = [] if "--run" in words else ["--run", f"tried-{abs(hash(line))}"]
        words += [*TEXT[: len(TEXT) - len(SMALL_MODEL.split())], *sizes, *small, *name]
    elif words[0] == "data":
        words += ["--tokenizer", "train:400"]
    elif words[0] == "generate":
        words += ["--max-tokens", "4"]
    else:
        words += "--threads 1 --sft.batch-rows 2 --run sft-of-text".split()
    run(words)


SMALL_MODEL = (
    "--model.hidden-size 16 --model.num-hidden-layers 1 --model.first-k-dense-replace 1 --model.intermediate-size 16 "
    "--model.num-attention-heads 2 --model.q-lora-rank None --model.kv-lora-rank 8"
)
TEXT = (
    "--threads 1 --pretrain.length 24 --pretrain.schedule.total-tokens 200 --pretrain.schedule.batch-rows 2 "
    f"--pretrain.schedule.warmup-steps 0 --evaluation.validation-rows 2 {SMALL_MODEL}"
).split()


def writes_anew(place: Place, line: str) -> None:
    (place.folder / "docs").mkdir(exist_ok=True)
    run(place.words(line)[1:])
    assert (place.folder / "docs" / "recipe-report.html").is_file()


def tracked(place: Place, line: str) -> None:
    pytest.importorskip("tensorboard")
    run(place.words(line)[1:])


STEPS = "--threads 1 --rl.steps 1 --rl.prompts 2 --rl.samples 2 --rl.max-tokens 8"
FEW = "--evaluation.problems 2 --evaluation.samples 2 --evaluation.problems-between 2"
SMALL_RL = of_another_run(f"{STEPS} {FEW}")
# A run as small as can be, of the task of `make r1`.
RUN = [*ZERO, "--run", "r1", "--task.options", 'languages=["en", "zh"]', "--evaluation.transfer"]
ASKED = "--problems 2 --samples 2 --max-tokens 4 --threads 1"

TRIALS: dict[str, Trial] = {
    # README: the main job, and what is done with a run
    "make r1": made,
    "make test": made,
    'make r1 PIP_ARGS="--extra-index-url INDEX"': made,
    "make r1 QUICK=1": made,
    "make r1 RUN=another": made,
    "make smollm2": made,
    "make test-all": made,
    "make lint": made,
    "make bench": made,
    "make setup": made,
    "make format": made,
    "deepwright r1 --config laptop-zero": only("--dry-run"),
    "deepwright r1 --config smollm2-r1": only("--dry-run"),
    "deepwright r1": only("--dry-run"),
    "deepwright r1 --quick --run before": only("--dry-run"),
    "deepwright r1 --resume --evaluation.budgets 8 16 32": really(shlex.join(RUN)),
    "deepwright chat runs/r1": talks,
    "deepwright chat model.gguf": talks,
    "deepwright get": really(),
    'deepwright generate runs/r1 "nums 3 7 1 make 20 :" --n 4': really("--max-tokens 8"),
    "deepwright eval runs/r1 --tasks countdown --samples 16": really("--max-tokens 4"),
    "deepwright runs": really(),
    "deepwright runs r1 r1-seed1": really(),
    "deepwright runs r1 --csv r1.csv": really(),
    "deepwright runs r1": really(),
    "deepwright runs r1 --page r1.html": really(),
    "deepwright runs r1 --tensorboard board": tracked,
    "deepwright runs r1 --page docs/recipe-report.html": writes_anew,
    "deepwright r1 --track tensorboard": lambda place, line: (
        tracked(place, f"{line} --dry-run")
    ),
    "deepwright r1 --help": really(),
    "deepwright r1 --rl.steps 50 --dry-run": really(),
    "deepwright verify": really(),
    "deepwright verify rl": really(),
    "deepwright doctor": really(),
    "deepwright --help": really(),
    "python -m deepwright": lambda place, line: run(place.words(line)[3:]),
    ".venv/bin/deepwright": is_there,
    # README: your own model, your own task
    "deepwright get smollm2": really(),  # there already; the download has a test of its own
    "deepwright convert model.gguf folder": really(),
    "deepwright rl --start models/smollm2 --config smollm2": SMALL_RL,
    "deepwright rl --start FOLDER --task reasoning_gym:chain_sum": SMALL_RL,
    "deepwright rl --start FOLDER --task file:my.jsonl --task.reward my.py:reward": SMALL_RL,
    "deepwright rl --run rl --resume --rl.steps 150": goes_on(
        f"rl --start FOLDER --task file:my.jsonl --run rl {STEPS} {FEW}", "--rl.steps 2"
    ),
    "deepwright sft --run sft --resume --sft.epochs 4": goes_on(
        "sft FOLDER --data chats.jsonl --threads 1 --run sft --sft.epochs 3"
    ),
    "deepwright rl --start FOLDER --sampler.url http://gpu:8000/v1 --sampler.reload "
    '"ssh gpu reload {folder}"': SMALL_RL,
    "deepwright eval http://gpu:8000/v1 --tokenizer FOLDER --tasks file:aime.jsonl --samples 64 "
    "--temperature 0.6 --top-p 0.95": really("--max-tokens 4"),
    "deepwright eval FOLDER --budgets 16 32 64 128": really(ASKED),
    "deepwright reward test my.py:reward": really(codes=(0, 1)),  # 1: it pays what deserves nothing
    "deepwright reward test": really("my.py:reward", codes=(0, 1)),
    "deepwright sft FOLDER --data chats.jsonl": of_another_run("--threads 1 --sft.batch-rows 2"),
    "deepwright reward test configs/shows_work.py:shows_work": really(codes=(1,)),
    "deepwright data preview chats.jsonl --model FOLDER": really(),
    # docs
    "deepwright eval FOLDER --tasks gsm8k:gsm8k/main humaneval:HumanEval.jsonl.gz": really(ASKED),
    "deepwright sft FOLDER --data FILE": of_another_run("--threads 1 --sft.batch-rows 2"),
    "deepwright data preview FILE --model FOLDER": really(),
    "deepwright convert FILE OUT": really(),
    "deepwright convert FILE OUT --no-tokenizer": really(),
    "deepwright rl --config smollm2 --run chain --task reasoning_gym:chain_sum --task.options "
    "min_terms=2 max_terms=2 min_digits=1 max_digits=2 --rl.steps 40 --rl.max-tokens 24 "
    "--evaluation.problems 200": really(f"{STEPS} {FEW}"),
    "deepwright rl --config smollm2 --run gamed --task.reward configs/shows_work.py:shows_work "
    "--rl.alarms.policy pause --rl.evaluate-every 3 --rl.prompts 8 --rl.entropy-target None "
    "--evaluation.problems-between 60": really(f"{STEPS} {FEW}"),
    "deepwright pretrain --data my_texts/": of_a_text,
    'deepwright pretrain --data notes.txt "more/*.md" rows.jsonl.gz --run mine': of_a_text,
    "deepwright pretrain --data my_texts/ --start FOLDER": of_a_text,
    "deepwright data tokenize my_texts/ --out tokens": of_a_text,
    "deepwright pretrain --data tokens --pretrain.schedule.total-tokens 20000000": of_a_text,
    'deepwright generate runs/text "The king" --raw': of_a_text,
    "deepwright sft runs/text --data chats.jsonl": of_a_text,
    "deepwright pretrain --data my_texts/ --long-context.lengths 4096 16384 --long-context.steps "
    "100": only("--dry-run"),
    "deepwright pretrain --config needle": only("--dry-run"),
    "deepwright eval runs/needle --tasks needle --options length=8192 --problems 2200 --samples 1 "
    "--temperature 0 --max-tokens 4": only("--help"),
    "python benchmarks/text.py runs/text": script("--help"),
    "python benchmarks/seeds.py RUN RUN RUN": script(),
    "python benchmarks/spread.py": script("--help"),
    "python benchmarks/student.py runs/NAME": script("--help"),
    "python benchmarks/student.py runs/r1": script("--help"),
    "pytest tests/recipe/test_real_model.py": is_there,
    ".ci/run": is_there,
    ".venv/bin/pre-commit install": is_there,
}  # fmt: skip
SLOW = {  # reasoning-gym alone takes many seconds to import
    "deepwright verify",
    *(line for line in TRIALS if "reasoning_gym" in line),
}
OPTIONS_ELSEWHERE = {"packed"}  # of benchmarks/grpo_step.py


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Iterator[Place]:
    """runs/r1, models/smollm2, model.gguf, files, and a server that has the model; made once."""
    folder = tmp_path_factory.mktemp("reader")
    with contextlib.chdir(folder), pytest.MonkeyPatch.context() as patch:
        patch.setattr("deepwright.rl.server.PAUSES", (0.0, 0.0))
        tokenizer = family.load(folder / "tokenizer", "smollm")
        ids = {"bos_token_id": tokenizer.bos_id, "eos_token_id": tokenizer.eos_id}
        config = replace(
            ALL_CASES["llama"], vocab_size=tokenizer.vocab_size, max_position_embeddings=2048, **ids
        )
        model = Transformer(config, torch.Generator().manual_seed(0))
        weights.save(model, tokenizer, "models/smollm2")
        convert("models/smollm2", "model.gguf", None)
        for name, rows in FILES.items():
            text = "".join(json.dumps(row) + "\n" for row in rows).encode()
            Path(name).parent.mkdir(parents=True, exist_ok=True)
            Path(name).write_bytes(gzip.compress(text) if name.endswith(".gz") else text)
        for name, text in (PROGRAMS | TEXTS).items():
            Path(name).parent.mkdir(exist_ok=True)
            Path(name).write_text(text)
        assert cli.main(["r1", *RUN]) == 0
        server = Server(model, tokenizer)
        yield Place(folder, server.url)
        server.shutdown()
        server.server_close()


def test_every_command_line_has_a_trial_and_every_trial_a_line():
    lines = command_lines()
    missing = {line: document for line, document in lines.items() if line not in TRIALS}
    assert not missing, f"add to TRIALS how these are tried: {missing}"
    assert not TRIALS.keys() - lines.keys(), "no document has these any more"
    assert lines.keys() >= SLOW


@pytest.mark.parametrize(
    "line",
    [
        pytest.param(line, marks=[pytest.mark.slow] * (line in SLOW), id=line[:70])
        for line in TRIALS
    ],
)
def test_a_command_line_of_the_documents(line, place, capsys, monkeypatch):
    monkeypatch.chdir(place.folder)
    if "reasoning_gym" in line:
        pytest.importorskip("reasoning_gym")
    try:
        TRIALS[line](place, line)
    except AssertionError:
        raise AssertionError(f"{line}: {capsys.readouterr().err}") from None


# ---- what is no command line


def test_the_python_of_the_documents_runs(place, monkeypatch):
    monkeypatch.chdir(place.folder)
    blocks = [
        content
        for document in DOCUMENTS
        for language, content in fences(document.read_text(encoding="utf-8"))
        if language == "python"
    ]
    assert blocks
    for block in blocks:
        for name, here in PLACEHOLDERS.items():
            block = block.replace(name, here)
        given = "import torch\ntokens_BS = torch.tensor([[0, 3, 4]])\n"
        environment = {**os.environ, "PYTHONPATH": str(ROOT)}
        done = subprocess.run(
            [sys.executable, "-c", given + block], env=environment, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stderr
    assert (place.folder / "out" / "config.json").is_file()


def settings_named() -> Iterator[tuple[str, str]]:
    """(document, text) of TOML blocks, and of code within sentences that sets something or names a
    setting."""
    for document in DOCUMENTS:
        text = document.read_text(encoding="utf-8")
        yield from (
            (document.name, content) for language, content in fences(text) if language == "toml"
        )
        if document.name == "log.md":  # dated: names of settings that were
            continue
        yield from ((document.name, code) for code in lines_of(text))


def names_elsewhere() -> Iterator[str]:
    """Options of the commands that make no run of the recipe."""
    yield from flatten(to_table(SFTSettings()))
    yield from flatten(to_table(PretrainSettings()))
    for request in vars(requests).values():
        if isinstance(request, type) and is_dataclass(request):
            yield from (field.name for field in fields(request))
            yield from (f"no-{field.name}" for field in fields(request) if field.type == "bool")


def test_settings_of_the_documents_are_there(tmp_path):
    names = list(flatten(to_table(R1Settings())))
    sections = {name.rpartition(".")[0] for name in names}
    tops = {name.partition(".")[0] for name in names if "." in name}
    options = {*WORDS, *(name.replace("_", "-") for name in [*names, *names_elsewhere()])}
    seen = 0
    for document, text in settings_named():
        where, seen = f"{document}: {text}", seen + 1
        name = re.match(r"^([a-z_.]+) = ", text)
        if "\n" in text or (name and "." in name[1] and "..." not in text):
            (tmp_path / "said.toml").write_text(text)
            fill(R1Settings(), read_settings(tmp_path / "said.toml"), where)
        elif name:
            assert any(known == name[1] or known.endswith(f".{name[1]}") for known in names), where
        elif re.fullmatch(r"\[[a-z_.]+\]", text):
            assert text[1:-1] in sections, where
        elif text.startswith("--"):
            assert text[2:].split()[0] in options | OPTIONS_ELSEWHERE, where
        elif (
            re.fullmatch(r"[a-z_]+(\.[a-z_]+)+", text)
            and text.partition(".")[0] in tops
            and not text.endswith((".py", ".md", ".json", ".safetensors"))
        ):
            assert text in sections or text in names, where
        else:
            seen -= 1
    assert seen > 25
