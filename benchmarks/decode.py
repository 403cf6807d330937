"""Decoding against transformers' `generate`: the same weights, greedy, fp32, in turn; medians, peak memory, and how far the floor is.

    python benchmarks/decode.py                                       # 18M parameters, batch 1, 32, 128
    python benchmarks/decode.py --batches 1 --rounds 1 --new 16       # a smoke test

transformers runs with each of its ways to compute experts; its best counts. That both give the same tokens is for the tests to show. The
floor of a step is the slower of its FLOPs over the measured matrix rate and its bytes over the measured bandwidth.
"""

from __future__ import annotations

import argparse
import functools
import tempfile
from pathlib import Path

import torch
from alternate import alternate, gemm_rate, read_rate

from deepwright import numerics, weights
from deepwright.config import preset
from deepwright.inference.engine import Engine
from deepwright.model import Transformer
from deepwright.sampler import Sampling

PEER = preset("benchmark")
EXPERT_PATHS = ("eager", "batched_mm", "grouped_mm")
GATHERED = 32  # batched_mm copies the weights of every token's experts: with more rows its prefill takes minutes and gigabytes


def prompts_of(batch: int, length: int) -> torch.Tensor:
    return torch.randint(
        2, PEER.vocab_size, (batch, length), generator=torch.Generator().manual_seed(batch)
    )


def make_ours(folder: Path, batch: int, prompt: int, new: int):
    numerics.keep_heap()  # as every command of ours does
    engine, prompts = Engine(weights.load_model(folder)), prompts_of(batch, prompt).tolist()

    def work() -> int:
        groups = engine.sample(prompts, Sampling(max_tokens=new, temperature=0.0))
        return sum(len(group[0].token_ids) for group in groups)

    return work


def make_theirs(folder: Path, batch: int, prompt: int, new: int, experts: str):
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(
        folder, dtype=torch.float32, experts_implementation=experts
    ).eval()
    ids = prompts_of(batch, prompt)
    asked = dict(
        attention_mask=torch.ones_like(ids),
        max_new_tokens=new,
        min_new_tokens=new,
        do_sample=False,
        pad_token_id=0,
    )

    @torch.inference_mode()
    def work() -> int:
        return model.generate(ids, **asked)[:, prompt:].numel()

    return work


def floor(batch: int, keys: float) -> float:
    """Tokens per second."""
    # of the experts, met by a step's tokens
    share = 1 - (1 - PEER.num_experts_per_tok / PEER.n_routed_experts) ** batch
    layers = range(PEER.num_hidden_layers)
    routed = sum(PEER.block_parameters(i) - PEER.block_parameters(i, active=True) for i in layers)
    idle = routed / (1 - PEER.num_experts_per_tok / PEER.n_routed_experts) * (1 - share)
    numbers = sum(PEER.block_parameters(i) for i in layers) - idle + PEER.embedding_parameters
    numbers += batch * keys * PEER.cache_width * PEER.num_hidden_layers
    return batch / max(batch * PEER.forward_flops(keys) / gemm_rate(), 4 * numbers / read_rate())


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 32, 128])
    parser.add_argument("--prompt", type=int, default=32)
    parser.add_argument("--new", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    asked = parser.parse_args()
    print(
        f"decoding {asked.prompt} + {asked.new} tokens, greedy, fp32, {PEER.parameters:,} parameters, {asked.threads} threads, tokens/s"
    )
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place) / "model"
        weights.save_model(Transformer(PEER, torch.Generator().manual_seed(0)), folder)
        for batch in asked.batches:
            size = (folder, batch, asked.prompt, asked.new)
            sides = {"deepwright": functools.partial(make_ours, *size)}
            ways = [way for way in EXPERT_PATHS if way != "batched_mm" or batch <= GATHERED]
            sides |= {
                f"transformers, {way}": functools.partial(make_theirs, *size, way) for way in ways
            }
            found = alternate(sides, asked.rounds, asked.threads)
            ours, limit = found["deepwright"], floor(batch, asked.prompt + asked.new / 2)
            name, theirs = max(
                ((n, side) for n, side in found.items() if n != "deepwright"),
                key=lambda pair: pair[1].rate,
            )
            print(
                f"  batch {batch:3d}: {ours.rate:6,.0f} against {theirs.rate:6,.0f} ({name}), {ours.rate / theirs.rate:.2f}x"
                f"  {ours.rate / limit:4.0%} of the floor's {limit:,.0f}  peak {ours.peak_mb:,.0f} / {theirs.peak_mb:,.0f} MB",
                flush=True,
            )


if __name__ == "__main__":
    main()
