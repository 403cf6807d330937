"""Our model beside transformers' (DeepseekV2, V3, Llama, Qwen2, Qwen3) with the same weights: logits, every layer's state, every parameter's gradient."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import Tensor, nn

from deepwright.model import Transformer
from deepwright.verify.cases import relative_error
from deepwright.weights.names import is_copy, memory, official, stacked

ORACLE = (
    "transformers>=5.23",
)  # has -inf for excluded groups, the mscale of V2 and MTP modules; earlier ones were not tried


def twin_of(model: Transformer) -> nn.Module:
    """transformers' model of the same config.json, holding the same numbers (MTP left out: its classes have none)."""
    import transformers

    values = model.config.to_hf()
    kind = values.pop("architectures")[0].removesuffix("ForCausalLM")
    with quiet():
        config = getattr(transformers, f"{kind}Config")(**values)
        theirs = getattr(transformers, f"{kind}ForCausalLM")(config).eval()
    theirs.set_attn_implementation("eager")
    if not model.config.is_dense:
        theirs.set_experts_implementation("eager")
    with torch.no_grad():
        for name, tensor in matching(model, theirs, memory(model)):
            theirs.state_dict()[name].copy_(tensor)
    return theirs


def matching(
    model: Transformer, theirs: nn.Module, ours: Mapping[str, Tensor]
) -> Iterator[tuple[str, Tensor]]:
    """(their name, the part of `ours` of the same meaning) for every stored tensor of theirs that has numbers in it."""
    named = dict(official(model.config, ours)) | {
        name: tensor for name, tensor, _ in stacked(model.config, ours)
    }
    for name, tensor in theirs.state_dict().items():
        if tensor.numel() and not is_copy(model.config, name):
            yield name, named[name]


def compare(model: Transformer, tokens_BS: Tensor, valid_BS: Tensor) -> dict[str, float]:
    """Runs both forward, and backward from one random direction over the valid positions' logits. Returns the relative error,
    max |ours - theirs| / max |theirs| without padding, of "logits", each "state of block N" and each "gradient of NAME"."""
    theirs = twin_of(model)
    generator = torch.Generator().manual_seed(5)
    direction = (
        torch.randn(*tokens_BS.shape, model.config.vocab_size, generator=generator)
        * valid_BS[..., None]
    )
    our_states, their_states = _watch(model.layers), _watch(theirs.model.layers)
    our_logits = model(tokens_BS)
    their_logits = theirs(tokens_BS, attention_mask=valid_BS.long(), use_cache=False).logits
    (our_logits * direction).sum().backward()
    (their_logits * direction).sum().backward()
    pairs = {
        f"state of block {i}": pair
        for i, pair in enumerate(zip(our_states, their_states, strict=True))
    }
    pairs["logits"] = (our_logits, their_logits)
    return {
        name: relative_error(a[valid_BS], b[valid_BS]) for name, (a, b) in pairs.items()
    } | _gradient_errors(model, theirs)


def _watch(layers: nn.ModuleList) -> list[Tensor]:
    """Fills up with each block's output, in order, as the model runs."""
    states: list[Tensor] = []
    for layer in layers:
        layer.register_forward_hook(
            lambda _module, _inputs, output: states.append(
                output[0] if isinstance(output, tuple) else output
            )
        )
    return states


def _gradient_errors(model: Transformer, theirs: nn.Module) -> dict[str, float]:
    ours = {
        name: p.grad if p.requires_grad else p
        for name, p in memory(model).items()
        if not name.startswith("mtp.")
    }
    parameters = dict(theirs.named_parameters())
    pairs = {
        name: (grad, parameters[name].grad)
        for name, grad in matching(model, theirs, ours)
        if name in parameters
    }
    return {f"gradient of {name}": relative_error(*pair) for name, pair in pairs.items()}


def multi_token_twin(model: Transformer, folder: Path) -> nn.Module:
    """transformers' MtpModel, opened from the folder where `model` was saved."""
    from transformers import AutoModelForCausalLM
    from transformers.modeling_layers import MtpModel

    main = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    depths = range(
        model.config.num_hidden_layers,
        model.config.num_hidden_layers + model.config.num_nextn_predict_layers,
    )
    # it knows V3's layer 61 only
    main._keys_to_ignore_on_load_unexpected = [rf"model\.layers\.{layer}\..*" for layer in depths]
    return MtpModel.from_pretrained(main)


@contextmanager
def quiet() -> Iterator[None]:
    """Without transformers' bars and reports (it lists the MTP tensors that its main model does not use, and empty shared experts)."""
    from transformers.utils import logging

    level = logging.get_verbosity()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="Initializing zero-element")
            yield
    finally:
        logging.set_verbosity(level)
        logging.enable_progress_bar()
