"""The STAC item beside a map, read by pystac: core schema from pystac's own copy, extensions by its packages."""

import json
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pystac
import pytest
import rasterio
from pystac.extensions.classification import ClassificationExtension
from pystac.extensions.mlm import MLMExtension
from pystac.extensions.projection import ProjectionExtension
from pystac.validation import JsonSchemaSTACValidator
from shapely.geometry import box, shape

from adcdnet.errors import InputError
from adcdnet.export.stac import classes_of, date_of, footprint, write_item
from adcdnet.geo.classes import ClassTable
from adcdnet.geo.grid import Grid
from adcdnet.geo.raster import read_band
from adcdnet.mapping.predict import predict
from conftest import PIXEL, UTM

GRID = Grid(29, 37, rasterio.Affine(PIXEL, 0, 500_000, 0, -PIXEL, 5_000_000), UTM)


@pytest.fixture
def item(tiny_model, tiny_scene, tmp_path) -> pystac.Item:
    tiny_model.save(tmp_path / "run.safetensors")
    out, soft = tmp_path / "maps" / "map.tif", tmp_path / "maps" / "p.tif"
    out.parent.mkdir()
    predict(tiny_model, tiny_scene, out=out, probabilities=soft, tau=0.5)
    write_item(out, tiny_model, tiny_scene, tau=0.5, prior=None, soft=soft, file=tmp_path / "run.safetensors")
    return pystac.Item.from_file(str(out.with_suffix(".json")))


def test_the_item_is_valid_by_the_core_schema(item):
    """Without any network: the schemas of extensions lie on the net, and are read through pystac's classes below."""
    content = json.loads(Path(item.self_href).read_text(encoding="utf-8"))
    validate = JsonSchemaSTACValidator().validate_core
    validate(content, pystac.STACObjectType.ITEM, "1.1.0")
    del content["properties"]["datetime"]
    with pytest.raises(pystac.STACValidationError):
        validate(content, pystac.STACObjectType.ITEM, "1.1.0")


def test_assets_lie_where_the_item_says(item):
    for name in ("map", "probabilities", "model"):
        assert Path(item.assets[name].get_absolute_href()).is_file(), name
        assert item.assets[name].href.startswith("."), "relative, so that the folder may be moved"


def test_classes_are_those_of_the_map(item):
    read = ClassificationExtension.ext(item.assets["map"]).classes
    values = np.unique(read_band(item.assets["map"].get_absolute_href())[0])
    assert {int(value) for value in values} - {0} <= {one.value for one in read} == {2, 5, 8}
    assert [one.title for one in read] == ["class 0", "class 1", "class 2"]
    assert [one.name for one in read] == ["class-0", "class-1", "class-2"]


def test_the_place_is_that_of_the_grid(item):
    read = ProjectionExtension.ext(item)
    assert (read.code, read.shape, read.transform[:3]) == (UTM, [29, 37], [PIXEL, 0, 500_000])
    west, south, east, north = item.bbox
    assert 14.9 < west < east < 15.1  # the middle of zone 33
    assert 45.1 < south < north < 45.2


def test_the_model_and_what_was_done_are_named(item, tiny_model):
    read = MLMExtension.ext(item)
    assert read.mlm_name == "tiny"
    assert [one.name for one in read.input] == ["MS", "PAN"]
    assert len(read.output) == 1
    assert read.output[0].result.shape == [-1, 3, -1, -1]
    lineage = item.properties["processing:lineage"]
    assert tiny_model.digest in lineage
    assert "tau 0.5" in lineage
    assert "ms.tif" in lineage
    assert set(item.properties["processing:software"]) == {"adcdnet", "torch"}


def test_fields_that_the_schemas_of_the_extensions_ask_for_are_there(item):
    """By hand, from the texts of MLM 1.4.0, projection 2.0.0, classification 2.0.0 and processing 1.2.0."""
    properties, model = item.properties, item.assets["model"]
    assert {"mlm:name", "mlm:architecture", "mlm:tasks", "mlm:input", "mlm:output"} <= set(properties)
    assert set(properties["mlm:tasks"]) <= {"segmentation", "semantic-segmentation", "classification"}
    for one in properties["mlm:input"]:
        assert {"name", "bands", "input"} <= set(one)
        assert {"shape", "dim_order", "data_type"} <= set(one["input"])
        assert len(one["input"]["shape"]) == len(one["input"]["dim_order"]) == 4
    for one in properties["mlm:output"]:
        assert {"name", "tasks", "result"} <= set(one)
        assert {"shape", "dim_order", "data_type"} <= set(one["result"])
    assert model.roles == ["mlm:model"]
    assert "mlm:artifact_type" in model.extra_fields
    assert len(properties["proj:transform"]) == 6
    assert all({"value", "name"} <= set(one) for one in item.assets["map"].extra_fields["classification:classes"])
    assert len(item.stac_extensions) == 4


def test_no_path_of_this_machine_is_in_it(item, tmp_path):
    assert str(tmp_path) not in Path(item.self_href).read_text(encoding="utf-8")


@pytest.mark.parametrize("text", ["2020:06:23 10:15:30", "2020-06-23T12:15:30+02:00", "2020-06-23T10:15:30Z"])
def test_the_date_is_that_of_the_images_tag(write_tif, text):
    path = write_tif("ms.tif", np.ones((5, 7), np.uint8))
    with rasterio.open(path, "r+") as dataset:
        dataset.update_tags(TIFFTAG_DATETIME=text)
    when, said = date_of(path)
    assert when == datetime(2020, 6, 23, 10, 15, 30, tzinfo=UTC)
    assert said == "that of tag TIFFTAG_DATETIME of ms.tif"


def test_without_a_tag_it_is_that_of_the_file_and_said_so(write_tif):
    path = write_tif("ms.tif", np.ones((5, 7), np.uint8))
    when, said = date_of(path)
    assert when.timestamp() == pytest.approx(path.stat().st_mtime)
    assert said == "that of the file ms.tif, which has no date inside"


def test_the_ring_runs_against_the_clock_around_the_map():
    place = footprint(Grid(5, 7, rasterio.Affine(0.5, 0, 10, 0, -0.5, 50), "EPSG:4326"))
    ring = shape(place["geometry"])
    assert ring.exterior.is_ccw
    assert ring.equals(box(10, 47.5, 13.5, 50))
    assert place["bbox"] == [10, 47.5, 13.5, 50]


def test_a_map_without_a_place_has_no_geometry():
    assert footprint(Grid(5, 7, GRID.transform)) == {"geometry": None}


def test_names_of_classes_are_what_the_extension_allows_and_differ():
    names = [one["name"] for one in classes_of(ClassTable.numbered(["Wald & Wiese", "Wald/Wiese", "水体", "a"]))]
    assert names == ["Wald-Wiese", "Wald-Wiese-2", "class-3", "a"]


def test_an_item_that_would_replace_an_input_is_refused(tiny_model, tiny_scene, tmp_path):
    link = tmp_path / "map.json"
    link.symlink_to(tiny_scene.paths[0])
    with pytest.raises(InputError, match=r"map\.json is one of the files that are read"):
        write_item(tmp_path / "map.tif", tiny_model, tiny_scene, tau=1.0, prior=None)
    assert link.is_symlink()


def test_the_command_refuses_it_before_there_is_a_map(call, quick_run, labelled_pair, tmp_path):
    (tmp_path / "map.json").symlink_to(labelled_pair.pan)
    images = "--ms", labelled_pair.ms, "--pan", labelled_pair.pan
    code, _, said = call("predict", quick_run.folder, *images, "--out", tmp_path / "map.tif", "--stac")
    assert (code, said.count("\n")) == (1, 1)
    assert "map.json is one of the files that are read" in said
    assert not (tmp_path / "map.tif").exists()


def test_the_command_writes_it_where_it_is_asked_for(call, quick_run, labelled_pair, tmp_path):
    images = "--ms", labelled_pair.ms, "--pan", labelled_pair.pan
    for name, more in (("plain", []), ("described", ["--stac"])):
        code, _, said = call("predict", quick_run.folder, *images, "--out", tmp_path / f"{name}.tif", *more)
        assert code == 0, said
    assert [path.name for path in tmp_path.glob("*.json")] == ["described.json"]
    assert pystac.Item.from_file(str(tmp_path / "described.json")).assets["map"].href == "./described.tif"
