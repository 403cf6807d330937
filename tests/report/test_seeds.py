"""benchmarks/seeds.py: runs side by side, worked out by hand from invented records."""

import math

import pytest

from benchmarks import seeds
from deepwright.report.records import read_run
from deepwright.report.stages import Comparison
from tests.report.fabricated import write_lines


def run_of(folder, seed, settings="", **stages):
    """A run whose stages have the pass@1 given, (share, error) each."""
    folder.mkdir()
    (folder / "config.toml").write_text(f'seed = {seed}\nrun = "{folder.name}"\n{settings}')
    write_lines(folder / "evaluations.jsonl", [
        {"stage": stage, "label": stage, "pass_at_1": share, "pass_at_1_se": error} for stage, (share, error) in stages.items()
    ])  # fmt: skip
    return read_run(folder)


def cells(text, first):
    """What stands behind a first cell, in the first table that has it."""
    rows = [
        [cell.strip() for cell in line.strip("|").split("|")]
        for line in text.splitlines()
        if line.startswith("| ")
    ]
    return next(row[1:] for row in rows if row[0] == first)


def three(folder):
    return [
        run_of(folder / "a", 0, base=(0.10, 0.01), zero=(0.50, 0.02), align=(0.60, 0.02)),
        run_of(folder / "b", 1, base=(0.12, 0.01), zero=(0.56, 0.02), align=(0.57, 0.02)),
        run_of(folder / "c", 2, base=(0.08, 0.01), zero=(0.62, 0.02), align=(0.54, 0.02)),
    ]


def test_a_stage_has_each_seed_and_the_mean_with_the_error_of_the_spread(tmp_path):
    text = "\n".join(seeds.tables(three(tmp_path)))
    # values 50, 56, 62: deviations 6, 0, 6, over n - 1, then over n
    error = math.sqrt((6**2 + 6**2) / 2 / 3)
    assert cells(text, "stage")[:4] == ["seed 0", "seed 1", "seed 2", "mean"]
    assert cells(text, "`zero`") == [
        "50.0 ± 2.0",
        "56.0 ± 2.0",
        "62.0 ± 2.0",
        f"56.0 ± {error:.1f}",
        "50.0 to 62.0",
    ]
    assert [line for line in text.splitlines() if "`distill`" in line] == [], (
        "a stage that no run has takes no row"
    )


def test_runs_of_one_seed_are_called_by_their_folders(tmp_path):
    runs = [run_of(tmp_path / name, 0, zero=(0.5, 0.02)) for name in ("bf16", "fp32")]
    assert cells("\n".join(seeds.tables(runs)), "stage")[:2] == ["bf16", "fp32"]


def test_differences_are_taken_within_a_run_and_counted_beyond_two_errors(tmp_path):
    text = "\n".join(seeds.tables(three(tmp_path)))
    # 10, 1 and -8 points, each with an error of 2.83: one above, one below, one neither
    assert cells(text, "`align` − `zero`") == [
        "+10.0 ± 2.8",
        "+1.0 ± 2.8",
        "−8.0 ± 2.8",
        "+1.0 ± 5.2",
        "−8.0 to +10.0",
        "1 above, 1 below, of 3",
    ]
    assert cells(text, "`zero` − `base`")[-1] == "3 above, 0 below, of 3"


def test_runs_that_agree_by_chance_do_not_make_a_mean_exact(tmp_path):
    runs = [run_of(tmp_path / str(seed), seed, zero=(0.5, 0.04)) for seed in range(4)]
    assert cells("\n".join(seeds.tables(runs)), "`zero`")[-2] == "50.0 ± 2.0"  # 4 / sqrt(4)
    assert seeds.mean([(1.0, None), (3.0, 0.1)]) == (2.0, pytest.approx(1.0))


def test_a_comparison_that_a_run_lacks_has_no_mean(tmp_path):
    short = run_of(tmp_path / "d", 3, base=(0.10, 0.01), zero=(0.5, 0.02))
    text = "\n".join(seeds.tables([three(tmp_path)[0], short]))
    assert cells(text, "`align` − `zero`") == [
        "+10.0 ± 2.8",
        "",
        "",
        "",
        "1 above, 0 below, of 1",
    ]
    assert cells(text, "`align`") == ["60.0 ± 2.0", "", "", ""]


def test_a_figure_without_an_error_decides_nothing(tmp_path):
    run = run_of(tmp_path / "a", 0, base=(0.1, None), zero=(0.9, 0.01))
    one = Comparison("", "zero", "base")
    assert seeds.difference(run, one) == (pytest.approx(80), None)
    assert cells("\n".join(seeds.tables([run])), "`zero` − `base`") == [
        "+80.0",
        "0 above, 0 below, of 0",
    ]


def test_win_rates_are_compared_with_one_half(tmp_path):
    run = run_of(tmp_path / "a", 0, align=(0.6, 0.02))
    (run.folder / "run.json").write_text('{"win_rate": {"after": 0.53, "standard_error": 0.02}}')
    text = "\n".join(seeds.tables([read_run(run.folder)]))
    assert cells(text, "answers preferred after alignment, %") == [
        "53.0 ± 2.0",
        "0 above, 0 below, of 1",
    ]


def test_settings_that_differ_beside_the_seed_are_told(tmp_path):
    runs = three(tmp_path)
    assert not [line for line in seeds.tables(runs) if "more than their seeds" in line]
    other = run_of(tmp_path / "d", 3, "[rl]\nsteps = 60\n", base=(0.10, 0.01))
    assert "These runs differ in more than their seeds: rl.steps." in seeds.tables([runs[0], other])


@pytest.mark.parametrize("prepare, said", [
    (lambda folder: None, "is not a folder"),
    (lambda folder: folder.mkdir(), "has no evaluations.jsonl"),
])  # fmt: skip
def test_a_folder_without_a_judged_stage_is_refused(tmp_path, prepare, said):
    prepare(tmp_path / "none")
    with pytest.raises(SystemExit, match=said):
        seeds.main([str(tmp_path / "none")])
