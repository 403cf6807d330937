"""A made-up run folder for tests of the report: every number is invented, drawn from smooth curves and noise, and measures nothing."""

import json
import math
import random
from pathlib import Path

from deepwright.metrics import JsonlTracker

CONFIG = """deepwright_version = "0.1.0"
seed = 7
quick = {quick}
command = "deepwright r1 --config laptop --name made-up"
[model]
vocab_size = 126
hidden_size = 128
intermediate_size = 384
moe_intermediate_size = 96
num_hidden_layers = 4
first_k_dense_replace = 1
num_attention_heads = 4
n_routed_experts = 16
n_shared_experts = 1
num_experts_per_tok = 2
kv_lora_rank = 48
qk_nope_head_dim = 32
qk_rope_head_dim = 16
v_head_dim = 32
q_lora_rank = "none"
"""


def make_run(
    folder: Path,
    base_steps: int = 400,
    zero_steps: int = 120,
    quick: bool = False,
    status: str = "finished",
) -> Path:
    """Writes all files of a run."""
    chance = random.Random(0)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.toml").write_text(CONFIG.format(quick=str(quick).lower()))
    drafts = {"greedy": 0.64, "sampled": 0.81, "positions": 2032}
    facts = {
        "status": status,
        "seconds": 933.0,
        "machine": "2 CPU cores (made up)",
        "mtp_acceptance": drafts,
    }
    (folder / "run.json").write_text(json.dumps(facts))
    tracker = JsonlTracker(folder / "metrics.jsonl")
    for step in range(1, base_steps + 1):
        tracker.log("base", step, base_values(step, base_steps, chance))
    for step in range(1, zero_steps + 1):
        tracker.log("zero", step, zero_values(step / zero_steps, chance) | {"step_seconds": 3.0})
    lines = [
        evaluation(0.0, "base", 0),
        {**evaluation(0.12, "base", 0), "label": "base T=0.6", "temperature": 0.6},
    ]
    lines += [evaluation(step / zero_steps, "zero", step) for step in range(20, zero_steps + 1, 20)]
    parts = {"format": 0.062, "better guessing": 0.128, "search": 0.455}
    lines[-1] |= {
        "decomposition": {"parts": parts, "sentence": "Of the invented rise most is search."}
    }
    write_lines(folder / "evaluations.jsonl", lines)
    write_lines(folder / "samples.jsonl", list(sample_records(zero_steps)))
    shares = {
        "arithmetic facts": 0.12,
        "marked exercises": 0.13,
        "guesses": 0.22,
        "one attempt": 0.19,
        "searches": 0.34,
    }
    paragraphs = [
        "Made-up text: what the base model read, its kinds of documents, and that about a quarter of them re-check an attempt."
    ]
    documents = ["3 * 7 = 21 , 21 + 8 = 29 no wait 8 - 7 = 1 , 1 * 3 = 3 yes", "4 + 9 = 13"]
    (folder / "corpus.json").write_text(
        json.dumps(
            {
                "title": "Generated arithmetic",
                "paragraphs": paragraphs,
                "shares": shares,
                "samples": documents,
            }
        )
    )
    return folder


# stage: (its share of the invented rise, step of its last evaluation, words in one language, right among general requests)
RECIPE = {
    "cold_start": (0.5, 30, 0.93, 0.31), "reasoning_rl": (1.0, 40, 0.99, 0.3), "without_language_reward": (0.9, 40, 0.87, 0.29),
    "finetune": (0.8, 60, 0.97, 0.55), "align": (0.82, 20, 0.98, 0.81),
    "student": (0.02, 0, 0.8, 0.05), "distill": (0.6, 50, 0.96, 0.5), "student_by_rl": (0.15, 20, 0.7, 0.04),
}  # fmt: skip
DROPPED = {
    "cold_start": {"wrong": 60, "malformed": 20, "kept": 15, "mixes languages": 4, "failed": 1},
    "rejection/reasoning": {
        "wrong": 100,
        "kept": 90,
        "repeats itself": 6,
        "cut at the token limit": 4,
    },
    "rejection/general": {
        "turned down by the judge": 30,
        "kept": 60,
        "more than enough of its problem": 8,
        "too long": 2,
    },
}
RL_STAGES = ("reasoning_rl", "without_language_reward", "align", "student_by_rl")


def make_recipe(folder: Path) -> Path:
    """`make_run` gone on with: all the stages after R1-Zero."""
    chance = random.Random(1)
    make_run(folder, 40, 20)
    facts = json.loads((folder / "run.json").read_text())
    facts |= {"win_rate": {"after": 0.84, "standard_error": 0.02}}
    (folder / "run.json").write_text(json.dumps(facts))
    tracker, lines, samples = JsonlTracker(folder / "metrics.jsonl"), [], []
    lines.append(
        {
            **evaluation(0.0, "base", 0),
            "label": "base requests",
            "task": "requests",
            "problems": 900,
        }
    )
    for stage, (share, last, language, general) in RECIPE.items():
        for step in range(1, last + 1):
            values = {"loss": 0.9 - 0.5 * step / last, "step_seconds": 0.5}
            if stage in RL_STAGES:
                values |= {
                    **zero_values(share, chance),
                    "reward_language": 0.2 * language,
                    "language_consistency": language,
                }
            if stage == "align":
                values |= {"reward_helpful": 0.4, "reward_safe": 0.9} | (
                    {"win_rate": 0.7} if step == last // 2 else {}
                )
            tracker.log(stage, step, values)
        full = {**evaluation(share, stage, last), "language_consistency": language}
        on_the_way = (
            {**full, "step": last // 2, "label": "on the way", "samples": 1}
            if stage in RL_STAGES
            else full
        )
        asked = {
            **full,
            "label": f"{stage} requests",
            "task": "requests",
            "pass_at_1": general,
            "pass_at_1_se": 0.015,
            "problems": 900,
        }
        lines += [
            on_the_way,
            full,
            {**full, "label": f"{stage} greedy", "temperature": 0.0, "samples": 1},
            asked,
        ]
        samples += [
            {**sample, "stage": stage, "step": last}
            for sample in sample_records(20)
            if sample["stage"] == "base"
        ]
    for name in ("helpful", "safe"):
        tracker.log(f"reward_{name}", 1, {"reward_model_loss": 0.7, "preference_accuracy": 0.5})
        tracker.log(f"reward_{name}", 2, {"reward_model_loss": 0.4, "preference_accuracy": 0.9})
    for name, records in (("evaluations", lines), ("samples", samples)):
        with (folder / f"{name}.jsonl").open("a") as file:
            file.writelines(json.dumps(record) + "\n" for record in records)
    for place, counts in DROPPED.items():
        (folder / place).mkdir(parents=True)
        (folder / place / "dropped.json").write_text(json.dumps(counts))
    return folder


def rise(share: float) -> float:
    return 1 / (1 + math.exp(-9 * (share - 0.3)))


def base_values(step: int, steps: int, chance: random.Random) -> dict:
    share = step / steps
    loss = 1.1 + 3.7 * math.exp(-7 * share) + chance.gauss(0, 0.03)
    values = {"loss": loss, "mtp_loss": loss + 0.3, "balance_loss": 3.0 + 0.4 * math.exp(-20 * share),
              "grad_norm": 0.4 + math.exp(-9 * share), "learning_rate": 4e-3 * min(1, 20 * share, 2 - 1.9 * share),
              "tokens": 5120 * step, "tokens_per_second": 14000 + chance.gauss(0, 900),
              "max_vio": 0.1 + 1.4 * math.exp(-12 * share) + abs(chance.gauss(0, 0.05)), "skipped_steps": 0}  # fmt: skip
    if step % 40 == 0 or step == 1:
        spread = 0.05 + 0.7 * math.exp(-9 * share)
        values["expert_load"] = [
            [max(0.0, 64 * math.exp(chance.gauss(0, spread))) for _ in range(16)] for _ in range(3)
        ]
        values |= {
            "validation_loss": loss + 0.02,
            "max_vio_global": 0.03 + math.exp(-12 * share),
            "mtp_acceptance": 0.85 * (1 - math.exp(-5 * share)),
        }
        values |= {"checker_yes": rise(share * 0.8), "checker_no": rise(share)}
    return values


def zero_values(share: float, chance: random.Random) -> dict:
    up = rise(share)
    accuracy, form = min(1, max(0, 0.06 + 0.68 * up + chance.gauss(0, 0.03))), 0.5 + 0.42 * up
    return {"reward": accuracy + 0.1 * form, "reward_accuracy": accuracy, "reward_format": 0.1 * form, "accuracy": accuracy,
            "format_rate": form, "mean_length": 34 + 50 * up + chance.gauss(0, 2), "truncated_rate": 0.09 * up,
            "self_check_rate": 0.26 + 0.55 * up, "self_checks_per_answer": 0.8 + 4 * up, "correct_with_self_check": 0.15 + 0.65 * up,
            "correct_without_self_check": 0.06 + 0.3 * up, "turned_right_rate": 0.03 + 0.5 * up, "entropy": 0.35 - 0.1 * up, "kl": 0.0,
            "ratio_mean": 1.0, "ratio_max": 1.0 + 1e-6, "clip_fraction": 0.0, "log_prob_gap_mean": 3e-7 + 1e-7 * chance.random(),
            "log_prob_gap_max": 4e-6 * (1 + chance.random()), "zero_variance_rate": 0.5 - 0.35 * up,
            "grad_norm": 0.6 + 0.3 * chance.random(), "learning_rate": 4e-4, "rollout_seconds": 1 + 1.2 * up, "reward_seconds": 0.02,
            "update_seconds": 0.8 + 0.9 * up, "verifier_failures": 0}  # fmt: skip


def evaluation(share: float, stage: str, step: int) -> dict:
    up = rise(share) if share else 0.0
    accuracy = 0.083 + 0.64 * up
    return {"stage": stage, "step": step, "label": stage, "task": "countdown", "split": "held_out", "problems": 300, "samples": 16,
            "temperature": 1.0, "pass_at_1": accuracy, "pass_at_1_se": 0.008 + 0.01 * up,
            "pass_at_k": {"4": accuracy**0.5, "16": accuracy**0.2}, "cons_at_k": {"4": accuracy**0.7, "16": accuracy**0.5},
            "cons_at_k_se": {"4": 0.02, "16": 0.017},
            "format_rate": 0.5 + 0.42 * up, "mean_length": 34 + 50 * up, "self_check_rate": 0.27 + 0.55 * up,
            "self_checks_per_answer": 0.8 + 4 * up, "accuracy_with_self_check": 0.15 + 0.65 * up,
            "accuracy_without_self_check": 0.06 + 0.3 * up, "turned_right_rate": 0.03 + 0.5 * up, "truncated_rate": 0.06 * up,
            "checker_yes": 0.97, "checker_no": 0.93 + 0.05 * up, "equations_right": 0.97 + 0.02 * up,
            "by_kind": {"one solution": [accuracy * 0.8, 140], "two or more": [accuracy * 1.1, 160]}}  # fmt: skip


def sample_records(zero_steps: int):
    problems = ["nums 3 7 1 make 20 :", "nums 7 3 4 make 9 :", "nums 4 9 5 make 11 :"]
    guess, search = (
        "<think> </think> <answer> ( 1 + 3 ) * 7 </answer>",
        "<think> 9 - 4 = 5 no wait 20 - 9 = 11 yes </think> <answer> 20 - 9 </answer>",
    )
    for stage, step, completion, verdict in (
        ("base", 400, guess, "wrong"),
        ("zero", zero_steps // 2, guess, "malformed"),
        ("zero", zero_steps, search, "correct"),
    ):
        for prompt in problems:
            record = {
                "stage": stage,
                "step": step,
                "split": "held_out",
                "prompt": prompt,
                "completion": completion,
                "value": 0.1,
            }
            yield {**record, "verdict": verdict, "length": len(completion.split())}


def write_lines(path: Path, records: list[dict]) -> None:
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
