"""Checks of pre-training and the engine, on one small model: losses, gradients, tokens.

The bound is that of the network's checks: every figure here is a sum of a few of its outputs.
"""

from __future__ import annotations

import dataclasses

import torch
import torch.nn.functional as F
from torch import Tensor

from deepwright.inference.engine import Engine
from deepwright.model import Transformer
from deepwright.sampler import Sampling
from deepwright.train import objective
from deepwright.verify.cases import (
    ALL_CASES,
    CASES,
    DENSE_CASES,
    random_model,
    random_tokens,
    relative_error,
)
from deepwright.verify.check import Result, check, largest
from deepwright.verify.checks_model import BOUND, reference_of
from deepwright.verify.transformers_twin import ORACLE, twin_of

GREEDY_CASES, GREEDY_TOKENS = ("v3", "v2-lite", *DENSE_CASES), 64
TERMS = objective.Terms(mtp=0.3, sequence=0.01)


def model_with_mtp() -> Transformer:
    return random_model(CASES["v3 two MTP modules"])


def gradients(model: Transformer) -> dict[str, Tensor]:
    return {
        name: parameter.grad.clone()
        for name, parameter in model.named_parameters()
        if parameter.grad is not None
    }


@check(
    "Main and MTP losses of a batch with those of the float64 reference: which token each position predicts.",
    "that the loss falls.",
)
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
    errors = {
        "main": abs(sums.loss - main / count) / (main / count),
        "mtp": abs(sums.mtp_loss - mtp / count) / (mtp / count),
    }
    return largest(errors, BOUND)


@check(
    "Gradients of a pre-training batch with rows of different weight, whole with cut into micro-batches, and with recomputation.",
    "several ranks.",
)
def training_gradient_ignores_micro_batches() -> Result:
    tokens, found = random_tokens(4, 16), {}
    weights = torch.ones(4, 15)
    weights[1, 3:] = 0.0  # a row with few targets: a mean per micro-batch would count them more
    for name, rows, recompute in (
        ("whole", None, False),
        ("rows of 1", 1, False),
        ("3 and 1", 3, False),
        ("recomputed", 2, True),
    ):
        model = model_with_mtp()
        objective.accumulate_gradients(
            model, objective.Batch(tokens, weights), TERMS, micro_rows=rows, recompute=recompute
        )
        found[name] = gradients(model)
    whole = found.pop("whole")
    return largest(
        {
            f"{name}, {key}": relative_error(grads[key], whole[key])
            for name, grads in found.items()
            for key in whole
        },
        BOUND,
    )


@check(
    "Expert loads of a step with tokens x top-k, any micro-batches, recomputed or not; the bias moves once. Error: differences.",
    "that training keeps the load even.",
)
def loads_count_every_choice_once() -> Result:
    tokens, wrong = random_tokens(4, 16), {}
    for rows, recompute in ((None, False), (1, False), (2, True)):
        model = model_with_mtp()
        before = {layer: router.bias.clone() for layer, router in objective.routers(model).items()}
        loads = objective.accumulate_gradients(
            model, objective.Batch(tokens), TERMS, micro_rows=rows, recompute=recompute
        ).loads
        objective.update_biases(model, loads, 0.001)
        for layer, router in objective.routers(model).items():
            depth = max(0, layer - model.config.num_hidden_layers + 1)
            missing = int(loads[layer].sum()) - 4 * (15 - depth) * model.config.num_experts_per_tok
            step = (router.bias - before[layer]) / 0.001
            wrong[f"{rows} {recompute} layer {layer}"] = float(missing != 0) + float(
                (step - step.round()).abs().max() > 1e-3 or step.abs().max() > 1.001
            )
    return largest(wrong, 0.0)


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
        different += sum(
            a != b for c in group for a, b in zip(c.token_ids, ids[len(prompt) :], strict=True)
        )
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
        different += sum(
            a != b
            for a, b in zip(groups[index][0].token_ids, ended[0].completion.token_ids, strict=True)
        )
    return Result(float(different), 0.0)


@check(
    f"{GREEDY_TOKENS} greedy tokens of the engine, prompts of different lengths together, with the largest logit of transformers after the "
    f"same tokens, {len(GREEDY_CASES)} models. Error: differing tokens.",
    "sampling at a temperature.",
    ORACLE,
)
def greedy_tokens_equal_transformers() -> Result:
    different = {}
    for name in GREEDY_CASES:
        model = random_model(dataclasses.replace(ALL_CASES[name], max_position_embeddings=128))
        prompts = [random_tokens(1, length, seed=length)[0].tolist() for length in (1, 5, 17)]
        ours, theirs = (
            Engine(model, block=4).sample(
                prompts, Sampling(max_tokens=GREEDY_TOKENS, temperature=0.0)
            ),
            twin_of(model),
        )
        for prompt, (completion,) in zip(prompts, ours, strict=True):
            logits_SV = theirs(
                torch.tensor([[*prompt, *completion.token_ids]]), use_cache=False
            ).logits[0]
            chosen = logits_SV[len(prompt) - 1 : -1].argmax(-1).tolist()
            different[f"{name}, {len(prompt)}"] = float(
                sum(a != b for a, b in zip(completion.token_ids, chosen, strict=True))
            )
    return largest(different, 0.0)
