"""What a file may name: nothing on the net, and no file but those beside or below it. A server counts who calls."""

import json
import threading
import warnings
import zipfile
from http.server import BaseHTTPRequestHandler, HTTPServer

import geopandas
import numpy as np
import pytest
import rasterio
import rasterio.shutil
from rasterio.vrt import WarpedVRT
from shapely.geometry import Polygon

from adcdnet.assess.check import check
from adcdnet.errors import InputError
from adcdnet.geo.labels import read_labels
from adcdnet.geo.origins import ALLOW_OUTSIDE
from adcdnet.geo.raster import open_raster, read_band
from adcdnet.geo.scene import Scene
from adcdnet.geo.scene_files import read_scenes
from conftest import CORNER, PIXEL, UTM

SIZE = 'rasterXSize="11" rasterYSize="13"'
PLACE = f"<GeoTransform>{CORNER[0]}, {PIXEL}, 0, {CORNER[1]}, 0, -{PIXEL}</GeoTransform><SRS>{UTM}</SRS>"
BAND = '<VRTRasterBand dataType="Byte" band="1"%s>%s</VRTRasterBand>'
RAW = "<SourceFilename relativetoVRT='0'>/etc/passwd</SourceFilename><ImageOffset>0</ImageOffset>"
RAW += "<PixelOffset>1</PixelOffset><LineOffset>11</LineOffset>"
WMS = (
    '<GDAL_WMS><Service name="TMS"><ServerUrl>%s/${z}/${x}/${y}.png</ServerUrl></Service><DataWindow><UpperLeftX>0'
    "</UpperLeftX><UpperLeftY>13</UpperLeftY><LowerRightX>11</LowerRightX><LowerRightY>0</LowerRightY><SizeX>11</SizeX>"
    "<SizeY>13</SizeY><TileLevel>0</TileLevel></DataWindow><BandsCount>1</BandsCount></GDAL_WMS>"
)
RING = [[500_000, 5_000_000], [500_060, 5_000_000], [500_060, 4_999_940], [500_000, 5_000_000]]
FEATURE = {"type": "Feature", "properties": {"class": "a"}, "geometry": {"type": "Polygon", "coordinates": [RING]}}


def source(name, relative=0):
    return f'<SimpleSource><SourceFilename relativeToVRT="{relative}">{name}</SourceFilename></SimpleSource>'


def vrt(inner, kind="", *, band="", place=PLACE, more=""):
    return f"<VRTDataset {SIZE}{kind}>{place}{BAND % (band, inner)}{more}</VRTDataset>"


def layers(name):
    layer = f'<OGRVRTLayer name="a"><SrcDataSource>{name}</SrcDataSource></OGRVRTLayer>'
    return f"<OGRVRTDataSource>{layer}</OGRVRTDataSource>"


def collection(**more):
    return json.dumps({"type": "FeatureCollection", **more, "features": [FEATURE]})


@pytest.fixture(scope="module")
def server():
    """Its address, and the calls that came."""
    calls = []

    class Counts(BaseHTTPRequestHandler):
        def do_GET(self):
            calls.append(self.path)
            self.send_response(404)
            self.end_headers()

        do_HEAD = do_POST = do_GET

        def log_message(self, *_):
            pass

    with HTTPServer(("127.0.0.1", 0), Counts) as running:
        threading.Thread(target=running.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{running.server_port}", calls
        running.shutdown()


@pytest.fixture
def desk(tmp_path, write_tif):
    """An image in a folder of its own, and one outside it."""
    (tmp_path / "in" / "below").mkdir(parents=True)
    values = np.arange(143, dtype=np.uint8).reshape(13, 11)
    for name in ("in/ms.tif", "in/below/ms.tif", "outside.tif"):
        write_tif(name, values)
    return tmp_path / "in"


# ---- VRTs and what else names files


RASTERS = {
    "curl": lambda u: vrt(source(f"/vsicurl/{u}/a.tif")),
    "http": lambda u: vrt(source(f"{u}/a.tif")),
    "s3 in a zip": lambda u: vrt(source("/vsizip//vsis3/a/b.zip/c.tif")),
    "a map service": lambda u: WMS % u,
    "a map service in a source": lambda u: vrt(source((WMS % u).replace("<", "&lt;"))),
    "a map service in a file": lambda u: vrt(source("service.xml", 1)),
    "a tile index": lambda u: f"<GDALTileIndexDataset><IndexDataset>{u}/i</IndexDataset></GDALTileIndexDataset>",
    "an overview": lambda u: vrt(
        f"{source('ms.tif', 1)}<Overview><SourceFilename>/vsicurl/{u}/o</SourceFilename></Overview>"
    ),
    "a mask": lambda u: vrt(
        source("ms.tif", 1), more=f"<MaskBand>{BAND % ('', source(f'/vsicurl/{u}/m.tif'))}</MaskBand>"
    ),
    "a warped source": lambda u: vrt(
        "",
        ' subClass="VRTWarpedDataset"',
        band=' subClass="VRTWarpedRasterBand"',
        more=f"<GDALWarpOptions><SourceDataset>/vsicurl/{u}/w</SourceDataset></GDALWarpOptions>",
    ),
    "an attribute": lambda u: vrt(f'<SimpleSource SourceFilename="/vsicurl/{u}/a.tif"/>'),
    "small letters": lambda u: vrt(f"<simplesource><sourcefilename>/vsicurl/{u}/a</sourcefilename></simplesource>"),
    "a comment": lambda u: vrt(source(f"/vsicurl/{u}/a.tif<!-- -->")),
    "a nested VRT": lambda u: vrt(source("nested.vrt", 1)),
}


@pytest.mark.parametrize("what", RASTERS)
def test_an_image_calls_nobody(desk, server, what):
    address, calls = server
    calls.clear()
    (desk / "service.xml").write_text(WMS % address)
    (desk / "nested.vrt").write_text(vrt(source(f"/vsicurl/{address}/n.tif")))
    (desk / "image.tif").write_text(RASTERS[what](address))
    for read in (open_raster, read_band):
        with pytest.raises(InputError) as caught:
            read(desk / "image.tif")
        assert "\n" not in str(caught.value)
    assert calls == []


@pytest.mark.parametrize("ending", ["ovr", "msk", "OVR"])
def test_nor_does_what_lies_beside_it(desk, server, ending):
    address, calls = server
    calls.clear()
    (desk / f"ms.tif.{ending}").write_text(WMS % address)
    with pytest.raises(InputError, match="which is no plain raster"):
        read_band(desk / "ms.tif")
    assert calls == []


def test_nor_do_its_metadata(desk, server):
    address, calls = server
    calls.clear()
    text = f'<Metadata domain="OVERVIEWS"><MDI key="OVERVIEW_FILE">/vsicurl/{address}/o.tif</MDI></Metadata>'
    (desk / "ms.tif.aux.xml").write_text(f"<PAMDataset>{text}</PAMDataset>")
    (desk / "a.vrt").write_text(vrt(source("below/ms.tif", 1), place=PLACE + text))
    for name in ("ms.tif", "a.vrt"):
        with pytest.raises(InputError, match="overviews"):
            read_band(desk / name)
    assert calls == []


@pytest.mark.parametrize(
    "name", ["../outside.tif", "{outside}", "below/../../outside.tif", "link.tif", "/etc/passwd", "NETCDF:a.nc:b"]
)
def test_a_vrt_names_nothing_outside_its_folder(desk, name):
    (desk / "link.tif").symlink_to(desk.parent / "outside.tif")
    text = name.format(outside=desk.parent / "outside.tif")
    (desk / "a.vrt").write_text(vrt(source(text, int(not text.startswith("/")))))
    with pytest.raises(InputError, match=r"a\.vrt names '.*', which is no file beside or below it; move"):
        read_band(desk / "a.vrt")


@pytest.mark.parametrize("kind", ["VRTRawRasterBand", "vrtrawrasterband", "VRTProcessedDataset"])
def test_a_vrt_reads_no_file_as_raw_pixels(desk, kind, tiny_pair):
    where = f' subClass="{kind}"'
    text = vrt(source("ms.tif", 1), where) if "Dataset" in kind else vrt(RAW, band=where)
    (desk / "ms.vrt").write_text(text)
    _, pan = tiny_pair()
    with pytest.raises(InputError, match=f"is a VRT with {kind}, which may read any file"):
        check(desk / "ms.vrt", pan)


@pytest.mark.parametrize("code", ["PixelFunctionCode", "PixelFunctionLanguage", "RPCTransformer", "OOI", "Anything"])
def test_a_vrt_with_what_is_not_looked_at_is_refused(desk, code):
    (desk / "a.vrt").write_text(vrt(f"{source('ms.tif', 1)}<{code}>a</{code}>"))
    with pytest.raises(InputError, match=f"is a VRT with <{code.lower()}>"):
        read_band(desk / "a.vrt")


@pytest.mark.parametrize("inside", [b"<!DOCTYPE a><VRTDataset/>", b"<VRTDataset>", b"<VRTDataset \xff/>"])
def test_a_vrt_that_cannot_be_understood_is_refused(desk, inside):
    (desk / "a.vrt").write_bytes(inside)
    with pytest.raises(InputError, match="is no VRT that can be read"):
        read_band(desk / "a.vrt")


def test_sources_beside_below_and_in_vrts_are_read(desk):
    expected = read_band(desk / "ms.tif")[0]
    texts = [source("ms.tif", 1), source("below/ms.tif", 1), source(desk / "ms.tif"), source("inner.vrt", 1)]
    (desk / "inner.vrt").write_text(vrt(source("below/ms.tif", 1)))
    for text in texts:
        (desk / "a.vrt").write_text(vrt(text))
        assert np.array_equal(read_band(desk / "a.vrt")[0], expected)


def test_a_vrt_that_names_itself_ends(desk):
    (desk / "a.vrt").write_text(vrt(source("a.vrt", 1)))
    with pytest.raises(InputError):
        read_band(desk / "a.vrt")


def test_vrts_as_gdal_writes_them_are_read(desk, write_tif):
    rich = write_tif("in/rich.tif", np.arange(143, dtype=np.uint8).reshape(13, 11), nodata=3)
    with rasterio.open(rich, "r+") as dataset:
        dataset.write_colormap(1, {1: (1, 2, 3, 255)})
        dataset.update_tags(note="/vsicurl/http://nowhere")
        dataset.set_band_description(1, "red / green")
        dataset.scales, dataset.offsets = (2.0,), (1.0,)
        dataset.build_overviews([2])
    rasterio.shutil.copy(rich, desk / "copy.vrt", driver="VRT")
    with rasterio.open(desk / "ms.tif") as dataset, WarpedVRT(dataset, crs="EPSG:32632") as warped:
        rasterio.shutil.copy(warped, desk / "warped.vrt", driver="VRT")
    assert "GDALWarpOptions" in (desk / "warped.vrt").read_text()
    assert np.array_equal(read_band(desk / "copy.vrt")[0], read_band(rich)[0])
    assert read_band(desk / "warped.vrt")[0].max() == 142


def test_the_user_may_allow_all(desk, monkeypatch):
    monkeypatch.setenv(ALLOW_OUTSIDE, "1")
    (desk / "a.vrt").write_text(vrt(source("../outside.tif", 1)))
    assert np.array_equal(read_band(desk / "a.vrt")[0], read_band(desk / "ms.tif")[0])
    (desk / "points.gml").write_text("<gml/>")
    with pytest.raises(InputError, match=r"no layer|not recognized"):
        read_labels(desk / "points.gml", open_grid(desk))
    monkeypatch.setenv(ALLOW_OUTSIDE, "0")
    with pytest.raises(InputError, match="beside or below"):
        read_band(desk / "a.vrt")


def open_grid(desk):
    return read_band(desk / "ms.tif")[1]


def test_a_vrt_in_an_archive_is_not_read(desk):
    with zipfile.ZipFile(desk / "a.zip", "w") as archive:
        archive.writestr("a.vrt", vrt(source(desk / "ms.tif")))
        archive.write(desk / "ms.tif", "ms.tif")
    with pytest.raises(InputError, match="not recognized"):
        read_band(f"/vsizip/{desk}/a.zip/a.vrt")
    assert read_band(f"/vsizip/{desk}/a.zip/ms.tif")[0].max() == 142


# ---- shapes


SHAPES = {
    "layers elsewhere.gpkg": lambda u: layers(f"/vsicurl/{u}/l.geojson"),
    "layers elsewhere.vrt": lambda u: layers(f"{u}/l.geojson"),
    "layers in a table.csv": lambda u: f"id,class\n{layers(f'/vsicurl/{u}/l.geojson')}",
    "a feature service.xml": lambda u: f"<OGRWFSDataSource><URL>{u}</URL></OGRWFSDataSource>",
    "a linked system.geojson": lambda u: collection(crs={"type": "link", "properties": {"href": f"{u}/crs"}}),
    "an escaped link.geojson": lambda u: collection(crs={"type": "URL", "properties": {"url": f"{u}/crs"}}).replace(
        '"URL"', '"\\u0055RL"'
    ),
    "a linked system by lines.geojsonl": lambda u: "\n".join(
        [json.dumps(FEATURE), json.dumps(FEATURE | {"crs": {"type": "link", "properties": {"href": f"{u}/crs"}}})]
    ),
    "an algorithm.json": lambda u: json.dumps(
        {"type": "gdal_streamed_alg", "command_line": f"gdal vector pipeline ! read {u}/a.json ! write streamed"}
    ),
    "a schema.gml": lambda u: (
        '<wfs:FeatureCollection xmlns:wfs="http://www.opengis.net/wfs" xmlns:xsi="http://www.w3.org/2001/'
        f'XMLSchema-instance" xsi:schemaLocation="http://x {u}/?SERVICE=WFS&amp;REQUEST=DescribeFeatureType"/>'
    ),
}


@pytest.mark.parametrize("zipped", [False, True])
@pytest.mark.parametrize("name", SHAPES)
def test_shapes_call_nobody(desk, server, name, zipped):
    address, calls = server
    calls.clear()
    path = desk / name
    path.write_text(SHAPES[name](address))
    if zipped:
        with zipfile.ZipFile(desk / "a.zip", "w") as archive:
            archive.write(path, name)
        path = desk / "a.zip"
    with pytest.raises(InputError, match="neither as a raster nor as polygons") as caught:
        read_labels(path, open_grid(desk))
    assert "\n" not in str(caught.value)
    assert calls == []


def test_a_folder_of_anything_is_no_shapes(desk, server):
    (desk / "below" / "a.vrt").write_text(layers(server[0]))
    with pytest.raises(InputError, match=r"no \.shp is in it"):
        read_labels(desk / "below", open_grid(desk))


@pytest.mark.parametrize("ending", ["gpkg", "shp", "geojson", "fgb", "kml", "gpx", "geojsonl", "gdb"])
def test_shapes_of_the_formats_that_are_named_are_read(desk, ending):
    rings = Polygon(RING), Polygon([(x + 60, y) for x, y in RING])
    frame = geopandas.GeoDataFrame({"class": ["a", "b"], "Name": ["a", "b"]}, geometry=list(rings), crs=UTM)
    driver = {"geojsonl": "GeoJSONSeq", "gdb": "OpenFileGDB", "kml": "LIBKML", "gpx": "GPX"}.get(ending)
    path = desk / f"shapes.{ending}"
    options = {}
    if ending == "gpx":
        frame, options = frame.set_geometry(frame.centroid), {"layer": "waypoints", "GPX_USE_EXTENSIONS": "YES"}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of what the formats cannot hold
        (frame.to_crs(4326) if ending in ("kml", "gpx") else frame).to_file(path, driver=driver, **options)
    given = {"column": "ogr_class", "layer": "waypoints"} if ending == "gpx" else {"column": "class"}
    labels = read_labels(path, open_grid(desk), **given)
    assert labels.classes.names == ("a", "b")


# ---- files that name scenes


def test_a_file_of_scenes_names_nothing_on_the_net(tmp_path):
    (tmp_path / "scenes.toml").write_text('[[scene]]\nname = "a"\nms = "/vsicurl/http://x/ms.tif"\npan = "pan.tif"\n')
    with pytest.raises(InputError, match=r"scenes .*scenes.toml names /vsicurl/http:/x/ms.tif, which lies on the net"):
        read_scenes(tmp_path / "scenes.toml", labelled=False)


def test_what_the_user_names_on_the_net_is_asked_for(server, tiny_pair):
    address, calls = server
    calls.clear()
    with pytest.raises(InputError, match="cannot be read as a raster"):
        Scene.open(f"/vsicurl/{address}/ms.tif", tiny_pair()[1])
    assert calls
