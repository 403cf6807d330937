"""The pages in a real browser: nothing is wider than a phone, no script fails, both languages are there. Skipped where no Chromium is installed."""

from __future__ import annotations

import html
import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from deepwright.report import write_report
from deepwright.report.comparison import write_comparison
from deepwright.report.records import read_run
from tests.report.fabricated import make_recipe, write_lines
from tests.report.test_opening import make_alone

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "chrome")
PHONE, SCREEN = 390, 1200
# what is put into a page: it notes errors from the start, and tells its frame what it measures
WATCH = """<script>var failed = []; addEventListener('error', function (e) { failed.push(e.message); });
addEventListener('load', function () { setTimeout(function () {
  var root = document.documentElement, wide = [], out = [];
  document.querySelectorAll('main *, header *').forEach(function (one) {
    if (one.getBoundingClientRect().right > innerWidth + 1 && !one.closest('.scroll, .sample, svg, .plot')) wide.push(one.tagName + '.' + one.className);
  });
  document.querySelectorAll('.chart b, .chart span, .tile *').forEach(function (one) {
    if (one.getBoundingClientRect().right > one.closest('.chart, .tile').getBoundingClientRect().right + 1) out.push(one.textContent);
  });
  document.querySelectorAll('td:first-child').forEach(function (one) {
    if (one.offsetParent && one.textContent.length > 6 && one.offsetWidth < 40) out.push(one.textContent);
  });
  var held = [].slice.call(document.querySelectorAll('.scroll')).filter(function (one) { return one.scrollWidth > one.clientWidth + 1; }).map(function (one) {
    one.scrollLeft = 200;
    var first = one.querySelector('td, th').getBoundingClientRect().left - one.getBoundingClientRect().left;
    return Math.abs(first) < 2;
  });
  parent.postMessage({name: NAME, width: root.scrollWidth, room: innerWidth, failed: failed, wide: wide.slice(0, 5), out: out, held: held,
    language: root.lang, title: document.querySelector('h2').textContent}, '*');
}, 100); });</script>"""
HOST = """<!doctype html><body>{frames}<pre id="found"></pre><script>var found = [];
addEventListener('message', function (e) {{ found.push(e.data); document.getElementById('found').textContent = JSON.stringify(found); }});
</script>{late}</body>"""


def browser() -> str:
    found = next(filter(None, map(shutil.which, BROWSERS)), "")
    if not found:
        pytest.skip("no Chromium is installed here, whose engine lays the page out")
    return found


def measured(folder: Path, pages: dict[str, tuple[Path, str, int]]) -> dict[str, dict]:
    """What each page says of itself in a frame; name -> (page, language, width). One start of the browser for all."""
    frames = []
    for name, (page, language, width) in pages.items():
        text = page.read_text().replace("<head>", f"<head>{WATCH.replace('NAME', repr(name))}", 1)
        (folder / f"{name}.html").write_text(text)
        frames.append(
            f'<iframe src="{name}.html#{language}" width="{width}" height="900"></iframe>'
        )
    host = folder / "host.html"
    host.write_text(HOST.format(frames="", late="".join(frames)))
    command = [browser(), "--no-sandbox", "--headless", "--disable-gpu", f"--user-data-dir={folder / 'profile'}",
               "--virtual-time-budget=20000", "--window-size=1400,1000", "--dump-dom", host.as_uri()]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    found = re.search('<pre id="found">(.*?)</pre>', done.stdout, re.DOTALL)
    assert found and found[1], done.stderr[-2000:]
    return {one["name"]: one for one in json.loads(html.unescape(found[1]))}


def check_pages(folder: Path) -> None:
    browser()
    whole, tuned = make_recipe(folder / "whole"), folder / "tuned"
    path = whole / "evaluations.jsonl"
    none = '"label": "student", "task": "countdown"'
    lines = [
        json.loads(line)
        | (
            {"pass_at_1": 0.0, "pass_at_1_se": 0.0, "intervals": {"pass@1": [0, 0.138]}}
            if none in line
            else {}
        )
        for line in path.read_text().splitlines()
    ]
    write_lines(path, lines)
    tuned.mkdir()
    make_alone(tuned, "sft")
    both = write_comparison([read_run(whole), read_run(tuned)], folder / "both.html")
    reports = {"whole": write_report(whole), "tuned": write_report(tuned), "compared": both}
    asked = {
        f"{name}-{language}-{width}": (path, language, width)
        for name, path in reports.items()
        for language, width in (("en", PHONE), ("zh", PHONE), ("en", SCREEN))
    }
    found = measured(folder, asked)
    assert found.keys() == asked.keys()
    for name, one in found.items():
        assert one["failed"] == [], f"{name}: {one['failed']}"
        assert one["width"] <= one["room"], (
            f"{name}: {one['width']} of {one['room']}, {one['wide']}"
        )
        assert one["out"] == [], f"{name}: beyond its frame, or a letter a line: {one['out']}"
        assert all(one["held"]), f"{name}: a first column scrolls out of sight"
        assert one["language"] == name.split("-")[1]
    assert any(one["held"] for one in found.values()), "no table is wider than a phone"
    chinese = re.compile("[\u4e00-\u9fff]")
    assert all(bool(chinese.search(one["title"])) == (one["language"] == "zh") for one in found.values())  # fmt: skip


def test_pages_fit_a_phone_and_no_script_fails(tmp_path):
    check_pages(tmp_path)
