"""The tables of docs/evidence.md are those of the CSV files beside it, and words quote the tables."""

import inspect
import re
import sys
from pathlib import Path

import pytest

from adcdnet.benchmark.methods import METHODS
from adcdnet.benchmark.methods_by_name import COMMITTEES, rules_of, short_hash, trained_as
from adcdnet.cli.demo import demo_command
from adcdnet.config import TrainConfig

sys.path.insert(0, str(Path(__file__).parents[1] / "scripts"))
import committees
import evidence

TEXT = evidence.DOCUMENT.read_text(encoding="utf-8")
TABLES = [(found.group(), *found.groups()) for found in evidence.MARKED.finditer(TEXT)]


def test_the_document_has_the_figures_of_the_results():
    assert len(TABLES) == TEXT.count("<!-- end -->") > 10
    assert evidence.with_tables(TEXT) == TEXT


def test_results_are_of_the_runs_and_settings_that_the_script_names():
    for name in {name for _, _, name, _, _ in TABLES}:
        run, rows, versions = evidence.RUNS[name], evidence.read_rows(name), set()
        assert {method for method, _ in rows} == set(run.methods)
        for (method, _), row in rows.items():
            assert row["trainings"] == str(run.folds * run.repeats * run.seeds)
            labels = "all" if run.labels is None else str(run.labels)
            assert (row["scene"], row["protocol"], row["labels"]) == (run.scene.replace("/", "_"), run.protocol, labels)
            assert re.fullmatch("[0-9a-f]{16}", row["scene_hash"])
            versions.add(row["versions"])
            if trained_as(method) not in METHODS:
                precision = {} if method in COMMITTEES else evidence.BF16
                assert row["settings_hash"] == short_hash(rules_of(method, 0) | precision), method
        assert len(versions) == 1


def intervals(text: str) -> set[tuple[float, ...]]:
    """Differences with their intervals, as "0.033 [0.017, 0.049]"."""
    figure = r"([+−]?\d\.\d{3})"
    found = re.findall(rf"{figure} \[{figure}, {figure}\]", text)
    return {tuple(float(f.replace("−", "-")) for f in one) for one in found}


def test_intervals_quoted_in_words_stand_in_a_table():
    words = evidence.MARKED.sub("", TEXT) + (evidence.ROOT / "README.md").read_text(encoding="utf-8")
    assert len(intervals(words)) >= 8
    assert intervals(words) <= intervals("".join(table for table, *_ in TABLES))


@pytest.mark.parametrize("layout", ["scores", "leads"])
def test_a_changed_result_changes_the_table(layout, tmp_path, monkeypatch):
    text = (evidence.RESULTS / "blocks.csv").read_text()
    row = evidence.read_rows("blocks")["patch-plain", "1"]
    monkeypatch.setattr(evidence, "RESULTS", tmp_path)
    (tmp_path / "blocks.csv").write_text(text.replace(row["kappa_difference"], "-0.123"))
    table = evidence.with_tables(f"<!-- {layout} blocks patch patch-plain -->\nold\n<!-- end -->")
    assert "old" not in table
    assert f"+0.123 [{evidence.number(-float(row['kappa_high']), '+')}, " in table  # the lead of the reference
    assert f"{float(row['kappa']):.3f}" in table


def test_words_after_a_table_without_an_end_are_not_taken_for_it():
    text = "<!-- leads blocks patch -->\nwords\n<!-- leads blocks patch-plain -->\nold\n<!-- end -->"
    assert evidence.with_tables(text).startswith(
        "<!-- leads blocks patch -->\nwords\n<!-- leads blocks patch-plain -->\n\n|"
    )


def test_networks_are_files_of_settings_in_bf16_and_baselines_are_names(tmp_path):
    methods = evidence.method_files(("adcdnet-raw", "patch-no-dia", "paper", "patch-gru", "mlp-alike"), tmp_path)
    names = ["adcdnet.toml-raw", "patch-no-dia.toml", "paper.toml", "patch-gru.toml", "mlp-alike"]
    assert [Path(method).name for method in methods] == names
    assert methods[3].startswith("patch-gru+")
    settings = [TrainConfig.read(Path(method.removesuffix("-raw"))) for method in methods[:3]]
    patch = TrainConfig.of_profile("patch")
    assert settings[0] == TrainConfig().replace(evidence.BF16)
    assert settings[1] == patch.replace({**evidence.BF16, "network": {"attention": "none"}})
    assert settings[2] == TrainConfig.of_profile("paper").replace(evidence.BF16)


def test_the_simulated_scene_is_that_of_the_demo(tmp_path):
    defaults = {name: p.default for name, p in inspect.signature(demo_command).parameters.items()}
    assert defaults["seed"] == 0
    with evidence.scene_files("simulated", tmp_path).open() as scene:
        assert (scene.grid.shape, scene.ratio) == ((defaults["size"], defaults["size"]), defaults["ratio"])


def test_a_run_is_kept_as_a_table_of_its_own(tmp_path, monkeypatch):
    monkeypatch.setattr(evidence, "RESULTS", tmp_path / "results")
    monkeypatch.setitem(evidence.RUNS, "short", evidence.Run("simulated", ("mlp", "mlp-alike"), folds=2))
    evidence.compute("short", tmp_path, 1)
    rows = evidence.read_rows("short")
    assert list(rows) == [(method, tau) for tau in ("0", "0.5", "1") for method in ("mlp", "mlp-alike")]
    assert float(rows["mlp-alike", "1"]["kappa"]) > 0.8


def test_the_table_of_members_is_that_of_its_results():
    assert committees.with_table(TEXT, committees.read()) == TEXT
    changed = [{**line, "kappa": "0.123"} for line in committees.read()]
    assert "0.123; " in committees.with_table(TEXT, changed)
