"""Supervised fine-tuning: the loop of pre-training on conversations, with loss on what the assistant says and nothing else.

One document is one row, so documents cannot see each other and positions start at 0: what V3 packs with a mask for (its SFT settings,
section 5.1). The rows of a step are sorted by length and cut into micro-batches as wide as their longest row. Measured on log-normal
lengths (median 300, sigma 1, up to 4096): 13% of the positions are padding, against 86% with a whole batch at once. Packing into rows
of 4096 would have 0.4%, but attention without variable-length kernels would compute 3.6 times the scores that the documents need.
The loss is a mean over the targets of the whole batch.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.nn.utils.rnn import pad_sequence

from deepwright.config import ModelConfig
from deepwright.data.conversations import Document
from deepwright.metrics import Tracker
from deepwright.refusals import expect, expect_fields
from deepwright.seeds import shuffled
from deepwright.seeds import stream as random_stream
from deepwright.text.tokenizer import Tokenizer
from deepwright.train.objective import Batch
from deepwright.train.optimizer import OptimizerConfig
from deepwright.train.pretrain import PretrainConfig, Trainer, pretrain
from deepwright.train.progress import Progress
from deepwright.train.schedule import Schedule

STAGE = "sft"
_ORDER = 65  # purpose of the random stream


@dataclass(frozen=True)
class SFTConfig:
    """How a model is fine-tuned. The defaults are R1's own where it states them (R1 supplement, B.4.2): epochs, cosine, batch.

    Router biases stay as pre-training left them, as they do in RL; the sequence-wise balance loss is pre-training's."""

    epochs: int = 2  # times that every document is read, each time in a new order
    length: int = 4096  # longest document in tokens; longer ones are left out
    batch_rows: int = 128  # documents in a step
    learning_rate: float = 5e-5  # at its peak
    final_ratio: float = 0.1  # of it, at the end of a cosine over all epochs
    warmup_steps: int = 0
    mtp_weight: float = 0.1  # of the loss of MTP modules, if the model has any: V3's later value
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    micro_rows: int | None = (
        2  # as many positions at once as so many rows of a batch's longest have; None: all. The result is the same
    )
    compute: str = "float32"  # of the blocks: float32 | bfloat16 | auto; weights stay float32
    recompute: bool = False  # less memory, more time
    average_decay: float = 0.0  # averaged weights, judged at validation; 0: none are kept
    checkpoint_every: int = 100  # steps
    keep: int = 2  # checkpoints
    validate_every: int = 0  # steps; 0: only after the last one, if there are validation documents

    def __post_init__(self) -> None:
        if self.epochs < 1:
            raise ValueError(f"epochs is {self.epochs}, expected at least 1")
        if self.final_ratio > 1:
            raise ValueError(f"final_ratio is {self.final_ratio}, expected at most 1")
        self.training(total_tokens=1)  # refuses the rest

    def training(self, total_tokens: int) -> PretrainConfig:
        """The same as settings of the shared loop, which counts real positions and is done after `total_tokens` of them."""
        schedule = Schedule(
            total_tokens, self.learning_rate, self.warmup_steps, constant_until=0.0, cosine_until=1.0, tail_until=1.0,
            cosine_ratio=self.final_ratio, tail_ratio=self.final_ratio, batch_rows=self.batch_rows, batch_rows_start=0,
            mtp_weight=self.mtp_weight, mtp_weight_late=self.mtp_weight, bias_speed=0.0,
        )  # fmt: skip
        return PretrainConfig(
            self.length, schedule, self.optimizer, self.micro_rows, self.compute,
            self.recompute, average_decay=self.average_decay, checkpoint_every=self.checkpoint_every, keep=self.keep, validate_every=self.validate_every,
        )  # fmt: skip


def make_batch(documents: Sequence[Document]) -> Batch:
    """One document per row, the longest first, padded on the right."""
    rows = sorted(documents, key=lambda document: -document.length)
    tokens = pad_sequence([row.ids_T for row in rows], batch_first=True)
    weights_BS = pad_sequence([row.targets_T[1:].float() for row in rows], batch_first=True)
    lengths_B = torch.tensor([row.length for row in rows])
    return Batch(tokens, weights_BS, torch.arange(weights_BS.shape[1]) < lengths_B[:, None])


class DocumentStream:
    """Every document once in each epoch, in an order that follows from (seed, epoch); the last batch takes what is left."""

    def __init__(self, documents: Sequence[Document], epochs: int, seed: int) -> None:
        self.documents, self.epochs, self.seed = documents, epochs, seed
        self.total_tokens = epochs * sum(document.length for document in documents)
        self._data = _fingerprint(documents)
        self._read, self._epoch = 0, -1

    def batch(self, rows: int) -> Batch:
        end = min(self._read + rows, self.epochs * len(self.documents))
        places = [self._place(n) for n in range(self._read, end)]
        self._read = end
        return make_batch([self.documents[place] for place in places])

    def _place(self, n: int) -> int:
        epoch, place = divmod(n, len(self.documents))
        if epoch != self._epoch:
            self._epoch, self._order = (
                epoch,
                shuffled(random_stream(self.seed, _ORDER, epoch), range(len(self.documents))),
            )
        return self._order[place]

    def state(self) -> dict[str, Any]:
        return {"data": self._data, "seed": self.seed, "read": self._read}

    def restore(self, state: dict[str, Any]) -> None:
        expect_fields(state, "the saved stream", {"data": str, "read": int})
        for name, ours in (("data", self._data), ("seed", self.seed)):
            if state[name] != ours:
                raise ValueError(
                    f"the run was started with other documents or another order ({name} {state[name]}, now {ours})"
                )
        self._read = state["read"]


def _fingerprint(documents: Sequence[Document]) -> str:
    digest = hashlib.sha256()
    for document in documents:
        digest.update(
            document.ids_T.numpy().tobytes() + document.targets_T.numpy().tobytes() + b"|"
        )
    return digest.hexdigest()[:16]


def describe(documents: Sequence[Document], config: SFTConfig) -> str:
    """How much there is to train on, and what a step costs, in one sentence."""
    expect(len(documents) > 0, "the number of documents", 0, "at least 1")
    stream, computed = DocumentStream(documents, 1, 0), 0
    steps = -(-len(documents) // config.batch_rows)
    for _ in range(steps):
        computed += sum(
            piece.inputs_BS.numel()
            for piece in stream.batch(config.batch_rows).split(config.micro_rows)
        )
    targets = sum(int(document.targets_T.sum()) for document in documents)
    return (
        f"{len(documents):,} documents, {stream.total_tokens:,} tokens, {targets / stream.total_tokens:.0%} of them targets; an epoch takes "
        f"{steps:,} steps of {config.batch_rows} documents, {1 - stream.total_tokens / computed:.0%} of what they compute is padding"
    )


def require_ends(documents: Sequence[Document], tokenizer: Tokenizer) -> None:
    """Raises ValueError unless there are documents and each trains an end token: a model that never
    sees one as a target never stops."""
    expect(len(documents) > 0, "the number of documents", 0, "at least 1")
    ends = torch.tensor(tokenizer.stop_ids)
    for place, document in enumerate(documents):
        if not torch.isin(document.ids_T[1:][document.targets_T[1:]], ends).any():
            names = [tokenizer.token(index) for index in tokenizer.stop_ids]
            raise ValueError(
                f"document {place} has none of the end tokens {names} among its targets, so the model would never stop"
            )


def require_fit(documents: Sequence[Document], config: ModelConfig) -> None:
    """ValueError for a document longer than the context, or with words that the model has not."""
    context, words = config.max_position_embeddings, config.vocab_size
    for place, document in enumerate(documents):
        name, largest = f"of document {place}", int(document.ids_T.max())
        expect(document.length <= context, f"the length {name}", document.length,
               f"at most {context}, the context of the model")  # fmt: skip
        expect(largest < words, f"a token {name}", largest, f"at most {words - 1}, the vocabulary")


def sft(
    config: SFTConfig,
    model: nn.Module,
    tokenizer: Tokenizer,
    documents: Sequence[Document],
    run_dir: str | Path,
    tracker: Tracker,
    *,
    seed: int = 0,
    stage: str = STAGE,
    validation: Sequence[Document] = (),
    callback: Callable[[int, nn.Module], None] | None = None,
    progress: Progress | None = None,
) -> Trainer:
    """Trains `model` in place on `documents`; resumes and is interrupted as `pretrain` is. Raises the same errors, and ValueError when an
    end token is no target."""
    require_ends(documents, tokenizer)
    require_fit([*documents, *validation], model.config)
    stream = DocumentStream(documents, config.epochs, seed)
    held_out = [
        make_batch(validation[start : start + 16]) for start in range(0, len(validation), 16)
    ]
    return pretrain(config.training(stream.total_tokens), model, stream, tokenizer, run_dir, tracker, stage=stage,
                    validation=held_out, callback=callback, progress=progress)  # fmt: skip
