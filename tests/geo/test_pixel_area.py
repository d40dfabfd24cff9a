"""What a pixel measures, in the systems maps come in."""

import re

import pytest
from affine import Affine
from pyproj import CRS

from adcdnet.geo.grid import Grid
from adcdnet.geo.pixel_area import pixel_area


def grid(crs, *, pixel=30.0, corner=(500_000, 4_000_000)):
    return Grid(61, 47, Affine(pixel, 0, corner[0], 0, -pixel, corner[1]), crs)


def test_metres():
    assert pixel_area(grid("EPSG:32617")).hectares == pytest.approx(0.09)
    assert pixel_area(grid(CRS("EPSG:32617").to_wkt(), pixel=57)).hectares == pytest.approx(0.3249)


def test_us_survey_feet():
    # North Carolina, where the same ground is also given in metres
    found = pixel_area(grid("EPSG:2264", pixel=100, corner=(2_100_000, 740_000)))
    assert found.hectares == pytest.approx((100 * 1200 / 3937) ** 2 / 1e4)


def test_oblong_pixels():
    oblong = Grid(61, 47, Affine(10, 0, 500_000, 0, -25, 4_000_000), "EPSG:32617")
    assert pixel_area(oblong).hectares == pytest.approx(0.025)


def test_a_local_system_is_taken_at_its_word():
    local = 'LOCAL_CS["site",UNIT["metre",1,AUTHORITY["EPSG","9001"]],AXIS["x",EAST],AXIS["y",NORTH]]'
    assert pixel_area(grid(local)).hectares == pytest.approx(0.09)


@pytest.mark.parametrize(
    ("crs", "corner", "reason"),
    [
        (None, (0, 0), "no coordinate system"),
        ("EPSG:4326", (5, 40), "in degrees"),
        ("EPSG:3857", (-8_700_000, 4_300_000), r"Pseudo-Mercator shows areas here 1\.5\d times"),
        ("nonsense", (0, 0), "cannot be read"),
        ("EPSG:32617", (90_000_000, 90_000_000), "shows areas"),  # nowhere on Earth
    ],
)
def test_where_areas_cannot_be_said(crs, corner, reason):
    found = pixel_area(grid(crs, corner=corner, pixel=0.001 if crs == "EPSG:4326" else 30))
    assert found.hectares is None
    assert re.search(reason, found.unknown)


def test_an_equal_area_projection_agrees_with_the_ellipsoid_everywhere():
    for corner in ((3_000_000, 1_500_000), (4_321_000, 3_210_000), (6_000_000, 5_000_000)):
        assert pixel_area(grid("EPSG:3035", corner=corner)).hectares == pytest.approx(0.09)
