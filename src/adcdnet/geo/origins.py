"""What a file may name: others beside or below it. GDAL follows what is written in one, to any file and onto the net.

So files are looked at before GDAL opens them: VRTs here by their text, all others by the list of drivers that may try.
ADCDNET_ALLOW_OUTSIDE=1 lets GDAL open whatever it likes.
"""

from __future__ import annotations

import json
import os
import re
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO, Any, NamedTuple
from xml.etree import ElementTree

from adcdnet.errors import InputError
from adcdnet.files import require_plain

ALLOW_OUTSIDE = "ADCDNET_ALLOW_OUTSIDE"
RASTER_DRIVERS = (  # none of them names other files, but for VRTs, which are looked at, and parts of one image
    *("VRT", "GTiff", "COG", "JP2OpenJPEG", "JP2KAK", "JP2ECW", "JP2MrSID", "HFA", "ENVI", "EHdr", "netCDF"),
    *("HDF5", "HDF5Image", "HDF4", "HDF4Image", "PNG", "JPEG", "BMP", "GIF", "WEBP", "AAIGrid", "RST", "SAGA", "NITF"),
)
FORMATS = "GeoTIFF, VRT, JPEG 2000, ERDAS Imagine, ENVI, EHdr, NetCDF, HDF, PNG, JPEG or others that name no files"
SHAPE_FORMATS = "GeoPackage, Shapefile, GeoJSON, FlatGeobuf, KML, GPX, .gdb folders, CSV and zip archives of these"
_MOST = 2**28  # bytes of a text that is looked at
_ON_THE_NET = re.compile(r"/vsi(curl|s3|gs|az|adls|oss|swift|hdfs|webhdfs)|^\w[\w+]+:/")
_HEAD = 2**16  # bytes of a file of shapes that are looked at first
_JSON_TYPES = {"FeatureCollection", "Feature", "Topology", "Point", "MultiPoint", "LineString", "MultiLineString"} | {
    *("Polygon", "MultiPolygon", "GeometryCollection"),
}
_BESIDE_SHAPES = (
    *(".dbf", ".shx", ".prj", ".cpg", ".sbn", ".sbx", ".qix", ".qpj", ".shp.xml"),
    *(".txt", ".pdf", ".qml", ".sld", ".md"),
)
_SUBCLASSES = {"", "VRTSourcedRasterBand", "VRTWarpedDataset", "VRTWarpedRasterBand"} | {
    *("VRTPansharpenedDataset", "VRTPansharpenedRasterBand", "VRTDerivedRasterBand"),
}
_SOURCES = {"sourcefilename", "sourcedataset"}
# what gdal_translate, gdalbuildvrt and gdalwarp write, in small letters, for GDAL takes any; other words may name files
_ELEMENTS = """
sourcefilename sourcedataset vrtdataset srs geotransform metadata mdi gcplist gcp overviewlist maskband vrtrasterband
description nodatavalue hidenodatavalue colorinterp colortable entry categorynames category unittype offset scale
histograms histitem histmin histmax bucketcount includeoutofrange approximate histcounts gdalrasterattributetable
fielddefn name type usage row f simplesource complexsource averagedsource kernelfilteredsource nodatafrommasksource
sourceband sourceproperties srcrect dstrect nodata scaleoffset scaleratio lut colortablecomponent exponent srcmin
srcmax dstmin dstmax clamp usemaskband size coefs kernel maskvaluethreshold remappedvalue overview blockxsize
blockysize pixelfunctiontype sourcetransfertype pixelfunctionarguments pansharpeningoptions algorithm
algorithmoptions weights resampling numthreads bitdepth spatialextentadjustment panchroband spectralband
gdalwarpoptions warpmemorylimit resamplealg workingdatatype option transformer approxtransformer maxerror
basetransformer genimgprojtransformer srcgeotransform srcinvgeotransform dstgeotransform dstinvgeotransform
reprojecttransformer reprojectiontransformer sourcesrs targetsrs options bandlist bandmapping srcnodatareal
srcnodataimag dstnodatareal dstnodataimag srcalphaband dstalphaband cutline cutlineblenddist
"""
_ATTRIBUTES = """
rasterxsize rasterysize subclass datatype band blockxsize blockysize relativetovrt shared resampling domain format key
name xoff yoff xsize ysize normalized dataaxistosrsaxismapping coordinateepoch c1 c2 c3 c4 src dst dstband projection
id info pixel line x y z index tabletype row0min binsize min max
"""
_KNOWN, _KNOWN_ATTRIBUTES = frozenset(_ELEMENTS.split()), frozenset(_ATTRIBUTES.split())
_BESIDE = (".aux.xml", ".ovr", ".msk")  # behind the whole name
_OF_STEM = (  # in the place of the name's ending
    *(".aux", ".rrd", ".rde", ".ige", ".hdr", ".prj", ".wld", ".tfw", ".tifw", ".tiffw", ".j2w", ".jp2w", ".jgw"),
    *(".jpgw", ".pgw", ".pngw", ".bpw", ".rpb", "_rpc.txt", ".imd", ".clr", ".ovr", ".msk"),
)


class Parts(NamedTuple):
    """Local files that one raster is read from. rasters: itself, its VRT's sources, overviews and masks. texts: others.

    elsewhere: addresses that a VRT names, where the user allows that.
    """

    rasters: list[Path]
    texts: list[Path]
    elsewhere: list[str]


def is_outside_allowed() -> bool:
    """Whether the user trusts what files name."""
    return os.environ.get(ALLOW_OUTSIDE, "0") not in ("", "0")


def require_here(path: Path, named_by: str) -> None:
    """InputError for an address on the net that the user did not give, but a file."""
    if _ON_THE_NET.search(str(path)) and not is_outside_allowed():
        raise InputError(
            f"{named_by} names {path}, which lies on the net; give it as an option, or set {ALLOW_OUTSIDE}=1 if you "
            "trust it"
        )


def parts_of(path: Path) -> Parts:
    """All that a raster file is read from, VRTs in VRTs included.

    InputError where a VRT names what is not beside or below it, holds raw bands or cannot be understood.
    """
    found = Parts([], [], [])
    waiting, listed = [path], dict[Path, dict[str, str]]()
    while waiting:
        file = waiting.pop()
        if file in found.rasters:
            continue
        found.rasters.append(file)
        if file.parent not in listed:
            listed[file.parent] = _names_in(file.parent)
        for name in _beside(file.name, listed[file.parent]):
            beside = file.with_name(name)
            (waiting if beside.suffix.lower() in (".ovr", ".msk") else found.texts).append(beside)
        for source in _sources(file):
            (waiting if isinstance(source, Path) else found.elsewhere).append(source)  # type: ignore[arg-type]
    return found


def require_shapes(path: Path) -> None:
    """InputError for a file of shapes, a folder or a zip archive of some, that may make GDAL open anything else."""
    if is_outside_allowed():
        return
    address = address_of(path)
    place = Path(address) if archive_of(address) is None else archive_of(address)
    if place is None or not place.exists():
        odd = "it is no file of this machine"
    elif place.is_dir():
        odd = "" if place.suffix.lower() == ".gdb" or list(place.glob("*.[sS][hH][pP]")) else "no .shp is in it"
    elif zipfile.is_zipfile(place):
        odd = _odd_in_archive(place, address)
    elif address.startswith("/vsi"):
        odd = "it lies in an archive that is no zip file"
    else:
        with place.open("rb") as file:
            odd = _odd_in(place.name, file)
    if odd:
        raise InputError(
            f"{path} can be read neither as a raster nor as polygons: {odd}; {SHAPE_FORMATS} are read, and with "
            f"{ALLOW_OUTSIDE}=1 all that GDAL knows"
        )


def _odd_in_archive(path: Path, address: str) -> str:
    """As of `_odd_in`, of what GDAL may open: a file that is alone or is named, and of several those of shapes."""
    try:
        with zipfile.ZipFile(path) as archive:
            names = [name for name in archive.namelist() if not name.endswith("/")]
            for name in names:
                beside = name.lower().endswith(_BESIDE_SHAPES) or ".gdb/" in name.lower()
                if beside and len(names) > 1 and not address.endswith(name):
                    continue
                with archive.open(name) as file:
                    if odd := _odd_in(name, file):
                        return f"{name}: {odd}"
    except (OSError, zipfile.BadZipFile, RuntimeError, NotImplementedError, zlib.error) as error:
        return f"the archive cannot be read ({error})"
    return ""


def _odd_in(name: str, file: IO[bytes]) -> str:
    """What is odd about a file's content, by which GDAL chooses among its drivers; "" where nothing is.

    The drivers of the formats below follow no names, but for GeoJSON, which may give its coordinate system so.
    """
    head, ending = file.read(_HEAD), Path(name).suffix.lower()
    if head.startswith(b"SQLite format 3\0"):
        return "" if ending == ".gpkg" else "a database, and no .gpkg by its name"
    if head.startswith((b"fgb\x03", b"\0\0\x27\x0a")):
        return "" if ending in (".fgb", ".shp", ".shx") else "another format than its name says"
    text = head.removeprefix(b"\xef\xbb\xbf").lstrip()
    if text[:1] in (b"{", b"["):
        return _odd_in_json(head + file.read(_MOST + 1 - len(head)))
    if text[:1] == b"<":
        return _odd_in_xml(head + file.read(_MOST + 1 - len(head)))
    if ending in (".csv", ".tsv", ".txt", ".dbf", ".shp", ".cpg", ".prj", ".shx", ".sbn", ".sbx", ".csvt"):
        return "it holds a text of another format" if re.search(rb"<(OGR|VRT|GDAL|\?xml|!|\w+:)", head) else ""
    return "its format is none of those that name no files"


def _odd_in_json(content: bytes) -> str:
    if len(content) > _MOST:
        return f"a text of more than {_MOST} bytes"

    def look(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        for name, value in pairs:
            if name.lower() == "crs" and isinstance(value, dict) and str(value.get("type")).lower() in ("link", "url"):
                raise ValueError("its coordinate system is a link")
        return {name: value for name, value in pairs if name == "type"}  # all of it would take much memory

    try:
        text = content.decode("utf-8-sig", "replace")
        try:
            roots = [json.loads(text, object_pairs_hook=look)]
        except json.JSONDecodeError:  # or one feature a line
            lines = [line.strip("\x1e \t\r") for line in text.split("\n")]
            roots = [json.loads(line, object_pairs_hook=look) for line in lines if line]
    except (ValueError, RecursionError) as error:
        return f"no GeoJSON that can be looked at ({error})"
    kinds = {root.get("type") if isinstance(root, dict) else None for root in roots}
    return "" if kinds <= _JSON_TYPES else f"JSON of the type {kinds.pop()!r}"


def _odd_in_xml(content: bytes) -> str:
    if len(content) > _MOST:
        return f"a text of more than {_MOST} bytes"
    try:
        parser = ElementTree.XMLParser(target=_Root())
        parser.feed(content)
        kind = str(parser.close()).rpartition("}")[2]
    except (ElementTree.ParseError, ValueError, LookupError) as error:
        return f"no XML that can be looked at ({error})"
    return "" if kind in ("kml", "gpx") else f"XML of the kind {kind!r}"


def _names_in(folder: Path) -> dict[str, str]:
    """Names of files by what they are in small letters, as GDAL compares them."""
    try:
        return {name.lower(): name for name in os.listdir(folder)}
    except OSError:  # a folder may be closed to looks and its files open
        return {}


def _beside(name: str, there: dict[str, str]) -> list[str]:
    stem = name.rpartition(".")[0] or name
    wanted = [(name + end).lower() for end in _BESIDE] + [(stem + end).lower() for end in _OF_STEM]
    return [there[low] for low in wanted if low in there and there[low] != name]


def is_vrt(path: Path) -> bool:
    """Whether GDAL takes a file for a VRT, whatever its name."""
    return b"<VRTDataset" in head_of(path)


def head_of(path: Path) -> bytes:
    """The first bytes of a file, by which GDAL chooses among its drivers."""
    try:
        with path.open("rb") as file:
            return file.read(1024)
    except OSError:  # which opening it says again
        return b""


def _sources(path: Path) -> Iterator[Path | str]:
    """What a VRT names; nothing for other files."""
    if not path.is_file() or not is_vrt(path):
        return
    folder = path.resolve().parent  # GDAL counts from where a link leads
    for text, relative in _named(path):
        if _is_plain(text):
            place = folder / text if relative else Path(text).absolute()
            if is_outside_allowed() or place.resolve().is_relative_to(folder):
                yield place
                continue
        elif is_outside_allowed():
            yield text
            continue
        raise InputError(
            f"{path} names {text[:80]!r}, which is no file beside or below it; move it there, or set "
            f"{ALLOW_OUTSIDE}=1 if you trust it"
        )


def _is_plain(text: str) -> bool:
    """Whether GDAL takes a source's name for that of a file, not for an address or for a description."""
    return not re.match(r"/vsi|\w{2,}:|\s|<|\{", text, re.IGNORECASE) and "\n" not in text


class _Root:
    """The kind of the outermost element of a document without entities of its own, which may name files."""

    kind = ""

    def start(self, tag: str, _: dict[str, str]) -> None:
        self.kind = self.kind or tag

    def doctype(self, *_: str | None) -> None:
        raise ElementTree.ParseError("it has a document type")

    def close(self) -> str:
        return self.kind


class _Plain(ElementTree.TreeBuilder):
    """Elements and texts alone. GDAL's parser takes the rest otherwise than this one, so that names would differ."""

    doctype = _Root.doctype

    def comment(self, *_: str | None) -> Any:
        raise ElementTree.ParseError("it has a comment or an instruction")

    pi = comment


def _named(path: Path) -> Iterator[tuple[str, bool]]:
    """The sources of a VRT as written, and whether they count from its folder.

    InputError for what is not as GDAL's own programs write it.
    """
    if path.stat().st_size > _MOST:
        raise InputError(f"{path} is a VRT of {path.stat().st_size} bytes, {_MOST} at most are read; divide it")
    try:
        parser = ElementTree.XMLParser(target=_Plain())
        root = ElementTree.fromstring(path.read_bytes(), parser)
    except (OSError, ElementTree.ParseError, ValueError, LookupError) as error:
        raise InputError(f"{path} is no VRT that can be read: {error}; write it again with gdalbuildvrt") from error
    waiting = [root]
    while waiting:
        element = waiting.pop()
        given = {key.lower(): value for key, value in element.attrib.items()}
        if not is_outside_allowed():
            _require_known(path, element.tag.lower(), given)
        if given.get("format") == "xml":
            continue  # of an image's metadata
        waiting += element
        if element.tag.lower() in _SOURCES:
            if not element.text or len(element):
                raise InputError(f"{path} has a source that is not one name; write it again with gdalbuildvrt")
            yield element.text, given.get("relativetovrt", "0") not in ("", "0")


def _require_known(path: Path, name: str, given: dict[str, str]) -> None:
    """InputError for an element of a VRT that may name files in ways that are not looked at."""
    odd = "" if name in _KNOWN else f"<{name}>"
    odd = odd or next((key for key in given if key not in _KNOWN_ATTRIBUTES), "")
    if not odd and given.get("subclass", "") not in _SUBCLASSES:
        odd = given["subclass"]
    if not odd and given.get("domain", "").lower() == "overviews":
        odd = "a domain of overviews"
    if odd:
        raise InputError(
            f"{path} is a VRT with {odd}, which may read any file; convert it with gdal_translate, or set "
            f"{ALLOW_OUTSIDE}=1 if you trust it"
        )


def address_of(path: Path) -> str:
    """What GDAL takes for a path: itself, or an address such as /vsizip/..., https://..., file:///... or netcdf:...

    InputError where it is none of these and does not exist, and for a pipe or device.
    """
    text = str(path)
    if local := re.match(r"file:/+(?=.)", text):
        path, text = Path("/" + text[local.end() :]), "/" + text[local.end() :]
    if path.exists():
        require_plain(path)
        return text
    if archive := re.match(r"(/vsi\w+)(/.+)", text):
        inside = archive_of(text)
        return text if inside is None else f"{archive[1]}/{archive[2]}"  # an archive by its absolute path wants two
    if re.match(r"(\w+\+)?(https?|ftp|s3|gs|az|oss|hdfs|zip|tar|gzip):/", text):
        return re.sub(r":/(?!/)", "://", text)  # a Path makes one slash of two
    if re.match(r"[A-Za-z]\w+:", text):  # of a driver, such as a variable of a NetCDF file or a database
        return text
    raise InputError(f"{path} does not exist; check the path")


def archive_of(address: str) -> Path | None:
    """The file that an address such as /vsizip/a.zip/ms.tif lies in; None where there is no such file here."""
    inner = re.match(r"/vsi\w+(/.+)", address)
    places = [] if inner is None else [Path(inner[1]), *Path(inner[1]).parents]
    return next((place for place in places if place.is_file()), None)


def files_behind(address: str, listed: Sequence[str]) -> list[Path]:
    """All local files that a raster is read from. listed: those that GDAL names for it.

    InputError where some of it lies on the net, or nowhere that can be looked at.
    """
    found: list[Path] = []
    elsewhere: list[str] = []
    for name in {address: None, **dict.fromkeys(listed)}:
        archive = archive_of(name)
        if archive is not None:
            found.append(archive)
        elif Path(name).is_file():
            parts = parts_of(Path(name))
            found += [*parts.rasters, *parts.texts]
            elsewhere += parts.elsewhere
        elif name != address and not _is_plain(name):  # the address may be of a part of a file that is listed
            elsewhere.append(name)
    if elsewhere or not found:
        raise InputError(
            f"{address} is read from {(elsewhere or [address])[0]}, of which nobody can tell whether it has changed; "
            "copy it to a file, or leave out --resume"
        )
    return list(dict.fromkeys(found))
