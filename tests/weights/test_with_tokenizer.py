"""A model and its tokenizer in one folder."""

import dataclasses

import pytest
import torch

import deepwright as dw
from deepwright import weights
from deepwright.config import preset
from deepwright.model import Transformer
from deepwright.text.tokenizer import number_tokenizer


@pytest.fixture
def pair():
    tokenizer = number_tokenizer(["plus", "equals"], 20)
    config = dataclasses.replace(
        preset("laptop"),
        vocab_size=64,
        bos_token_id=tokenizer.bos_id,
        eos_token_id=tokenizer.eos_id,
    )
    return Transformer(config, torch.Generator().manual_seed(0)), tokenizer


def test_both_come_back_and_transformers_opens_both(tmp_path, pair):
    model, tokenizer = pair
    dw.save(model, tokenizer, tmp_path / "m", generation={"temperature": 0.6})
    back, read = dw.load(tmp_path / "m")
    assert torch.equal(back.embed.weight, model.embed.weight)
    assert read.encode("3 plus 4 equals") == tokenizer.encode("3 plus 4 equals")
    assert weights.read_generation(tmp_path / "m") == {
        "bos_token_id": tokenizer.bos_id,
        "eos_token_id": tokenizer.eos_id,
        "temperature": 0.6,
    }
    transformers = pytest.importorskip("transformers")
    theirs = transformers.AutoTokenizer.from_pretrained(tmp_path / "m")
    assert theirs.encode("3 plus 4 equals", add_special_tokens=False) == tokenizer.encode(
        "3 plus 4 equals"
    )
    ids = torch.tensor([[tokenizer.bos_id, *tokenizer.encode("3 plus 4 equals")]])
    out = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "m").generate(
        ids, max_new_tokens=3, do_sample=False
    )
    assert out.shape == (1, ids.shape[1] + 3) or out[0, -1] == tokenizer.eos_id


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"vocab_size": 4}, "they do not belong together"),
        ({"eos_token_id": 3}, "eos_token_id is 3"),
    ],
)
def test_a_tokenizer_of_another_model_is_refused(tmp_path, pair, change, said):
    _, tokenizer = pair
    model = Transformer(
        dataclasses.replace(pair[0].config, **change), torch.Generator().manual_seed(0)
    )
    with pytest.raises(ValueError, match=said):
        dw.save(model, tokenizer, tmp_path / "m")
    assert not (tmp_path / "m").exists()
