"""Training step (forward, backward, fused AdamW) against transformers: same weights, same batch, fp32, in turn; medians.

    python benchmarks/train_step.py [--rounds 5] [--rows 8] [--length 256]

The floor is the model's FLOPs over the machine's measured fp32 matrix rate. Neither side computes MTP (transformers has none) or a balance loss.
"""

from __future__ import annotations

import argparse
import functools
import tempfile
from pathlib import Path

import torch
from alternate import alternate, gemm_rate

from deepwright import numerics, weights
from deepwright.config import preset
from deepwright.model import Transformer
from deepwright.train.objective import Batch, Terms, accumulate_gradients

# transformers' ways to run experts, its best counts; batched_mm takes over 20 GB in training
EXPERT_PATHS = ("eager", "grouped_mm")


def tokens_of(rows: int, length: int, vocabulary: int) -> torch.Tensor:
    return torch.randint(
        0, vocabulary, (rows, length + 1), generator=torch.Generator().manual_seed(0)
    )


def make_ours(folder: Path, rows: int, length: int):
    numerics.keep_heap()
    model = weights.load_model(folder)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, betas=(0.9, 0.95), fused=True)
    batch = Batch(tokens_of(rows, length, model.config.vocab_size))

    def work() -> int:
        accumulate_gradients(model, batch, Terms())
        optimizer.step()
        optimizer.zero_grad()
        return rows * length

    return work


def make_theirs(folder: Path, rows: int, length: int, experts: str):
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(
        folder, dtype=torch.float32, experts_implementation=experts
    ).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, betas=(0.9, 0.95), fused=True)
    tokens = tokens_of(rows, length, model.config.vocab_size)
    inputs, targets = tokens[:, :-1].contiguous(), tokens[:, 1:].contiguous()

    def work() -> int:
        model(
            input_ids=inputs, shift_labels=targets, labels=targets, use_cache=False
        ).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        return rows * length

    return work


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--rows", type=int, default=8)
    parser.add_argument("--length", type=int, default=256)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    asked = parser.parse_args()
    config = preset("benchmark")
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place) / "model"
        weights.save_model(Transformer(config, torch.Generator().manual_seed(0)), folder)
        sides = {"deepwright": functools.partial(make_ours, folder, asked.rows, asked.length)}
        sides |= {
            f"transformers, {path}": functools.partial(
                make_theirs, folder, asked.rows, asked.length, path
            )
            for path in EXPERT_PATHS
        }
        # the first steps make the heap grow
        found = alternate(sides, asked.rounds, asked.threads, warm_up=3)
    floor = gemm_rate() / config.training_flops(asked.length)
    print(
        f"training step, {asked.rows} x {asked.length} tokens, {config.parameters:,} parameters, fp32, {asked.threads} threads"
    )
    for name, side in found.items():
        print(
            f"  {name:<26} {side.rate:8,.0f} tokens/s  {side.rate / floor:4.0%} of the floor's {floor:,.0f}  peak {side.peak_mb:,.0f} MB"
        )
    best = max(
        (side for name, side in found.items() if name != "deepwright"), key=lambda side: side.rate
    )
    print(
        f"  ratio to transformers' best: {found['deepwright'].rate / best.rate:.2f}x  (asked: at least 1.5x, peak memory no higher)"
    )


if __name__ == "__main__":
    main()
