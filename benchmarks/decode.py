"""Decoding against transformers' `generate`: the same weights, alternating runs, medians, peak memory, and how far the floor is.

    python benchmarks/decode.py                                   # 18M parameters, batch 1, 32, 128, about ten minutes on two cores
    python benchmarks/decode.py --batches 1 --rounds 1 --new 16   # a smoke test

Each side lives in its own process with the same saved folder and greedy decoding. transformers runs with each of its expert
implementations that this machine supports; its best counts. Token agreement is reported too: both sides compute the same network.
"""

from __future__ import annotations

import json
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import torch
import tyro

from deepwright.config import preset

PEER = preset("benchmark")
THEIR_EXPERTS = ("eager", "batched_mm", "grouped_mm")


@dataclass(frozen=True)
class Options:
    """What to run. `side` is used by the benchmark itself to start its two workers."""

    batches: tuple[int, ...] = (1, 32, 128)
    prompt: int = 32
    new: int = 128
    rounds: int = 5
    threads: int = 2
    side: str = ""
    folder: str = ""


def prompts_of(batch: int, length: int) -> torch.Tensor:
    return torch.randint(2, PEER.vocab_size, (batch, length), generator=torch.Generator().manual_seed(batch))


def our_side(folder: str, options: Options):
    from deepwright.inference.engine import Engine
    from deepwright.numerics import keep_heap
    from deepwright.sampler import Sampling
    from deepwright.weights import load_model

    keep_heap()  # as every command of ours does
    engine = Engine(load_model(folder))

    def generate(batch: int, way: str) -> list[list[int]]:
        groups = engine.sample(prompts_of(batch, options.prompt).tolist(), Sampling(max_tokens=options.new, temperature=0.0))
        return [list(group[0].token_ids) for group in groups]

    return generate, ["engine"]


def their_side(folder: str, options: Options):
    from transformers import AutoModelForCausalLM
    from transformers.utils import logging

    logging.set_verbosity_error()
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()

    @torch.inference_mode()
    def generate(batch: int, way: str) -> list[list[int]]:
        model.set_experts_implementation(way)
        ids = prompts_of(batch, options.prompt)
        out = model.generate(
            ids,
            attention_mask=torch.ones_like(ids),
            max_new_tokens=options.new,
            min_new_tokens=options.new,
            do_sample=False,
            pad_token_id=0,
        )
        return out[:, options.prompt :].tolist()

    return generate, list(THEIR_EXPERTS)


def work(options: Options) -> None:
    """A worker: reads "batch way" lines, answers with seconds, peak memory and the tokens as JSON."""
    torch.set_num_threads(options.threads)
    generate, ways = (our_side if options.side == "ours" else their_side)(options.folder, options)
    print(json.dumps(ways), flush=True)
    for line in sys.stdin:
        batch, way = line.split()
        started = time.perf_counter()
        tokens = generate(int(batch), way)
        answer = {"seconds": time.perf_counter() - started, "tokens": tokens}
        print(json.dumps(answer | {"peak_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024}), flush=True)


class Worker:
    """One side in a process of its own; while it waits for a line it costs nothing."""

    def __init__(self, side: str, options: Options, folder: str):
        sizes = ["--prompt", options.prompt, "--new", options.new, "--threads", options.threads]
        command = [sys.executable, __file__, "--side", side, "--folder", folder, *map(str, sizes)]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.ways = json.loads(self.process.stdout.readline())

    def run(self, batch: int, way: str) -> dict:
        self.process.stdin.write(f"{batch} {way}\n")
        self.process.stdin.flush()
        line = self.process.stdout.readline()
        if not line:
            raise RuntimeError(f"the worker ended during batch {batch} with {way}")
        return json.loads(line)

    def close(self) -> None:
        self.process.stdin.close()
        self.process.wait()


def best_seconds(work_once, repeats: int = 5) -> float:
    times = []
    for _ in range(repeats):
        started = time.perf_counter()
        work_once()
        times.append(time.perf_counter() - started)
    return min(times)


def floor(options: Options, batch: int) -> float:
    """Tokens/s that this machine's GEMM rate and read bandwidth, measured now, would allow: the slower of the two per step."""
    a, big = torch.randn(2048, 2048), torch.ones(64_000_000)
    rate = 2 * 2048**3 / best_seconds(lambda: a @ a)
    bandwidth = 4 * big.numel() / best_seconds(lambda: big.sum())
    keys = options.prompt + options.new / 2
    share = 1 - (1 - PEER.num_experts_per_tok / PEER.n_routed_experts) ** batch  # of the experts, met by a step's tokens
    layers = range(PEER.num_hidden_layers)
    routed = sum(PEER.block_parameters(i) - PEER.block_parameters(i, active=True) for i in layers)
    inactive = routed / (1 - PEER.num_experts_per_tok / PEER.n_routed_experts) * (1 - share)
    read = sum(PEER.block_parameters(i) for i in layers) - inactive + PEER.embedding_parameters
    numbers = read + batch * keys * PEER.cache_width * PEER.num_hidden_layers
    return batch / max(batch * PEER.forward_flops(keys) / rate, 4 * numbers / bandwidth)


def agreement(a: list[list[int]], b: list[list[int]]) -> float:
    """Share of positions before each row's first difference."""
    same = [next((i for i, (x, y) in enumerate(zip(p, q)) if x != y), len(p)) for p, q in zip(a, b, strict=True)]
    return sum(same) / sum(map(len, a))


def compare(options: Options, folder: str, batch: int) -> dict:
    """One line of the table. Both workers are fresh, so that each peak is this batch's own; the first run of each warms up."""
    ours, theirs = Worker("ours", options, folder), Worker("theirs", options, folder)
    first, peaks, their_way = ours.run(batch, "engine"), {}, {}
    for way in theirs.ways:
        theirs.run(batch, way)
        their_way[way] = theirs.run(batch, way)
    way = min(their_way, key=lambda w: their_way[w]["seconds"])
    seconds = {"ours": [], "theirs": []}
    for _ in range(options.rounds):
        for side, answer in (("ours", ours.run(batch, "engine")), ("theirs", theirs.run(batch, way))):
            seconds[side].append(answer["seconds"])
            peaks[side] = answer["peak_mb"]
    ours.close(), theirs.close()
    clean = Worker("theirs", options, folder)  # its peak with the best way alone
    peaks["theirs"] = clean.run(batch, way)["peak_mb"]
    clean.close()
    rate = {side: batch * options.new / statistics.median(times) for side, times in seconds.items()}
    return {
        "batch": batch, "ours": rate["ours"], "theirs": rate["theirs"], "their experts": way, "ratio": rate["ours"] / rate["theirs"],
        "floor": floor(options, batch), "our MB": peaks["ours"], "their MB": peaks["theirs"],
        "same tokens": agreement(first["tokens"], their_way[way]["tokens"]),
    }  # fmt: skip


def main(options: Options) -> None:
    from deepwright.model import Transformer
    from deepwright.weights import save_model

    torch.set_num_threads(options.threads)
    with tempfile.TemporaryDirectory() as folder:
        save_model(Transformer(PEER, torch.Generator().manual_seed(0)), Path(folder) / "model")
        print(f"decode {options.prompt} + {options.new} greedy, fp32, {options.threads} threads, median of {options.rounds}, tok/s")
        for batch in options.batches:
            row = compare(options, str(Path(folder) / "model"), batch)
            print(
                f"batch {row['batch']:4d}: ours {row['ours']:6.0f}   transformers {row['theirs']:6.0f} ({row['their experts']})"
                f"   ratio {row['ratio']:.2f}   floor {row['floor']:6.0f} (we reach {row['ours'] / row['floor']:.0%})"
                f"   peak MB {row['our MB']:.0f} / {row['their MB']:.0f}   same tokens {row['same tokens']:.0%}",
                flush=True,
            )


if __name__ == "__main__":
    chosen = tyro.cli(Options)
    work(chosen) if chosen.side else main(chosen)
