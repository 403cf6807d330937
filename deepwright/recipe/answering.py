"""One prompt answered by a saved model: opened, its tokens streamed as text, what was cut named."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from pathlib import Path

from deepwright import weights
from deepwright.inference.engine import Engine
from deepwright.recipe.session import model_folder, use_threads
from deepwright.sampler import Sampling
from deepwright.text import Tokenizer


def open_engine(folder: str, threads: int) -> tuple[Engine, Tokenizer, Path]:
    """An engine on the model that a user names, its tokenizer, and where the model was found."""
    use_threads(threads)
    place = model_folder(folder)
    model, tokenizer = weights.load(place)
    return Engine(model.eval(), tokenizer), tokenizer, place


def stopping(sampling: Sampling, tokenizer: Tokenizer) -> Sampling:
    return dataclasses.replace(sampling, stop_ids=tokenizer.stop_ids)


def stream_ids(engine: Engine, prompt: Sequence[int], sampling: Sampling) -> Iterator[int]:
    """The tokens of one completion as they are sampled. Leaving the loop early takes the request out of the engine."""
    number, seen = engine.add(prompt, sampling), 0
    try:
        while engine.has_work:
            ended = engine.step()
            running = engine.rows.read(0)[0] if len(engine.rows) else []
            ids = ended[0].completion.token_ids if ended else running
            yield from ids[seen:]
            seen = len(ids)
    finally:
        engine.abort(number)


def stream_text(tokenizer: Tokenizer, ids: Iterator[int]) -> Iterator[str]:
    """Pieces of text whose sum is the decoded whole. A character whose bytes are not all there yet waits for them."""
    so_far: list[int] = []
    shown = ""
    for token in ids:
        so_far.append(token)
        text = tokenizer.decode(so_far)
        if text.startswith(shown) and not text.endswith("\N{REPLACEMENT CHARACTER}"):
            yield text[len(shown) :]
            shown = text
    yield tokenizer.decode(so_far)[len(shown) :]


def cut(ids: Sequence[int], sampling: Sampling, context: int) -> str:
    """Where an answer was cut, and what allows more; '' where the model ended it. `context`: how many tokens
    the model holds."""
    if not ids or ids[-1] in sampling.stop_ids:
        return ""
    if len(ids) >= sampling.max_tokens:
        return f"cut at {len(ids):,} tokens: --max-tokens N allows more"
    return f"cut after {len(ids):,} tokens, where the context of {context:,} ends"
