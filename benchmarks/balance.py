"""Three ways to keep experts busy, on real text: no balancing, the auxiliary loss, V3's bias method. Same data, same seed, same steps.

    python benchmarks/balance.py                    # six minutes or more for each of the three runs on one core
    python benchmarks/balance.py --tokens 20_000 --validation-tokens 4_000    # a smoke test, figures mean nothing

Prints validation loss and MaxVio over the validation text (held-out files of the Python library and of torch) and writes them as JSON. An
interrupted benchmark goes on where it was. The schedule is made for measuring balance with few steps: small batches first, so that biases
travel; then large ones, a learning rate near 0 and a falling bias speed, so that they settle. The published result at 1B parameters: MaxVio
0.72 with the auxiliary loss, 0.04 with the bias method, perplexity 9.56 and 9.50 (arXiv 2408.15664, table 2).
"""

from __future__ import annotations

import json
import time
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path

import torch
import tyro
from text_corpus import TextCorpus

from deepwright.config import ModelConfig
from deepwright.data import PackedStream
from deepwright.files import read_records
from deepwright.metrics import JsonlTracker
from deepwright.model import Transformer
from deepwright.text.tokenizer import Tokenizer, train_bpe
from deepwright.train.optimizer import OptimizerConfig
from deepwright.train.pretrain import PretrainConfig, pretrain
from deepwright.train.schedule import Schedule

METHODS = ("none", "auxiliary", "bias")


@dataclass(frozen=True)
class Excerpts(TextCorpus):
    """The Python library and torch, at most `most` documents of a file, spread over it: few large files would be much of either split."""

    most: int = 12

    @cached_property
    def texts(self) -> tuple[str, ...]:
        documents: list[str] = []
        for folder in ("", str(Path(torch.__file__).parent)):
            corpus = TextCorpus(self.split, folder=folder, validation_every=self.validation_every)
            for name in corpus.files:
                text = (corpus.root / name).read_bytes().decode("utf-8", errors="replace")
                # characters from one document's start to the next one's
                apart = max(self.longest, -(-len(text) // self.most))
                documents += [
                    text[start : start + self.longest] for start in range(0, len(text), apart)
                ]
        return tuple(document for document in documents if document.strip())


@dataclass(frozen=True)
class Options:
    """The experiment's size."""

    tokens: int = 2_400_000  # trained on in each run
    validation_tokens: int = 1_600_000
    validation_every: int = 3  # one file of so many is held out
    rows: int = 64
    rows_start: int = 8  # of the first batch; the number rises to `rows` over 60% of the tokens
    length: int = 256
    vocabulary: int = 2048
    hidden: int = 128
    layers: int = 4
    experts: int = 16
    chosen: int = 2  # experts per token
    learning_rate: float = 3e-3
    optimizer: str = "muon"
    bias_speed: float = 0.005
    bias_decay: bool = True  # falls to 0 at the end; false: constant, then 0, as V3 has it
    sequence_alpha: float = 1e-4
    auxiliary_alpha: float = 1e-3
    compute: str = "auto"  # number format of the blocks: float32 | bfloat16 | auto
    longest: int = 800  # characters in a document, about one row
    most: int = 12  # documents taken from one file
    seed: int = 0
    methods: tuple[str, ...] = METHODS
    out: Path = Path("runs/balance")

    def corpus(self, split: str) -> Excerpts:
        return Excerpts(
            split,
            self.seed,
            longest=self.longest,
            validation_every=self.validation_every,
            most=self.most,
        )

    def model(self, tokenizer: Tokenizer) -> ModelConfig:
        return ModelConfig(
            vocab_size=tokenizer.vocab_size, hidden_size=self.hidden, intermediate_size=3 * self.hidden, moe_intermediate_size=96,
            num_hidden_layers=self.layers, first_k_dense_replace=1, num_attention_heads=4, n_routed_experts=self.experts,
            n_shared_experts=1, num_experts_per_tok=self.chosen, kv_lora_rank=48, qk_nope_head_dim=32, qk_rope_head_dim=16, v_head_dim=32,
            max_position_embeddings=self.length, bos_token_id=tokenizer.bos_id, eos_token_id=tokenizer.eos_id,
        )  # fmt: skip

    def training(self, method: str) -> PretrainConfig:
        schedule = Schedule(
            total_tokens=self.tokens, learning_rate=self.learning_rate, warmup_steps=50, constant_until=0.25, cosine_until=0.6,
            tail_until=0.75, cosine_ratio=0.01, tail_ratio=0.002, batch_rows=self.rows, batch_rows_start=self.rows_start, batch_ramp=0.6,
            bias_speed=self.bias_speed, bias_decay=self.bias_decay,
        )  # fmt: skip
        alphas = {"sequence_alpha": self.sequence_alpha, "auxiliary_alpha": self.auxiliary_alpha}
        return PretrainConfig(
            self.length, schedule, OptimizerConfig(self.optimizer), balance=method, compute=self.compute, checkpoint_every=100, keep=1,
            **alphas,
        )  # fmt: skip


def measure(
    options: Options, method: str, tokenizer: Tokenizer, validation: list[torch.Tensor]
) -> dict[str, float | str]:
    """Trains one model and returns its row of the table."""
    model = Transformer(options.model(tokenizer), torch.Generator().manual_seed(options.seed))
    stream = PackedStream(options.corpus("train"), tokenizer, options.length, seed=options.seed)
    folder, begun = options.out / method, time.perf_counter()
    tracker = JsonlTracker(folder / "metrics.jsonl")
    pretrain(
        options.training(method),
        model,
        stream,
        tokenizer,
        folder,
        tracker,
        stage="base",
        validation=validation,
    )
    last = read_records(folder / "metrics.jsonl")[-1]
    row = {
        name: last[name]
        for name in ("validation_loss", "max_vio_global", "max_vio", "dead_experts")
    }
    return {"method": method, **row, "seconds": round(time.perf_counter() - begun, 1)}


def main(options: Options) -> None:
    texts = options.corpus("train").texts
    tokenizer = train_bpe(texts[:: max(1, len(texts) // 500)], options.vocabulary, fim=False)
    held_out = PackedStream(
        options.corpus("validation"), tokenizer, options.length, seed=options.seed
    )
    validation = [
        held_out.batch(options.rows)
        for _ in range(max(1, options.validation_tokens // (options.rows * options.length)))
    ]
    rows = [measure(options, method, tokenizer, validation) for method in options.methods]
    columns = ("method", "validation_loss", "max_vio_global", "dead_experts", "seconds")
    print("", *(f"{name:>16}" for name in columns), sep="")
    for row in rows:
        print("", *(f"{row[name]:>16}" for name in columns), sep="")
    settings = {
        name: str(value) if isinstance(value, Path) else value
        for name, value in asdict(options).items()
    }
    report = options.out / "balance.json"
    report.write_text(
        json.dumps(
            {
                "options": settings,
                "torch": torch.__version__,
                "threads": torch.get_num_threads(),
                "rows": rows,
            },
            indent=1,
        )
    )
    print(f"written to {report}")


if __name__ == "__main__":
    main(tyro.cli(Options, description=__doc__))
