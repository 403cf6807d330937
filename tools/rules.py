"""The house rules that a machine can check: size, rows of imports, words, what loads without torch. `make lint` prints the table.

Run as a script it prints one line for each rule and every offence below, and exits 1 if there is one. The tests call `check`.
Only the standard library is used, and the package is parsed, never imported (save in a fresh process, to see what it loads).
"""

from __future__ import annotations

import ast
import re
import resource
import statistics
import subprocess
import sys
import tokenize
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = "deepwright"

# The rows of the layout, from the ground up. A module imports only from rows below its own, or from its own package.
ROWS: tuple[tuple[str, ...], ...] = (
    ("config", "sampler", "metrics", "seeds", "intervals"),
    ("numerics", "text", "report", "trackers"),
    ("model", "data", "tasks"),
    ("weights",),
    ("train", "evaluate"),
    ("inference", "rl"),
    ("recipe",),
    ("verify",),
    ("cli",),
    ("__main__",),
)
# What the rows stand on: anything may import these two, the second of them the first.
GROUND = ("refusals", "files")
ROW_OF = {name: row for row, names in enumerate(ROWS) for name in names}
ROW_OF |= {name: place - len(GROUND) for place, name in enumerate(GROUND)}

# Names that say nothing about what is inside.
EMPTY_NAMES = {"utils", "util", "common", "core", "helpers", "helper", "manager", "misc"}

# What must load without torch: a plan, a help text and a config error answer at once.
WITHOUT_TORCH = (
    "deepwright",
    "deepwright.config",
    "deepwright.files",
    "deepwright.refusals",
    "deepwright.sampler",
    "deepwright.metrics",
    "deepwright.cli",
    "deepwright.report",
    "deepwright.trackers",
    "deepwright.recipe.runs",
)

# Things that only mean something on the machine of whoever wrote them.
PRIVATE = re.compile(
    r"(?<![\w.])/(?:work|home|root|Users)/\w|\bshared/[\w/-]+\.md\b|\bspec \d+(?:\.\d+)?\b"
)

# Counted as the formatter leaves lines of 100 columns.
MAX_PACKAGE_LINES, MAX_FILE_LINES, MAX_FUNCTION_LINES, MAX_MEDIAN = 28_000, 500, 100, 12
MAX_HELP_SECONDS = 0.3
TEXT_SUFFIXES = {".py", ".c", ".h", ".md", ".toml", ".txt", ".yaml", ".cfg", ".sh", ""}


@dataclass(frozen=True)
class Rule:
    """One line of the table: what was looked at, what was found, what is allowed, and every place that breaks it."""

    name: str
    found: str
    allowed: str
    offences: tuple[str, ...] = ()


def modules(root: Path = ROOT) -> list[Path]:
    return sorted(
        path for path in (root / PACKAGE).rglob("*.py") if "__pycache__" not in path.parts
    )


def compiled_sources(root: Path = ROOT) -> list[Path]:
    return sorted(path for suffix in ("*.c", "*.h") for path in (root / PACKAGE).rglob(suffix))


def code_lines(path: Path, docstrings: bool = False) -> int:
    """Lines that hold something other than blanks, comments and (unless asked for: they too have to be read) docstrings."""
    if path.suffix in (".c", ".h"):
        return sum(
            1
            for line in re.sub(r"/\*.*?\*/", "", path.read_text(), flags=re.DOTALL).splitlines()
            if line.strip()
        )
    skip = {
        tokenize.COMMENT,
        tokenize.NL,
        tokenize.NEWLINE,
        tokenize.INDENT,
        tokenize.DEDENT,
        tokenize.ENCODING,
        tokenize.ENDMARKER,
    }
    lines: set[int] = set()
    with tokenize.open(path) as file:
        for token in tokenize.generate_tokens(file.readline):
            if token.type not in skip:
                lines.update(range(token.start[0], token.end[0] + 1))
    text, tree = path.read_text(), ast.parse(path.read_text())
    for node in () if docstrings else ast.walk(tree):
        if (
            isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef))
            and ast.get_docstring(node) is not None
        ):
            lines -= set(range(node.body[0].lineno, node.body[0].end_lineno + 1))
    return sum(1 for number in lines if text.splitlines()[number - 1].strip())


def functions(path: Path) -> list[tuple[str, int]]:
    """(name, length in lines from its `def` to its end) of every function in a file."""
    tree = ast.parse(path.read_text())
    kinds = (ast.FunctionDef, ast.AsyncFunctionDef)
    return [
        (node.name, node.end_lineno - node.lineno + 1)
        for node in ast.walk(tree)
        if isinstance(node, kinds) and node.end_lineno
    ]


def part_of(module: str) -> str:
    """deepwright.model.rope -> model; deepwright -> ''."""
    return (module.split(".") + [""])[1]


def imports(path: Path) -> list[tuple[int, str]]:
    """(line, module) of everything in our package that a file imports, wherever in the file the import stands."""
    found = []
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found += [(node.lineno, alias.name) for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module == PACKAGE:
            found += [(node.lineno, f"{PACKAGE}.{alias.name}") for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            found.append((node.lineno, node.module))
    return [(line, module) for line, module in found if module.split(".")[0] == PACKAGE]


def name_of(path: Path, root: Path) -> str:
    return ".".join(path.relative_to(root).with_suffix("").parts).removesuffix(".__init__")


def row_offences(root: Path = ROOT) -> list[str]:
    offences = []
    for path in modules(root):
        own = part_of(name_of(path, root))
        if not own:
            continue  # the lazy facade: it names modules of every row and imports none
        if own not in ROW_OF:
            offences.append(f"{path.relative_to(root)}: '{own}' stands in no row of the layout")
            continue
        for line, module in imports(path):
            target = part_of(module)
            if (
                target
                and target != own
                and ROW_OF.get(target, len(ROWS)) >= ROW_OF[own]
                and module != f"{PACKAGE}.__version__"
            ):
                where = f"row {ROW_OF[target]}" if target in ROW_OF else "no row"
                offences.append(
                    f"{path.relative_to(root)}:{line}: {own} (row {ROW_OF[own]}) imports {module} ({where})"
                )
    return offences


def size_rules(root: Path) -> list[Rule]:
    paths = modules(root)
    lines = {path: len(path.read_text().splitlines()) for path in (*paths, *compiled_sources(root))}
    spans = [(path, name, length) for path in paths for name, length in functions(path)]
    package, compiled = (sum(map(code_lines, files)) for files in (paths, compiled_sources(root)))
    median = statistics.median([length for _, _, length in spans] or [0])
    longest = max(lines, key=lambda path: lines[path])
    path, name, length = max(spans, key=lambda span: span[2], default=(longest, "-", 0))
    too_long = [f"{p.relative_to(root)}: {n} lines" for p, n in lines.items() if n > MAX_FILE_LINES]
    too_deep = [
        f"{p.relative_to(root)}: {f} has {n} lines" for p, f, n in spans if n > MAX_FUNCTION_LINES
    ]
    over = [f"the package has {package} code lines"] if package > MAX_PACKAGE_LINES else []
    high = [f"the median function has {median} lines"] if median > MAX_MEDIAN else []
    return [
        Rule("code lines of the package", f"{package:,}", f"{MAX_PACKAGE_LINES:,}", tuple(over)),
        Rule("the same with the C sources", f"{package + compiled:,}", "told only"),
        Rule(
            "and with docstrings", f"{sum(code_lines(path, True) for path in lines):,}", "told only"
        ),
        Rule(
            "longest file",
            f"{lines[longest]} ({longest.relative_to(root)})",
            str(MAX_FILE_LINES),
            tuple(too_long),
        ),
        Rule(
            "longest function",
            f"{length} ({name} in {path.relative_to(root)})",
            str(MAX_FUNCTION_LINES),
            tuple(too_deep),
        ),
        Rule("median function", f"{median:g}", f"{MAX_MEDIAN} (about 10)", tuple(high)),
    ]


def name_rule(root: Path) -> Rule:
    names = [
        path
        for path in modules(root)
        if EMPTY_NAMES & {path.stem, *path.relative_to(root).parent.parts}
    ]
    return Rule(
        "names that say nothing",
        str(len(names)),
        "0",
        tuple(str(path.relative_to(root)) for path in names),
    )


def our_texts(root: Path) -> list[Path]:
    """Text files that belong to the project: all outside of hidden folders, environments and runs, and .ci/run."""
    skip = {"runs", "build", "dist", "__pycache__"}
    tops = [
        path for path in root.iterdir() if path.name not in skip and not path.name.startswith(".")
    ]
    files = [
        root / ".ci" / "run",
        *tops,
        *(path for top in tops if top.is_dir() for path in top.rglob("*")),
    ]
    return sorted(
        path
        for path in files
        if path.is_file()
        and path.suffix in TEXT_SUFFIXES
        and not skip & set(path.relative_to(root).parts)
    )


def private_rule(root: Path) -> Rule:
    offences = []
    for path in our_texts(root):
        for number, line in enumerate(path.read_text(errors="replace").splitlines(), 1):
            if PRIVATE.search(line) and path != Path(__file__).resolve():
                offences.append(f"{path.relative_to(root)}:{number}: {line.strip()[:100]}")
    return Rule("mentions of what only its author has", str(len(offences)), "0", tuple(offences))


def documented_rule(root: Path) -> Rule:
    """Every module has its sentence in docs/structure.md, and the page names no module that is not there."""
    page = root / "docs" / "structure.md"
    listed = (
        set(re.findall(r"^\| `([\w./]+\.py)`", page.read_text(), re.M)) if page.exists() else set()
    )
    there = {
        str(path.relative_to(root / PACKAGE)) for path in modules(root) if path.stat().st_size > 0
    }
    offences = [f"docs/structure.md lacks {name}" for name in sorted(there - listed)]
    offences += [
        f"docs/structure.md names {name}, which is not there" for name in sorted(listed - there)
    ]
    return Rule(
        "modules described in docs/structure.md",
        f"{len(there & listed)} of {len(there)}",
        str(len(there)),
        tuple(offences),
    )


def docstring_rule(root: Path) -> Rule:
    bare = [
        p
        for p in modules(root)
        if p.stat().st_size > 0 and not ast.get_docstring(ast.parse(p.read_text()))
    ]
    return Rule(
        "files that do not say what they do",
        str(len(bare)),
        "0",
        tuple(str(path.relative_to(root)) for path in bare),
    )


def torch_rule(root: Path) -> Rule:
    """Imports the light modules in a fresh process and looks whether torch came along."""
    there = [
        m
        for m in WITHOUT_TORCH
        if (root / Path(*m.split("."))).is_dir()
        or (root / Path(*m.split("."))).with_suffix(".py").exists()
    ]
    loads = "; ".join(f"import {module}" for module in there)
    run = [sys.executable, "-c", f"import sys; {loads}; sys.exit('torch' in sys.modules)"]
    done = subprocess.run(run, cwd=root, capture_output=True, text=True, check=False)
    heavy = (
        []
        if done.returncode == 0
        else [
            done.stderr.strip().splitlines()[-1]
            if done.stderr
            else f"torch is loaded by one of {there}"
        ]
    )
    return Rule("light modules that load torch", str(len(heavy)), "0", tuple(heavy))


def help_seconds(root: Path) -> float:
    """Processor seconds that `deepwright --help` takes: what a quiet machine needs by the clock, whatever else runs here now."""

    def spent() -> float:
        usage = resource.getrusage(resource.RUSAGE_CHILDREN)
        return usage.ru_utime + usage.ru_stime

    before = spent()
    subprocess.run(
        [sys.executable, "-m", PACKAGE, "--help"], cwd=root, capture_output=True, check=True
    )
    return spent() - before


def help_rule(root: Path) -> Rule:
    seconds = help_seconds(root)
    slow = [f"deepwright --help took {seconds:.2f} s"] if seconds > MAX_HELP_SECONDS else []
    return Rule(
        "seconds until `deepwright --help` answers",
        f"{seconds:.2f}",
        str(MAX_HELP_SECONDS),
        tuple(slow),
    )


def check(root: Path = ROOT) -> list[Rule]:
    rows = row_offences(root)
    return [
        *size_rules(root),
        Rule("imports from the same row or above", str(len(rows)), "0", tuple(rows)),
        name_rule(root),
        docstring_rule(root),
        documented_rule(root),
        private_rule(root),
        torch_rule(root),
        help_rule(root),
    ]


def main() -> int:
    rules = check()
    width = max(len(rule.name) for rule in rules)
    for rule in rules:
        print(
            f"{'FAIL' if rule.offences else ' ok '}  {rule.name:<{width}}  {rule.found}   (allowed: {rule.allowed})"
        )
    offences = [offence for rule in rules for offence in rule.offences]
    for offence in offences:
        print(f"  {offence}")
    return 1 if offences else 0


if __name__ == "__main__":
    sys.exit(main())
