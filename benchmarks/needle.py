"""Where the models of a run of `pretrain --config needle` find a needle: by length of the text and depth of the needle, before and after each stretching.

    python benchmarks/needle.py runs/needle [--tries 20] [--picture docs/long-context.png]

Asked greedily through the engine, `tries` problems at each of 11 depths. Rows "base, stretched, not trained" are the base model with
YaRN as in the phases, but without their training; "base" reads positions that it never saw as they are. The picture needs matplotlib.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import torch

from deepwright import weights
from deepwright.evaluate import evaluate
from deepwright.inference.engine import Engine
from deepwright.model import Transformer
from deepwright.recipe.long_context import stretched
from deepwright.recipe.session import model_folder
from deepwright.recipe.settings import LONG_CONTEXT
from deepwright.tasks.needle import Needle

LENGTHS = (512, 2048, 8192)
DEPTHS = 11


def models(run: Path):
    """(name, model) of the base, the base with longer positions, and each phase."""
    base, tokenizer = weights.load(model_folder(run / "base", (".",)), torch.float32)
    factor = LENGTHS[-1] / base.config.max_position_embeddings
    for name, config in (
        ("base", {"max_position_embeddings": LENGTHS[-1]}),
        ("base, stretched, not trained", None),
    ):
        changed = (
            stretched(base.config, factor, LENGTHS[-1])
            if config is None
            else type(base.config)(**{**vars(base.config), **config})
        )
        other = Transformer(changed)
        other.load_state_dict(base.state_dict())
        yield name, other, tokenizer
    for stage in LONG_CONTEXT:
        if (run / stage).is_dir():
            phase = weights.load_model(model_folder(run / stage, (".",)), dtype=torch.float32)
            other = Transformer(
                type(phase.config)(**{**vars(phase.config), "max_position_embeddings": LENGTHS[-1]})
            )
            other.load_state_dict(phase.state_dict())
            yield f"{stage}, {phase.config.max_position_embeddings:,}", other, tokenizer


def found(model: Transformer, tokenizer, length: int, tries: int) -> np.ndarray:
    """Share of the tries at each depth."""
    task = Needle(length=length - 6, depths=DEPTHS, held_out=DEPTHS * tries)
    result = evaluate(
        Engine(model.eval(), tokenizer), tokenizer, task, problems=DEPTHS * tries, samples=1,
        max_tokens=4, temperature=0.0,
    )  # fmt: skip
    return np.array([share for _, (share, _) in sorted(result.by_kind.items())])


def draw(rows: dict[str, dict[int, np.ndarray]], path: str) -> None:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(1, len(rows), figsize=(3.1 * len(rows), 3.6), sharey=True)
    for axis, (name, by_length) in zip(np.atleast_1d(axes), rows.items()):
        shares = np.stack([by_length[length] for length in LENGTHS], 1)
        axis.imshow(shares, cmap="RdYlGn", vmin=0, vmax=1, aspect="auto")
        axis.set_title(name, fontsize=9)
        axis.set_xticks(range(len(LENGTHS)), [f"{length:,}" for length in LENGTHS])
        axis.set_yticks(range(DEPTHS), [f"{10 * n}%" for n in range(DEPTHS)])
        axis.set_xlabel("tokens in the text")
        for row, column in np.ndindex(shares.shape):
            text = f"{100 * shares[row, column]:.0f}"
            axis.text(column, row, text, ha="center", va="center", fontsize=8)
    np.atleast_1d(axes)[0].set_ylabel("depth of the needle")
    figure.suptitle("Needles found, in % of the tries", fontsize=10)
    figure.tight_layout()
    figure.savefig(path, dpi=120)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("run", type=Path)
    parser.add_argument("--tries", type=int, default=20)
    parser.add_argument("--picture", default="")
    asked = parser.parse_args()
    rows: dict[str, dict[int, np.ndarray]] = {}
    for name, model, tokenizer in models(asked.run):
        rows[name] = {}
        for length in LENGTHS:
            rows[name][length] = shares = found(model, tokenizer, length, asked.tries)
            depths = " ".join(f"{100 * share:4.0f}" for share in shares)
            print(
                f"{name:<30} {length:>6}  {100 * shares.mean():5.1f}%  by depth: {depths}",
                flush=True,
            )
    if asked.picture:
        draw(rows, asked.picture)


if __name__ == "__main__":
    main()
