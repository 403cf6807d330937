"""What the training commands can be told: one frozen dataclass tree for each of r1, pretrain and rl, and how it is resolved.

Every field changes something. Fields that follow from others (vocabulary, stop ids, seeds of the parts) are not here.
"""

from __future__ import annotations

import dataclasses
import os
import re
import tomllib
import typing
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from deepwright.config import ModelConfig, preset
from deepwright.data import CountdownCorpus
from deepwright.data.texts import Texts
from deepwright.recipe.harvest import HarvestSettings
from deepwright.recipe.resolve import Words, resolve
from deepwright.refusals import LARGEST, expect, expect_each, quoted, require
from deepwright.rl.config import GRPOConfig
from deepwright.rl.outside import WEB, reload_words
from deepwright.rl.reward_model import RewardModelConfig
from deepwright.sampler import Sampling
from deepwright.tasks import Countdown, Task, make_task
from deepwright.tasks.task import paid
from deepwright.train.pretrain import PretrainConfig
from deepwright.train.sft import SFTConfig


def fields_of(kind: type, name: str, *, without: tuple[str, ...]) -> type:
    """A dataclass with the fields of `kind` that a user sets: all but those that the recipe fills in."""
    hints = typing.get_type_hints(kind)
    kept = [
        (f.name, hints[f.name], field(default=f.default))
        for f in dataclasses.fields(kind)
        if f.name not in without
    ]
    return dataclasses.make_dataclass(
        name, kept, frozen=True, namespace={"__module__": __name__, "__doc__": kind.__doc__}
    )


@dataclass(frozen=True)
class CorpusSettings(fields_of(CountdownCorpus, "_Countdown", without=("task", "seed"))):  # type: ignore[misc]
    """See deepwright/data/countdown_corpus.py for what each share means."""

    requests: float = 0.0  # documents that answer general requests (tasks/requests.py), in the languages of the task


@dataclass(frozen=True)
class EvaluationSettings:
    """Held-out problems: before and after a stage in full, and a smaller share while RL goes on."""

    problems: int = 200  # asked before and after RL
    samples: int = 16  # completions of each; pass@k and cons@k exist up to this k
    problems_between: int = 100  # asked every rl.evaluate_every steps, one completion each
    temperature: float = 1.0
    also: tuple[float, ...] = (
        0.6,
    )  # temperatures of further, smaller evaluations (0.6: R1's own protocol, R1 section 3; 0: greedy)
    # Longest thoughts in tokens: the last stage before distillation is also judged with its thoughts closed by force at each of these.
    budgets: tuple[int, ...] = ()
    votes: int = 0  # at least so many samples at that stage, whose cons@k are counted at k = 2, 4, 8, ...; 0: as everywhere
    # Options that make of the task another one, on which nothing is trained: "count=4". Every stage is also asked `problems_between` of each.
    transfer: tuple[str, ...] = ()
    top_p: float = 1.0
    validation_rows: int = 64  # rows of unseen documents for the base model's validation loss

    def __post_init__(self) -> None:
        expect_each(
            self,
            ("problems", "samples", "problems_between", "validation_rows"),
            lambda n: n >= 1,
            "at least 1",
        )
        expect(
            all(budget >= 1 for budget in self.budgets),
            "budgets",
            self.budgets,
            "at least 1 token each",
        )
        expect(self.votes >= 0, "votes", self.votes, "0 or a positive number")
        for temperature in (self.temperature, *self.also):
            Sampling(1, temperature, self.top_p)  # refuses what nothing can be sampled at


@dataclass(frozen=True)
class TaskChoice:
    """Which problems: countdown, calc3, requests, reasoning_gym:SET, file:PATH, or a set by name
    (gsm8k:PATH, ...; docs/tasks.md lists them)."""

    name: str = Countdown.name
    seed: int = 0  # decides which problems are held out
    options: tuple[str, ...] = ()  # NAME=VALUE, the task's own settings: terms=4
    # FILE.py:FUNCTION, paid in training instead of the task's own reward; held-out problems are judged by the task's own check.
    reward: str = ""

    def __post_init__(self) -> None:
        expect(0 <= self.seed < LARGEST, "seed", self.seed, "a whole number from 0 to 2^63 - 1")

    def make(self) -> Task:
        """The task with the reward that training pays."""
        options = read_options(self.options)
        return paid(make_task(self.name, self.seed, reward=self.reward, **options))

    def variants(self, options: Sequence[str]) -> dict[str, Task]:
        """By each option the task that it makes of this one, with its own check."""
        return {option: self.judge(option) for option in options}

    def judge(self, *more: str) -> Task:
        """The task with its own check: what a user's reward pays for and what is right may come apart, and only this shows it. `more` options count
        before those that it has."""
        return dataclasses.replace(self, reward="", options=(*self.options, *more)).make()


def read_options(options: Sequence[str]) -> dict[str, object]:
    """("terms=4", "layout=boxed") -> {"terms": 4, "layout": "boxed"}: values as TOML has them, else as text."""
    found: dict[str, object] = {}
    for option in options:
        name, sign, value = option.partition("=")
        if not sign or not name.strip():
            raise ValueError(f"task option is {quoted(option)}, expected NAME=VALUE")
        try:
            found[name.strip()] = tomllib.loads(f"value = {value}")["value"]
        except tomllib.TOMLDecodeError:
            found[name.strip()] = value.strip()
    return found


@dataclass(frozen=True)
class SamplerChoice:
    """Who samples in RL and its evaluations: the own engine on the trainer's weights, or a server outside (rl/outside.py).

    The environment variable OPENAI_API_KEY is sent as its key."""

    url: str = ""  # of a server with OpenAI's completions that takes and returns token ids: http://host:8000/v1; "": the own engine
    model: str = "policy"  # name by which the server knows the model
    # How it takes new weights, which are saved in the run's folder `handed_over`: a command with {folder} in it, or a URL that is sent {"model_path": folder}.
    reload: str = ""

    def __post_init__(self) -> None:
        if bool(self.url) != bool(self.reload):
            raise ValueError(
                f"sampler.url is {self.url!r} and sampler.reload {self.reload!r}, expected both: it must take the weights as they change"
            )
        web = not self.url or self.url.startswith(WEB)
        expect(web, "sampler.url", self.url, "http://... or https://...")
        if self.reload and not self.reload.startswith(WEB):
            reload_words(self.reload)


LONGEST_NAME = 200  # bytes of a part of a run's path, of the 255 that file systems take
TRACKERS = ("none", "tensorboard")


def check_name(run: str) -> None:
    """Names of folders that every file system takes and a terminal shows."""
    expected = "the name of a folder under runs/, or a path"
    expect(bool(run.strip()) and run not in (".", ".."), "run", run, expected)
    odd = any(unicodedata.category(letter) in ("Cc", "Cs") for letter in run)
    expect(not odd, "run", run, f"{expected} without control characters")
    long = any(len(part.encode()) > LONGEST_NAME for part in Path(run).parts)
    expect(not long, "run", run, f"{expected} of at most {LONGEST_NAME} bytes")


def check_threads(threads: int) -> None:
    """More threads than a few for each processor only get in each other's way, and many end in a
    crash."""
    most = 4 * (os.cpu_count() or 1)
    expected = f"0 (torch decides) or a number up to {most}, four for each processor here"
    expect(0 <= threads <= most, "threads", threads, expected)


@dataclass(frozen=True)
class RunSettings:
    """What every training command has."""

    run: str = "r1"  # name of a folder under runs/, or a path
    seed: int = 0  # of weights, documents, rollouts and samples
    threads: int = 0  # CPU threads; 0: as many as torch takes
    # none | tensorboard: its files in the run's folder, live; metrics.jsonl is written in any case
    track: str = "none"

    def __post_init__(self) -> None:
        check_name(self.run)
        expect(self.track in TRACKERS, "track", self.track, "'none' or 'tensorboard'")
        if self.track == "tensorboard":
            require("tensorboard", "--track tensorboard", "tensorboard")
        expect(0 <= self.seed < LARGEST, "seed", self.seed, "a whole number from 0 to 2^63 - 1")
        check_threads(self.threads)

    @property
    def folder(self) -> Path:
        return Path(self.run) if "/" in self.run else Path("runs") / self.run

    @property
    def grows(self) -> tuple[str, ...]:
        """Counts that may be raised when the run is gone on with: it then goes on from where it is, on the schedule of the new length."""
        return ()


@dataclass(frozen=True)
class _Run(RunSettings):
    """What r1, pretrain and rl share."""

    quick: bool = False  # the report says that the figures prove nothing
    task: TaskChoice = TaskChoice()
    evaluation: EvaluationSettings = EvaluationSettings()

    def __post_init__(self) -> None:
        super().__post_init__()
        for f in dataclasses.fields(self):
            section = getattr(self, f.name)
            name, rl = (
                ("rl", section)
                if f.name == "rl"
                else (f"{f.name}.rl", getattr(section, "rl", None))
            )
            if rl is not None and rl.seed:
                raise ValueError(
                    f"{name}.seed is {rl.seed}: set seed, from which every part takes its own"
                )


@dataclass(frozen=True)
class ColdStart:
    """Samples of R1-Zero to fine-tune the base model on (R1 section 2.3.1)."""

    harvest: HarvestSettings = HarvestSettings()
    sft: SFTConfig = SFTConfig()


@dataclass(frozen=True)
class ReasoningRL:
    """Reinforcement learning from the cold start (R1 section 2.3.2)."""

    language_reward: float = (
        0.2  # for keeping to the language of the prompt; of a task that has languages
    )
    compare: bool = True  # train once more without it
    rl: GRPOConfig = GRPOConfig()

    def __post_init__(self) -> None:
        expect_each(self, ("language_reward",), lambda paid: paid >= 0, "0 or a positive number")


@dataclass(frozen=True)
class Rejection:
    """What fine-tuning reads: samples of the reasoning model (R1 section 2.3.3)."""

    reasoning: HarvestSettings = HarvestSettings(problems=800, per_problem=2)
    general: HarvestSettings = HarvestSettings(problems=61, samples=16, per_problem=8)


@dataclass(frozen=True)
class Align:
    """Reinforcement learning for all scenarios (R1 section 2.3.4), with reward models for general requests."""

    pairs: int = 2000  # of preferences that a reward model is trained on
    language_reward: float = 0.2
    reward_model: RewardModelConfig = RewardModelConfig()
    rl: GRPOConfig = GRPOConfig(temperature=0.7)

    def __post_init__(self) -> None:
        expect_each(self, ("language_reward",), lambda paid: paid >= 0, "0 or a positive number")
        expect(self.pairs >= 1, "pairs", self.pairs, "at least 1")


@dataclass(frozen=True)
class Distill:
    """A small dense student taught by the kept samples (R1 section 2.4), and the same one by reinforcement learning alone."""

    model: ModelConfig = field(default_factory=lambda: preset("laptop-student"))
    pretrain: PretrainConfig = PretrainConfig()
    sft: SFTConfig = SFTConfig()
    compare: bool = True
    rl: GRPOConfig = GRPOConfig()


# the small model: pre-trained, taught by samples, by reinforcement learning alone
STUDENTS = ("student", "distill", "student_by_rl")
STAGES = ("base", "zero", "cold_start", "reasoning_rl", "finetune", "align", "distill")


@dataclass(frozen=True)
class R1Settings(_Run):
    """The whole recipe: a small model from nothing, R1-Zero, and R1's stages up to a distilled student; each stage is skipped where it is done."""

    # a base model instead of pre-training: a Hugging Face folder, or a run folder (its base stage, else its last model)
    start: str = ""
    stages: tuple[str, ...] = STAGES
    model: ModelConfig = field(default_factory=lambda: preset("laptop"))
    corpus: CorpusSettings = CorpusSettings()
    pretrain: PretrainConfig = PretrainConfig()
    rl: GRPOConfig = GRPOConfig()
    cold_start: ColdStart = ColdStart()
    reasoning_rl: ReasoningRL = ReasoningRL()
    rejection: Rejection = Rejection()
    finetune: SFTConfig = SFTConfig()
    align: Align = Align()
    distill: Distill = field(default_factory=Distill)
    sampler: SamplerChoice = SamplerChoice()

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.stages or not set(self.stages) <= set(STAGES):
            raise ValueError(f"stages is {list(self.stages)}, expected some of {list(STAGES)}")

    @property
    def grows(self) -> tuple[str, ...]:
        later = STAGES[STAGES.index("zero") + 1 :]  # what they started from stays as it is
        return () if any((self.folder / stage).exists() for stage in later) else ("rl.steps",)

    @property
    def last(self) -> str:
        """The last stage of the large model: whose inference-time scaling is measured."""
        return next(
            (stage for stage in reversed(STAGES) if stage in self.stages and stage != "distill"), ""
        )


@dataclass(frozen=True)
class TextSettings:
    """How the files of `data` are read."""

    column: str = "text"  # of the rows of a table
    longest: int = 65_536  # characters in a document; a longer file or row is read as several
    held_out: float = 0.01  # share of the documents that is never trained on, by each one's hash
    # A text is read at most so often: what a fifth reading teaches is little (arXiv 2305.16264).
    # Of a short one pretrain.schedule.total_tokens is lowered to that.
    epochs: float = 4.0
    # Share of the documents that are rearranged to fill in a middle (V3 section 4.1: 0.1)
    fim_rate: float = 0.0
    continued: int = 3  # held-out beginnings that the model goes on with at each validation

    def __post_init__(self) -> None:
        expect(0 < self.held_out < 1, "held_out", self.held_out, "a share between 0 and 1")
        expect(self.epochs > 0, "epochs", self.epochs, "a positive number")
        expect(0 <= self.fim_rate <= 1, "fim_rate", self.fim_rate, "a share from 0 to 1")
        expect(self.continued >= 0, "continued", self.continued, "0 or a positive number")

    def texts(self, paths: tuple[str, ...]) -> Texts:
        return Texts(paths, self.column, self.longest)


LONG_CONTEXT = tuple(f"long_context_{phase}" for phase in range(1, 5))  # stages, one for a phase


@dataclass(frozen=True)
class LongContext:
    """How the context is stretched after pre-training (V3 section 4.3); nothing is without
    `lengths`."""

    lengths: tuple[int, ...] = ()  # positions of each phase, rising: 2048 8192
    factor: float | None = (
        None  # of YaRN, in every phase; None: the longest over the context before
    )
    steps: int = 100  # of each phase
    batch_tokens: int = 16_384  # in a step; the longer the rows, the fewer
    learning_rate: float = 1e-4
    warmup_steps: int = 0
    micro_rows: int = 1  # computed at once

    def __post_init__(self) -> None:
        rising = list(self.lengths) == sorted({*self.lengths}) and min(self.lengths, default=1) > 0
        most = len(LONG_CONTEXT)
        expected = f"up to {most} rising numbers of positions"
        expect(rising and len(self.lengths) <= most, "lengths", list(self.lengths), expected)
        expect(self.factor is None or self.factor >= 1, "factor", self.factor, "at least 1")
        counted = ("steps", "batch_tokens", "micro_rows")
        expect_each(self, counted, lambda n: n >= 1, "at least 1")


@dataclass(frozen=True)
class PretrainSettings(_Run):
    """The first stage alone: a base model from nothing, on the task's generated corpus or on a text
    of your own (`--data`)."""

    # files, folders or globs of text (.txt, .md, .jsonl, .parquet, also .gz, .zst), or a folder of
    # `data tokenize`; none: the corpus of the task
    data: tuple[str, ...] = ()
    # with data: a folder whose tokenizer reads it, or train:N for N tokens made of the text itself;
    # empty: that of `start`, or train:8192
    tokenizer: str = ""
    start: str = ""  # with data: a model that goes on with it, instead of one from nothing
    text: TextSettings = TextSettings()
    long_context: LongContext = LongContext()
    model: ModelConfig = field(default_factory=lambda: preset("laptop"))
    corpus: CorpusSettings = CorpusSettings()
    pretrain: PretrainConfig = PretrainConfig()

    @property
    def grows(self) -> tuple[str, ...]:
        return ("pretrain.schedule.total_tokens",)


@dataclass(frozen=True)
class RLSettings(_Run):
    """R1-Zero on any model and task. With --start or --task and no --config, what is not named is chosen for that model, task and machine and said with
    its reason; alone it is the second stage of configs/laptop-zero.toml."""

    run: str = "rl"  # name of a folder under runs/, or a path
    # the model to start from: a Hugging Face folder, or a run folder (its last model); "": the base stage of the same run
    start: str = ""
    rl: GRPOConfig = GRPOConfig()
    sampler: SamplerChoice = SamplerChoice()

    @property
    def grows(self) -> tuple[str, ...]:
        return ("rl.steps",)


COMMANDS: dict[str, type[_Run]] = {"r1": R1Settings, "pretrain": PretrainSettings, "rl": RLSettings}
# one file may serve all three
SECTIONS = {f.name for kind in COMMANDS.values() for f in dataclasses.fields(kind)}
USUAL_CONFIGS = {"r1": "laptop", "pretrain": "laptop-zero", "rl": "laptop-zero"}
OWN_TEXT = "text"  # the usual file of `pretrain --data`


def task_words(words: Words) -> Words:
    """--task is short for --task.name; a file's options belong to the task that it names."""
    rest = tuple(re.sub(r"^--task(?==|$)", "--task.name", word) for word in words.rest)
    chosen = [word.partition("=")[0] for word in rest]
    names = ("--task.options", "--evaluation.transfer") if "--task.name" in chosen else ()
    return dataclasses.replace(words, rest=(*rest, *(name for name in names if name not in chosen)))


def resolve_for(
    command: str, words: Words, usual: bool = True
) -> R1Settings | PretrainSettings | RLSettings:
    """Preset, then TOML files (where none is named that of USUAL_CONFIGS, if `usual`), then options."""
    settings = COMMANDS[command]()
    if words.preset:
        if not hasattr(settings, "model"):
            raise ValueError(
                f"--preset {words.preset} chooses a model, but {command} takes the one that it is given"
            )
        settings = dataclasses.replace(settings, model=preset(words.preset))
    words = task_words(words)
    if usual and not words.configs:
        own = command == "pretrain" and any(word.startswith("--data") for word in words.rest)
        name = OWN_TEXT if own else USUAL_CONFIGS[command]
        words = dataclasses.replace(words, configs=(name,))
    return resolve(
        settings,
        words,
        f"deepwright {command}",
        COMMANDS[command].__doc__ or "",
        also_known=SECTIONS,
    )
