"""Can these two images be used together? Reports of pairs whose faults are known."""

import json
import sys

import geopandas
import numpy as np
import pytest
from shapely.geometry import box

import adcdnet as ad
from adcdnet.assess import check as checking
from adcdnet.assess.check import check
from adcdnet.cli import main
from adcdnet.demo.simulate import simulate
from adcdnet.geo.classes import ClassTable
from conftest import CORNER, PIXEL, UTM


@pytest.fixture(scope="module")
def ground():
    """MS of 83 × 71 pixels and PAN 2 times finer."""
    return simulate(83, 71, ratio=2, seed=3)


@pytest.fixture
def pair(ground, write_tif):
    """pair(row, col, ms=..., pan=..., **options of both files) -> paths; PAN needs the correction (row, col)."""

    def write(row=0, col=0, *, ms=None, pan=None, **options):
        ms = ground.ms if ms is None else ms
        pan = np.roll(ground.pan if pan is None else pan, (-row, -col), (1, 2))
        return write_tif("ms.tif", ms, **options), write_tif("pan.tif", pan, **({"pixel": PIXEL / 2} | options))

    return write


@pytest.fixture
def call(monkeypatch, capsys):
    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["adcdnet", "check", *map(str, arguments)])
        code = 0
        try:
            main()
        except SystemExit as ended:
            code = int(ended.code or 0)
        return code, *capsys.readouterr()

    return run


def write_polygons(path, shapes):
    """shapes: (class, first row, first column, rows, columns) in MS pixels."""
    x, y = CORNER

    def at(row, col, height, width):
        return box(x + col * PIXEL, y - (row + height) * PIXEL, x + (col + width) * PIXEL, y - row * PIXEL)

    frame = geopandas.GeoDataFrame({"class": [s[0] for s in shapes]}, geometry=[at(*s[1:]) for s in shapes], crs=UTM)
    frame.to_file(path)
    return path


def texts(report):
    return [finding.what for finding in report.findings]


# ---- the images


def test_files_of_one_band_and_chosen_bands_are_taken_as_train_takes_them(call, pair, ground, write_tif, tmp_path):
    ms, pan = pair()
    stack = [write_tif(f"B{k}.tif", ground.ms[k]) for k in range(6)]
    several = [argument for path in stack for argument in ("--ms", path)]
    code, out, _ = call(*several, "--pan", pan, "--ms-bands", "B4,1", "--json", tmp_path / "all.json")
    assert code == 0
    assert "B0.tif and 5 more" in out
    found = json.loads((tmp_path / "all.json").read_text())
    assert found["ms"]["paths"] == [str(path) for path in stack]
    assert [band["name"] for band in found["ms"]["bands"]] == ["B4", "B0"]
    assert [band["mean"] for band in found["ms"]["bands"]] == pytest.approx([ground.ms[4].mean(), ground.ms[0].mean()])
    one = check(ms, pan, ms_bands=["5", "1"])
    assert found["registration"]["row"] == pytest.approx(one.registration.row)
    assert found["registration"]["row"] != pytest.approx(check(ms, pan).registration.row)
    code, _, err = call("--ms", ms)
    assert code == 2
    assert "both --ms and --pan are needed" in err


def test_a_good_pair_is_fine_and_its_figures_are_right(pair, ground):
    found = check(*pair())
    assert (found.verdict, found.findings, found.notes) == ("fine", (), ())
    assert (found.ratio, found.height, found.width, found.seen) == (2, 83, 71, 1)
    assert (found.ms.height, found.ms.width, found.pan.height, found.pan.width) == (83, 71, 166, 142)
    assert (found.ms.pixel, found.pan.pixel) == ((PIXEL, PIXEL), (PIXEL / 2, PIXEL / 2))
    assert found.ms.crs == "WGS 84 / UTM zone 33N"
    assert (found.ms.invalid, found.pan.invalid) == (0, 0)
    assert [band.type for band in found.ms.bands] == ["uint16"] * 6
    for band, values in zip((*found.ms.bands, *found.pan.bands), (*ground.ms, *ground.pan), strict=True):
        assert (band.lowest, band.highest) == (values.min(), values.max())
        assert (band.mean, band.deviation) == pytest.approx((values.mean(), values.std()))
        assert band.at_lowest == pytest.approx((values == values.min()).mean())
        assert band.at_highest == pytest.approx((values == values.max()).mean())
    assert found.labelled is None


@pytest.mark.parametrize("side", [17, 64])
def test_figures_do_not_depend_on_windows(pair, ground, monkeypatch, side):
    ms = ground.ms.copy()
    ms[:, 3:31, 60:] = 0
    paths = pair(ms=ms, nodata=0)
    whole = check(*paths)
    monkeypatch.setattr(checking, "_SIDE", side)
    parts = check(*paths)
    assert parts.ms.invalid == whole.ms.invalid == pytest.approx(28 * 11 / (83 * 71))
    for one, other in zip((*parts.ms.bands, *parts.pan.bands), (*whole.ms.bands, *whole.pan.bands), strict=True):
        assert (one.lowest, one.highest, one.at_lowest, one.at_highest) == (
            *(other.lowest, other.highest, other.at_lowest, other.at_highest),
        )
        assert (one.mean, one.deviation) == pytest.approx((other.mean, other.deviation))


def test_a_large_scene_is_looked_at_in_part(pair, monkeypatch):
    monkeypatch.setattr(checking, "_SIDE", 10)
    monkeypatch.setattr(checking, "_MOST", 5)
    found = check(*pair())
    # the 9 × 8 windows number 0, 18, 36, 53 (52.5... 53.25) and 71, the last 3 × 1 pixels
    assert found.seen == pytest.approx((4 * 100 + 3) / (83 * 71), abs=0.02)
    assert 0 < found.seen < 0.1


def test_constant_saturated_and_undeclared_bands_are_named(pair, ground):
    ms, pan = ground.ms.copy(), ground.pan.copy()
    ms[1] = 300
    ms[4] = np.minimum(ms[4], np.quantile(ms[4], 0.9))
    pan[:, :20] = 0
    found = check(*pair(ms=ms, pan=pan))
    assert found.verdict == "usable, with warnings"
    constant, saturated, lowest = found.findings[:3]
    assert constant.what == "MS band 2 is 300 everywhere"
    assert saturated.what.startswith("MS band 5 is saturated: 10.")
    assert lowest.what == "12.0% of the pixels of PAN band 1 are 0, its lowest value"  # 20 of 166 rows
    assert "gdal_edit -a_nodata 0" in lowest.mend


def test_an_image_without_data_cannot_be_used(pair, ground):
    found = check(*pair(pan=np.zeros_like(ground.pan), nodata=0))
    assert found.verdict == "cannot be used"
    assert texts(found)[0] == "PAN has no valid pixel on the common extent"
    assert json.loads(json.dumps(found.to_dict(), allow_nan=False))["pan"]["bands"][0]["mean"] is None


# ---- how they lie


def test_a_whole_shift_is_mended_while_reading(pair):
    found = check(*pair(1, -2))
    assert (found.registration.row, found.registration.col) == pytest.approx((1, -2), abs=0.05)
    (only,) = found.findings
    assert only.what.startswith("PAN needs a correction of +1.0")
    assert only.mend == "train and predict with --fix-shift"


def test_a_fraction_is_mended_by_resampling(ground, write_tif):
    fine = simulate(83, 71, ratio=4, seed=3).pan[0].astype(np.float32)
    pan = np.roll(fine, (-1, 0), (0, 1)).reshape(166, 2, 142, 2).mean((1, 3))
    found = check(write_tif("ms.tif", ground.ms), write_tif("pan.tif", pan, pixel=PIXEL / 2))
    assert found.registration.row == pytest.approx(0.5, abs=0.05)
    assert found.findings[0].mend == "resample it once with adcdnet align --shift auto"


def test_what_cannot_be_measured_is_said(pair, ground):
    noise = np.random.default_rng(0).integers(1, 999, ground.pan.shape).astype(np.uint16)
    assert texts(check(*pair(pan=noise))) == [
        "how PAN lies on MS cannot be measured: too few valid pixels, or too little that both images show"
    ]
    other = simulate(83, 71, ratio=2, seed=44).pan
    assert texts(check(*pair(pan=other)))[-1].startswith("how PAN lies on MS ")


# ---- the labels


def test_labels_are_counted_on_valid_ground(pair, ground, write_tif):
    ms = ground.ms.copy()
    ms[:, :10] = 0
    found = check(*pair(ms=ms, nodata=0), write_tif("labels.tif", ground.labels))
    values, counts = np.unique(ground.labels[10:], return_counts=True)
    known = dict(zip(values.tolist(), counts.tolist(), strict=True))
    assert found.labelled == {str(v): known.get(v, 0) for v in np.unique(ground.labels) if v}


def test_small_classes_and_overlaps_are_found(pair, tmp_path):
    shapes = [("a", 0, 0, 20, 20), ("b", 15, 15, 10, 10), ("c", 40, 40, 2, 2), ("d", 50, 50, 4, 5)]
    found = check(*pair(), write_polygons(tmp_path / "shapes.gpkg", shapes))
    assert found.labelled == {"a": 375, "b": 75, "c": 4, "d": 20}
    assert found.contested == 25
    assert found.verdict == "cannot be used"
    assert texts(found) == [
        "class 'c' has 4 labelled pixels on valid ground; at least 5 are needed",
        "few labelled pixels: d (20); there will be no validation part",
        "25 pixels lie in polygons of different classes and stay unlabelled",
    ]
    assert [finding.fatal for finding in found.findings] == [True, False, False]


def test_a_class_of_the_table_without_any_label_is_found(pair, tmp_path):
    shapes = [("a", 0, 0, 20, 20), ("b", 25, 25, 20, 20)]
    table = ClassTable.numbered(["a", "b", "never"])
    found = check(*pair(), write_polygons(tmp_path / "shapes.gpkg", shapes), classes=table)
    assert texts(found) == ["class 'never' has 0 labelled pixels on valid ground; at least 5 are needed"]


def test_labels_that_cannot_be_read_are_a_problem_of_the_report(pair, tmp_path, call):
    ms, pan = pair()
    far = write_polygons(tmp_path / "far.gpkg", [("a", 900, 0, 20, 20), ("b", 940, 25, 20, 20)])
    code, out, _ = call("--ms", ms, "--pan", pan, "--labels", far)
    assert code == 1
    assert f"PROBLEM: {far} labels no pixel of the scene; check that it lies on the same ground\n" in out
    assert out.endswith("verdict: cannot be used\n")


# ---- the command


def test_the_command_prints_all_and_writes_json(call, pair, ground, write_tif, tmp_path):
    ms, pan = pair(0, 1)
    labels = write_tif("labels.tif", np.where(ground.labels > 4, 2, 1).astype(np.uint8))
    code, out, err = call("--ms", ms, "--pan", pan, "--labels", labels, "--json", tmp_path / "found.json")
    assert (code, err) == (0, "")
    for text in ("83×71", "166×142", "WGS 84 / UTM zone 33N", "MS band 6", "PAN band 1", "+1.0", "common extent"):
        assert text in out
    assert "warning: PAN needs a correction of" in out
    assert out.endswith("verdict: usable, with warnings\n")
    known = json.loads((tmp_path / "found.json").read_text())
    assert known["verdict"] == "usable, with warnings"
    assert known["registration"]["col"] == pytest.approx(1, abs=0.05)
    assert known["labelled"] == ad.check(ms, pan, labels).labelled
    code, out, _ = call("--ms", pair()[0], "--pan", pan)
    assert out.endswith("verdict: fine\n")


def test_pairs_that_make_no_scene_are_refused_in_one_line(call, pair, ground, write_tif, tmp_path):
    ms, pan = pair()
    odd = write_tif("odd.tif", ground.pan, pixel=PIXEL / 2.5)
    missing = tmp_path / "missing.tif"
    here = sorted(tmp_path.iterdir())
    for images, message in (
        ((ms, missing), f"adcdnet: {missing} does not exist; check the path\n"),
        ((pan, ms), "exchange the two\n"),
        ((ms, odd), "e.g. with adcdnet align\n"),
    ):
        code, out, err = call("--ms", images[0], "--pan", images[1], "--json", tmp_path / "x.json")
        assert (code, out, err.count("\n")) == (1, "", 1), err
        assert err.endswith(message)
        assert sorted(tmp_path.iterdir()) == here


def test_a_pair_off_its_edges_is_used_as_it_is_and_needs_no_correction(call, ground, write_tif):
    """The same ground, of which PAN misses the first row and column of half of its pixels."""
    fine = ground.pan.repeat(2, -2).repeat(2, -1)[..., 1:-1, 1:-1]
    h, w = (n // 2 for n in fine.shape[-2:])
    halves = fine.reshape(-1, h, 2, w, 2).mean((2, 4)).astype(np.uint16)
    corner = (CORNER[0] + PIXEL / 4, CORNER[1] - PIXEL / 4)
    ms, pan = write_tif("ms.tif", ground.ms), write_tif("half.tif", halves, pixel=PIXEL / 2, corner=corner)
    code, out, err = call("--ms", ms, "--pan", pan)
    assert (code, err.count("\n")) == (0, 2)
    assert "note: PAN pixels lie 0.50 rows and 0.50 columns off the MS edges; used as they are\n" in err
    assert "82×70 MS pixels" in err
    assert out.endswith("verdict: fine\n")
    report = ad.check(ms, pan)
    assert (report.registration.row, report.registration.col) == pytest.approx((0, 0), abs=0.1)
    assert (report.registration.phase_row, report.registration.phase_col) == pytest.approx((0, 0), abs=0.35)
    assert report.registration.fit_as_given > 0.99 * report.registration.fit


def test_a_json_that_cannot_be_written_is_one_line(call, pair, tmp_path):
    ms, pan = pair()
    code, out, err = call("--ms", ms, "--pan", pan, "--json", tmp_path / "no" / "x.json")
    assert (code, out, err.count("\n")) == (1, "", 1)


# ---- real scenes


@pytest.mark.real
@pytest.mark.parametrize(
    ("ms", "pan", "row", "col"),
    [
        *((f"landsat7_pairs/{k}/ms.tif", f"landsat7_pairs/{k}/pan.tif", 1, 1) for k in (1, 2, 3)),
        ("nc_landsat7_x2/ms.tif", "nc_landsat7_x2/pan.tif", 0, 0),
        ("nc_landsat7_x4/ms.tif", "nc_landsat7_x4/pan.tif", 0, 0),
        ("rcv_sentinel2/coarse.tif", "rcv_sentinel2/fine.tif", 0, 0),
    ],
)
def test_the_correction_of_real_scenes(real_data, ms, pan, row, col):
    found = check(real_data / ms, real_data / pan).registration
    assert (found.row, found.col) == pytest.approx((row, col), abs=0.15)
    assert (found.phase_row, found.phase_col) == pytest.approx((row, col), abs=0.15)
    assert found.largest_error < 0.1
    assert found.largest_drift < 0.1


@pytest.mark.real
def test_the_sentinel_polygons(real_data):
    data = real_data / "rcv_sentinel2"
    found = check(data / "coarse.tif", data / "fine.tif", data / "polygons.gpkg")
    assert found.labelled["rocky"] == 6  # one of them in a polygon without a pixel centre
    assert sum(found.labelled.values()) == 227  # 217 centres, and ten polygons between them
    assert found.verdict == "usable, with warnings"
