"""The acceptance rate against a loop over positions, and where it must be 1."""

from __future__ import annotations

import pytest
import torch

from deepwright.inference.draft import acceptance_rate
from tests.inference.tiny import VOCAB, tiny_model


def test_against_a_loop():
    model = tiny_model(num_nextn_predict_layers=1)
    tokens = torch.randint(0, VOCAB, (2, 9), generator=torch.Generator().manual_seed(0))
    got = acceptance_rate(model, tokens, temperature=0.7)
    with torch.no_grad():
        main = model(tokens)
        draft = model.mtp_hidden(model.hidden(tokens), tokens)[0] @ model.head_weight.T
    greedy, overlap = [], []
    for row in range(2):
        for i in range(8):  # the draft at i and the main model at i + 1 both speak of token i + 2
            p, q = (main[row, i + 1] / 0.7).softmax(-1), (draft[row, i] / 0.7).softmax(-1)
            greedy.append(float(main[row, i + 1].argmax() == draft[row, i].argmax()))
            overlap.append(float(torch.minimum(p, q).sum()))
    assert got["positions"] == 16
    assert got["greedy"] == pytest.approx(sum(greedy) / 16)
    assert got["sampled"] == pytest.approx(sum(overlap) / 16, abs=1e-5)


def test_refusals():
    with pytest.raises(ValueError, match="no MTP module"):
        acceptance_rate(tiny_model(), torch.ones(1, 4, dtype=torch.int64))
    with pytest.raises(ValueError, match="at least 3"):
        acceptance_rate(tiny_model(), torch.ones(1, 2, dtype=torch.int64))
    with pytest.raises(ValueError, match="temperature"):
        acceptance_rate(tiny_model(), torch.ones(1, 4, dtype=torch.int64), 0)
