"""A GRPO step against TRL's GRPOTrainer: the same weights, prompts, group size and lengths, in turn; medians, peak memory. Needs `pip install trl`.

    python benchmarks/grpo_step.py                                    # the 18M DeepSeek-type model with random weights, fp32
    python benchmarks/grpo_step.py --model models/smollm2 --prompts 4 --samples 4 --new 48 --compute bfloat16 --packed

A step is roll-out, reward and update; ours are printed apart, each beside its floor: FLOPs over the measured matrix rate (for a step of the
roll-out, or the bytes of the weights over the measured bandwidth where that is slower). Random weights do not end a completion, so both sides
sample and train on --new tokens each; with a real model TRL is given the same limit. The reward (share of even letters, from the text alone)
costs both sides nothing. No KL term, no vLLM.
"""

from __future__ import annotations

import argparse
import functools
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from alternate import alternate, gemm_rate, read_rate
from text_corpus import TextCorpus

from deepwright import numerics, weights
from deepwright.config import ModelConfig, preset
from deepwright.inference.engine import Engine
from deepwright.model import Transformer
from deepwright.rl.config import GRPOConfig
from deepwright.rl.grpo import Learner, collect
from deepwright.rl.types import Group
from deepwright.sampler import Completion, Sampling, StopReason
from deepwright.tasks import Problem, Score, Split, Verdict
from deepwright.text.tokenizer import train_bpe
from deepwright.train.optimizer import OptimizerConfig

PHASES = ("roll-out", "reward", "update")


def even_share(text: str) -> float:
    """A reward with variance in every group."""
    return sum(ord(letter) % 2 == 0 for letter in text) / max(1, len(text))


def prompt_text(i: int) -> str:
    return f"def function_{i}(argument, other=None): return"


@dataclass(frozen=True)
class Even:
    """The reward as a task of ours."""

    name = "even"
    largest_number = 0

    def size(self, split: Split) -> int:
        return 10_000

    def problem(self, i: int, split: Split) -> Problem:
        return Problem(i, prompt_text(i), "", "all")

    def score(self, problem: Problem, completion: str) -> Score:
        return Score(
            even_share(completion),
            Verdict.CORRECT,
            "",
            {"accuracy": even_share(completion), "format": 0.0},
        )

    def score_many(self, problems: Sequence[Problem], completions: Sequence[str]) -> list[Score]:
        return [
            self.score(problem, completion)
            for problem, completion in zip(problems, completions, strict=True)
        ]

    def tokenizer_words(self) -> tuple[str, ...]:
        return ()


def make_ours(folder: Path, asked: argparse.Namespace):
    numerics.keep_heap()
    model, tokenizer = weights.load(folder)
    config = GRPOConfig(
        steps=10_000, prompts=asked.prompts, samples=asked.samples, max_tokens=asked.new, learning_rate=1e-6,
        compute=asked.compute, pack_groups=asked.packed, optimizer=OptimizerConfig(weight_decay=0.0, moments=asked.moments),
        zero_variance="keep",  # TRL trains on every group
    )  # fmt: skip
    learner, sampler = Learner(config, model), Ended(Engine(model, tokenizer))

    def work() -> int:
        with model.computing(numerics.compute_dtype(asked.compute)[0]):
            groups, found = collect(config, Even(), tokenizer, sampler, learner.round)
            begun = time.perf_counter()
            learner.learn(groups)
        seconds = (found["rollout_seconds"], found["reward_seconds"], time.perf_counter() - begun)
        if not limits:
            limits.extend(floors(model.config, groups, asked))
        parts = (
            f"{name} {took:.2f} s (floor {floor:.2f})"
            for name, took, floor in zip(PHASES, seconds, limits, strict=True)
        )
        print("    deepwright:", ", ".join(parts), flush=True)
        return asked.prompts * asked.samples

    limits: list[float] = []
    return work


def floors(
    config: ModelConfig, groups: Sequence[Group], asked: argparse.Namespace
) -> tuple[float, float, float]:
    """Seconds that roll-out, reward and update would take if nothing but products, or reading weights, took time."""
    dtype = numerics.compute_dtype(asked.compute)[0]
    rate, rollouts = gemm_rate(dtype), [rollout for group in groups for rollout in group.rollouts]
    prompt = sum(len(rollout.prompt_ids) for rollout in rollouts) / len(rollouts)
    said = sum(rollout.length for rollout in rollouts)
    step = max(
        len(rollouts) * config.forward_flops(prompt + asked.new / 2) / rate,
        dtype.itemsize * config.active_parameters / read_rate(),
    )
    prefill = (
        sum(len(group.rollouts[0].prompt_ids) for group in groups)
        * config.forward_flops(prompt / 2)
        / rate
    )
    return (
        prefill + step * said / len(rollouts),
        0.0,
        (prompt * len(rollouts) + said) * config.training_flops(round(prompt + asked.new)) / rate,
    )


@dataclass(frozen=True)
class Ended:
    """A sampler whose completions count as ended where they reached the limit, as TRL has it: ours would score them as wrong."""

    engine: Engine

    def sample(
        self, prompts: Sequence[Sequence[int]], sampling: Sampling
    ) -> list[list[Completion]]:
        groups = self.engine.sample(prompts, sampling)
        return [[replace(one, stop=StopReason.STOP) for one in group] for group in groups]


def make_theirs(folder: Path, asked: argparse.Namespace):
    from datasets import Dataset
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from trl import GRPOConfig as TheirConfig
    from trl import GRPOTrainer

    rows = asked.prompts * asked.samples
    settings = TheirConfig(
        output_dir=tempfile.mkdtemp(), per_device_train_batch_size=rows, num_generations=asked.samples, max_completion_length=asked.new,
        learning_rate=1e-6, beta=0.0, max_steps=1, report_to=[], save_strategy="no", use_cpu=True, bf16=asked.compute == "bfloat16",
        disable_tqdm=True, logging_strategy="no", gradient_checkpointing=False,
    )  # fmt: skip
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    prompts = Dataset.from_list(
        [{"prompt": [{"role": "user", "content": prompt_text(i)}]} for i in range(1000)]
    )
    trainer = GRPOTrainer(
        model=model, processing_class=AutoTokenizer.from_pretrained(folder), args=settings, train_dataset=prompts,
        reward_funcs=lambda completions, **_: [even_share(one[0]["content"]) for one in completions],
    )  # fmt: skip

    def work() -> int:
        trainer.train()
        return rows

    return work


def random_model(place: Path) -> Path:
    """The peer model with random weights and a vocabulary of its size."""
    config = preset("benchmark")
    texts = TextCorpus("train").texts
    tokenizer = train_bpe(texts[:: max(1, len(texts) // 300)], config.vocab_size, fim=False)
    ids = {
        "vocab_size": tokenizer.vocab_size,
        "bos_token_id": tokenizer.bos_id,
        "eos_token_id": tokenizer.eos_id,
    }
    weights.save(
        Transformer(replace(config, **ids), torch.Generator().manual_seed(0)),
        tokenizer,
        place / "model",
    )
    return place / "model"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", type=Path)
    parser.add_argument("--prompts", type=int, default=8)
    parser.add_argument("--samples", type=int, default=8)
    parser.add_argument("--new", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--compute", default="float32", choices=("float32", "bfloat16"))
    parser.add_argument(
        "--packed",
        action="store_true",
        help="our rows of one prompt as one sequence: pays where prompts are long",
    )
    parser.add_argument(
        "--moments",
        default="float32",
        choices=("float32", "bfloat16"),
        help="our AdamW's, as V3 keeps them: bfloat16",
    )
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as place:
        folder = asked.model or random_model(Path(place))
        sides = {
            "deepwright": functools.partial(make_ours, folder, asked),
            "trl": functools.partial(make_theirs, folder, asked),
        }
        found = alternate(sides, asked.rounds, asked.threads)
    print(
        f"GRPO step, {asked.prompts} x {asked.samples} completions of {asked.new} tokens, {asked.compute}, {asked.threads} threads"
    )
    for name, side in found.items():
        print(f"  {name:<11} {side.rate:6.2f} samples/s  peak {side.peak_mb:,.0f} MB")
    print(
        f"  ratio {found['deepwright'].rate / found['trl'].rate:.2f}x, memory {found['deepwright'].peak_mb / found['trl'].peak_mb:.2f}"
    )


if __name__ == "__main__":
    main()
