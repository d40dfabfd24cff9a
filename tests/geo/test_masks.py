"""Masks that are classifications or flags: which of their values hide, and what is said of those that hide much."""

import json
import shutil
import zipfile
from pathlib import Path

import numpy as np
import pytest

from adcdnet.benchmark.cell import scenes_hash
from adcdnet.errors import InputError
from adcdnet.geo.masks import MaskRule
from adcdnet.geo.scene import Scene
from adcdnet.geo.scene_files import SceneFiles, read_scenes
from adcdnet.report.sources import read_run
from adcdnet.training import provenance
from adcdnet.training.run import _inputs
from adcdnet.training.scenes import LabelledScene
from conftest import PIXEL

CODES = np.array([[0, 1, 2, 3], [4, 8, 9, 10]], np.uint16)


@pytest.mark.parametrize(
    ("values", "bits", "hidden"),
    [
        ([], [], [0, 1, 1, 1, 1, 1, 1, 1]),
        ([3, 8, 9, 10], [], [0, 0, 0, 1, 0, 1, 1, 1]),
        ([0], [], [1, 0, 0, 0, 0, 0, 0, 0]),
        ([], [0], [0, 1, 0, 1, 0, 0, 1, 0]),
        ([], [1, 3], [0, 0, 1, 1, 0, 1, 1, 1]),
        ([4], [0], [0, 1, 0, 1, 1, 0, 1, 0]),
    ],
)
def test_what_hides_by_hand(values, bits, hidden):
    assert MaskRule.of(values, bits).hides(CODES.astype(np.float32)).ravel().astype(int).tolist() == hidden


def test_the_highest_bit_of_a_qa_band_is_read_exactly(tiny_pair, write_tif):
    codes = np.full((13, 11), 2**15 - 1, np.uint16)
    codes[4, 6] += 1  # the highest bit alone
    with Scene.open(*tiny_pair(), mask=write_tif("qa.tif", codes), mask_bits=[15]) as scene:
        assert np.argwhere(~scene.read(scene.grid.window).ms_valid).tolist() == [[4, 6]]
        assert scene.notes == ()


@pytest.mark.parametrize("fine", [False, True])
def test_values_hide_both_images_on_either_grid_and_in_the_overview(tiny_pair, write_tif, fine):
    side = (26, 22) if fine else (13, 11)
    codes = np.full(side, 4, np.uint8)
    codes[2:6, 4:8] = 9
    mask = write_tif("scl.tif", codes, pixel=PIXEL / 2 if fine else PIXEL)
    with Scene.open(*tiny_pair(), mask=mask, mask_values=[3, 9]) as scene:
        pixels, shown = scene.read(scene.grid.window), scene.overview(7)
        assert 0.02 < scene.hidden < 0.15
    hidden = (codes == 9).repeat(1 if fine else 2, 0).repeat(1 if fine else 2, 1)
    assert np.array_equal(~pixels.pan_valid, hidden)
    assert not shown.ms_valid.all()
    assert shown.ms_valid.any()


def test_a_mask_that_hides_more_than_half_is_named_with_what_it_holds(tiny_pair, write_tif, call):
    codes = np.full((13, 11), 4, np.uint8)
    codes[:4] = 0
    ms, pan = tiny_pair()
    mask = write_tif("scl.tif", codes)
    with Scene.open(ms, pan, mask=mask) as scene:
        assert scene.notes == (
            "mask scl.tif hides 69% of the scene (all but 0; it holds 0, 4); "
            "if that is not meant, name what hides with --mask-values or --mask-bits",
        )
    _, out, _ = call("check", "--ms", ms, "--pan", pan, "--mask", mask)
    assert "warning: the mask hides 69% of the scene; if that is not meant" in out
    _, out, err = call("check", "--ms", ms, "--pan", pan, "--mask", mask, "--mask-values", "3, 0")
    assert "hides" not in out + err
    assert "30.8%" in out


def test_a_mask_that_hides_everything_is_to_blame(tiny_pair, write_tif):
    mask = write_tif("scl.tif", np.full((13, 11), 4, np.uint8))
    with pytest.raises(InputError, match=r"scl.tif hides every pixel: all but 0 hides, and it holds 4; name those"):
        Scene.open(*tiny_pair(), mask=mask)
    with Scene.open(*tiny_pair(), mask=mask, mask_values=[9]) as scene:
        assert scene.read(scene.grid.window).valid.all()


def test_one_pixel_that_stays_visible_in_a_large_mask_is_enough(write_tif):
    mask = np.ones((1100, 1030), np.uint8)
    mask[701, 3] = 0
    image = write_tif("image.tif", np.ones_like(mask))
    with Scene.open(image, image, mask=write_tif("mask.tif", mask)) as scene:
        assert scene.hidden == 1
        assert "hides 100% of the scene" in scene.notes[0]


@pytest.mark.parametrize(
    ("dtype", "how", "says"),
    [
        (np.uint8, {"mask_bits": [16]}, r"mask bits are \[16\]"),
        (np.uint8, {"mask_bits": [-1]}, "must lie in 0..15"),
        (np.float32, {"mask_bits": [1]}, "holds float32; bits need uint8"),
        (np.uint32, {"mask_bits": [1]}, "holds uint32; bits need uint8"),
    ],
)
def test_rules_that_fit_no_mask(tiny_pair, write_tif, dtype, how, says):
    with pytest.raises(InputError, match=says):
        Scene.open(*tiny_pair(), mask=write_tif("mask.tif", np.zeros((13, 11), dtype)), **how)


def test_a_rule_needs_a_mask(tiny_pair, call):
    ms, pan = tiny_pair()
    with pytest.raises(InputError, match="values 3 of a mask are named, and no mask"):
        Scene.open(ms, pan, mask_values=[3])
    for option, text in (("--mask-values", "3"), ("--mask-bits", "1")):
        code, _, err = call("check", "--ms", ms, "--pan", pan, option, text)
        assert code == 2
        assert "there is no --mask" in " ".join(err.split())
    code, _, err = call("check", "--ms", ms, "--pan", pan, "--mask", ms, "--mask-values", "3-5")
    assert code == 2


def test_a_file_of_scenes_names_what_hides(tmp_path, tiny_pair, write_tif):
    tiny_pair()
    codes = np.zeros((13, 11), np.uint8)
    codes[1, 2], codes[3, 4] = 5, 3
    write_tif("scl.tif", codes)
    scenes = tmp_path / "scenes.toml"
    text = '[[scene]]\nms = "ms.tif"\npan = "pan.tif"\nmask = "scl.tif"\n'
    scenes.write_text(f"{text}mask_values = [3]\n")
    (files,) = read_scenes(scenes, labelled=False)
    with files.open() as scene:
        assert np.argwhere(~scene.read(scene.grid.window).ms_valid).tolist() == [[3, 4]]
    plain = files.model_copy(update={"mask_values": ()})
    assert scenes_hash([files]) != scenes_hash([plain])


def test_a_run_remembers_what_hid(labelled_pair, quick_run, write_tif, tmp_path, call):
    with labelled_pair.open() as scene:
        codes = np.full(scene.grid.shape, 4, np.uint8)
    codes[20:30, 20:30] = 9
    mask = write_tif("scl.tif", codes)
    run = tmp_path / "run"
    shutil.copytree(quick_run.folder, run)
    files, *rest = provenance.read(run)
    assert "mask_values" not in json.loads((run / "inputs.json").read_text())["ms"]
    provenance.write(run, {**files, "mask": provenance.Input.of(mask, MaskRule((9,)))}, *rest)
    assert provenance.read(run)[0]["mask"].rule == MaskRule((9,))
    for rule, given, share in ((MaskRule(), {}, 100), (MaskRule((4,)), {}, 83 * 71 - 100)):
        with read_run(run, given, mask_rule=rule).open() as scene:
            # an MS pixel of this pair that is no data is 0 by its nodata value, so PAN is counted
            assert (~scene.read(scene.grid.window).pan_valid).sum() == 4 * share
    out = tmp_path / "map.tif"
    code, printed, err = call(
        "predict", run, "--ms", labelled_pair.ms, "--pan", labelled_pair.pan, "--mask", mask, "--out", out
    )
    assert code == 0
    assert "note: values 9 of the mask hide, as in training" in err
    assert "--mask-values 9" in printed


def test_training_writes_down_what_hid(labelled_pair, write_tif, tmp_path):
    codes = np.full((83, 71), 4, np.uint8)
    mask = write_tif("scl.tif", codes)
    files = SceneFiles(ms=labelled_pair.ms, pan=labelled_pair.pan, mask=mask, mask_values=(9,), mask_bits=(3,))
    with files.open() as scene:
        recorded = _inputs([LabelledScene(scene, labelled_pair.read_labels(scene))])
    assert recorded["mask"].to_dict()["mask_values"] == [9]
    assert recorded["mask"].to_dict()["mask_bits"] == [3]
    assert "mask_bits" not in recorded["ms"].to_dict()


def test_a_mask_in_an_archive_is_used_and_stays_known(tiny_pair, write_tif, tmp_path):
    codes = np.zeros((13, 11), np.uint8)
    codes[4, 6] = 1
    write_tif("clouds.tif", codes)
    with zipfile.ZipFile(tmp_path / "masks.zip", "w") as archive:
        archive.write(tmp_path / "clouds.tif", "deep/clouds.tif")
    address = Path(f"/vsizip/{tmp_path}/masks.zip/deep/clouds.tif")
    with Scene.open(*tiny_pair(), mask=address) as scene:
        assert np.argwhere(~scene.read(scene.grid.window).ms_valid).tolist() == [[4, 6]]
    assert provenance.Input.of(address).found(beside=tmp_path) == address
    assert provenance.Input.of(tmp_path / "clouds.tif").found(beside=tmp_path) == tmp_path / "clouds.tif"
