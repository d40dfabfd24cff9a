"""Whatever a user gets wrong: one line that helps, the right exit code, and nothing left behind."""

import resource
import sys
from collections.abc import Callable
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import rasterio
import torch
from safetensors.torch import save_file

from adcdnet.cli import main
from adcdnet.config import TrainConfig
from adcdnet.mapping.predict import predict
from conftest import CORNER, PIXEL, QUICK, LabelledPair, write_tif_file

pytestmark = pytest.mark.usefixtures("few_trials")


@pytest.fixture
def call(monkeypatch, capsys) -> Callable[..., tuple[int, str, str]]:
    """call("evaluate", "--map", path, ...) -> exit code, stdout, stderr."""

    def run(*arguments: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["adcdnet", *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            main()
        printed = capsys.readouterr()
        return int(ended.value.code or 0), printed.out, printed.err

    return run


@pytest.fixture
def refused(call, tmp_path) -> Callable[..., str]:
    """Like call, for what must fail: checks code, the one line and that no file came, went or changed."""

    def files() -> dict[str, bytes]:
        return {str(p): p.read_bytes() if p.is_file() else b"" for p in tmp_path.rglob("*")}

    def run(*arguments: object) -> str:
        before = files()
        code, out, err = call(*arguments)
        assert code == 1, err
        *notes, last = err.splitlines()
        assert last.startswith("adcdnet: "), err
        assert all(note.startswith("note: ") for note in notes), err
        assert out == ""
        assert "Traceback" not in err
        assert files() == before
        return last

    return run


@pytest.fixture
def quick_config(tmp_path) -> Path:
    path = tmp_path / "quick.toml"
    path.write_text(TrainConfig.of_profile("patch").replace(QUICK).to_toml())
    return path


def train_arguments(pair: LabelledPair, out: Path, *more: object) -> list[object]:
    where = ["--ms", pair.ms, "--pan", pair.pan, "--labels", pair.labels, "--classes", pair.classes]
    return ["train", *where, "--out", out, *more]


def predict_arguments(model: Path, pair: LabelledPair, out: Path, *more: object) -> list[object]:
    return ["predict", model, "--ms", pair.ms, "--pan", pair.pan, "--out", out, *more]


def contents(path: Path) -> np.ndarray:
    with rasterio.open(path) as dataset:
        return dataset.read()


# ---- the two images


def not_there(pair, folder):
    return replace(pair, ms=folder / "none.tif"), "none.tif does not exist"


def no_raster(pair, folder):
    (folder / "text.tif").write_text("value,name\n1,water\n")
    return replace(pair, pan=folder / "text.tif"), "text.tif cannot be read as a raster"


def a_folder(pair, folder):
    return replace(pair, pan=folder), "is a folder; a raster file is needed"


def cut_short(pair, folder):
    (folder / "short.tif").write_bytes(pair.ms.read_bytes()[:20_000])
    return replace(pair, ms=folder / "short.tif"), "short.tif cannot be read as a raster"


def no_crs_on_one(pair, folder):
    pan = write_tif_file(folder / "pan.tif", contents(pair.pan), pixel=PIXEL / 2, crs=None)
    return replace(pair, pan=pan), "PAN has none; both or neither must; assign it"


def other_crs(pair, folder):
    pan = write_tif_file(folder / "pan.tif", contents(pair.pan), pixel=PIXEL / 2, crs="EPSG:32634")
    return replace(pair, pan=pan), "one coordinate system is needed; reproject PAN"


def no_overlap(pair, folder):
    pan = write_tif_file(folder / "pan.tif", contents(pair.pan), pixel=PIXEL / 2, corner=(CORNER[0] + 9000, CORNER[1]))
    return replace(pair, pan=pan), "no ground in common"


def ratio_of_3_7(pair, folder):
    pan = write_tif_file(folder / "pan.tif", np.ones((300, 260), np.uint8), pixel=PIXEL / 3.7)
    return replace(pair, pan=pan), "holds 3.7 × 3.7 PAN pixels; a whole number"


def off_by_half_a_pixel(pair, folder):
    corner = CORNER[0] + PIXEL / 4, CORNER[1]
    pan = write_tif_file(folder / "pan.tif", contents(pair.pan), pixel=PIXEL / 2, corner=corner)
    return replace(pair, pan=pan)


def exchanged(pair, folder):
    return replace(pair, ms=pair.pan, pan=pair.ms), "exchange the two"


PAIRS = [
    not_there,
    no_raster,
    a_folder,
    cut_short,
    no_crs_on_one,
    other_crs,
    no_overlap,
    ratio_of_3_7,
    exchanged,
]


@pytest.mark.parametrize("spoil", PAIRS)
def test_images_that_cannot_be_used(refused, labelled_pair, quick_run, tmp_path, spoil):
    pair, says = spoil(labelled_pair, tmp_path)
    if spoil is not cut_short:  # its end is missed only when it is read
        assert says in refused(*train_arguments(pair, tmp_path / "run"))
    assert says in refused(*predict_arguments(quick_run.folder, pair, tmp_path / "map.tif"))


def test_a_pair_of_another_phase_is_not_mapped(refused, labelled_pair, quick_run, tmp_path):
    """PAN half a pixel off the MS edges can be used, but not by a model of a pair whose edges meet."""
    pair = off_by_half_a_pixel(labelled_pair, tmp_path)
    message = refused(*predict_arguments(quick_run.folder, pair, tmp_path / "map.tif"))
    assert "0.50 columns" in message
    assert "0.00 rows" in message
    assert not (tmp_path / "map.tif").exists()


def test_an_image_cut_short_is_not_trained_on(refused, labelled_pair, tmp_path):
    pair, says = cut_short(labelled_pair, tmp_path)
    assert says in refused(*train_arguments(pair, tmp_path / "run"))


# ---- labels and settings


def labels_of(write_tif, pair, values) -> LabelledPair:
    return replace(pair, labels=write_tif("labels.tif", np.asarray(values, np.uint8)))


def test_labels_that_are_not_there_or_unreadable(refused, labelled_pair, tmp_path):
    (tmp_path / "x.gpkg").write_text("no polygons")
    for name, says in (("none.tif", "does not exist"), ("x.gpkg", "neither as a raster nor as polygons")):
        pair = replace(labelled_pair, labels=tmp_path / name)
        assert says in refused(*train_arguments(pair, tmp_path / "run"))


def test_label_values_that_the_class_table_has_not(refused, labelled_pair, write_tif, tmp_path):
    values = labelled_pair.truth.copy()
    values[5, 5], values[6, 6] = 3, 77
    message = refused(*train_arguments(labels_of(write_tif, labelled_pair, values), tmp_path / "run"))
    assert "['3', '77'], which the class table has not" in message
    assert "values [1, 2, 4]); add them" in message


def test_no_label_and_one_class_only(refused, labelled_pair, write_tif, tmp_path):
    for value, says in ((0, "labels no pixel of the scene"), (2, "class 'meadow' has 0 labelled pixels")):
        pair = labels_of(write_tif, labelled_pair, np.full((83, 71), value))
        assert says in refused(*train_arguments(pair, tmp_path / "run"))


def test_labels_elsewhere(refused, labelled_pair, write_tif, tmp_path):
    labels = write_tif("labels.tif", labelled_pair.truth, corner=(CORNER[0] + 9000, CORNER[1]))
    message = refused(*train_arguments(replace(labelled_pair, labels=labels), tmp_path / "run"))
    assert "no ground in common" in message


def test_a_class_with_two_pixels(refused, labelled_pair, write_tif, tmp_path):
    values = np.where(labelled_pair.truth == 4, 0, labelled_pair.truth)
    values[40, 40:42] = 4
    message = refused(*train_arguments(labels_of(write_tif, labelled_pair, values), tmp_path / "run"))
    assert "class 'water' has 2 labelled pixels on valid ground; at least 5 are needed; label more" in message


def test_a_class_of_the_table_without_a_pixel(refused, labelled_pair, write_tif, tmp_path):
    pair = labels_of(write_tif, labelled_pair, np.where(labelled_pair.truth == 4, 0, labelled_pair.truth))
    assert "class 'water' has 0 labelled pixels" in refused(*train_arguments(pair, tmp_path / "run"))


def test_nothing_but_nodata_to_train_on(refused, labelled_pair, write_tif, tmp_path):
    empty = write_tif("ms.tif", np.zeros((4, 83, 71), np.uint16), nodata=0)
    message = refused(*train_arguments(replace(labelled_pair, ms=empty), tmp_path / "run"))
    assert "no labelled pixel lies on valid ground" in message


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("value,name\n1,a\n1,b\n", "values must be different"),
        ("value,name\nx,a\n", "whole numbers"),
        ("class\nwater\n", "needs a header"),
        ("value,name,color\n1,a,red\n2,b,blue\n", "#rrggbb"),
        ("", "needs a header"),
    ],
)
def test_class_tables_that_cannot_be_used(refused, labelled_pair, tmp_path, text, says):
    (tmp_path / "table.csv").write_text(text)
    pair = replace(labelled_pair, classes=tmp_path / "table.csv")
    assert says in refused(*train_arguments(pair, tmp_path / "run"))


def test_a_class_table_that_is_not_there(refused, labelled_pair, tmp_path):
    pair = replace(labelled_pair, classes=tmp_path / "none.csv")
    assert "none.csv cannot be read" in refused(*train_arguments(pair, tmp_path / "run"))


def test_settings_that_cannot_be_used(refused, labelled_pair, tmp_path):
    path = tmp_path / "settings.toml"
    for text, says in (("seed =", "settings.toml cannot be read"), ("sead = 1", "sead")):
        path.write_text(text)
        assert says in refused(*train_arguments(labelled_pair, tmp_path / "run", "--config", path))
    missing = train_arguments(labelled_pair, tmp_path / "run", "--config", tmp_path / "none.toml")
    assert "none.toml cannot be read" in refused(*missing)


def test_the_published_network_at_ratio_2(refused, labelled_pair, tmp_path):
    message = refused(*train_arguments(labelled_pair, tmp_path / "run", "--profile", "paper"))
    assert "needs 4; use --profile default" in message


def test_a_device_that_is_not_there(refused, labelled_pair, tmp_path, quick_config):
    more = "--config", quick_config, "--device", "quantum"
    assert "'quantum' cannot be used here" in refused(*train_arguments(labelled_pair, tmp_path / "run", *more))


def test_a_collapse(refused, labelled_pair, write_tif, tmp_path, quick_config):
    flat = write_tif("flat.tif", np.ones((166, 142), np.uint8), pixel=PIXEL / 2)
    pair = replace(labelled_pair, pan=flat)
    assert "--no-stage1" in refused(*train_arguments(pair, tmp_path / "run", "--config", quick_config))


# ---- the model


def test_a_model_for_other_bands(refused, quick_run, tiny_pair, labelled_pair, tmp_path):
    ms, pan = tiny_pair(ratio=2)
    pair = replace(labelled_pair, ms=ms, pan=pan)
    message = refused(*predict_arguments(quick_run.folder, pair, tmp_path / "map.tif"))
    assert "the scene has 5 MS bands, the model was trained with 4; give it" in message


def test_a_model_for_another_ratio(refused, quick_run, labelled_pair, write_tif, tmp_path):
    pan = write_tif("pan.tif", np.ones((83 * 3, 71 * 3), np.uint8), pixel=PIXEL / 3)
    message = refused(*predict_arguments(quick_run.folder, replace(labelled_pair, pan=pan), tmp_path / "map.tif"))
    assert "has 3 PAN pixels per MS pixel, the model was trained with 2" in message


def test_models_that_cannot_be_used(refused, quick_run, labelled_pair, tmp_path):
    whole = (quick_run.folder / "model.safetensors").read_bytes()
    save_file({"weight": torch.zeros(3)}, tmp_path / "foreign.safetensors")
    (tmp_path / "short.safetensors").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "text.safetensors").write_text("hello")
    (tmp_path / "empty").mkdir()
    for name, says in (
        ("foreign.safetensors", "was not written by adcdnet; name a"),
        ("short.safetensors", "is damaged"),
        ("text.safetensors", "is not a model file"),
        ("none.safetensors", "does not exist; name a model file or the folder"),
        ("empty", "does not exist; name a model file or the folder"),
    ):
        assert says in refused(*predict_arguments(tmp_path / name, labelled_pair, tmp_path / "map.tif"))


# ---- what is to be mapped, and where to


def test_a_scene_without_a_valid_pixel(refused, quick_run, labelled_pair, write_tif, tmp_path):
    empty = write_tif("ms.tif", np.zeros((4, 83, 71), np.uint16), nodata=0)
    message = refused(*predict_arguments(quick_run.folder, replace(labelled_pair, ms=empty), tmp_path / "map.tif"))
    assert "no valid pixel; check the nodata values" in message


def test_windows_without_a_valid_pixel_are_mapped_as_nothing(call, quick_run, labelled_pair, write_tif, tmp_path):
    ms = np.zeros((4, 7, 150), np.uint16)  # wider than a window: the first one is empty
    ms[:, :, 140:] = contents(labelled_pair.ms)[:, 20:27, :10]
    pan = np.ones((14, 300), np.uint16)
    pair = replace(labelled_pair, ms=write_tif("ms.tif", ms, nodata=0), pan=write_tif("pan.tif", pan, pixel=PIXEL / 2))
    code, _, err = call(*predict_arguments(quick_run.folder, pair, tmp_path / "map.tif"))
    assert code == 0, err
    mapped = contents(tmp_path / "map.tif")[0]
    assert not mapped[:, :140].any()
    assert (mapped[:, 140:] > 0).all()


def test_places_that_cannot_be_written(refused, quick_run, labelled_pair, tmp_path):
    (tmp_path / "file").write_text("in the way")
    for out in (tmp_path / "none" / "map.tif", tmp_path / "file" / "map.tif", tmp_path):
        refused(*predict_arguments(quick_run.folder, labelled_pair, out))
        good = tmp_path / "map.tif"
        refused(*predict_arguments(quick_run.folder, labelled_pair, good, "--probabilities", out))
    for out in (tmp_path / "file", tmp_path / "file" / "run", "/proc/adcdnet"):
        assert "cannot be written" in refused(*train_arguments(labelled_pair, out))


@contextmanager
def disk_of(size: int):
    """No file can grow beyond `size` bytes, as if the disk were full."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_a_disk_that_fills_up_under_a_map(refused, quick_run, labelled_pair, tmp_path):
    older = tmp_path / "map.tif"
    older.write_bytes(b"an older map")
    for size in (0, 500, 1500):
        with disk_of(size):
            message = refused(*predict_arguments(quick_run.folder, labelled_pair, older))
        assert "map.tif cannot be written" in message


@pytest.mark.parametrize("size", [100, 20_000])  # under split.tif, and under the model
def test_a_disk_that_fills_up_under_a_run(refused, labelled_pair, tmp_path, quick_config, size):
    with disk_of(size):
        message = refused(*train_arguments(labelled_pair, tmp_path / "run", "--config", quick_config))
    assert "cannot be written" in message


def test_a_failure_leaves_an_older_run_as_it_was(refused, call, labelled_pair, tmp_path, quick_config):
    out = tmp_path / "run"
    assert call(*train_arguments(labelled_pair, out, "--config", quick_config))[0] == 0
    with disk_of(20_000):
        refused(*train_arguments(labelled_pair, out, "--config", quick_config, "--seed", 8))


# ---- evaluation


def test_evaluation_of_what_does_not_fit(refused, labelled_pair, write_tif, tmp_path):
    map_ = write_tif("map.tif", labelled_pair.truth)
    moved = write_tif("moved.tif", labelled_pair.truth, corner=(CORNER[0] + 9000, CORNER[1]))
    labels = labelled_pair.labels
    for arguments, says in (
        (("--map", tmp_path / "none.tif", "--labels", labels), "none.tif does not exist"),
        (("--map", map_, "--labels", tmp_path / "none.tif"), "none.tif does not exist"),
        (("--map", map_, "--labels", moved), "no ground in common"),
        (("--map", map_, "--labels", labels, "--part", "test"), "--split and --part"),
        (("--map", map_, "--labels", labels, "--split", moved, "--part", "test"), "does not lie on the map"),
        (("--map", map_, "--labels", labels, "--split", map_, "--part", "fest"), "'fest' is not one of"),
    ):
        assert says in refused("evaluate", *arguments)


def test_scores_that_cannot_be_written(call, labelled_pair, write_tif, tmp_path):
    map_ = write_tif("map.tif", labelled_pair.truth)
    target = tmp_path / "none" / "x.json"
    code, _, err = call("evaluate", "--map", map_, "--labels", labelled_pair.labels, "--json", target)
    assert code == 1
    assert "x.json cannot be written" in err


@pytest.mark.parametrize("names", ["{", "[1, 2]", '{"x": "meadow"}', '{"1": "meadow", "2": "meadow"}', '{"0": "none"}'])
def test_a_map_whose_class_names_are_damaged(refused, labelled_pair, write_tif, names):
    map_ = write_tif("map.tif", labelled_pair.truth)
    with rasterio.open(map_, "r+") as dataset:
        dataset.update_tags(CLASS_NAMES=names)
    message = refused("evaluate", "--map", map_, "--labels", labelled_pair.labels)
    assert "map.tif carries class names that cannot be read" in message


def test_a_demo_that_has_a_file_in_its_way(refused, tmp_path):
    (tmp_path / "file").write_text("in the way")
    for out in (tmp_path / "file", tmp_path / "file" / "demo"):
        assert "cannot be made a folder" in refused("demo", "--out", out, "--size", 120, "--ratio", 2)


# ---- outputs that are inputs, shifts and lists that leave nothing


def test_figures_do_not_overwrite_what_they_are_of(refused, labelled_pair, write_tif):
    map_ = write_tif("map.tif", labelled_pair.truth)
    says = "is one of the files that are read; name another one"
    assert says in refused("evaluate", "--map", map_, "--labels", labelled_pair.labels, "--json", map_)
    pair = "--ms", labelled_pair.ms, "--pan", labelled_pair.pan
    assert says in refused("check", *pair, "--mask", map_, "--json", map_.parent / "." / "map.tif")


def test_a_shift_beyond_the_image_leaves_no_empty_copy(refused, labelled_pair, tmp_path):
    pair = "--ms", labelled_pair.ms, "--pan", labelled_pair.pan
    message = refused("align", *pair, "--shift", "1e9,0", "--out", tmp_path / "out.tif")
    assert "empty: give a smaller --shift" in message


def test_a_scene_of_no_file(refused, tmp_path):
    (tmp_path / "scenes.toml").write_text('[[scene]]\nms = []\npan = "p.tif"\nlabels = "l.tif"\n')
    assert "each [[scene]] needs ms, pan and labels" in refused(
        "train", tmp_path / "scenes.toml", "--out", tmp_path / "r"
    )


# ---- wrong use


@pytest.mark.parametrize(
    "arguments",
    [
        ["nonsense"],
        ["train", "--ms", "a.tif"],
        ["predict", "--ms", "a.tif", "--pan", "b.tif", "--out", "c.tif"],
        ["evaluate"],
        ["train", "--ms", "a", "--pan", "b", "--labels", "c", "--out", "d", "--profile", "huge"],
        ["predict", "m", "--ms", "a", "--pan", "b", "--out", "c", "--engine", "fast"],
        ["predict", "m", "--ms", "a", "--pan", "b", "--out", "c", "--tau", "-1"],
        ["train", "--ms", "a", "--pan", "b", "--labels", "c", "--out", "d", "--steps", "many"],
        ["train", "--ms", "a", "--pan", "b", "--labels", "c", "--out", "d", "--steps", "0"],
        ["train", "--ms", "a", "--pan", "b", "--labels", "c", "--out", "d", "--seed", "-1"],
        ["sample", "--map", "a", "--n", "9", "--out", "b.gpkg", "--seed", "-1"],
        ["check", "--ms", "a"],
        ["demo", "--size", "5"],
        ["--unknown"],
    ],
    ids=" ".join,
)
def test_wrong_use_ends_with_2(call, arguments):
    code, out, err = call(*arguments)
    assert code == 2
    assert out == ""
    assert "Usage: " in err


# ---- what an interrupted prediction left


@pytest.fixture
def left_tiles(quick_run, labelled_pair, tmp_path, monkeypatch) -> Path:
    """The folder of finished tiles beside a map that was stopped on the way, map.tif."""
    monkeypatch.setattr("adcdnet.mapping.memory.LARGEST_TILE", 32)

    def stop(what: str, done: int, total: int, figures: object) -> None:
        if done > total / 2:
            raise KeyboardInterrupt

    with labelled_pair.open() as scene, pytest.raises(KeyboardInterrupt):
        predict(quick_run, scene, out=tmp_path / "map.tif", resume=True, progress=stop)
    return tmp_path / ".map.tif.tiles"


@pytest.mark.parametrize(
    "content", ["", '{"finger', "[]", "{}", '{"fingerprint": "a", "tile": "x", "batch": 1}', "\x00\x00", None]
)
def test_a_damaged_head_is_one_line_with_resume_and_nothing_without(
    refused, call, quick_run, labelled_pair, tmp_path, left_tiles, content
):
    if content is None:
        (left_tiles / "head.json").write_bytes(b"\xff\xfe")
    else:
        (left_tiles / "head.json").write_text(content)
    arguments = predict_arguments(quick_run.folder, labelled_pair, tmp_path / "map.tif")
    said = refused(*arguments, "--resume")
    assert "head.json is damaged" in said
    assert said.endswith("leave out --resume to begin anew")
    assert call(*arguments)[0] == 0
    assert not left_tiles.exists()


def test_a_damaged_tile_is_one_line_and_computed_anew_once_it_is_gone(
    refused, call, quick_run, labelled_pair, tmp_path, left_tiles
):
    file = min(left_tiles.glob("*.npz"))
    arguments = predict_arguments(quick_run.folder, labelled_pair, tmp_path / "map.tif", "--resume")
    for content in (b"", b"PK\x03\x04", file.read_bytes()[:-30]):
        file.write_bytes(content)
        assert f"{file} is damaged; remove it" in refused(*arguments)
    file.unlink()
    assert call(*arguments)[0] == 0


@pytest.mark.parametrize("size", [83 * 71, 10**20])
def test_a_map_smaller_than_its_patches(refused, quick_run, labelled_pair, tmp_path, size):
    said = refused(*predict_arguments(quick_run.folder, labelled_pair, tmp_path / "map.tif", "--sieve", size))
    assert f"{size} pixels are to go, but the map of" in said
    assert said.endswith("has only 83×71; ask for a smaller --sieve")


def test_a_benchmark_that_cannot_write_says_so_before_it_trains(refused, labelled_pair, tmp_path, monkeypatch):
    monkeypatch.setattr("adcdnet.benchmark.pool.at_work", None)  # any training would need it
    pair = labelled_pair
    (tmp_path / "scenes.toml").write_text(
        f'[[scene]]\nname = "a"\nms = "{pair.ms}"\npan = "{pair.pan}"\nlabels = "{pair.labels}"\n'
    )
    for place in (tmp_path / "scenes.toml", tmp_path / "scenes.toml" / "below", Path("/proc/none")):
        said = refused("benchmark", tmp_path / "scenes.toml", "--out", place)
        assert f"{place} cannot be written: " in said
        assert said.endswith("choose another --out")
