"""What is written is a valid cloud-optimised GeoTIFF, and its overviews show what lies below."""

import numpy as np
import pytest
import rasterio

from adcdnet.geo.classes import ClassTable
from adcdnet.geo.grid import Grid, Window, tiles
from adcdnet.geo.raster_writer import RasterWriter, write_raster

cog = pytest.importorskip("rio_cogeo.cogeo")
GRID = Grid(700, 1030, rasterio.Affine(12, 0, 500_000, 0, -12, 5_000_000), "EPSG:32633")
TABLE = ClassTable.of([1, 2, 5], ["a", "b", "c"])


def is_valid(path) -> bool:
    valid, errors, warnings = cog.cog_validate(path, strict=True, quiet=True)
    assert (errors, warnings) == ([], [])
    return valid


@pytest.mark.parametrize("dtype", ["uint8", "float32"])
def test_windows_in_any_order_make_a_valid_file(tmp_path, dtype):
    values = np.random.default_rng(2).integers(1, 6, (2, *GRID.shape)).astype(dtype)
    with RasterWriter(tmp_path / "m.tif", GRID, count=2, dtype=dtype, descriptions=["one", "two"]) as writer:
        for window in reversed(list(tiles(*GRID.shape, 300))):
            writer.write(values[:, *window.slices], window)
    assert is_valid(tmp_path / "m.tif")
    with rasterio.open(tmp_path / "m.tif") as dataset:
        assert np.array_equal(dataset.read(), values)
        assert dataset.descriptions == ("one", "two")


def test_a_small_map_is_valid_too(tmp_path):
    write_raster(tmp_path / "m.tif", np.ones((5, 7), np.uint8), Grid(5, 7, GRID.transform, GRID.crs), classes=TABLE)
    assert is_valid(tmp_path / "m.tif")


def test_an_overview_of_classes_shows_the_commonest(tmp_path):
    """Each 2 × 2 has one 5, upper left, where a nearest neighbour would be taken, and three 2."""
    values = np.full(GRID.shape, 2, np.uint8)
    values[::2, ::2] = 5
    write_raster(tmp_path / "m.tif", values, GRID, classes=TABLE)
    with rasterio.open(tmp_path / "m.tif", overview_level=0) as dataset:
        assert np.unique(dataset.read(1)).tolist() == [2]
        assert dataset.colormap(1)[5][:3] == tuple(bytes.fromhex(TABLE.colors[2][1:]))


def test_an_overview_of_measures_is_their_mean(tmp_path):
    values = np.zeros(GRID.shape, np.float32)
    values[::2, ::2] = 1
    write_raster(tmp_path / "p.tif", values, GRID, nodata=float("nan"))
    with rasterio.open(tmp_path / "p.tif", overview_level=0) as dataset:
        assert np.unique(dataset.read(1)).tolist() == [0.25]


def test_ground_that_was_never_written_is_nodata(tmp_path):
    with RasterWriter(tmp_path / "m.tif", GRID, classes=TABLE) as writer:
        writer.write(np.full((9, 8), 2, np.uint8), Window(300, 300, 9, 8))
    assert is_valid(tmp_path / "m.tif")
    with rasterio.open(tmp_path / "m.tif") as dataset:
        assert np.count_nonzero(dataset.read(1)) == 72
