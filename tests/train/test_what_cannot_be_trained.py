"""Shapes, sizes and ids that a user can cause: each is one ValueError that names the value,
whichever way it comes in, and leaves what it came to as it was."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch

from deepwright.data.conversations import Document
from deepwright.inference.draft import acceptance_rate
from deepwright.inference.engine import Engine
from deepwright.metrics import JsonlTracker
from deepwright.rl.reward_model import RewardModel
from deepwright.rl.rollout import problem_indices
from deepwright.rl.types import Row
from deepwright.rl.update import row_log_probs
from deepwright.sampler import Sampling
from deepwright.train.objective import Batch, Terms, accumulate_gradients, validate
from deepwright.train.pretrain import Trainer
from deepwright.train.sft import describe, sft
from tests.train import test_sft, tiny

WORDS, CONTEXT, WIDTH = tiny.MODEL.vocab_size, tiny.MODEL.max_position_embeddings, tiny.LENGTH + 1


def ids(rows: int, columns: int, value: int = 1, dtype=torch.int64) -> torch.Tensor:
    return torch.full((rows, columns), value, dtype=dtype)


def training(tokens, length=tiny.LENGTH):
    return Trainer(replace(tiny.CONFIG, length=length), tiny.make_model()).step(tokens)


def weighed(weight: float):
    batch = Batch(ids(1, 4), torch.full((1, 3), weight))
    return accumulate_gradients(tiny.make_model(), batch, Terms())


def fine_tuning(documents, folder):
    given = [
        Document(torch.tensor(one), torch.ones(len(one), dtype=torch.bool)) for one in documents
    ]
    config = replace(test_sft.CONFIG, length=10**6)
    tracker = JsonlTracker(folder / "metrics.jsonl")
    return sft(config, tiny.make_model(), test_sft.TOKENIZER, given, folder, tracker)


def sampled(prompt, **how):
    return Engine(tiny.make_model()).sample([prompt], Sampling(3, **how))


OUT = rf"token ids go from (-?\d+) to (-?\d+), expected 0 to {WORDS - 1}"
SHAPE = r"a batch of tokens is .*, expected whole numbers \[rows, positions\]"
CASES = {
    "words beyond the vocabulary": (lambda f: tiny.make_model()(ids(1, 2, WORDS)), OUT),
    "words below 0": (lambda f: tiny.make_model()(ids(1, 2, -1)), OUT),
    "no words": (lambda f: tiny.make_model()(ids(1, 0)), SHAPE),
    "no rows": (lambda f: tiny.make_model()(ids(0, 3)), SHAPE),
    "one axis": (lambda f: tiny.make_model()(ids(1, 3)[0]), SHAPE),
    "numbers with a point": (lambda f: tiny.make_model()(ids(1, 3).float()), SHAPE),
    "trained words": (lambda f: training(ids(2, WIDTH, WORDS)), OUT),
    "a target alone": (
        lambda f: training(torch.cat((ids(2, WIDTH - 1), ids(2, 1, WORDS)), dim=1)),
        rf"targets are torch.int64 from 1 to {WORDS}",
    ),
    "no trained rows": (lambda f: training(ids(0, WIDTH)), r"targets' weight is 0\.0"),
    "a small type": (lambda f: training(ids(1, WIDTH, 1, torch.int32)), r"expected torch\.int64"),
    "beyond the context": (
        lambda f: training(ids(1, CONTEXT + 2), CONTEXT + 1),
        rf"a row's length is {CONTEXT + 1}, expected at most the context, {CONTEXT}",
    ),
    "nothing to learn": (lambda f: weighed(0.0), r"targets' weight is 0\.0"),
    "weights that are none": (lambda f: weighed(math.nan), r"targets' weight is nan"),
    "validation": (lambda f: validate(tiny.make_model(), [ids(1, 4, WORDS)]), OUT),
    "validation without rows": (lambda f: validate(tiny.make_model(), [ids(0, 4)]), SHAPE),
    "drafts": (lambda f: acceptance_rate(tiny.make_model(), ids(1, 5, WORDS)), OUT),
    "no drafts": (lambda f: acceptance_rate(tiny.make_model(), ids(0, 5)), SHAPE),
    "no documents": (lambda f: fine_tuning([], f), "the number of documents is 0"),
    "no documents to describe": (lambda f: describe([], test_sft.CONFIG), "documents is 0"),
    "a document's word": (
        lambda f: fine_tuning([[0, 5, 1], [0, WORDS + 3, 1]], f),
        rf"a token of document 1 is {WORDS + 3}, expected at most {WORDS - 1}",
    ),
    "a long document": (
        lambda f: fine_tuning([[5] * (CONTEXT + 1) + [1]], f),
        rf"the length of document 0 is {CONTEXT + 1}, expected at most {CONTEXT}",
    ),
    "a scored word": (lambda f: RewardModel(tiny.make_model()).scores([[1, WORDS]]), OUT),
    "nothing to score": (lambda f: RewardModel(tiny.make_model())([]), "the number of texts is 0"),
    "a prompt's word": (
        lambda f: row_log_probs(tiny.make_model(), [Row((WORDS,), (1,), (0.0,), 0.0)], 1.0, 64),
        OUT,
    ),
    "no problems": (lambda f: problem_indices(0, 3, 0, 0), "training problems is 0"),
    "sampled word": (lambda f: sampled([WORDS]), f"token id {WORDS} in the prompt, expected 0 to"),
    "a huge word": (
        lambda f: sampled([10**30]),
        "token id a whole number of 100 bits in the prompt",
    ),
    "a text as word": (lambda f: sampled(["a"]), "token id 'a' in the prompt"),
    "nothing as word": (lambda f: sampled([None]), "token id None in the prompt"),
    "half a word": (lambda f: sampled([1.5]), r"token id 1\.5 in the prompt"),
    "no prompt": (lambda f: sampled([]), "the prompt is empty"),
    "a long prompt": (lambda f: sampled([1] * CONTEXT), f"the prompt has {CONTEXT} tokens"),
    "a huge top-k": (lambda f: sampled([1], top_k=2**63), "top_k is a whole number of 64 bits"),
    "a huge stop": (
        lambda f: sampled([1], stop_ids=(3, 10**30)),
        "stop_ids has a whole number of 100 bits",
    ),
    "a temperature of no float32": (lambda f: sampled([1], temperature=1e-300), "float32 holds"),
}


@pytest.mark.parametrize("name", CASES)
def test_what_cannot_be_computed_is_one_sentence(name, tmp_path):
    call, said = CASES[name]
    with pytest.raises(ValueError, match=said) as caught:
        call(tmp_path)
    assert len(str(caught.value)) < 300 and not list(tmp_path.glob("checkpoints"))


@pytest.mark.parametrize("temperature", [2.0**-126, 1e-30, 1e30, 1e300])
@pytest.mark.parametrize("top_k", [0, 1, 2**62])
def test_the_ends_of_what_may_be_asked_of_a_sampler_work(temperature, top_k):
    (group,) = sampled([1, 2], temperature=temperature, top_k=top_k, n=3, seed=10**40)
    assert all(math.isfinite(p) for one in group for p in one.log_probs)
