"""A run's distilled student in llama.cpp, before and after quantisation, beside our own engine; and what transformers computes from the run's folders.

    python benchmarks/student.py runs/r1                             # as many held-out problems as the run's own evaluations ask
    python benchmarks/student.py runs/quick --problems 24 --threads 1

Needs the package llama-cpp-python for its second half. Every side answers the run's held-out problems greedily, from token ids: a word-level
tokenizer is nothing that llama.cpp knows. Its sides answer one problem after the other, so our engine does so as well, and once more all at once.
A side's rate is its new tokens over the whole time of sampling, prompts included. Rows of a matrix that are no multiple of 32 stay BF16 in a
quantised file, and Q4_0 keeps embedding and head in Q8_0: the size of the file says what is left to gain.
"""

from __future__ import annotations

import argparse
import importlib.util
import tempfile
import time
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from deepwright import numerics, weights
from deepwright.evaluate import Evaluation, evaluate
from deepwright.evaluate.scoring import prompt_ids
from deepwright.inference.engine import Engine
from deepwright.recipe.resolve import fill
from deepwright.recipe.session import CONFIG, model_folder, run_config
from deepwright.recipe.settings import TaskChoice
from deepwright.recipe.use import with_error
from deepwright.sampler import Completion, Sampler, Sampling, StopReason
from deepwright.tasks import Task
from deepwright.text import Tokenizer
from deepwright.verify.cases import relative_error
from deepwright.verify.transformers_twin import quiet
from deepwright.weights.convert import convert

STUDENT, TEACHER = "distill", "align"
KINDS = ("f32", "q8_0", "q4_0")
MISSING = "llama.cpp is not here, so nothing was quantised: pip install llama-cpp-python"


@dataclass(frozen=True)
class LlamaCpp:
    """A .gguf file in llama.cpp as a Sampler: greedy, one prompt at a time, ids in and ids out."""

    model: Any  # llama_cpp.Llama
    context: int

    def sample(
        self, prompts: Sequence[Sequence[int]], sampling: Sampling
    ) -> list[list[Completion]]:
        if sampling.temperature or sampling.n != 1:
            raise ValueError(
                f"temperature is {sampling.temperature:g} and n {sampling.n}, expected 0 and 1: this side is greedy"
            )
        return [[self._complete(list(prompt), sampling)] for prompt in prompts]

    def _complete(self, prompt: list[int], sampling: Sampling) -> Completion:
        ids: list[int] = []
        limit = min(sampling.max_tokens, self.context - len(prompt))
        for token in self.model.generate(prompt, temp=0.0, repeat_penalty=1.0):
            ids.append(int(token))
            if ids[-1] in sampling.stop_ids or len(ids) == limit:
                break
        stopped = ids[-1] in sampling.stop_ids
        return Completion(
            tuple(ids),
            (float("nan"),) * len(ids),
            StopReason.STOP if stopped else StopReason.LENGTH,
        )


@dataclass(frozen=True)
class OneByOne:
    sampler: Sampler

    def sample(
        self, prompts: Sequence[Sequence[int]], sampling: Sampling
    ) -> list[list[Completion]]:
        return [self.sampler.sample([prompt], sampling)[0] for prompt in prompts]


@dataclass
class Timed:
    """Keeps what a sampler said and how long it took."""

    sampler: Sampler
    seconds: float = 0.0
    said: list[tuple[int, ...]] = field(default_factory=list)

    def sample(
        self, prompts: Sequence[Sequence[int]], sampling: Sampling
    ) -> list[list[Completion]]:
        begun = time.perf_counter()
        sampled = self.sampler.sample(prompts, sampling)
        self.seconds += time.perf_counter() - begun
        self.said += [one.token_ids for completions in sampled for one in completions]
        return sampled


@dataclass(frozen=True)
class Asked:
    """The held-out problems of a run."""

    task: Task
    tokenizer: Tokenizer
    problems: int
    max_tokens: int

    def of(self, sampler: Sampler) -> tuple[Evaluation, Timed]:
        timed = Timed(sampler)
        timed.sample(
            [prompt_ids(self.tokenizer, self.task.problem(0, "held_out"))], Sampling(2, 0.0)
        )  # the first call of anything is slow
        timed = Timed(sampler)
        size = {"problems": self.problems, "samples": 1, "max_tokens": self.max_tokens}
        return evaluate(timed, self.tokenizer, self.task, temperature=0.0, **size), timed


def asked_of(run: Path, tokenizer: Tokenizer, problems: int) -> Asked:
    """`problems` 0: as many as the run's own evaluations."""
    config = run_config(run)
    if not config:
        raise ValueError(f"{run} has no {CONFIG}, expected the folder of a run with all stages")
    task = fill(TaskChoice(), config["task"], CONFIG).judge()
    return Asked(
        task,
        tokenizer,
        min(problems or config["evaluation"]["problems"], task.size("held_out")),
        config["rl"]["max_tokens"],
    )


def folder_of(run: Path, stage: str) -> Path:
    try:
        return model_folder(run / stage, (".",))
    except ValueError:
        raise ValueError(
            f"{run} holds no whole checkpoint of stage {stage}, expected a run with all stages"
        ) from None


def sides(folder: Path, drafts: Path, threads: int) -> Iterator[tuple[str, int, Sampler]]:
    """(name, bytes of the file, sampler) of each way to run the student; llama.cpp's where it is installed."""
    model = weights.load_model(folder, torch.float32).eval()
    size = sum(path.stat().st_size for path in folder.glob("*.safetensors"))
    yield "deepwright, all at once", size, Engine(model)
    yield "deepwright, one by one", size, OneByOne(Engine(model))
    if importlib.util.find_spec("llama_cpp") is None:
        return
    from llama_cpp import Llama

    for kind in KINDS:
        path = drafts / f"student-{kind}.gguf"
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that it will take ids, not text: as it is asked here
            convert(folder, path, kind)
        context = model.config.max_position_embeddings
        theirs = Llama(
            str(path), n_ctx=context, n_threads=threads, n_threads_batch=threads, verbose=False
        )
        yield f"llama.cpp, {kind.upper()}", path.stat().st_size, LlamaCpp(theirs, context)


@torch.no_grad()
def opened_in_transformers(
    folder: Path, texts: Sequence[str], rows: Sequence[Sequence[int]]
) -> tuple[float, bool]:
    """(largest relative error of the logits over rows of ids, whether its tokenizer gives our ids) of a folder as transformers opens it."""
    import transformers

    model, tokenizer = weights.load(folder, torch.float32)
    with quiet():  # its classes have no MTP module, and say so
        theirs = transformers.AutoModelForCausalLM.from_pretrained(
            folder, dtype=torch.float32
        ).eval()
    spoken = transformers.AutoTokenizer.from_pretrained(folder)
    same = all(
        spoken.encode(text, add_special_tokens=False) == tokenizer.encode(text) for text in texts
    )
    ids = [torch.tensor([row]) for row in rows]
    return max(relative_error(model(row), theirs(row, use_cache=False).logits) for row in ids), same


def report(run: Path, problems: int, threads: int) -> Iterator[str]:
    """The lines, as they are measured."""
    student = folder_of(run, STUDENT)
    tokenizer = Tokenizer.load(student)
    asked = asked_of(run, tokenizer, problems)
    yield f"{STUDENT} of {run}: {asked.problems} held-out problems, greedy, at most {asked.max_tokens} tokens, {threads} threads"
    yield f"  {'':<26}{'file':>10}  {'right':>15}  {'tokens/s':>9}  same answers"
    first: Timed | None = None
    with tempfile.TemporaryDirectory() as drafts:
        for name, size, sampler in sides(student, Path(drafts), threads):
            found, timed = asked.of(sampler)
            first = first or timed
            same = sum(a == b for a, b in zip(timed.said, first.said, strict=True)) / len(
                first.said
            )
            rate = sum(map(len, timed.said)) / timed.seconds
            yield f"  {name:<26}{size / 1e6:>7.2f} MB  {with_error(found.pass_at_1, found.pass_at_1_se):>15}  {rate:>9,.0f}  {same:>12.0%}"
    assert first is not None
    prompts = [asked.task.problem(i, "held_out") for i in range(min(8, asked.problems))]
    rows = [
        [*prompt_ids(tokenizer, problem), *said]
        for problem, said in zip(prompts, first.said, strict=False)
    ]
    for stage in (TEACHER, STUDENT):
        error, same = opened_in_transformers(
            folder_of(run, stage), [problem.prompt for problem in prompts], rows
        )
        yield f"  {stage} in transformers: logits differ by {error:.1e} of the largest, token ids {'are the same' if same else 'DIFFER'}"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("run", type=Path, help="the folder of a run with all stages")
    parser.add_argument(
        "--problems",
        type=int,
        default=0,
        help="held-out problems; 0: as many as the run's own evaluations",
    )
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    numerics.keep_heap()
    try:
        for line in report(given.run, given.problems, given.threads):
            print(line, flush=True)
    except ValueError as error:
        parser.exit(2, f"student.py: {error}\n")
    if importlib.util.find_spec("llama_cpp") is None:
        parser.exit(1, f"student.py: {MISSING}\n")


if __name__ == "__main__":
    main()
