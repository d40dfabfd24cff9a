"""The tables of docs/evidence.md are those of the CSV files beside it."""

import re
import shutil
import sys
from pathlib import Path

import pytest

from adcdnet.config import TrainConfig

sys.path.insert(0, str(Path(__file__).parents[1] / "benchmarks"))
import evidence

TEXT = evidence.DOCUMENT.read_text(encoding="utf-8")


def test_the_document_has_the_figures_of_the_results():
    assert evidence.with_tables(TEXT) == TEXT


def test_every_table_has_results_with_one_version_and_hashes():
    for _, _, name, methods, _ in evidence.MARKED.findall(TEXT):
        rows = evidence.read_rows(name)
        assert {method for method, _ in rows} == set(evidence.RUNS[name].methods)
        assert set(methods.split()) <= set(evidence.RUNS[name].methods)
        assert len({row["versions"] for row in rows.values()}) == 1
        assert all(
            re.fullmatch("[0-9a-f]{16}", row[f"{what}_hash"]) for row in rows.values() for what in ("scene", "settings")
        )


@pytest.mark.parametrize(("layout", "name"), [("scores", "blocks"), ("leads", "blocks")])
def test_a_changed_result_changes_the_table(layout, name, tmp_path, monkeypatch):
    shutil.copytree(evidence.RESULTS, tmp_path / "results")
    monkeypatch.setattr(evidence, "RESULTS", tmp_path / "results")
    file = tmp_path / "results" / f"{name}.csv"
    row = evidence.read_rows(name)["plain", "1"]
    file.write_text(file.read_text().replace(row["kappa_difference"], "-0.123"))
    marked = f"<!-- {layout} {name} adcdnet plain -->\nold\n<!-- end -->"
    table = evidence.with_tables(marked)
    assert "old" not in table
    assert f"+0.123 [{evidence.number(str(-float(row['kappa_high'])), '+')}, " in table  # the lead of the reference
    assert f"{float(row['kappa']):.3f}" in table


def test_networks_are_files_of_settings_in_bf16_and_baselines_are_names(tmp_path):
    methods = evidence.method_files(evidence.Run("simulated", ("adcdnet", "no-dia", "paper", "mlp-alike")), tmp_path)
    assert [Path(method).name for method in methods] == ["adcdnet.toml", "no-dia.toml", "paper.toml", "mlp-alike"]
    settings = [TrainConfig.read(Path(method)) for method in methods[:3]]
    assert settings[0] == TrainConfig().replace({"precision": "bf16"})
    assert settings[1] == TrainConfig().replace({"precision": "bf16", "network": {"attention": "none"}})
    assert settings[2] == TrainConfig.of_profile("paper").replace({"precision": "bf16"})


def test_the_simulated_scene_is_that_of_the_demo(tmp_path):
    with evidence.scene_files("simulated", tmp_path).open() as scene:
        assert (scene.grid.shape, scene.ratio) == ((160, 160), 4)


def test_a_run_is_kept_as_a_table_of_its_own(tmp_path, monkeypatch):
    monkeypatch.setattr(evidence, "RESULTS", tmp_path / "results")
    monkeypatch.setitem(evidence.RUNS, "short", evidence.Run("simulated", ("mlp", "mlp-alike"), folds=2))
    evidence.compute("short", tmp_path, 1, lambda *_: None)
    rows = evidence.read_rows("short")
    assert list(rows) == [(method, tau) for tau in ("0", "0.5", "1") for method in ("mlp", "mlp-alike")]
    assert float(rows["mlp-alike", "1"]["kappa"]) > 0.8
