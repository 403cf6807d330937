"""The house rules hold, and the checker can see them broken."""

from pathlib import Path

import pytest

from tools import rules


@pytest.fixture(scope="module")
def table() -> dict[str, rules.Rule]:
    return {rule.name: rule for rule in rules.check()}


def test_package_keeps_every_rule(table):
    offences = [offence for rule in table.values() for offence in rule.offences]
    assert not offences, "\n".join(offences)


def test_every_row_of_the_layout_is_a_known_name():
    assert len(rules.ROW_OF) == sum(map(len, (rules.GROUND, *rules.ROWS))), (
        "a name stands in two rows"
    )


def package_of(tmp_path: Path, **files: str) -> Path:
    """A project with the given modules; `model__rope` is model/rope.py."""
    for name, text in files.items():
        path = tmp_path / "deepwright" / (name.replace("__", "/") + ".py")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return tmp_path


@pytest.mark.parametrize(
    ("module", "text", "said"),
    [
        (
            "model__rope",
            "from deepwright.rl import losses",
            "model (row 2) imports deepwright.rl (row 5)",
        ),
        (
            "model__rope",
            "def f():\n    import deepwright.data.packing\n",
            "model (row 2) imports deepwright.data.packing (row 2)",
        ),
        (
            "train__loop",
            "from deepwright import evaluate",
            "train (row 4) imports deepwright.evaluate (row 4)",
        ),
        (
            "rl__grpo",
            "from deepwright.inference.engine import Engine",
            "rl (row 5) imports deepwright.inference.engine (row 5)",
        ),
        ("helpers", "", "'helpers' stands in no row"),
        (
            "config",
            "from deepwright.helpers import x",
            "config (row 0) imports deepwright.helpers (no row)",
        ),
    ],
)
def test_import_against_the_rows_is_found(tmp_path, module, text, said):
    assert any(
        said in offence for offence in rules.row_offences(package_of(tmp_path, **{module: text}))
    )


@pytest.mark.parametrize(
    ("module", "text"),
    [
        (
            "rl__grpo",
            "from deepwright.train.optimizer import Optimizer\nfrom deepwright.rl.types import Rollout\nimport torch\n",
        ),
        ("model__rope", "import deepwright\n"),
        ("cli", "from deepwright.verify import run\n"),
    ],
)
def test_import_along_the_rows_is_allowed(tmp_path, module, text):
    assert rules.row_offences(package_of(tmp_path, **{module: text})) == []


def test_code_lines_leave_out_blanks_comments_and_docstrings(tmp_path):
    text = '"""Doc\n\nstring."""\n\n# a comment\nx = 1  # another\ny = (\n    2,\n\n    # inside\n)\nz = """a\n\n# b"""\n'
    path = tmp_path / "m.py"
    path.write_text(text)
    assert rules.code_lines(path) == 6
    assert rules.code_lines(path, docstrings=True) == 2 + 1 + 3 + 2


def test_long_file_and_function_are_found(tmp_path):
    root = package_of(tmp_path, config="def f():\n" + "    x = 1\n" * 101, metrics="x = 1\n" * 601)
    offences = [offence for rule in rules.size_rules(root) for offence in rule.offences]
    assert any("f has 102 lines" in offence for offence in offences)
    assert any("metrics.py: 601 lines" in offence for offence in offences)


def test_mentions_of_private_things_are_found(tmp_path):
    root = package_of(
        tmp_path,
        config="# see /" + "home/anna/notes\n",
        metrics="# shared/routed experts, a/home/b\n",
    )
    assert [offence.split(":")[0] for offence in rules.private_rule(root).offences] == [
        "deepwright/config.py"
    ]


def test_module_without_a_sentence_in_the_structure_page_is_found(tmp_path):
    root = package_of(tmp_path, config="x = 1", model__rope="y = 1")
    (root / "docs").mkdir()
    (root / "docs" / "structure.md").write_text(
        "| `config.py` | what a model is |\n| `gone.py` | was here |\n"
    )
    assert rules.documented_rule(root).offences == (
        "docs/structure.md lacks model/rope.py",
        "docs/structure.md names gone.py, which is not there",
    )
