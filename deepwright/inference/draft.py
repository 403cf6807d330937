"""How often the MTP module's draft of the second token would be accepted, measured on given texts (V3 section 5.4.3: 85-90%).

Teacher-forced: at every position the true next token is given, as it is after the main model has emitted it. Speculative decoding
itself is not here.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from deepwright.refusals import expect


@torch.inference_mode()
def acceptance_rate(
    model: nn.Module, tokens_BS: Tensor, temperature: float = 1.0
) -> dict[str, float]:
    """{"greedy", "sampled", "positions"}: the share of positions i >= 0 whose draft for token i+2 is the main model's greedy choice,
    and the mean of sum_v min(p_v, q_v): the probability that accept/resample (Leviathan et al. 2023) keeps a draft drawn from q.

    Main model at i+1 gives p and MTP depth 1 at i gives q, both at `temperature` (> 0).
    """
    if tokens_BS.shape[1] < 3:
        raise ValueError(
            f"sequences of {tokens_BS.shape[1]} tokens, expected at least 3: the draft at position i is for token i+2"
        )
    expect(
        temperature > 0,
        "temperature",
        temperature,
        "a positive number (the greedy rate is always given)",
    )
    agreed, shared, positions = 0, 0.0, 0
    for tokens_1S in tokens_BS.split(1):  # one row at a time: two [S, vocab] tables in memory
        hidden_1SD = model.hidden(tokens_1S)
        depths = model.mtp_hidden(hidden_1SD, tokens_1S)
        if not depths:
            raise ValueError("the model has no MTP module (num_nextn_predict_layers is 0)")
        draft_TV = nn.functional.linear(depths[0][0], model.head_weight).float()
        main_TV = nn.functional.linear(hidden_1SD[0, 1:], model.head_weight).float()
        agreed += int((draft_TV.argmax(-1) == main_TV.argmax(-1)).sum())
        overlap_TV = torch.minimum(
            (draft_TV / temperature).softmax(-1), (main_TV / temperature).softmax(-1)
        )
        shared += float(overlap_TV.sum(dtype=torch.float64))
        positions += len(main_TV)
    return {"greedy": agreed / positions, "sampled": shared / positions, "positions": positions}
