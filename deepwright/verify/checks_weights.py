"""Checks of Hugging Face folders: what is saved comes back bit by bit, and transformers opens it and computes the same."""

from __future__ import annotations

import tempfile
from pathlib import Path

import torch

from deepwright import weights
from deepwright.verify.cases import (
    ALL_CASES,
    DENSE_CASES,
    random_model,
    random_tokens,
    relative_error,
)
from deepwright.verify.check import Result, check, largest
from deepwright.verify.checks_model import BOUND
from deepwright.verify.transformers_twin import ORACLE, multi_token_twin, quiet


@check(
    "Saved and loaded models in fp32 and bf16, one file and shards, bit by bit. Error: differing tensors.",
    "that a released checkpoint loads.",
)
def folder_comes_back_bit_exact() -> Result:
    wrong = {}
    for name in (
        "v3 two MTP modules",
        "v3 tied embedding",
        "v2",
        "llama, llama3 stretching",
        "qwen2",
        "qwen3, biases",
    ):
        for dtype in (torch.float32, torch.bfloat16):
            model = random_model(ALL_CASES[name])
            for parameter in model.parameters():
                parameter.data = parameter.data.to(dtype)
            with tempfile.TemporaryDirectory() as parent:
                weights.save_model(
                    model,
                    Path(parent) / "model",
                    max_shard_bytes=50_000 if dtype == torch.bfloat16 else 1 << 30,
                )
                back = weights.load_model(Path(parent) / "model")
            ours, theirs = model.state_dict(), back.state_dict()
            same = [
                key
                for key in ours
                if ours[key].dtype == theirs[key].dtype and torch.equal(ours[key], theirs[key])
            ]
            wrong[f"{name} {dtype}"] = float(
                len(ours.keys() | theirs.keys()) - len(same) + (back.config != model.config)
            )
    return largest(wrong, 0.0)


@check(
    "Logits of saved folders opened with transformers' AutoModelForCausalLM with our own.",
    "that vLLM, SGLang or llama.cpp open it.",
    ORACLE,
)
def folder_opens_in_transformers() -> Result:
    from transformers import AutoModelForCausalLM

    errors = {}
    for name in (
        "v3 yarn",
        "v3 two MTP modules",
        "v3 tied embedding",
        "v3 no shared expert",
        "v2",
        "v2 yarn",
        *DENSE_CASES,
    ):
        model, tokens = random_model(ALL_CASES[name]), random_tokens(2)
        with tempfile.TemporaryDirectory() as parent, quiet():
            weights.save_model(model, Path(parent) / "model")
            theirs = AutoModelForCausalLM.from_pretrained(
                Path(parent) / "model", dtype=torch.float32
            )
        errors[name] = relative_error(model(tokens), theirs(tokens).logits)
    return largest(errors, BOUND)


@check(
    "States of both MTP modules with transformers' MtpModel opened from the saved folder.",
    "that drafts are accepted often.",
    ORACLE,
)
def multi_token_equals_transformers() -> Result:
    model, tokens = random_model(ALL_CASES["v3 two MTP modules"]), random_tokens(2)
    with tempfile.TemporaryDirectory() as parent, quiet():
        weights.save_model(model, Path(parent) / "model")
        theirs = multi_token_twin(model, Path(parent) / "model")
    state, errors = model.hidden(tokens), {}
    ours = model.mtp_hidden(state, tokens)
    for k in range(1, len(ours) + 1):
        shifted = tokens[:, k:]
        positions = torch.arange(shifted.shape[1])[None]
        state = theirs.forward_layer(
            k - 1, state[:, : shifted.shape[1]], positions, None, input_ids=shifted
        )
        errors[f"depth {k}"] = relative_error(ours[k - 1], state)
    return largest(errors, BOUND)
