"""Where numbers stop being finite: in which tensor, or behind which module. Asked when something
has already gone wrong, to say it in a sentence."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import torch
from torch import Tensor, nn


def first_bad(named: Iterable[tuple[str, Tensor]]) -> str | None:
    """The name of the first tensor that holds a NaN or an infinity."""
    return next((name for name, tensor in named if not torch.isfinite(tensor).all()), None)


@torch.inference_mode(False)
@torch.no_grad()
def source(model: nn.Module, tokens_BS: Tensor) -> str | None:
    """Why the model's numbers for these tokens are not finite, in words: a parameter that is not,
    or the first module that makes such numbers of finite ones. None: neither is so."""
    if bad := first_bad((*model.named_parameters(), *model.named_buffers())):
        return f"{bad} is not finite"
    found: list[str] = []

    def look(name: str) -> Callable[..., None]:
        def hook(module: nn.Module, given: object, made: Tensor | tuple[Tensor, ...]) -> None:
            made = made[0] if isinstance(made, tuple) else made
            if not found and not torch.isfinite(made).all():
                found.append(name)

        return hook

    hooks = [m.register_forward_hook(look(name)) for name, m in model.named_modules() if name]
    try:
        for tokens_1S in tokens_BS.clone().split(1):
            model.hidden(tokens_1S)
    finally:
        for hook in hooks:
            hook.remove()
    return f"{found[0]} is the first module whose output is not finite" if found else None
