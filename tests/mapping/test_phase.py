"""A pair of shared pixel centres, as Landsat's, from training to report; images of another phase are refused."""

import json
from dataclasses import replace

import numpy as np
import pytest
import rasterio
from safetensors import safe_open

from adcdnet.assess.evaluate import evaluate
from adcdnet.config import TrainConfig
from adcdnet.errors import InputError
from adcdnet.geo.labels import read_labels
from adcdnet.geo.maps import read_map
from adcdnet.geo.raster import read_band
from adcdnet.geo.scene import Scene
from adcdnet.mapping.engine import check_scene
from adcdnet.mapping.model import Model
from adcdnet.mapping.predict import predict
from adcdnet.nn.architecture import Layout
from adcdnet.report.write import write_report
from adcdnet.training.run import train
from adcdnet.training.scenes import LabelledScene, check_alike
from adcdnet.training.transfer import begin_from
from conftest import CORNER, PIXEL, QUICK, build_model, write_tif_file

pytestmark = pytest.mark.usefixtures("few_trials")
HALF = (CORNER[0] + PIXEL / 4, CORNER[1] - PIXEL / 4)  # where PAN begins


@pytest.fixture(scope="module")
def pair(tmp_path_factory):
    """60 × 52 MS and 119 × 103 PAN pixels. MS tells a from b, each in fields; PAN tells 1 from 2, pixel by pixel."""
    folder, rng = tmp_path_factory.mktemp("half"), np.random.default_rng(61)
    fields = rng.integers(1, 3, (12, 11)).repeat(5, 0).repeat(5, 1)[:60, :52]
    ms = np.stack([300 * fields, 900 - 300 * fields, 0 * fields]) + rng.integers(100, 160, (3, 60, 52))
    fine = rng.integers(1, 3, (119, 103))
    pan = 300 * fine + rng.integers(0, 100, fine.shape)
    write_tif_file(folder / "ms.tif", ms.astype(np.uint16))
    write_tif_file(folder / "pan.tif", pan.astype(np.uint16), pixel=PIXEL / 2, corner=HALF)
    write_tif_file(folder / "on_edges.tif", pan.astype(np.uint16), pixel=PIXEL / 2)
    write_tif_file(folder / "labels.tif", fields.astype(np.uint8))
    write_tif_file(folder / "fine.tif", fine.astype(np.uint8), pixel=PIXEL / 2, corner=HALF)
    return folder


CHANGES = {"network": {"patch": 9}, "stage1": {"steps": 2}, "stage2": {"steps": 40}}


@pytest.fixture(scope="module")
def coarse(pair, few_trials, tmp_path_factory):
    """A run on the MS grid."""
    out = tmp_path_factory.mktemp("coarse") / "run"
    with Scene.open(pair / "ms.tif", pair / "pan.tif") as scene:
        labels = read_labels(pair / "labels.tif", scene.grid)
        return train(
            scene, labels, out=out, config=TrainConfig.of_profile("patch").replace(QUICK).replace(CHANGES), device="cpu"
        )


def test_from_training_to_a_judged_map(call, pair, coarse, tmp_path):
    assert coarse.model.phase == Model.load(coarse.folder).phase == (0.5, 0.5)
    out = tmp_path / "map.tif"
    code, _, err = call("predict", coarse.folder, "--ms", pair / "ms.tif", "--pan", pair / "pan.tif", "--out", out)
    assert code == 0
    assert "PAN pixels lie 0.50 rows and 0.50 columns off the MS edges; used as they are" in err
    values, grid = read_map(out)
    assert values.shape == (59, 51)
    assert grid.transform @ (0, 0) == CORNER
    judged = evaluate(out, pair / "labels.tif", split=coarse.split(), part="test")
    assert judged.scores.oa > 0.9
    text = write_report(coarse).read_text("utf-8")
    assert "lie 0.50 rows and 0.50 columns off" in text


def test_a_map_of_pan_pixels_lies_where_pan_does(pair, tmp_path):
    """The class is in one PAN pixel alone: half a pixel beside its place it would be right half of the time."""
    changes = {
        "network": {"patch": 9, "grid": "fine"},
        "answers": {"smooth": 0},
        "stage1": {"steps": 2},
        "stage2": {"steps": 160, "tile": 8, "learning_rate": 0.01},
    }
    with Scene.open(pair / "ms.tif", pair / "pan.tif") as scene:
        labels = read_labels(pair / "fine.tif", scene.fine_grid)
        config = TrainConfig.of_profile("patch").replace(QUICK).replace(changes)
        run = train(scene, labels, out=tmp_path / "run", config=config, device="cpu")
        predict(run, scene, out=run.folder / "map.tif", device="cpu")
    values, grid = read_map(run.folder / "map.tif")
    assert (values.shape, grid.transform @ (0, 0)) == ((118, 102), HALF)
    part, split_grid, _ = read_band(run.split())
    assert (part.shape, split_grid.transform @ (0, 0)) == ((59, 51), CORNER)
    judged = evaluate(run.folder / "map.tif", pair / "fine.tif", split=run.split(), part="test")
    assert judged.scores.oa > 0.95
    assert judged.confusion.sum() == run.model.record.labelled_pixels["test"]
    text = write_report(run).read_text("utf-8")
    assert f"overall accuracy {judged.scores.oa:.3f}" in text
    assert f"[{HALF[0]:.0f}, {HALF[1]:.0f}, 6, -6]" in text.replace(".0", "")  # where the map of the page lies
    with rasterio.open(run.split(), "r+", IGNORE_COG_LAYOUT_BREAK="YES") as file:  # as of a scene whose edges meet
        file.update_tags(PHASE="0.0 0.0")
    with pytest.raises(InputError, match=r"split\.tif does not lie on"):
        evaluate(run.folder / "map.tif", pair / "fine.tif", split=run.split(), part="test")


def test_images_of_another_phase_are_refused(call, pair, coarse, tmp_path):
    code, out, err = call(
        "predict", coarse.folder, "--ms", pair / "ms.tif", "--pan", pair / "on_edges.tif", "--out", tmp_path / "m.tif"
    )
    assert (code, out) == (1, "")
    assert err.splitlines()[-1].endswith(
        "PAN pixels of the scene lie 0.00 rows and 0.00 columns off the MS edges, the model was trained with 0.50 rows "
        "and 0.50 columns; use a model trained on such images"
    )
    model = build_model(Layout(ms_bands=3, pan_bands=1, ratio=2, classes=3))
    with Scene.open(pair / "ms.tif", pair / "pan.tif") as scene:
        with pytest.raises(InputError, match=r"0\.50 rows .* or the copy of `adcdnet align`$"):
            check_scene(model, scene)
        check_scene(replace(model, phase=(0.46, 0.54)), scene)
        with pytest.raises(InputError, match=r"trained with 0\.44 rows and 0\.50 columns"):
            check_scene(replace(model, phase=(0.44, 0.5)), scene)


def test_a_training_begins_from_a_model_of_its_phase_only(pair, coarse, tmp_path):
    with Scene.open(pair / "ms.tif", pair / "on_edges.tif") as scene:
        labels = read_labels(pair / "labels.tif", scene.grid)
        with pytest.raises(InputError, match=r"lie 0\.00 rows .* those of the model to begin from 0\.50 rows"):
            train(scene, labels, out=tmp_path / "run", init=coarse, device="cpu")
    with Scene.open(pair / "ms.tif", pair / "pan.tif") as scene:
        quick = TrainConfig.of_profile("patch").replace(QUICK).replace(CHANGES).replace({"stage2": {"steps": 2}})
        again = train(
            scene,
            read_labels(pair / "labels.tif", scene.grid),
            out=tmp_path / "run",
            init=coarse,
            config=quick,
            device="cpu",
        )
    assert again.model.phase == (0.5, 0.5)
    network = coarse.model.network
    assert begin_from(network, coarse.model, coarse.model.classes, phase=(0.52, 0.48)) == ()


def test_scenes_trained_together_agree_in_phase(pair):
    with (
        Scene.open(pair / "ms.tif", pair / "pan.tif") as half,
        Scene.open(pair / "ms.tif", pair / "on_edges.tif") as on,
    ):
        scenes = [
            LabelledScene(scene, read_labels(pair / "labels.tif", scene.grid), name)
            for scene, name in ((half, "half"), (on, "on"))
        ]
        check_alike([scenes[0], replace(scenes[0], name="again")])
        with pytest.raises(InputError, match=r"scene 'on' lie 0\.00 rows .* scene 'half' 0\.50 rows"):
            check_alike(scenes)


def test_only_a_phase_is_written(tmp_path):
    """A model of images whose edges meet is the file that it was before there were phases."""
    model = build_model(Layout(ms_bands=3, pan_bands=1, ratio=2, classes=3))
    for phase in ((0.0, 0.0), (0.5, -0.2)):
        replace(model, phase=phase).save(tmp_path / "model.safetensors")
        with safe_open(tmp_path / "model.safetensors", framework="pt") as file:
            header = json.loads(file.metadata()["adcdnet"])
        assert header.get("phase") == (list(phase) if any(phase) else None)
        assert Model.load(tmp_path / "model.safetensors").phase == phase
