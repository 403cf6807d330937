"""Who runs next: prompts waiting for the cache, finished prefills waiting to fork, rows decoding, and who gives way when blocks run out.

Rules that keep it free of deadlock: the queue is first come first served; a prefill takes the blocks of its whole prompt before it
starts; when blocks run out, prefills that only wait give theirs back first, then the youngest row is preempted (its tokens so far
are prefilled again later), so the oldest always gets to its end; one sequence alone always fits, because `Engine.add` checked it.
"""

from __future__ import annotations

from collections import deque

import torch
from torch import Tensor

from deepwright.inference.paged_cache import BlockPool
from deepwright.inference.request import Prefill, Request, Sequence
from deepwright.inference.rows import Rows


class Scheduler:
    """Owns the queue, the finished prefills, the rows and the pool; the engine asks it what to compute."""

    def __init__(self, pool: BlockPool, rows: Rows, prefill_chunk: int):
        self.pool, self.rows, self.prefill_chunk = pool, rows, prefill_chunk
        self.waiting: deque[Prefill] = deque()
        self.ready: list[Prefill] = []  # in the cache, with sequences still to fork
        # waiting prompts: equal ones are computed once
        self.by_tokens: dict[tuple[int, ...], Prefill] = {}
        self.preemptions = 0

    @property
    def has_work(self) -> bool:
        return bool(self.waiting or self.ready or self.rows.sequences)

    def add(self, request: Request) -> None:
        sequences = [Sequence(request, sample) for sample in range(request.sampling.n)]
        prefill = self.by_tokens.get(request.prompt)
        if prefill is not None:
            prefill.sequences += sequences
            return
        self.by_tokens[request.prompt] = prefill = Prefill(request.prompt, sequences)
        self.waiting.append(prefill)

    # -- prefill

    def next_chunk(self) -> list[tuple[Prefill, int]]:
        """Prefills to advance together and by how many tokens: rows x longest <= prefill_chunk. Only the first may be cut."""
        free_rows = self.rows.capacity - len(self.rows) - sum(len(p.sequences) for p in self.ready)
        chosen: list[tuple[Prefill, int]] = []
        widest, blocked = 0, False
        for prefill in self.waiting:
            if free_rows <= 0:
                break
            tokens = min(prefill.remaining, self.prefill_chunk) if not chosen else prefill.remaining
            if (len(chosen) + 1) * max(widest, tokens) > self.prefill_chunk:
                break
            if not prefill.blocks:
                blocked = blocked or not self._admit(prefill)
                if blocked:
                    continue  # nobody overtakes, but a prefill that already holds its blocks must be able to finish
            chosen.append((prefill, tokens))
            widest, free_rows = max(widest, tokens), free_rows - len(prefill.sequences)
        return chosen

    def _admit(self, prefill: Prefill) -> bool:
        """Gives a prefill its blocks if every running row can still take one more: else it would be preempted at once."""
        blocks = self.pool.blocks_for(len(prefill.tokens))
        if not self.pool.room(blocks + len(self.rows)):
            return False
        prefill.blocks = self.pool.take(blocks)
        return True

    def advance(self, prefill: Prefill, tokens: int, last_hidden_D: Tensor) -> None:
        prefill.done += tokens
        if prefill.remaining == 0:
            prefill.last_hidden_D = last_hidden_D
            self.waiting.remove(prefill)
            self._forget(prefill)
            self.ready.append(prefill)

    def _forget(self, prefill: Prefill) -> None:
        if self.by_tokens.get(prefill.tokens) is prefill:
            del self.by_tokens[prefill.tokens]

    # -- fork

    def fork(self) -> tuple[list[Sequence], list[Tensor]]:
        """Lets finished prefills' sequences join the rows (they are the last rows then); returns them and each one's last hidden state.

        Full blocks are shared by reference, the partial one is copied for all but the last sequence.
        """
        sequences: list[Sequence] = []
        tables: list[list[int]] = []
        hidden: list[Tensor] = []
        lengths: list[int] = []
        sources: list[int] = []
        targets: list[int] = []
        for prefill in list(self.ready):
            count = min(
                len(prefill.sequences), self.rows.capacity - len(self.rows) - len(sequences)
            )
            count = min(count, self._forks_with_room(count, len(sequences)))
            if count == 0 and not self.rows.sequences and not sequences:
                self._take_over(prefill)
                count = 1
            full = len(prefill.tokens) // self.pool.block
            for sequence in prefill.sequences[:count]:
                last = sequence is prefill.sequences[-1]
                tail = prefill.blocks[full:]
                if tail and not last:
                    sources += tail
                    tail = self.pool.take(1)
                    targets += tail
                sequences.append(sequence)
                tables.append(prefill.blocks[:full] + tail)
                hidden.append(prefill.last_hidden_D)
                lengths.append(len(prefill.tokens))
            del prefill.sequences[:count]
            self.pool.share(prefill.blocks[:full], count if prefill.sequences else count - 1)
            if not prefill.sequences:
                self.ready.remove(prefill)
        self.pool.copy(sources, targets)
        if sequences:
            self.rows.add(sequences, tables, lengths, self.pool.block)
        return sequences, hidden

    def _forks_with_room(self, count: int, joining: int) -> int:
        """How many forks may join: each, and each row already there, must be able to take one block."""
        present = len(self.rows) + joining
        if count == 0 or self.pool.room(present + count):
            return count
        return max(len(self.pool.free) - present, 0)

    def _take_over(self, prefill: Prefill) -> None:
        """No block is left and nothing runs: the first sequence gets the prefill's own blocks, the others wait for another prefill."""
        others = prefill.sequences[1:]
        del prefill.sequences[1:]
        if others:
            self.waiting.appendleft(Prefill(prefill.tokens, others))

    # -- decode

    def make_room(self) -> Tensor:
        """Gives every row a place for its next token; returns those places (slots int64 [B])."""
        while True:
            length_B = self.rows.view("length")
            bordering = (length_B % self.pool.block == 0).nonzero()[:, 0]
            if self.pool.room(len(bordering)):
                break
            self._reclaim()
        if len(bordering):
            blocks = torch.tensor(self.pool.take(len(bordering)), device=length_B.device)
            self.rows.view("table")[bordering, length_B[bordering] // self.pool.block] = blocks
        column_B = length_B // self.pool.block
        return (
            self.rows.view("table").gather(1, column_B[:, None])[:, 0] * self.pool.block
            + length_B % self.pool.block
        )

    def _reclaim(self) -> None:
        for prefill in [*reversed(self.ready), *reversed(self.waiting)]:
            if prefill.blocks:
                self._start_over(prefill)
                return
        assert len(self.rows) > 1, "the pool cannot hold one sequence"
        self.preempt([max(range(len(self.rows)), key=lambda row: self.rows.sequences[row].order)])

    def _start_over(self, prefill: Prefill) -> None:
        self.pool.release(torch.tensor(prefill.blocks))
        prefill.blocks, prefill.done, prefill.last_hidden_D = [], 0, None
        if prefill in self.ready:
            self.ready.remove(prefill)
            self.waiting.appendleft(prefill)

    def preempt(self, rows: list[int]) -> None:
        """Takes rows (ascending) out of the batch and back to the head of the queue, oldest first."""
        preempted = [self._suspend(row) for row in rows]
        self.leave(rows)
        for sequence in sorted(preempted, key=lambda s: s.order, reverse=True):
            self.waiting.appendleft(Prefill(sequence.tokens, [sequence]))
        self.preemptions += len(rows)

    def _suspend(self, row: int) -> Sequence:
        """Reads a row's tokens back into its sequence, which keeps them while it does not run."""
        sequence = self.rows.sequences[row]
        sequence.token_ids, sequence.log_probs = self.rows.read(row)
        return sequence

    def leave(self, rows: list[int]) -> None:
        if rows:
            self.pool.release(self.rows.remove(rows))

    # -- weights changed, abort

    def restart(self) -> None:
        """Forgets every cached entry: what runs or has been prefilled is prefilled again (the weights have changed)."""
        self.preempt(list(range(len(self.rows))))
        for prefill in [*self.ready, *self.waiting]:
            if prefill.blocks:
                self._start_over(prefill)

    def remove(self, number: int) -> list[Sequence]:
        """Takes request `number` out of everything; returns its unfinished sequences with what they have produced."""
        rows = [
            row
            for row, sequence in enumerate(self.rows.sequences)
            if sequence.request.number == number
        ]
        removed = [self._suspend(row) for row in rows]
        self.leave(rows)
        for prefill in [*self.ready, *self.waiting]:
            mine = [s for s in prefill.sequences if s.request.number == number]
            removed += mine
            prefill.sequences = [s for s in prefill.sequences if s.request.number != number]
            if mine and not prefill.sequences:
                if prefill.blocks:
                    self.pool.release(torch.tensor(prefill.blocks))
                self._forget(prefill)
                (self.ready if prefill in self.ready else self.waiting).remove(prefill)
        return removed
