"""Names on a hub: fetched from a real HTTP server that answers as the hub does, refused in one sentence
where that goes wrong; and what is said of a name that is nothing here."""

from __future__ import annotations

import hashlib
import importlib.util
import json
import os
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import torch

from deepwright import weights
from deepwright.model import Transformer
from deepwright.recipe.session import model_folder
from deepwright.verify.cases import ALL_CASES
from deepwright.weights.hub import absent, fetched
from tests.text import family

COMMIT = "0123456789abcdef0123456789abcdef01234567"


class Hub(ThreadingHTTPServer):
    """The three questions that huggingface_hub asks about a repository (what it is, which files it has,
    one of them), and the refusals of the hub. `asked`: the paths of files that were given out."""

    def __init__(self, repositories: dict[str, dict[str, bytes]]) -> None:
        self.repositories, self.asked = repositories, []
        super().__init__(("127.0.0.1", 0), _Handler)
        threading.Thread(target=self.serve_forever, daemon=True).start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    def close(self) -> None:
        self.shutdown()
        self.server_close()


class _Handler(BaseHTTPRequestHandler):
    server: Hub

    def do_GET(self) -> None:
        if self.path == "/stop":
            threading.Thread(target=self.server.close).start()
            return self._answer(200, b"")
        parts = self.path.partition("?")[0].strip("/").split("/")
        if parts[:2] == ["api", "models"]:
            self._about("/".join(parts[2:4]), parts[4:])
        elif parts[2:3] == ["resolve"]:
            self._file("/".join(parts[:2]), "/".join(parts[4:]))
        else:
            self._answer(404, b"{}")

    do_HEAD = do_GET

    def _about(self, name: str, asked: list[str]) -> None:
        if name == "test/busy":
            return self._answer(503, b"{}")
        if name not in self.server.repositories:
            return self._answer(401, b"{}", {"X-Error-Code": "RepoNotFound"})
        if asked[:1] == ["revision"] and asked[1:] not in (["main"], ["v1"]):
            return self._answer(404, b"{}", {"X-Error-Code": "RevisionNotFound"})
        files = self.server.repositories[name]
        if asked[:1] == ["tree"]:
            listed = [
                {"type": "file", "path": path, "size": len(data), "oid": "0" * 40}
                for path, data in files.items()
            ]
            return self._answer(200, json.dumps(listed).encode())
        names = [{"rfilename": path} for path in files]
        return self._answer(
            200, json.dumps({"id": name, "sha": COMMIT, "siblings": names}).encode()
        )

    def _file(self, name: str, path: str) -> None:
        if name == "test/gated":
            return self._answer(403, b"{}", {"X-Error-Code": "GatedRepo"})
        data = self.server.repositories[name][path]
        if self.command == "GET":
            self.server.asked.append(f"{name}/{path}")
        tag = hashlib.sha256(data).hexdigest()
        return self._answer(200, data, {"ETag": f'"{tag}"', "X-Repo-Commit": COMMIT})

    def _answer(self, status: int, data: bytes, headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        for key, value in {**(headers or {}), "Content-Length": str(len(data))}.items():
            self.send_header(key, value)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(data)

    def log_message(self, *words: object) -> None:
        pass


def model_files(folder: Path) -> dict[str, bytes]:
    """A small Llama with a chat template, and beside it what is never fetched."""
    tokenizer = family.load(folder / "tokenizer", "smollm")
    ids = {"bos_token_id": tokenizer.bos_id, "eos_token_id": tokenizer.eos_id}
    case = ALL_CASES["llama"]
    config = type(case)(**{**vars(case), "vocab_size": tokenizer.vocab_size, **ids})
    weights.save(Transformer(config, torch.Generator().manual_seed(0)), tokenizer, folder / "m")
    files = {path.name: path.read_bytes() for path in (folder / "m").iterdir()}
    return files | {
        "pytorch_model.bin": b"a pickle",
        "README.md": b"# a model",
        "onnx/config.json": b"{}",
        "original/x.safetensors": b"other software's",
    }


# In one process: importing torch takes longer than all the rest.
SCRIPT = """
import contextlib, json, socket, sys, time, urllib.parse, urllib.request
from deepwright.cli import main
from deepwright.weights.hub import fetched
found = {}
def tell(name):
    try:
        found[name] = str(fetched.__wrapped__(name))
    except ValueError as error:
        found[name] = f"refused: {error}"
print(main(["generate", "HF:test/tiny", "Who?", "--max-tokens", "3", "--threads", "1"]), file=sys.stderr)
for name in sys.argv[2:]:
    tell(name)
urllib.request.urlopen(sys.argv[1] + "/stop").read()
with contextlib.suppress(ConnectionRefusedError):
    while True:
        socket.create_connection(("127.0.0.1", urllib.parse.urlsplit(sys.argv[1]).port)).close()
        time.sleep(0.05)
tell("HF:test/tiny@v1")
tell("HF:test/later")
print(json.dumps(found))
"""
NAMES = ("gated", "nowhere", "busy", "tiny@v1", "tiny@v9", "pickles", "bert", "files")


@pytest.fixture(scope="module")
def told(tmp_path_factory):
    """(what came of each name, what was given out, what the process said)."""
    pytest.importorskip("huggingface_hub", reason="the extra `hub` is not installed")
    folder = tmp_path_factory.mktemp("hub")
    tiny = model_files(folder)
    bert = json.dumps({"model_type": "bert", "hidden_size": 8}).encode()
    hub = Hub(
        {
            "test/tiny": tiny,
            "test/gated": tiny,
            "test/pickles": {n: d for n, d in tiny.items() if not n.endswith(".safetensors")},
            "test/bert": {"config.json": bert, "model.safetensors": b"x"},
            "test/files": {"model-Q4_0.gguf": b"x"},
        }
    )
    environment = {
        **os.environ,
        "HF_ENDPOINT": hub.url,
        "HF_HOME": str(folder / "home"),
        "NO_PROXY": "127.0.0.1",
        "no_proxy": "127.0.0.1",
    }
    names = [f"HF:test/{name}" for name in NAMES]
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, hub.url, *names],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=200,
    )
    assert done.returncode == 0, done.stderr
    *said, last = done.stdout.splitlines()
    return json.loads(last), hub.asked, (said, done.stderr)


def test_a_model_is_fetched_once_and_answers(told):
    found, asked, (said, errors) = told
    assert said and "\n0\n" in f"\n{errors}"
    fetched_files = [path for path in asked if path.startswith("test/tiny/")]
    assert len(set(fetched_files)) == len(fetched_files)
    names = {path.removeprefix("test/tiny/") for path in fetched_files}
    assert names >= {"config.json", "model.safetensors", "tokenizer.json", "chat_template.jinja"}
    assert found["HF:test/tiny@v1"].endswith(COMMIT)


def test_nothing_but_json_templates_and_safetensors_is_fetched(told):
    _, asked, _ = told
    assert all(path.endswith((".json", ".jinja", ".safetensors")) for path in asked)
    assert not any("onnx" in path or "original" in path for path in asked)


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("gated", "it is gated: ask for access on its page at the hub, then `hf auth login` here"),
        ("nowhere", "the hub knows no such model, or it is private: `hf auth login` says who asks"),
        ("tiny@v9", "the hub has no revision 'v9' of it"),
        ("pickles", "has no *.safetensors, and nothing else is fetched: a pickle can run code"),
        ("bert", "/config.json: model_type is 'bert'"),
        (
            "files",
            "has no config.json, expected a model of transformers' layout: of a repository of",
        ),
        ("busy", ") answered 503: try again later, or `hf download test/busy --local-dir DIR`"),
    ],
)
def test_what_cannot_be_fetched_is_one_sentence(told, name, said):
    sentence = told[0][f"HF:test/{name}"]
    assert sentence.startswith(f"refused: HF:test/{name}") or name == "busy", sentence
    assert said in sentence and len(sentence) < 400 and "\n" not in sentence


def test_weights_of_a_model_that_does_not_open_are_not_asked_for(told):
    assert "test/bert/config.json" in told[1] and "test/bert/model.safetensors" not in told[1]


def test_without_the_hub_what_was_fetched_opens_and_the_rest_is_told(told):
    later = told[0]["HF:test/later"]
    assert later.startswith("refused: HF:test/later: the hub (http://127.0.0.1:")
    assert ") is not reached from here (" in later
    assert later.endswith("`hf download test/later --local-dir DIR` where it is, and then DIR")


def test_without_the_package_its_extra_is_named(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(
        ValueError, match=r"fetching HF:a/b needs .*pip install 'deepwright\[hub\]'"
    ):
        fetched("HF:a/b")


@pytest.mark.parametrize("name", ["HF:", "HF:tiny", "HF:a/b/c", "HF:../b", "HF:a/b c", "HF:@main"])
def test_what_is_no_name_is_refused_before_anybody_is_asked(name):
    with pytest.raises(ValueError, match=r"a model's name is .*, expected HF:ORG/NAME or HF:ORG"):
        model_folder(name)


# ---- names that are nothing here


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for place in ("models/smollm2", "runs/r1", "runs/r2"):
        Path(place).mkdir(parents=True)
    Path("models/small.gguf").touch()
    Path("notes.txt").touch()


@pytest.mark.usefixtures("here")
@pytest.mark.parametrize(
    ("name", "said"),
    [
        (
            "Qwen/Qwen3-0.6B",
            "a model of this name on a hub is HF:Qwen/Qwen3-0.6B (with pip install",
        ),
        ("Qwen/Qwen3-0.6B", "`hf download Qwen/Qwen3-0.6B --local-dir DIR` and then DIR"),
        (
            "HuggingFaceTB/SmolLM2-135M-Instruct",
            "`deepwright get smollm2` makes models/smollm2 of it",
        ),
        ("SmolLM2-135M-Instruct", "`deepwright get smollm2` makes models/smollm2 of it"),
        ("r1", "there is no folder r1; did you mean runs/r1?"),
        ("smollm2", "there is no folder smollm2; did you mean models/smollm2?"),
        ("runs/r11", "there is no folder runs/r11; did you mean runs/r1?"),
        ("models/smal.gguf", "there is no file models/smal.gguf; did you mean models/small.gguf?"),
        ("notes.txt", "notes.txt is a file, expected a folder with a model, or a .gguf file"),
    ],
)
def test_what_to_do_about_a_name_that_is_no_folder(name, said):
    with pytest.raises(ValueError) as error:
        model_folder(name)
    assert said in str(error.value) and "\n" not in str(error.value)


@pytest.mark.usefixtures("here")
@pytest.mark.parametrize(
    "name", ["nothing", "no/such/folder", "runs/another", "/no/where", "./x/y"]
)
def test_a_name_that_is_like_nothing_is_only_not_there(name):
    assert absent(name) == f"there is no folder {name}"
