"""Bits per byte on the held-out text of a run of `pretrain --data`: the model, n-grams of the same tokens, gzip and xz.

    python benchmarks/text.py runs/text [--order 5]

All read the same held-out bytes after the same training text. The n-gram is interpolated Kneser-Ney
(Chen and Goodman 1999, one discount for each order) over the run's own tokens. gzip and xz compress
the held-out text alone, and xz also after the training text: the bytes that it adds to it. The model
sees rows of its training length, each token after those before it in its row.
"""

from __future__ import annotations

import argparse
import gzip
import lzma
import math
from pathlib import Path

import numpy as np
import torch

from deepwright import weights
from deepwright.data import sequential
from deepwright.data.tokens import Tokens, is_tokens
from deepwright.files import read_toml
from deepwright.recipe.session import model_folder
from deepwright.text import Tokenizer
from deepwright.train.objective import validate


class KneserNey:
    """p(token | n - 1 tokens before it), from the counts of one text [N]."""

    def __init__(self, text: np.ndarray, order: int, vocabulary: int) -> None:
        self.order, self.vocabulary = order, vocabulary
        self.levels = []
        context = np.zeros(len(text), np.int64)  # number of the n-1 tokens before; all the same
        for n in range(1, order + 1):
            codes = context[: len(text) - n + 1] * vocabulary + text[n - 1 :]
            grams, place, counts = np.unique(codes, return_inverse=True, return_counts=True)
            self.levels.append((grams, counts))
            context = place.reshape(-1)
        # Below the highest order an n-gram counts once for each different token before it.
        for n in range(order - 1):
            grams = self.levels[n][0]
            longer = self._chains(n + 2, text)
            self.levels[n] = (grams, np.maximum(1, np.bincount(longer, minlength=len(grams))))
        self.totals = [self._totals(*level) for level in self.levels]

    def _chains(self, n: int, text: np.ndarray) -> np.ndarray:
        """For every different n-gram the number of the (n-1)-gram that ends it."""
        whole = self.numbers(text, n)
        ends = self.numbers(text[1:], n - 1)[: len(whole)]
        _, first = np.unique(whole, return_index=True)
        return ends[first]

    def numbers(self, text: np.ndarray, n: int) -> np.ndarray:
        """The number of the n-gram at each place of a text; -1 where it was never met."""
        number = np.zeros(len(text), np.int64)
        for k in range(1, n + 1):
            grams, _ = self.levels[k - 1]
            codes = number[: len(text) - k + 1] * self.vocabulary + text[k - 1 :]
            place = np.minimum(np.searchsorted(grams, codes), len(grams) - 1)
            known = (number[: len(codes)] >= 0) & (grams[place] == codes)
            number = np.where(known, place, -1)
        return number

    def _totals(
        self, grams: np.ndarray, counts: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray, float]:
        """By context: the sum of its counts, how many tokens follow it; and the discount."""
        contexts = grams // self.vocabulary
        once, twice = (counts == 1).sum(), (counts == 2).sum()
        size = int(contexts.max()) + 1
        sums = np.bincount(contexts, counts, minlength=size)
        kinds = np.bincount(contexts, minlength=size)
        return sums, kinds, once / (once + 2 * twice) if once else 0.5

    def probabilities(self, text: np.ndarray) -> np.ndarray:
        """Of each token after the first order - 1."""
        places = np.arange(self.order - 1, len(text))
        p = np.full(len(places), 1 / self.vocabulary)
        for n in range(1, self.order + 1):
            counts, (sums, kinds, discount) = self.levels[n - 1][1], self.totals[n - 1]
            starts = places - n + 1
            context = (
                self.numbers(text, n - 1)[starts] if n > 1 else np.zeros(len(starts), np.int64)
            )
            met = (context >= 0) & (context < len(sums))
            total = np.where(met, sums[np.where(met, context, 0)], 0)
            met &= total > 0
            number = self.numbers(text, n)[starts]
            count = np.where(number >= 0, counts[np.where(number >= 0, number, 0)], 0)
            total = np.maximum(total, 1)
            follow = kinds[np.where(met, context, 0)]
            interpolated = (np.maximum(count - discount, 0) + discount * follow * p) / total
            p = np.where(met, interpolated, p)
        return p


def held_out_text(tokens: Tokens, tokenizer: Tokenizer) -> bytes:
    borders = {tokenizer.bos_id, tokenizer.eos_id}
    ids = [index for index in tokens.read(0, len(tokens)).tolist() if index not in borders]
    return tokenizer.decode(ids, specials=True).encode()


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("run")
    parser.add_argument("--order", type=int, default=5)
    asked = parser.parse_args()
    run = Path(asked.run)
    settings = read_toml(run / "config.toml")
    data = settings["data"]
    folder = Path(data[0]) if is_tokens(data[0]) else run / "tokens"
    train, held_out = Tokens(folder), Tokens(folder, "held_out")
    model, tokenizer = weights.load(model_folder(run), torch.float32)
    text = held_out_text(held_out, tokenizer)
    rows = sequential(held_out, settings["pretrain"]["length"], 1 << 40)
    before = held_out_text(train, tokenizer)
    read, size = train.read(0, len(train)), len(text)
    print(f"{len(before):,} bytes of training text, {size:,} held out")
    with torch.inference_mode():
        loss = validate(model, rows.split(16)).loss
    found = {f"the model, {model.config.parameters / 1e6:.1f}M": loss * len(held_out) / math.log(2)}
    for order in (1, 3, asked.order):
        p = KneserNey(read, order, tokenizer.vocab_size).probabilities(
            np.concatenate(
                [read[-order + 1 :] if order > 1 else read[:0], held_out.read(0, len(held_out))]
            )
        )
        found[f"{order}-gram of the same tokens"] = float(-np.log2(p).sum())
    found["gzip -9"] = 8 * len(gzip.compress(text, 9))
    found["xz -9e"] = 8 * len(lzma.compress(text, preset=9 | lzma.PRESET_EXTREME))
    alone = len(lzma.compress(before, preset=9))
    found["xz -9 after the training text"] = 8 * (
        len(lzma.compress(before + text, preset=9)) - alone
    )
    for name, bits in found.items():
        print(f"{name:<32} {bits / size:.3f} bits/byte")


if __name__ == "__main__":
    main()
