"""Checks of the network: against transformers, against the float64 reference, against itself run in another way.

BOUND = 2e-5 of the largest number of each tensor. An fp32 product of length n errs by about sqrt(n) 2^-24, here n <= 128, so 7e-7;
three blocks of some eight products, forward and backward, add up in quadrature to 5e-6. Four times that is the bound; a real slip
(a wrong scale, index or order) shows at 1e-3 and above.
"""

from __future__ import annotations

import torch
from torch import Tensor

from deepwright.model import ContiguousCache, Transformer
from deepwright.model import experts as moe
from deepwright.verify.cases import (
    ALL_CASES,
    CASES,
    DENSE_CASES,
    LENGTH,
    ragged_rows,
    random_model,
    random_tokens,
    relative_error,
)
from deepwright.verify.check import Result, check, largest
from deepwright.verify.reference import Reference, chosen_experts
from deepwright.verify.transformers_twin import ORACLE, compare
from deepwright.weights.saving import official_tensors

BOUND = 2e-5
REFERENCE_CASES = (
    "v3 yarn",
    "v3 yarn, magnitude on cosines",
    "v3 half-split rotary pairs",
    "v3 tied embedding",
    "v2",
)


def compare_case(name: str) -> dict[str, float]:
    return compare(random_model(ALL_CASES[name]), random_tokens(3), ragged_rows())


@check(
    f"Logits, the state after every block and the gradient of every parameter of {len(ALL_CASES)} small DeepSeek, Llama and Qwen models with "
    "transformers', ragged batches, positions beyond the original context; relative to the largest.",
    "that a released checkpoint loads; other dtypes than fp32; anything about MTP blocks, which transformers runs apart.",
    ORACLE,
)
def network_equals_transformers() -> Result:
    return largest(
        {
            f"{name}, {part}": error
            for name in ALL_CASES
            for part, error in compare_case(name).items()
        },
        BOUND,
    )


def reference_of(model: Transformer) -> Reference:
    return Reference(
        model.config,
        {name: tensor.double().requires_grad_() for name, tensor in official_tensors(model)},
    )


@check(
    "Logits with the network written out in float64 from the papers, five models.",
    "that the papers were read rightly: see transformers.",
)
def logits_equal_reference() -> Result:
    errors = {}
    for name in REFERENCE_CASES:
        model, tokens = random_model(CASES[name]), random_tokens(1)
        errors[name] = relative_error(
            model(tokens)[0], reference_of(model).forward(tokens[0]).logits
        )
    return largest(errors, BOUND)


def adversarial_scores(experts: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """(logits [T, E], bias [E]) with what breaks routers: all sums negative, exact ties, tiny scores, a group whose one best is high."""
    logits = torch.randn(64, experts, generator=generator) * 2
    # below -0.6, while scores are below 1: most sums are negative
    bias = torch.rand(experts, generator=generator) - 1.6
    logits[16:32] = logits[16:32].round()  # ties among equal biases
    bias[1::2] = bias[0::2]
    logits[32:48] -= 40.0  # sigmoids near 1e-18: only the bias decides
    logits[48:, :: max(1, experts // 4)] += (
        6.0  # one very good expert in each group: the second best decides
    )
    return logits, bias


@check(
    "Chosen experts with a router in plain Python, float64: negative biases, ties, tiny scores. Error: tokens routed elsewhere.",
    "that training keeps the load even.",
)
def choices_equal_reference() -> Result:
    wrong = {}
    for name, config in CASES.items():
        logits, bias_E = adversarial_scores(
            config.n_routed_experts, torch.Generator().manual_seed(3)
        )
        bias_E = bias_E if config.has_router_bias else None
        ids, _, scores = moe.route(logits, bias_E, config)
        exact = (
            logits.double().sigmoid()
            if config.scoring_func == "sigmoid"
            else logits.double().softmax(-1)
        )
        # What ties in fp32 need not tie in float64: rows 16..47 are about ties and tiny scores, so they start from the fp32 sums.
        sums = scores if bias_E is None else scores + bias_E
        exact_sums = exact if bias_E is None else exact + bias_E.double()
        rows = [(sums if 16 <= t < 48 else exact_sums)[t].tolist() for t in range(len(logits))]
        wrong[name] = float(
            sum(
                sorted(a) != sorted(chosen_experts(z, None, config))
                for a, z in zip(ids.tolist(), rows, strict=True)
            )
        )
    return largest(wrong, 0.0)


@check(
    "Combine weights are affinity / sum * scale in float64 for bias 12 and affinities near 1e-8.",
    "which experts are chosen.",
)
def weights_ignore_the_bias() -> Result:
    config = CASES["v3"]
    logits = (
        torch.randn(32, config.n_routed_experts, generator=torch.Generator().manual_seed(4)) - 18.0
    )
    bias_E = torch.full((config.n_routed_experts,), 12.0)
    bias_E[:2] += 0.5
    ids, weights, _ = moe.route(logits, bias_E, config)
    chosen = logits.double().sigmoid().gather(1, ids)
    return Result(
        relative_error(
            weights, chosen / chosen.sum(-1, keepdim=True) * config.routed_scaling_factor
        ),
        BOUND,
    )


@check(
    "A sequence fed in chunks through a cache with the whole at once, every form.",
    "the paged cache: see the engine's checks.",
)
def chunked_equals_whole() -> Result:
    tokens, errors = random_tokens(2), {}
    for name, form in (
        ("v3 yarn", "absorbed"),
        ("v3 yarn", "expanded"),
        *((name, None) for name in DENSE_CASES),
    ):
        model, parts = random_model(ALL_CASES[name]), []
        cache = ContiguousCache(model.config, 2, LENGTH)
        for start, end in ((0, 7), (7, 8), (8, 31), (31, LENGTH)):
            parts.append(
                model.hidden(
                    tokens[:, start:end],
                    torch.arange(start, end).expand(2, -1),
                    cache=cache,
                    form=form,
                )
            )
        errors[f"{name} {form}"] = relative_error(torch.cat(parts, dim=1), model.hidden(tokens))
    return largest(errors, BOUND)


@check(
    "Valid positions of a right-padded batch with each row alone; loads count valid tokens only.",
    "left padding, which is not used.",
)
def padding_changes_nothing() -> Result:
    model, tokens, valid, errors = (
        random_model(CASES["v3 yarn"]),
        random_tokens(3),
        ragged_rows(),
        {},
    )
    routing: list[moe.Routing] = []
    padded = model.hidden(tokens, valid_BS=valid, routing=routing)
    for row, length in enumerate(valid.sum(-1).tolist()):
        errors[f"row {row}"] = relative_error(
            padded[row, :length], model.hidden(tokens[row : row + 1, :length])[0]
        )
    expected = int(valid.sum()) * model.config.num_experts_per_tok
    errors["loads"] = float(any(int(record.load_E.sum()) != expected for record in routing))
    return largest(errors, BOUND)


@check(
    "The bias rule, the sequence-wise balance loss and its gradient with numbers computed by hand.",
    "that training keeps the load even.",
)
def balance_equals_hand_numbers() -> Result:
    step = moe.update_bias(torch.zeros(4), torch.tensor([10, 2, 6, 6]), 0.001)
    scores = torch.tensor(
        [[0.8, 0.4], [0.6, 0.2], [0.1, 0.9], [0.5, 0.5]], dtype=torch.float64, requires_grad=True
    )
    ids = torch.tensor([[0], [0], [1], [0]])
    loss = moe.sequence_balance_loss(
        moe.Routing(0, ids, scores.gather(1, ids), scores, torch.tensor([3, 1]), batch=2)
    )
    # Sequence 1: f = (2, 0), P = ((2/3 + 3/4) / 2, ...). Sequence 2: f = (1, 1), so f P sums to 1.
    by_hand = (2 * (2 / 3 + 3 / 4) / 2 + 1) / 2
    loss.backward()
    # d/ds of s / (s + 0.4) at 0.8, times f = 2, means over 2 tokens and 2 sequences
    slope = 2 * 0.5 * 0.5 * 0.4 / 1.2**2
    errors = {
        "bias": relative_error(step, torch.tensor([-0.001, 0.001, 0.0, 0.0])),
        "loss": abs(loss.item() - by_hand) / by_hand,
        "gradient": 1.0 if scores.grad is None else abs(scores.grad[0, 0].item() - slope) / slope,
    }
    return largest(errors, BOUND)
