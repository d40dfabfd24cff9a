"""The style file beside a map: what QGIS is told, and that it belongs to the map that lies there."""

from xml.etree import ElementTree

import numpy as np
import pytest
import rasterio

from adcdnet.errors import InputError
from adcdnet.geo.classes import ClassTable
from adcdnet.geo.grid import Grid
from adcdnet.geo.qgis_style import write_choices
from adcdnet.geo.raster_writer import RasterWriter, write_raster
from adcdnet.mapping.predict import predict

GRID = Grid(5, 7, rasterio.Affine(12, 0, 500_000, 0, -12, 5_000_000), "EPSG:32633")
CODES = np.full(GRID.shape, 2, np.uint8)
NAMES = ("<fields> & \"x\" 'y'", "水体 – 湖", "bell\x07 and ]]>")
TABLE = ClassTable((1, 2, 255), NAMES, ("#d62828", "#1B5E20", "#0000ff"))


def entries(path):
    """(value, colour, label, alpha) of the palette, by the names that QGIS reads."""
    root = ElementTree.fromstring(path.read_bytes())
    assert root.tag == "qgis"
    renderer = root.find("pipe/rasterrenderer")
    assert (renderer.get("type"), renderer.get("band")) == ("paletted", "1")
    keys = ("value", "color", "label", "alpha")
    return [tuple(entry.get(key) for key in keys) for entry in renderer.iterfind("colorPalette/paletteEntry")]


def test_values_colours_and_names_survive_as_they_are(tmp_path):
    write_raster(tmp_path / "map.tif", CODES, GRID, classes=TABLE)
    assert entries(tmp_path / "map.qml") == [
        ("1", "#d62828", "<fields> & \"x\" 'y'", "255"),
        ("2", "#1B5E20", "水体 – 湖", "255"),
        ("255", "#0000ff", "bell\ufffd and ]]>", "255"),  # no XML file can hold a bell
    ]


def test_names_beside_the_map_are_xml_whatever_they_hold(tmp_path):
    write_raster(tmp_path / "map.tif", CODES, GRID, classes=TABLE)
    root = ElementTree.fromstring((tmp_path / "map.tif.aux.xml").read_bytes())
    named = [category.text for category in root.iterfind("PAMRasterBand/CategoryNames/Category")]
    assert named[1:3] + named[255:] == ["<fields> & \"x\" 'y'", "水体 – 湖", "bell\ufffd and ]]>"]


def test_the_next_map_brings_its_own_style_and_another_raster_none(tmp_path):
    path = tmp_path / "map.tif"
    write_raster(path, CODES, GRID, classes=TABLE)
    write_raster(path, CODES, GRID, classes=ClassTable.of([2], ["rock"]))
    assert [label for _, _, label, _ in entries(tmp_path / "map.qml")] == ["rock"]
    write_raster(path, CODES, GRID)
    assert [p.name for p in tmp_path.iterdir()] == ["map.tif"]


def test_a_style_saved_from_qgis_stays(tmp_path):
    own = "<!DOCTYPE qgis PUBLIC 'http://mrcc.com/qgis.dtd' 'SYSTEM'>\n<qgis version='3.34'/>\n"
    (tmp_path / "map.qml").write_text(own)
    for classes in (TABLE, None):
        write_raster(tmp_path / "map.tif", CODES, GRID, classes=classes)
        assert (tmp_path / "map.qml").read_text() == own


def test_a_map_that_fails_leaves_no_style_and_an_older_one_as_it_was(tmp_path):
    def fail():
        with RasterWriter(tmp_path / "map.tif", GRID, classes=TABLE) as writer:
            writer.write(CODES)
            raise InputError("stopped")

    with pytest.raises(InputError, match="stopped"):
        fail()
    assert list(tmp_path.iterdir()) == []
    write_raster(tmp_path / "map.tif", CODES, GRID, classes=ClassTable.of([2], ["rock"]))
    before = (tmp_path / "map.qml").read_bytes()
    with pytest.raises(InputError, match="stopped"):
        fail()
    assert (tmp_path / "map.qml").read_bytes() == before


def test_a_map_taken_up_again_has_the_style_of_the_model(tiny_model, tiny_scene, tmp_path):
    def stop(what, done, of, figures):
        raise KeyboardInterrupt

    path = tmp_path / "map.tif"
    with pytest.raises(KeyboardInterrupt):
        predict(tiny_model, tiny_scene, out=path, resume=True, device="cpu", progress=stop)
    assert not (tmp_path / "map.qml").exists()
    predict(tiny_model, tiny_scene, out=path, resume=True, device="cpu")
    assert [(v, label) for v, _, label, _ in entries(tmp_path / "map.qml")] == [
        ("2", "class 0"),
        ("5", "class 1"),
        ("8", "class 2"),
    ]


def test_names_of_classes_can_be_chosen_for_the_column_class(tmp_path):
    write_choices(tmp_path / "points.gpkg", TABLE)
    root = ElementTree.fromstring((tmp_path / "points.qml").read_bytes())
    field = root.find("fieldConfiguration/field")
    assert field.get("name") == "class"
    assert field.find("editWidget").get("type") == "ValueMap"
    choices = field.findall("editWidget/config/Option/Option[@name='map']/Option/Option")
    names = [*NAMES[:2], "bell\ufffd and ]]>"]
    assert [(choice.get("name"), choice.get("value")) for choice in choices] == list(zip(names, names, strict=True))
    write_choices(tmp_path / "points.gpkg", ClassTable.of([2], ["rock"]))  # of the next file of this name
    assert "rock" in (tmp_path / "points.qml").read_text()


def test_choices_leave_the_style_of_a_map_of_their_name(tmp_path):
    write_raster(tmp_path / "map.tif", CODES, GRID, classes=TABLE)
    write_choices(tmp_path / "map.gpkg", TABLE)
    assert len(entries(tmp_path / "map.qml")) == 3
