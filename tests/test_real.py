"""The commands on real scenes, with few steps: that they run and fit together, not how accurate they are."""

import json
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import rasterio
from affine import Affine
from rasterio.windows import Window

from adcdnet.cli import main
from adcdnet.split.parts import GUARD, TEST, TRAIN, VALIDATION
from conftest import ROOT

pytestmark = pytest.mark.real
FEW_STEPS = 'members = ["adcdnet"]\nsplit.folds = 1\n[stage1]\nsteps = 5\n'


@pytest.fixture
def call(monkeypatch, capsys, tmp_path) -> Callable[[str], tuple[str, str]]:
    """A command line as a user writes it, from the project's root; it must succeed. Returns stdout and stderr."""
    (tmp_path / "few.toml").write_text(FEW_STEPS)
    monkeypatch.chdir(ROOT)

    def run(line: str) -> tuple[str, str]:
        monkeypatch.setattr(sys, "argv", line.split())
        code = 0
        try:
            main()
        except SystemExit as ended:
            code = int(ended.code or 0)
        printed = capsys.readouterr()
        assert code == 0, printed.err
        return printed.out, printed.err

    return run


def read(path: Path) -> np.ndarray:
    with rasterio.open(path) as dataset:
        return dataset.read()


@pytest.mark.parametrize(("scene", "shape"), [("nc_landsat7_x2", (168, 262)), ("nc_landsat7_x4", (84, 131))])
def test_north_carolina(call, real_data, tmp_path, scene, shape):
    data, run = real_data / scene, tmp_path / "run"
    images = f"--ms {data}/ms.tif --pan {data}/pan.tif"
    call(
        f"adcdnet train {images} --labels {data}/labels.tif --classes {data}/classes.csv --out {run} "
        f"--config {tmp_path}/few.toml --steps 5"
    )
    call(f"adcdnet predict {run} {images} --out {run}/map.tif --probabilities {run}/probabilities.tif")
    out, _ = call(
        f"adcdnet evaluate --map {run}/map.tif --labels {data}/labels.tif --split {run}/split.tif --part test "
        f"--json {run}/test.json"
    )
    assert "kappa" in out
    mapped, split, labels = (read(path)[0] for path in (run / "map.tif", run / "split.tif", data / "labels.tif"))
    assert mapped.shape == shape
    assert set(np.unique(mapped)) <= {1, 2, 3, 4, 5}
    assert {TRAIN, TEST, GUARD} <= set(np.unique(split))
    judged = (split == TEST) & (labels > 0)
    found = json.loads((run / "test.json").read_text())
    assert np.sum(found["confusion"]) == judged.sum()
    assert found["oa"] == pytest.approx((mapped == labels)[judged].mean())
    p = read(run / "probabilities.tif")
    assert np.allclose(p.sum(0), 1, atol=1e-5)
    with rasterio.open(run / "map.tif") as map_, rasterio.open(data / "ms.tif") as ms:
        assert (map_.transform, map_.crs) == (ms.transform, ms.crs)
    with rasterio.open(run / "probabilities.tif") as dataset:
        assert dataset.descriptions == ("developed", "herbaceous", "shrubland", "forest", "water")


def test_sentinel_2_with_four_fine_bands_and_polygons(call, real_data, tmp_path):
    data, run = real_data / "rcv_sentinel2", tmp_path / "run"
    images = f"--ms {data}/coarse.tif --pan {data}/fine.tif"
    _, err = call(
        f"adcdnet train {images} --labels {data}/polygons.gpkg --out {run} --config {tmp_path}/few.toml --steps 5"
    )
    assert "common extent of 325×325 MS pixels" in err
    assert "train and test only" in err
    call(f"adcdnet predict {run} {images} --out {run}/map.tif")
    out, _ = call(
        f"adcdnet evaluate --map {run}/map.tif --labels {data}/polygons.gpkg --split {run}/split.tif --part test"
    )
    assert "test part: OA" in out
    mapped, split = read(run / "map.tif")[0], read(run / "split.tif")[0]
    assert mapped.shape == split.shape == (325, 325)
    assert VALIDATION not in split
    assert set(np.unique(mapped)) <= set(range(1, 8))


def test_a_model_of_the_upper_half_maps_the_lower_half(call, real_data, tmp_path):
    data = real_data / "nc_landsat7_x2"
    for half, row, height in (("upper", 0, 84), ("lower", 84, 84)):
        for name, ratio in (("ms", 1), ("pan", 2), ("labels", 1)):
            with rasterio.open(data / f"{name}.tif") as dataset:
                window = Window(0, row * ratio, dataset.width, height * ratio)
                place = dataset.transform @ Affine.translation(0, row * ratio)
                profile = dataset.profile | {"height": window.height, "transform": place}
                with rasterio.open(tmp_path / f"{half}_{name}.tif", "w", **profile) as cut:
                    cut.write(dataset.read(window=window))
    upper = f"--ms {tmp_path}/upper_ms.tif --pan {tmp_path}/upper_pan.tif --labels {tmp_path}/upper_labels.tif"
    lower = f"--ms {tmp_path}/lower_ms.tif --pan {tmp_path}/lower_pan.tif"
    settings = f"--config {tmp_path}/few.toml --steps 5"
    call(f"adcdnet train {upper} --classes {data}/classes.csv --out {tmp_path}/run {settings}")
    _, err = call(f"adcdnet predict {tmp_path}/run/model.safetensors {lower} --out {tmp_path}/map.tif")
    assert "standard deviations" not in err  # the same sensor and day
    call(f"adcdnet evaluate --map {tmp_path}/map.tif --labels {tmp_path}/lower_labels.tif --json {tmp_path}/x.json")
    labelled = read(data / "labels.tif")[0, 84:] > 0
    assert np.sum(json.loads((tmp_path / "x.json").read_text())["confusion"]) == labelled.sum()
