"""How long it will take: a few tokens of the very model are timed, and the rest is arithmetic. For the reader alone; nothing decided reads it.

A decoding step is taken as a pass over the weights and something for each row; training as a time for each token. Completions are taken to be as long as
the few that were sampled, those cut here as long as they may become, and every group as trained on: an estimate, rather too long.
"""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from deepwright.data.conversations import Document
from deepwright.evaluate.scoring import prompt_ids
from deepwright.inference.engine import Engine
from deepwright.model import Transformer
from deepwright.numerics import compute_dtype
from deepwright.recipe.settings import EvaluationSettings, RLSettings
from deepwright.report.figures import duration
from deepwright.rl.types import Row
from deepwright.rl.update import accumulate_gradient
from deepwright.sampler import Completion, Sampling, StopReason
from deepwright.tasks import Task
from deepwright.text import Tokenizer
from deepwright.train.objective import Terms, accumulate_gradients
from deepwright.train.sft import SFTConfig, make_batch

PROMPTS, FEW, MANY = 4, 2, 16  # sampled completions of each: few of them long, many short
LONG, SHORT = 48, 8  # tokens
AT_ONCE = 512  # rows that the engine decodes together


@dataclass(frozen=True)
class Speed:
    """Seconds of a prompt, of a decoding step and of each row in it, of a training token; and the lengths found, in tokens."""

    prompt: float
    step: float
    row: float
    token: float
    prompt_tokens: float
    mean: float  # of a completion
    longest: int

    def asking(self, problems: int, samples: int) -> float:
        """Seconds for so many problems with so many completions each."""
        rows = problems * samples
        steps = math.ceil(rows / AT_ONCE) * self.longest
        return problems * self.prompt + steps * self.step + rows * self.mean * self.row

    def judging(self, asked: EvaluationSettings) -> float:
        """Seconds of a full evaluation."""
        few = max(1, asked.samples // 4)
        seconds = self.asking(asked.problems, asked.samples)
        seconds += sum(self.asking(asked.problems, few if t else 1) for t in asked.also)
        return seconds + len(asked.transfer) * self.asking(asked.problems_between, few)

    def learning(self, settings: RLSettings) -> float:
        """Seconds of a step in which all further problems are asked and all groups are trained on: at most."""
        c = settings.rl
        prompts = self.prompt_tokens * (1 if c.pack_groups else c.samples)
        tokens = c.prompts * (prompts + c.samples * self.mean)
        asking = (1 + c.resample) * self.asking(c.prompts, c.samples)
        return (asking + tokens * self.token) / c.mini_batches


def expected(settings: RLSettings, model: Transformer, tokenizer: Tokenizer, task: Task) -> str:
    """In a sentence, before the first evaluation. The model is as it was afterwards."""
    speed, asked, c = timed(settings, model, tokenizer, task), settings.evaluation, settings.rl
    judging, step = speed.judging(asked), speed.learning(settings)
    between = (c.steps - 1) // c.evaluate_every if c.evaluate_every else 0
    whole = c.steps * step + 2 * judging + between * speed.asking(asked.problems_between, 1)
    return (
        f"Estimated from a few tokens of this model: the first evaluation takes about {duration(judging)},"
        f" a step at most {duration(step)}, all {c.steps} with their evaluations {duration(whole)}"
    )


def timed(settings: RLSettings, model: Transformer, tokenizer: Tokenizer, task: Task) -> Speed:
    """Samples and trains on a few completions, in the format that the model computes in."""
    c, engine = settings.rl, Engine(model)
    problems = [task.problem(i, "train") for i in range(min(PROMPTS, task.size("train")))]
    prompts = [prompt_ids(tokenizer, problem) for problem in problems]

    def sampled(n: int, tokens: int) -> tuple[float, list[list[Completion]]]:
        limit = min(tokens, c.max_tokens)
        asked = Sampling(limit, c.temperature, stop_ids=tokenizer.stop_ids, n=n)
        return _clocked(lambda: engine.sample(prompts, asked))

    sampled(1, 1)  # warms up
    first, _ = sampled(1, 1)
    long, few = sampled(FEW, LONG)
    short, many = sampled(MANY, SHORT)
    (rows, a), (more, b) = _of_step(few, long - first), _of_step(many, short - first)
    row = max(0.0, (b - a) / (more - rows)) if more > rows else 0.0
    _train(settings, model, prompts[0], many[0])  # what it needs is laid out once
    token, _ = _clocked(lambda: _train(settings, model, prompts[0], many[0]))
    packed = len(prompts[0]) * (1 if c.pack_groups else len(many[0]))
    lengths = [
        len(one.token_ids) if one.stop is StopReason.STOP else c.max_tokens
        for group in few
        for one in group
    ]
    return Speed(
        prompt=first / len(prompts),
        step=max(0.0, a - rows * row),
        row=row,
        token=token / (packed + sum(len(one.token_ids) for one in many[0])),
        prompt_tokens=statistics.fmean(map(len, prompts)),
        mean=statistics.fmean(lengths),
        longest=max(lengths),
    )


def _clocked(work: Callable[[], Any]) -> tuple[float, Any]:
    begun = time.perf_counter()
    done = work()
    return time.perf_counter() - begun, done


def _of_step(groups: Sequence[Sequence[Completion]], seconds: float) -> tuple[float, float]:
    """(rows on average, seconds) of a decoding step."""
    lengths = [len(one.token_ids) for group in groups for one in group]
    return sum(lengths) / max(lengths), max(0.0, seconds) / max(lengths)


def _train(
    settings: RLSettings, model: Transformer, prompt: Sequence[int], said: Sequence[Completion]
) -> None:
    """A gradient as an update makes it, and nothing of it kept."""
    c = settings.rl
    rows = [
        Row(tuple(prompt), one.token_ids, one.log_probs, (-1.0) ** n, 1e-3)
        for n, one in enumerate(said)
    ]
    accumulate_gradient(
        model,
        rows,
        c.chosen,
        c.coefficients,
        c.temperature,
        c.micro_batch_tokens,
        {},
        c.pack_groups,
    )
    model.zero_grad(set_to_none=True)


def fine_tuning(config: SFTConfig, model: Transformer, documents: Sequence[Document]) -> str:
    """In a sentence, from one micro-batch."""
    rows = make_batch(documents[: config.batch_rows])
    piece = next(rows.split(config.micro_rows))
    with model.computing(compute_dtype(config.compute)[0]):
        for _ in range(2):  # what it needs is laid out once
            seconds, _ = _clocked(
                lambda: accumulate_gradients(model, piece, Terms(), recompute=config.recompute)
            )
            model.zero_grad(set_to_none=True)
    each = seconds / piece.inputs_BS.numel()
    epoch = each * sum(document.length for document in documents)
    step = epoch * min(config.batch_rows, len(documents)) / len(documents)
    return (
        f"Estimated from one micro-batch: a step takes about {duration(step)}, all"
        f" {config.epochs} epochs {duration(epoch * config.epochs)}"
    )
