"""Pre-training: read a batch, add up its gradient, step, balance the experts, write down what happened, save; resume as if never stopped.

A run that is killed at any moment and started again reads the same tokens and ends with the same bits: every checkpoint holds weights,
moments, averaged weights, router biases, counters and the position in the data; metrics after it are rewound; no decision reads the clock.
"""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from deepwright.metrics import Tracker
from deepwright.model.finite import source
from deepwright.numerics import check_format, compute_dtype, settled
from deepwright.refusals import expect, expect_each
from deepwright.train.checkpoint import (
    Checkpoint,
    check_settings,
    latest_checkpoint,
    save_checkpoint,
    taking_over,
)
from deepwright.train.objective import (
    Batch,
    Sums,
    Terms,
    accumulate_gradients,
    max_violation,
    routers,
    update_biases,
    validate,
)
from deepwright.train.optimizer import (
    Average,
    Optimizer,
    OptimizerConfig,
    TrainingDiverged,
    is_finite,
    require_finite,
)
from deepwright.train.progress import INTERRUPTED, Progress, StopRequest
from deepwright.train.schedule import Schedule

# Settings that may differ between the two halves of a resumed run: they change what is kept or shown, or results by rounding only.
FREE_SETTINGS = (
    "micro_rows",
    "recompute",
    "checkpoint_every",
    "keep",
    "load_every",
    "validate_every",
)
# May be raised: a finished run goes on, at the rates that a run of the new length has there.
GROWING_SETTINGS = ("schedule.total_tokens",)


LOSSES = ("total_loss", "validation_loss")  # a model that gives none is neither saved nor done


class Stream(Protocol):
    """A source of rows whose position can be saved: packed ones as a tensor, those with masks as a Batch."""

    def batch(self, rows: int) -> Tensor | Batch: ...

    def state(self) -> dict: ...

    def restore(self, state: dict) -> None: ...


@dataclass(frozen=True)
class PretrainConfig:
    """How a model is pre-trained. Everything that changes over time is in `schedule`."""

    length: int = 4096  # tokens in a row that are trained on
    schedule: Schedule = field(default_factory=Schedule)
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    micro_rows: int | None = (
        None  # rows computed at once; None: the whole batch. The result is the same
    )
    # Of the blocks: float32 | bfloat16 | auto (what trains faster here). Weights stay float32.
    compute: str = "float32"
    recompute: bool = False  # drop activations and compute them again in the backward pass: less memory, more time
    balance: str = "bias"  # bias (V3) | auxiliary (the older loss, as a baseline) | none
    sequence_alpha: float = (
        1e-4  # factor of the sequence-wise loss that complements the bias method
    )
    auxiliary_alpha: float = 1e-3  # factor of the auxiliary loss when balance is "auxiliary"
    bias_in_mtp: bool = True  # the MTP block's router keeps its own bias; the paper does not say
    average_decay: float = 0.0  # averaged weights, judged at validation; 0: none are kept
    checkpoint_every: int = 500  # steps
    keep: int = 2  # checkpoints
    load_every: int = 20  # steps between records of each expert's load
    validate_every: int = (
        0  # steps; 0: only after the last step, and only if validation batches are given
    )

    def __post_init__(self) -> None:
        expect(
            self.balance in ("bias", "auxiliary", "none"),
            "balance",
            self.balance,
            "'bias', 'auxiliary' or 'none'",
        )
        check_format(self.compute)
        expect_each(
            self,
            ("length", "checkpoint_every", "keep", "load_every", "micro_rows"),
            lambda value: value >= 1,
            "at least 1",
        )
        expect(
            0 <= self.average_decay < 1,
            "average_decay",
            self.average_decay,
            "0 (off) or a number below 1",
        )

    def terms_at(self, tokens: int, model: nn.Module) -> Terms:
        mtp = self.schedule.mtp_weight_at(tokens) if len(model.mtp) else 0.0
        if self.balance == "none":
            return Terms(mtp)
        return (
            Terms(mtp, sequence=self.sequence_alpha)
            if self.balance == "bias"
            else Terms(mtp, auxiliary=self.auxiliary_alpha)
        )


@dataclass
class Trainer:
    """A model in training: its optimizer, averaged weights and counters. `step` is the whole of one training step."""

    config: PretrainConfig
    model: nn.Module
    steps: int = 0
    tokens: int = 0

    def __post_init__(self) -> None:
        self.optimizer = Optimizer(self.model, self.config.optimizer)
        self._last: Batch | None = None
        self.compute, _ = compute_dtype(self.config.compute)
        self.average = (
            Average(self.model, self.config.average_decay) if self.config.average_decay else None
        )

    @property
    def finished(self) -> bool:
        return self.tokens >= self.config.schedule.total_tokens

    def next_rows(self) -> int:
        return self.config.schedule.rows_at(self.tokens)

    def step(self, rows: Tensor | Batch) -> dict[str, float | list]:
        """One step on [rows, length + 1 or more] tokens, or on a batch as it is. Returns its metrics."""
        begun, c = time.perf_counter(), self.config
        batch = self._batch(rows)
        read = batch.positions
        terms = c.terms_at(self.tokens, self.model)
        with self.model.computing(self.compute):
            sums = accumulate_gradients(
                self.model, batch, terms, micro_rows=c.micro_rows, recompute=c.recompute
            )
        rate = c.schedule.learning_rate_at(self.steps + 1, self.tokens)
        speed = c.schedule.bias_speed_at(self.tokens) if c.balance == "bias" else 0.0
        self._last = batch
        with self.explaining():
            update = self.optimizer.step(rate, self.steps + 1)
        if update.applied:
            update_biases(self.model, sums.loads, speed, include_mtp=c.bias_in_mtp)
            if self.average:
                self.average.update()
        self.steps += 1
        self.tokens += read
        seconds = time.perf_counter() - begun
        values = {
            "grad_norm": update.grad_norm,
            "learning_rate": rate,
            "skipped_steps": self.optimizer.skipped,
            "tokens": self.tokens,
        }
        values |= {
            "batch_tokens": read,
            "tokens_per_second": read / seconds,
            "step_seconds": seconds,
        }
        return values | self._loss_values(sums, terms) | self._balance_values(sums, speed)

    @contextlib.contextmanager
    def explaining(self) -> Iterator[None]:
        """TrainingDiverged also says where in the model the numbers of the last batch got lost."""
        try:
            yield
        except TrainingDiverged as error:
            with self.model.computing(self.compute):
                found = None if self._last is None else source(self.model, self._last.inputs_BS)
            raise TrainingDiverged(f"{error}; {found}" if found else str(error)) from None

    def _loss_values(self, sums: Sums, terms: Terms) -> dict[str, float]:
        values = {"loss": sums.loss, "total_loss": sums.total_loss}
        if terms.mtp:
            values |= {"mtp_loss": sums.mtp_loss, "mtp_weight": terms.mtp}
        if terms.sequence or terms.auxiliary:
            values["balance_loss"] = sums.balance_loss
        return values

    def _balance_values(self, sums: Sums, speed: float) -> dict[str, float | list]:
        if not sums.loads:
            return {}
        loads = [sums.loads[layer] for layer in sorted(sums.loads)]
        values = {
            "max_vio": max_violation(loads),
            "dead_experts": sum(int((load == 0).sum()) for load in loads),
            "bias_speed": speed,
        }
        biases = [router.bias for router in routers(self.model).values()]
        if biases:
            values["bias_range"] = sum(float(bias.max() - bias.min()) for bias in biases) / len(
                biases
            )
        if self.steps == 1 or self.steps % self.config.load_every == 0:
            values["expert_load"] = [(load / load.sum()).tolist() for load in loads]
        return values

    def _batch(self, rows: Tensor | Batch) -> Batch:
        batch = rows if isinstance(rows, Batch) else Batch(_cut(rows, self.config.length))
        context, width = self.model.config.max_position_embeddings, batch.inputs_BS.shape[1]
        expect(width <= context, "a row's length", width, f"at most the context, {context}")
        return batch.to(self.model.head_weight.device)

    def validation_values(
        self, batches: Sequence[Tensor | Batch], text_bytes: int = 0
    ) -> dict[str, float]:
        """`text_bytes`: of the text that their targets spell, for bits per byte; 0: of none."""
        batches = [self._batch(rows) for rows in batches]
        loss, max_vio = validate(self.model, batches)
        values = {"validation_loss": loss, "max_vio_global": max_vio}
        if text_bytes:
            nats = loss * sum(float(batch.target_weights().sum()) for batch in batches)
            values["bits_per_byte"] = nats / math.log(2) / text_bytes
        if self.average:
            with self.average.applied():
                values["validation_loss_ema"] = validate(self.model, batches).loss
        return values

    def tensors(self) -> dict[str, Tensor]:
        return self.optimizer.tensors() | (self.average.tensors() if self.average else {})

    def state(self, stream: Stream) -> dict[str, Any]:
        counters = {"steps": self.steps, "tokens": self.tokens, **self.optimizer.counts()}
        return {"counters": counters, "stream": stream.state(), "settings": asdict(self.config)}

    def resume(self, checkpoint: Checkpoint, stream: Stream) -> None:
        """Takes over weights, moments, counters and data position. ValueError when the run was started with other settings."""
        check_settings(checkpoint, asdict(self.config), FREE_SETTINGS, GROWING_SETTINGS)
        checkpoint.load_model_into(self.model)
        tensors, counters = checkpoint.tensors, checkpoint.state["counters"]
        average = {name: tensor for name, tensor in tensors.items() if name.startswith("average.")}
        self.optimizer.load(
            {name: tensor for name, tensor in tensors.items() if name not in average}, counters
        )
        if self.average:
            self.average.load(average)
        self.steps, self.tokens = counters["steps"], counters["tokens"]
        stream.restore(checkpoint.state["stream"])


def pretrain(
    config: PretrainConfig,
    model: nn.Module,
    stream: Stream,
    tokenizer: Any | None,
    run_dir: str | Path,
    tracker: Tracker,
    *,
    stage: str = "base",
    validation: Sequence[Tensor | Batch] = (),
    text_bytes: int = 0,
    callback: Callable[[int, nn.Module], None] | None = None,
    progress: Progress | None = None,
) -> Trainer:
    """Trains `model` in place up to `config.schedule.total_tokens`; continues from the last whole checkpoint of `run_dir` if there is one.

    `text_bytes`: of the text that the targets of `validation` spell (`validation_values`).
    `callback(step, model)` runs after each step and must leave the model as it is. SIGINT or SIGTERM finishes the step, saves, and raises
    SystemExit(130). Raises ValueError for settings that contradict the checkpoint, CheckpointError, TrainingDiverged.
    """
    checkpoint = latest_checkpoint(run_dir)
    kept = None if checkpoint is None else checkpoint.state["settings"]
    trainer, values = Trainer(settled(config, kept), model), {}
    progress = progress or Progress(config.schedule.total_tokens, stage)
    saved = _start_or_resume(trainer, checkpoint, stream, tracker, stage, progress)
    with StopRequest() as stop, progress:
        while not trainer.finished and not stop.asked:
            values = trainer.step(stream.batch(trainer.next_rows()))
            if validation and (
                trainer.finished
                or (config.validate_every and trainer.steps % config.validate_every == 0)
            ):
                values |= trainer.validation_values(validation, text_bytes)
            tracker.log(stage, trainer.steps, values)
            if callback:
                callback(trainer.steps, model)
            progress.advance(int(values["batch_tokens"]), _summary(values))
            if trainer.steps % config.checkpoint_every == 0 and is_finite(values, LOSSES):
                saved = _save(trainer, stream, tokenizer, run_dir, tracker)
        if trainer.finished:
            with trainer.explaining():
                require_finite(values, LOSSES, trainer.steps)
        if saved != trainer.steps and is_finite(values, LOSSES):
            saved = _save(trainer, stream, tokenizer, run_dir, tracker)
        if stop.asked:  # also in the last step: what comes after this stage must not begin
            progress.say(
                f"{stage} was interrupted after step {saved}; run the same command with --resume to go on from {run_dir}"
            )
            raise SystemExit(INTERRUPTED)
    return trainer


def _save(
    trainer: Trainer, stream: Stream, tokenizer: Any | None, run_dir: str | Path, tracker: Tracker
) -> int:
    tracker.flush()  # first: a record of a step up to the checkpoint would not be written again
    save_checkpoint(
        run_dir,
        trainer.steps,
        trainer.model,
        tokenizer,
        trainer.tensors(),
        trainer.state(stream),
        trainer.config.keep,
    )
    return trainer.steps


def _start_or_resume(
    trainer: Trainer,
    checkpoint: Checkpoint | None,
    stream: Stream,
    tracker: Tracker,
    stage: str,
    progress: Progress,
) -> int:
    if checkpoint:
        with taking_over(checkpoint):
            trainer.resume(checkpoint, stream)
        progress.start_at(trainer.tokens)
        progress.say(f"{stage} continues after step {trainer.steps} ({trainer.tokens:,} tokens)")
    if hasattr(tracker, "rewind"):
        tracker.rewind(stage, trainer.steps)
    return trainer.steps


def _cut(tokens: Tensor, length: int) -> Tensor:
    """[B, length + 1]: inputs and targets. The MTP targets lie inside, as its last positions have none."""
    if tokens.ndim != 2 or tokens.shape[1] < length + 1:
        raise ValueError(
            f"a batch has shape {tuple(tokens.shape)}, expected [rows, at least {length + 1}] for rows of {length} tokens"
        )
    expect(tokens.dtype == torch.int64, "the type of tokens", str(tokens.dtype), "torch.int64")
    return tokens[:, : length + 1]


def _summary(values: dict[str, float | list]) -> str:
    text = f"loss {values['loss']:.3f} | gradient {values['grad_norm']:.2f}"
    return text + (f" | MaxVio {values['max_vio']:.2f}" if "max_vio" in values else "")
