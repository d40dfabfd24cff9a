"""Pairs found by the names that vendors give them, and the scenes.toml that is written of them."""

import tomllib

import numpy as np
import pytest

from adcdnet.errors import InputError
from adcdnet.geo.scene_files import read_scenes
from adcdnet.geo.scene_folders import find_scenes
from conftest import CORNER, PIXEL, write_tif_file

LANDSAT = "LC08_L1TP_193024_20200423_20200822_02_T1"
TILE = "T32UNC_20200623T103031"
L2A = f"S2A_MSIL2A_{TILE}.SAFE/GRANULE/L2A_T32UNC/IMG_DATA"
GAOFEN = "GF2_PMS1_E116.3_N39.9_20200101_L1A0004567890"
NAMES = {  # names of MS in order, of PAN in order, of the mask; and the name of the scene
    "landsat 8": (
        [f"{LANDSAT}/{LANDSAT}_B{k}.TIF" for k in range(2, 8)],
        [f"{LANDSAT}/{LANDSAT}_B8.TIF"],
        f"{LANDSAT}/{LANDSAT}_QA_PIXEL.TIF",
        LANDSAT,
    ),
    "landsat 7": (
        [f"LE07_L1TP_016035_20020524_20200916_02_T1_B{k}.TIF" for k in (1, 2, 3, 4, 5, 7)],
        ["LE07_L1TP_016035_20020524_20200916_02_T1_B8.TIF"],
        "LE07_L1TP_016035_20020524_20200916_02_T1_QA_PIXEL.TIF",
        "LE07_L1TP_016035_20020524_20200916_02_T1",
    ),
    "sentinel-2 level 2": (
        [f"{L2A}/R20m/{TILE}_{band}_20m.tif" for band in ("B05", "B06", "B07", "B8A", "B11", "B12")],
        [f"{L2A}/R10m/{TILE}_{band}_10m.tif" for band in ("B02", "B03", "B04", "B08")],
        f"{L2A}/R20m/{TILE}_SCL_20m.tif",
        TILE,
    ),
    "sentinel-2 level 1": (
        [f"IMG_DATA/{TILE}_{band}.tif" for band in ("B05", "B06", "B07", "B8A", "B11", "B12")],
        [f"IMG_DATA/{TILE}_{band}.tif" for band in ("B02", "B03", "B04", "B08")],
        None,
        TILE,
    ),
    "sentinel-2 bare": (
        [f"S2A_32UNC/{band}.tif" for band in ("B05", "B06", "B07", "B8A", "B11", "B12")],
        [f"S2A_32UNC/{band}.tif" for band in ("B02", "B03", "B04", "B08")],
        "S2A_32UNC/SCL.tif",
        "S2A_32UNC",
    ),
    "spot": (
        ["VOL/IMG_SPOT6_MS_001_A/IMG_SPOT6_MS_201701211409016_ORT_C0000000062690_R1C1.TIF"],
        ["VOL/IMG_SPOT6_P_001_A/IMG_SPOT6_P_201701211409011_ORT_C0000000062690_R1C1.TIF"],
        None,
        "SPOT6_20170121",
    ),
    "pleiades": (
        ["FC/IMG_PHR1A_MS_002/IMG_PHR1A_MS_201605260427149_ORT_1792732101-002_R1C1.TIF"],
        ["FC/IMG_PHR1A_P_001/IMG_PHR1A_P_201605260427149_ORT_1792732101-001_R1C1.TIF"],
        None,
        "PHR1A_20160526",
    ),
    "maxar": (
        ["1_01/014493935010_01_P001_MUL/19APR04021253-M2AS_R1C1-014493935010_01_P001.TIF"],
        ["1_01/014493935010_01_P001_PAN/19APR04021252-P2AS_R1C1-014493935010_01_P001.TIF"],
        None,
        "014493935010_01_P001",
    ),
    "maxar, basic": (
        ["19MAR05143210-M1BS-012345678901_01_P001.TIF"],
        ["19MAR05143209-P1BS-012345678901_01_P001.TIF"],
        None,
        "012345678901_01_P001",
    ),
    "folders _MUL and _PAN": (["north_MUL/anything.tif"], ["north_PAN/other.tif"], None, "north"),
    "gaofen 2": ([f"{GAOFEN}-MSS1.tiff"], [f"{GAOFEN}-PAN1.tiff"], None, f"{GAOFEN}_1"),
    "gaofen 6": (["GF6_PMS_E1_N2_L1A1-MUX.tiff"], ["GF6_PMS_E1_N2_L1A1-PAN.tiff"], None, "GF6_PMS_E1_N2_L1A1"),
    "spacenet 2": (
        ["AOI_2/MUL/MUL_AOI_2_Vegas_img1.tif"],
        ["AOI_2/PAN/PAN_AOI_2_Vegas_img1.tif"],
        None,
        "AOI_2_Vegas_img1",
    ),
    "spacenet 3": (
        ["MS/SN3_roads_train_AOI_2_Vegas_MS_img1.tif"],
        ["PAN/SN3_roads_train_AOI_2_Vegas_PAN_img1.tif"],
        None,
        "SN3_roads_train_AOI_2_Vegas_img1",
    ),
    "folders MS and PAN": (["ms/a.tif"], ["pan/a.tif"], None, "a"),
    "plain": (["valley/ms.tif"], ["valley/pan.tif"], "valley/clouds.tif", "valley"),
    "stems": (["rio_MS.tif"], ["Rio_pan.TIF"], "rio_cloud_mask.tif", "Rio"),
    "mul": (["a/rio_MUL.tif"], ["a/rio_PAN.tif"], None, "rio"),
}
VALUES = np.arange(1, 36, dtype=np.uint16).reshape(5, 7)


def put(folder, name, fine=False, values=None):
    (folder / name).parent.mkdir(parents=True, exist_ok=True)
    values = VALUES if values is None else values
    if fine:
        return write_tif_file(folder / name, values.repeat(2, 0).repeat(2, 1), pixel=PIXEL / 2)
    return write_tif_file(folder / name, values)


def put_pair(folder, ms="ms.tif", pan="pan.tif"):
    put(folder, ms), put(folder, pan, fine=True)


@pytest.mark.parametrize("kind", NAMES)
def test_files_are_known_by_their_names(tmp_path, kind):
    ms, pan, mask, name = NAMES[kind]
    for k, file in enumerate(reversed(ms)):
        put(tmp_path, file, values=VALUES + np.uint16(k))
    for file in pan:
        put(tmp_path, file, fine=True)
    if mask:
        clear = 0 if "cloud" in mask else 4  # one pixel is hidden: by bit 3 of QA_PIXEL, by class 8 of SCL
        put(tmp_path, mask, values=np.where(VALUES == 8, 8, clear).astype(np.uint8))
    found = find_scenes(tmp_path)
    assert (found.refused, found.notes) == ((), ())
    (scene,) = found.scenes
    files = scene.files
    assert [files.ms] if len(ms) == 1 else list(files.ms) == [tmp_path / file for file in ms]
    assert files.files() == [*(tmp_path / file for file in (*ms, *pan)), *([tmp_path / mask] if mask else [])]
    assert (files.name, scene.bands, scene.ratio) == (name, (len(ms), len(pan)), 2)
    assert scene.hidden == (1 / 35 if mask else 0)


def test_masks_of_agencies_hide_clouds_only(tmp_path):
    for kind in ("landsat 8", "sentinel-2 level 2"):
        ms, pan, mask, _ = NAMES[kind]
        for file in (*ms, mask):
            put(tmp_path, file, values=np.full((5, 7), 64, np.uint16) if file == mask else None)
        for file in pan:
            put(tmp_path, file, fine=True)
    landsat, sentinel = find_scenes(tmp_path).scenes
    assert (landsat.files.mask_bits, landsat.hidden) == ((0, 1, 3, 4), 0)  # 64 is the bit of clear ground
    assert (sentinel.files.mask_values, sentinel.hidden) == ((0, 3, 8, 9, 10, 11), 0)


def test_other_files_of_a_delivery_are_not_named(tmp_path):
    ms, pan, mask, _ = NAMES["landsat 8"]
    others = [ms[0].replace("_B2", f"_{word}") for word in ("B1", "B9", "B10", "B11", "QA_RADSAT", "SAA")]
    for file in (*ms, *others, mask):
        put(tmp_path, file, values=VALUES * 0 + 64 if file == mask else None)
    put(tmp_path, pan[0], fine=True)
    found = find_scenes(tmp_path)
    assert found.scenes[0].files.files() == [tmp_path / file for file in (*ms, *pan, mask)]
    assert (len(found.scenes), found.notes) == (1, ())


def test_what_is_written_is_what_is_read(call, tmp_path):
    put_pair(tmp_path / "in" / "valley")
    put(tmp_path, "in/valley/labels.tif", values=VALUES % 2 + 1)
    (tmp_path / "in" / "classes.csv").write_text("value,name\n1,a\n2,b\n")
    put_pair(tmp_path / "in" / 'odd "hill"')
    out = tmp_path / "out" / "scenes.toml"
    out.parent.mkdir()
    code, said, err = call("scenes", tmp_path / "in", "--out", out)
    assert code == 0
    assert [line.split()[-1] for line in said.splitlines()[1:3]] == ["none", "labels.tif"]
    assert "1 of 2 scenes have no labels" in err
    hill, valley = read_scenes(out, labelled=False)
    assert valley.labels.samefile(tmp_path / "in" / "valley" / "labels.tif")
    assert valley.classes.samefile(tmp_path / "in" / "classes.csv")
    assert (hill.name, hill.labels, hill.classes) == ('odd "hill"', None, None)
    assert tomllib.loads(out.read_text("utf-8"))["scene"][1]["ms"] == "../in/valley/ms.tif"
    assert "# no labels found: looked for labels.*, polygons.*, training.*, ..._labels.*\n[[scene]]" in out.read_text()


def test_a_file_is_replaced_only_when_asked(call, tmp_path):
    put_pair(tmp_path)
    out = tmp_path / "scenes.toml"
    out.write_text("mine")
    code, said, err = call("scenes", tmp_path, "--out", out)
    assert (code, said, err.count("\n")) == (1, "", 1)
    assert "exists; name another file with --out, or replace it with --overwrite" in err
    assert out.read_text() == "mine"
    assert call("scenes", tmp_path, "--out", out, "--overwrite")[0] == 0
    assert read_scenes(out, labelled=False)[0].name == tmp_path.name


def test_pairs_that_do_not_open_are_named_and_the_others_written(call, tmp_path):
    put_pair(tmp_path / "good")
    put(tmp_path, "bad/ms.tif")
    write_tif_file(tmp_path / "bad" / "pan.tif", VALUES, pixel=PIXEL / 2, corner=(0.0, CORNER[1]))
    put_pair(tmp_path / "twice"), put(tmp_path, "twice/MS.tiff")
    code, _, err = call("scenes", tmp_path, "--out", tmp_path / "s.toml")
    assert code == 0
    assert [scene.name for scene in read_scenes(tmp_path / "s.toml", labelled=False)] == ["good"]
    assert "error: bad: MS and PAN have no ground in common" in err
    assert "error: twice: twice/MS.tiff, twice/ms.tif could each be the MS of one scene; leave one there" in err
    (tmp_path / "good" / "ms.tif").unlink()
    code, _, err = call("scenes", tmp_path, "--out", tmp_path / "t.toml")
    assert (code, (tmp_path / "t.toml").exists()) == (1, False)
    assert err.splitlines()[-1].endswith(f"none of the 2 pairs in {tmp_path} can be used; nothing is written")


@pytest.mark.parametrize(
    ("files", "said"),
    [
        ([], "has no pair of MS and PAN: looked for names of Landsat 8 or 9, Level 1, "),
        (["20200601_101010_1105_3B_AnalyticMS_SR.tif"], "PlanetScope has no PAN band"),
        ([f"{LANDSAT.replace('L1TP', 'L2SP')}_SR_B4.TIF"], "Landsat Level 2 has no PAN band; use Level 1"),
        (["a_ms.tif", "b_pan.tif"], "a_ms.tif, b_pan.tif: named as one image of a pair, without the other"),
    ],
)
def test_nothing_found_is_one_line_that_says_why(tmp_path, files, said):
    for file in files:
        put(tmp_path, file)
    with pytest.raises(InputError) as caught:
        find_scenes(tmp_path)
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


def test_no_folder(tmp_path):
    with pytest.raises(InputError, match="is no folder"):
        find_scenes(tmp_path / "none")


def test_labels_by_stem_before_labels_of_the_folder(tmp_path):
    put_pair(tmp_path, "a_ms.tif", "a_pan.tif"), put_pair(tmp_path, "b_ms.tif", "b_pan.tif")
    for name in ("a_labels.tif", "labels.tif", "training.tif"):
        put(tmp_path, name, values=VALUES % 2 + 1)
    a, b = find_scenes(tmp_path).scenes
    assert (a.files.labels.name, b.files.labels.name) == ("a_labels.tif", "labels.tif")
    assert a.remarks == ("other labels there: labels.tif, training.tif",)


def test_labels_of_the_folder_itself_serve_pairs_that_have_none(tmp_path):
    put_pair(tmp_path / "a"), put_pair(tmp_path / "b" / "c")
    for name in ("labels.tif", "b/c/labels.tif"):
        put(tmp_path, name, values=VALUES % 2 + 1)
    a, b = find_scenes(tmp_path).scenes
    assert (a.files.labels, b.files.labels) == (tmp_path / "labels.tif", tmp_path / "b" / "c" / "labels.tif")
    assert (a.remarks, b.remarks) == ((), ())


def test_labels_of_names_of_ones_own(tmp_path):
    put_pair(tmp_path)
    for name in ("labels.tif", "Field work 2.tif"):
        put(tmp_path, name, values=VALUES % 2 + 1)
    (scene,) = find_scenes(tmp_path, labels=["field*"]).scenes
    assert scene.files.labels.name == "Field work 2.tif"


def test_labels_that_cannot_be_read_are_left_out_with_the_reason(tmp_path):
    put_pair(tmp_path)
    put(tmp_path, "labels.tif", values=VALUES * 0)
    (scene,) = find_scenes(tmp_path).scenes
    assert scene.files.labels is None
    assert scene.remarks[0].startswith(f"labels left out: {tmp_path / 'labels.tif'} labels no pixel of the scene")


def test_pairs_of_one_name_are_told_apart_by_their_folders(tmp_path):
    for folder in ("north/2019", "south/2019", "hill"):
        put_pair(tmp_path / folder)
    assert [scene.files.name for scene in find_scenes(tmp_path).scenes] == ["hill", "north-2019", "south-2019"]


def test_copies_and_hidden_files_are_no_images(tmp_path):
    put_pair(tmp_path)
    for name in ("._ms.tif", "ms.tif.ovr", "ms.tif.aux.xml", "pan_on_ms.tif", ".trash/ms.tif"):
        put(tmp_path, name)
    found = find_scenes(tmp_path)
    assert len(found.scenes) == 1
    assert found.notes == ("pan_on_ms.tif: named as one image of a pair, without the other",)


@pytest.mark.real
def test_real_folders(real_data):
    for folder, pairs, labelled in (("harz_s2_x4", 2, 2), ("landsat7_pairs", 3, 0), ("spacenet6_pairs", 3, 0)):
        found = find_scenes(real_data / folder)
        assert (len(found.scenes), found.refused, found.notes) == (pairs, (), ())
        assert sum(scene.files.labels is not None for scene in found.scenes) == labelled
        assert all(scene.files.classes for scene in found.scenes if scene.files.labels)
