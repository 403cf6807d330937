"""Released models: each opens and computes what transformers computes, or is refused for the right
reason.

The facts are in released.json: keys and values of their files, where each was read, and what should
come out. Sizes are scaled down, nothing else is.
"""

import json
import re

import pytest
import torch

from deepwright import weights
from deepwright.text import Tokenizer
from tests.models.tiny import RELEASED, TEXTS, make

OPEN = [name for name, record in RELEASED.items() if "refused" not in record]
REFUSED = [name for name in RELEASED if name not in OPEN]
# A few layers of width 32 in fp32: products of n <= 300 numbers, 3 layers of about 8 products each, err by
# sqrt(3 * 8 * 300) 2^-24 = 5e-6 of the largest logit; experts chosen otherwise would err by 1e-1.
BOUND = 2e-5


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    root = tmp_path_factory.mktemp("released")
    return {name: make(RELEASED[name], root / str(n)) for n, name in enumerate(RELEASED)}


@pytest.mark.parametrize("name", OPEN)
def test_opens_and_computes_what_transformers_computes(folders, name, tmp_path):
    transformers = pytest.importorskip("transformers")
    model = weights.load_model(folders[name])
    tokens = torch.arange(2 * 24).view(2, 24) % model.config.vocab_size
    logits = model(tokens).detach()
    theirs = whole_numbers(folders[name], tmp_path)
    twin = transformers.AutoModelForCausalLM.from_pretrained(theirs, dtype=torch.float32)
    with torch.no_grad():
        expected = twin(tokens, use_cache=False).logits
    assert (logits - expected).abs().max() <= BOUND * expected.abs().max()


def whole_numbers(folder, target):
    """The same folder for transformers, which would look for FP8 weights that a small model has
    not."""
    values = json.loads((folder / "config.json").read_text())
    for path in folder.iterdir():
        (target / path.name).symlink_to(path)
    (target / "config.json").unlink()
    values.pop("quantization_config", None)
    values.pop("auto_map", None)  # remote code is not what is compared with
    (target / "config.json").write_text(json.dumps(values))
    return target


@pytest.mark.parametrize("name", [name for name in OPEN if "ends" in RELEASED[name]])
def test_what_ends_a_text(folders, name, tmp_path):
    """The tokens by which the release stops, after a load and after saving and loading again."""
    model, tokenizer = weights.load(folders[name])
    for _ in range(2):
        ends = [tokenizer.token(index) for index in tokenizer.stop_ids]
        assert ends[0] == RELEASED[name]["ends"][0] and set(ends) == set(RELEASED[name]["ends"])
        weights.save(model, tokenizer, tmp_path / "m")
        model, tokenizer = weights.load(tmp_path / "m")
    generation = weights.read_generation(tmp_path / "m")["eos_token_id"]
    assert generation in ([*tokenizer.stop_ids], tokenizer.eos_id)


@pytest.mark.parametrize("name", [name for name in OPEN if "tokenizer" in RELEASED[name]])
def test_ids_and_special_tokens_are_those_of_transformers(folders, name):
    """By the class that reads tokenizer.json as it stands, and by the one that transformers
    chooses. For Llama 2 the latter differs: version 5 puts no blank before a text that follows a
    special token, where tokenizer.json (and Meta's code) does."""
    transformers = pytest.importorskip("transformers")
    ours, record = Tokenizer.load(folders[name]), RELEASED[name]
    plain = transformers.PreTrainedTokenizerFast.from_pretrained(folders[name])
    chosen = transformers.AutoTokenizer.from_pretrained(folders[name])
    specials = "".join(record["tokens"]) + " x "
    within = [specials, f"  {specials}\n{specials}"]
    for text in [*TEXTS, "", *within]:
        ids = ours.encode(text)
        assert ids == plain.encode(text, add_special_tokens=False)
        if text not in within or record["cuts"] != "sentencepiece":
            assert ids == chosen.encode(text, add_special_tokens=False)
    assert (ours.bos_id, ours.eos_id) == (chosen.bos_token_id, chosen.eos_token_id)


@pytest.mark.parametrize("name", [name for name in OPEN if "tokenizer_refused" in RELEASED[name]])
def test_opens_without_its_tokenizer(folders, name):
    with pytest.raises(ValueError, match=RELEASED[name]["tokenizer_refused"]):
        weights.load(folders[name])


@pytest.mark.parametrize("name", REFUSED)
def test_is_refused_for_the_right_reason(folders, name):
    with pytest.raises(ValueError, match=re.escape(RELEASED[name]["refused"])) as error:
        weights.load(folders[name])
    assert str(folders[name]) in str(error.value) and len(str(error.value)) < 500
