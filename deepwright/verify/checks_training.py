"""Checks of pre-training, reinforcement learning and the engine, on one small model: losses, gradients, advantages, log-probabilities.

The bound is that of the network's checks: every figure here is a sum of a few of its outputs.
"""

from __future__ import annotations

import dataclasses
import math

import torch
import torch.nn.functional as F
from torch import Tensor

from deepwright.inference.engine import Engine
from deepwright.model import Transformer
from deepwright.rl import losses, rollout, update
from deepwright.rl.types import Group, Rollout, Row
from deepwright.sampler import Completion, Sampling, StopReason
from deepwright.tasks import Problem, Score, Verdict
from deepwright.train import objective
from deepwright.verify.cases import CASES, random_model, random_tokens, relative_error
from deepwright.verify.check import Result, check, largest
from deepwright.verify.checks_model import BOUND, reference_of

TERMS = objective.Terms(mtp=0.3, sequence=0.01)


def model_with_mtp() -> Transformer:
    return random_model(CASES["v3 two MTP modules"])


def gradients(model: Transformer) -> dict[str, Tensor]:
    return {name: parameter.grad.clone() for name, parameter in model.named_parameters() if parameter.grad is not None}


@check("Main and MTP losses of a batch with those of the float64 reference: which token each position predicts.", "that the loss falls.")
def losses_equal_reference() -> Result:
    model, tokens = model_with_mtp(), random_tokens(2, 24)
    sums = objective.accumulate_gradients(model, objective.Batch(tokens), TERMS)
    main, mtp, reference = 0.0, 0.0, reference_of(model)
    for row in tokens:
        inputs = row[:-1]
        seen = reference.forward(inputs)
        main += F.cross_entropy(seen.logits, row[1:], reduction="sum").item()
        for k, logits in enumerate(reference.multi_token(seen.final, inputs), 1):
            mtp += F.cross_entropy(logits, row[k + 1 :], reduction="sum").item() / 2
    count = tokens[:, 1:].numel()
    errors = {"main": abs(sums.loss - main / count) / (main / count), "mtp": abs(sums.mtp_loss - mtp / count) / (mtp / count)}
    return largest(errors, BOUND)


@check(
    "Gradients of a pre-training batch with rows of different weight, whole with cut into micro-batches, and with recomputation.",
    "several ranks.",
)
def training_gradient_ignores_micro_batches() -> Result:
    tokens, found = random_tokens(4, 16), {}
    weights = torch.ones(4, 15)
    weights[1, 3:] = 0.0  # a row with few targets: a mean per micro-batch would count them more
    for name, rows, recompute in (("whole", None, False), ("rows of 1", 1, False), ("3 and 1", 3, False), ("recomputed", 2, True)):
        model = model_with_mtp()
        objective.accumulate_gradients(model, objective.Batch(tokens, weights), TERMS, micro_rows=rows, recompute=recompute)
        found[name] = gradients(model)
    whole = found.pop("whole")
    return largest({f"{name}, {key}": relative_error(grads[key], whole[key]) for name, grads in found.items() for key in whole}, BOUND)


@check(
    "Expert loads of a step with tokens x top-k, any micro-batches, recomputed or not; the bias moves once. Error: differences.",
    "that training keeps the load even.",
)
def loads_count_every_choice_once() -> Result:
    tokens, wrong = random_tokens(4, 16), {}
    for rows, recompute in ((None, False), (1, False), (2, True)):
        model = model_with_mtp()
        before = {layer: router.bias.clone() for layer, router in objective.routers(model).items()}
        loads = objective.accumulate_gradients(model, objective.Batch(tokens), TERMS, micro_rows=rows, recompute=recompute).loads
        objective.update_biases(model, loads, 0.001)
        for layer, router in objective.routers(model).items():
            depth = max(0, layer - model.config.num_hidden_layers + 1)
            missing = int(loads[layer].sum()) - 4 * (15 - depth) * model.config.num_experts_per_tok
            step = (router.bias - before[layer]) / 0.001
            wrong[f"{rows} {recompute} layer {layer}"] = float(missing != 0) + float(
                (step - step.round()).abs().max() > 1e-3 or step.abs().max() > 1.001
            )
    return largest(wrong, 0.0)


def group_of(*rewards: float) -> Group:
    problem, completion = Problem(0, "", "", ""), Completion((1, 2), (-1.0, -1.0), StopReason.STOP)
    return Group(tuple(Rollout(problem, (3,), completion, "", Score(value, Verdict.CORRECT, "", {})) for value in rewards))


@check(
    "Advantages of two groups with different means with numbers computed by hand; a group of equals gives exactly 0.",
    "that rewards are good.",
)
def advantages_equal_hand_numbers() -> Result:
    rows = rollout.training_rows(
        [group_of(0, 1, 1, 0), group_of(10, 10, 10, 14), group_of(3, 3)], losses.find_variant("grpo"), drop_zero_variance=False
    )
    by_hand = torch.tensor([-1, 1, 1, -1] + [-1 / math.sqrt(3)] * 3 + [math.sqrt(3)] + [0, 0])  # std of (10, 10, 10, 14): sqrt(3)
    return Result(relative_error(torch.tensor([row.advantage for row in rows]), by_hand), BOUND)


@check("The clipped objective with its KL term, and its slope, with numbers computed by hand.", "which variant learns best.")
def objective_equals_hand_numbers() -> Result:
    ratios, advantages = torch.tensor([1.5, 0.5, 1.1, 1.5], dtype=torch.float64), torch.tensor([1.0, -1.0, 2.0, -1.0], dtype=torch.float64)
    log_probs = ratios.log().requires_grad_()
    reference = torch.log(torch.tensor([1.5, 0.5, 2.2, 1.5], dtype=torch.float64))
    terms = losses.Terms(log_probs, torch.zeros(4, dtype=torch.float64), reference, advantages, torch.zeros(4, dtype=torch.int64))
    value = losses.clipped(terms, losses.Coefficients(clip=0.2, beta=0.5))
    value.sum().backward()
    kl = 2 - math.log(2) - 1  # third token: the reference is twice as likely
    by_hand = torch.tensor([1.2, -0.8, 2.2 - 0.5 * kl, -1.5], dtype=torch.float64)
    slope = torch.tensor([0.0, 0.0, 2.2 - 0.5 * (1 - 2), -1.5], dtype=torch.float64)  # clipped tokens give none
    return largest({"value": relative_error(value, by_hand), "slope": relative_error(log_probs.grad, slope)}, BOUND)


def ragged_update(model: Transformer, temperature: float) -> list[Row]:
    """Sampled rows of different lengths with made-up advantages, weighted as one update of the token-mean variant."""
    sampled = Engine(model).sample(
        [[1, 2, 3], [4, 5]], Sampling(max_tokens=12, temperature=temperature, n=3, stop_ids=(7, 8, 9, 10, 11, 12), seed=3)
    )
    rows = [
        Row(prompt, c.token_ids, c.log_probs, 0.5 - j)
        for prompt, group in zip(((1, 2, 3), (4, 5)), sampled, strict=True)
        for j, c in enumerate(group)
    ]
    variant = losses.find_variant("grpo_token_mean")
    return [row.with_weight(w) for row, w in zip(rows, variant.token_weights([len(row.completion_ids) for row in rows]), strict=True)]


def policy_gradient(rows: list[Row], temperature: float, token_budget: int) -> dict[str, Tensor]:
    model = random_model(CASES["v3 yarn"])
    update.accumulate_gradient(
        model, rows, losses.find_variant("grpo_token_mean"), losses.Coefficients(math.inf, 0.0), temperature, token_budget, {}
    )
    return gradients(model)


@check("The policy gradient at T = 0.6 with plain autograd through log softmax(logits / T), one row at a time.", "off-policy updates.")
def policy_gradient_equals_autograd() -> Result:
    model = random_model(CASES["v3 yarn"])
    rows = ragged_update(model, 0.6)
    for row in rows:
        ids = torch.tensor([row.prompt_ids + row.completion_ids])
        log_probs = (model(ids)[0] / 0.6).log_softmax(-1)
        for place in range(len(row.prompt_ids), row.length):
            (-row.advantage * log_probs[place - 1, ids[0, place]] / sum(len(r.completion_ids) for r in rows)).backward(retain_graph=True)
    expected, found = gradients(model), policy_gradient(rows, 0.6, 10_000)
    return largest({name: relative_error(found[name], expected[name]) for name in expected}, BOUND)


@check("The policy gradient of one update with rows of different lengths, whole with cut into micro-batches.", "several ranks.")
def policy_gradient_ignores_micro_batches() -> Result:
    rows = ragged_update(random_model(CASES["v3 yarn"]), 1.0)
    whole, cut = policy_gradient(rows, 1.0, 10_000), policy_gradient(rows, 1.0, 20)
    return largest({name: relative_error(cut[name], whole[name]) for name in whole}, BOUND)


@check("Log-probabilities of sampled tokens, from the engine, with the trainer's, at T = 1 and 0.6, prompts in groups.", "other engines.")
def sampled_log_probs_equal_trainers() -> Result:
    model, errors = random_model(CASES["v3 yarn"]), {}
    for temperature in (1.0, 0.6):
        rows = ragged_update(model, temperature)
        ours = update.row_log_probs(model, rows, temperature, 64)
        theirs = torch.tensor([value for row in rows for value in row.sampler_log_probs])
        errors[f"T = {temperature}"] = relative_error(torch.tensor([value for values in ours for value in values]), theirs)
    return largest(errors, BOUND)


@check(
    "Greedy tokens of the engine (paged cache, shared prompts, batches) with the largest logit of whole forward passes. Error: differing tokens.",
    "speed.",
)
def engine_equals_whole_forward() -> Result:
    model, different = random_model(CASES["v3 yarn"]), 0
    prompts = [random_tokens(1, length, seed=length)[0].tolist() for length in (1, 5, 16, 17, 33)]
    sampling = Sampling(max_tokens=20, temperature=0.0, n=2)
    together = Engine(model, block=4, max_batch=4, prefill_chunk=12).sample(prompts, sampling)
    for prompt, group in zip(prompts, together, strict=True):
        ids = list(prompt)
        for _ in range(sampling.max_tokens):
            ids.append(int(model(torch.tensor([ids]))[0, -1].argmax()))
        different += sum(a != b for c in group for a, b in zip(c.token_ids, ids[len(prompt) :], strict=True))
    return Result(float(different), 0.0)


@check(
    "The first sample of a group with the same one drawn alone: neighbours and a shared prompt change nothing. Error: differing tokens.",
    "speed.",
)
def group_equals_alone() -> Result:
    model, different = random_model(CASES["v3"]), 0
    prompts = [random_tokens(1, length, seed=length)[0].tolist() for length in (5, 9, 16)]
    sampling = Sampling(max_tokens=16, temperature=1.0, n=4, seed=11)
    groups = Engine(model, block=4).sample(prompts, sampling)
    for index, prompt in enumerate(prompts):
        engine, ended = Engine(model, block=16), []
        engine.add(prompt, dataclasses.replace(sampling, n=1), prompt_index=index)
        while engine.has_work:
            ended += engine.step()
        different += sum(a != b for a, b in zip(groups[index][0].token_ids, ended[0].completion.token_ids, strict=True))
    return Result(float(different), 0.0)
