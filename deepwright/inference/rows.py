"""The running batch as tensors: row r of every field belongs to `sequences[r]`; rows 0..count-1 are in use.

A decode step touches whole tensors only; Python visits a row when its sequence joins or leaves. A leaving row is filled by the last
one, so the rows in use stay a prefix and every step works on views.
"""

from __future__ import annotations

from collections import Counter

import torch
from torch import Tensor

from deepwright.inference.request import Sequence
from deepwright.inference.sampling import stream_keys, uniform

_INTEGERS = ("last", "length", "produced", "limit", "key", "top_k")


class Rows:
    """`length` counts tokens in the cache; the last sampled token, `last`, is not among them until the next forward."""

    def __init__(self, capacity: int, device: torch.device):
        self.capacity, self.device = capacity, device
        self.sequences: list[Sequence] = []
        # (temperature, top_p, top_k) of the rows in use
        self.rules: Counter[tuple[float, float, int]] = Counter()
        self.columns: dict[str, Tensor] = {
            name: torch.zeros(capacity, dtype=torch.int64, device=device) for name in _INTEGERS
        }
        for name in ("temperature", "top_p"):
            self.columns[name] = torch.zeros(capacity, device=device)
        for name in ("table", "stop", "token_ids"):
            self.columns[name] = torch.zeros(capacity, 0, dtype=torch.int64, device=device)
        self.columns["log_probs"] = torch.zeros(capacity, 0, device=device)

    def __len__(self) -> int:
        return len(self.sequences)

    def view(self, name: str, first: int = 0) -> Tensor:
        """The rows in use of one column, from row `first`: a view, so writing to it changes the batch."""
        return self.columns[name][first : len(self.sequences)]

    def _widen(self, name: str, width: int, fill: int = 0) -> None:
        old = self.columns[name]
        if width > old.shape[1]:
            self.columns[name] = old.new_full((self.capacity, max(width, 2 * old.shape[1])), fill)
            self.columns[name][:, : old.shape[1]] = old

    def add(
        self,
        sequences: list[Sequence],
        tables: list[list[int]],
        tokens_cached: list[int],
        block: int,
    ) -> int:
        """Appends rows whose `tokens_cached` tokens lie in the blocks of `tables`; returns the first new row."""
        first, requests = len(self.sequences), [s.request for s in sequences]
        assert first + len(sequences) <= self.capacity
        self._widen("table", max(-(-(len(r.prompt) + r.limit) // block) for r in requests))
        self._widen("stop", max(len(r.sampling.stop_ids) for r in requests), fill=-1)
        for name in ("token_ids", "log_probs"):
            self._widen(name, max(r.limit for r in requests))
        self.sequences += sequences
        rules = [(r.sampling.temperature, r.sampling.top_p, r.sampling.top_k) for r in requests]
        self.rules.update(rules)
        values = {
            "length": tokens_cached,
            "produced": [len(s.token_ids) for s in sequences],
            "limit": [r.limit for r in requests],
            "key": stream_keys(
                [r.sampling.seed for r in requests],
                [r.prompt_index for r in requests],
                [s.sample for s in sequences],
            ),
            **dict(zip(("temperature", "top_p", "top_k"), zip(*rules))),
        }
        for name, column in values.items():
            self.view(name, first).copy_(torch.as_tensor(column))
        self.view("stop", first).fill_(-1)
        # an earlier call may have left blocks that a smaller pool does not have
        self.view("table", first).zero_()
        for row, (sequence, table) in enumerate(zip(sequences, tables), start=first):
            self._write(row, table, sequence)
        return first

    def _write(self, row: int, table: list[int], sequence: Sequence) -> None:
        written = {"table": table, "stop": sequence.request.sampling.stop_ids}
        if sequence.token_ids:  # it was preempted
            written |= {"token_ids": sequence.token_ids, "log_probs": sequence.log_probs}
        for name, numbers in written.items():
            column = self.columns[name]
            column[row, : len(numbers)] = torch.tensor(numbers, dtype=column.dtype)

    def append(self, first: int, ids_R: Tensor, log_probs_R: Tensor) -> list[int]:
        """Gives rows `first`.. one new token each; returns the rows that have ended by it."""
        produced_R = self.view("produced", first)
        self.view("token_ids", first).scatter_(1, produced_R[:, None], ids_R[:, None])
        self.view("log_probs", first).scatter_(1, produced_R[:, None], log_probs_R[:, None])
        self.view("last", first).copy_(ids_R)
        produced_R += 1
        ended_R = (produced_R >= self.view("limit", first)) | (
            self.view("stop", first) == ids_R[:, None]
        ).any(1)
        return [row + first for row in ended_R.nonzero()[:, 0].tolist()]

    def uniform(self, first: int) -> Tensor:
        """float64 [R]: the random number of each row's next token, from its stream and the token's position in the completion."""
        return uniform(self.view("key", first), self.view("produced", first))

    def sampling_rules(self, first: int) -> tuple[float | Tensor, Tensor | None, Tensor | None]:
        """(temperature, top_k, top_p) as `draw` wants them: one number when all rows agree, None when none truncates."""
        temperatures = {temperature for temperature, _, _ in self.rules}
        plain = all(top_p == 1 and top_k == 0 for _, top_p, top_k in self.rules)
        temperature = (
            temperatures.pop() if len(temperatures) == 1 else self.view("temperature", first)
        )
        return (
            (temperature, None, None)
            if plain
            else (temperature, self.view("top_k", first), self.view("top_p", first))
        )

    def read(self, row: int) -> tuple[list[int], list[float]]:
        """Tokens and log-probabilities produced so far."""
        produced = int(self.columns["produced"][row])
        return self.columns["token_ids"][row, :produced].tolist(), self.columns["log_probs"][
            row, :produced
        ].tolist()

    def remove(self, gone: list[int]) -> Tensor:
        """Takes rows out (ascending) and returns the blocks that they held, on the CPU: also one that was made ready for a token which an interruption
        kept from coming. Block 0 is nobody's and fills the rest of a table."""
        held = [(table := self.columns["table"][row])[table > 0] for row in gone]
        for row in gone:
            sampling = self.sequences[row].request.sampling
            rule = (sampling.temperature, sampling.top_p, sampling.top_k)
            self.rules[rule] -= 1
            if not self.rules[rule]:
                del self.rules[rule]
        blocks_N = torch.cat(held).cpu()
        kept, leaving = len(self.sequences) - len(gone), set(gone)
        holes = [row for row in gone if row < kept]
        movers = [row for row in range(kept, len(self.sequences)) if row not in leaving]
        if holes:
            target_R, source_R = (
                torch.tensor(rows, device=self.device) for rows in (holes, movers)
            )
            for column in self.columns.values():
                column[target_R] = column[source_R]
        for hole, mover in zip(holes, movers, strict=True):
            self.sequences[hole] = self.sequences[mover]
        del self.sequences[kept:]
        return blocks_N
