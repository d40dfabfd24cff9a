"""Whether an installation works: versions, drivers and projections, each tried, and what to do where one is broken.

Libraries are imported by name when their turn comes: one that cannot be loaded is a finding, not the end of the report.
PyTorch is not known here; who calls `examine` says what it found of devices.
"""

from __future__ import annotations

import importlib
import os
import platform
import sqlite3
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from adcdnet.assess import machine
from adcdnet.assess.machine import Fact, without_home

PYTHONS = (3, 11), (3, 13)  # the first and the last that are supported
# fmt: off
PACKAGES = (  # as pip calls them
    "adcdnet", "torch", "numpy", "scipy", "scikit-learn", "rasterio", "pyogrio", "geopandas", "pyproj", "shapely",
    "affine", "exactextract", "matplotlib", "pillow", "jinja2", "pydantic", "safetensors", "tomli-w", "filelock",
    "psutil", "typer", "rich", "threadpoolctl", "fsspec",
)
# fmt: on
MODULES = ("numpy", "scipy", "sklearn", "rasterio", "pyogrio", "geopandas", "pyproj", "shapely", "safetensors")
NEEDED = {"GTiff", "GPKG"}  # of the drivers below
RASTER_DRIVERS = "GTiff", "COG", "VRT", "JP2OpenJPEG", "netCDF", "HDF5", "PNG"
PROJ_VARIABLES = "PROJ_DATA", "PROJ_LIB"
VECTOR_DRIVERS = "GPKG", "ESRI Shapefile", "GeoJSON", "FlatGeobuf", "KML"
POINT, PLACE = (16.5, 49.25), (609_161.80, 5_456_330.32)  # degrees, and metres in UTM zone 33 north
_CLOSE = 0.1  # metres
_LITTLE = 2 * 2**30  # bytes of free memory that deserve a word


@dataclass(frozen=True)
class Finding:
    """Something wrong, and one line what to do. broken: adcdnet cannot work with it."""

    what: str
    mend: str
    broken: bool = True


@dataclass(frozen=True)
class Health:
    """sections: by heading, what was found under its names. findings: what is wrong."""

    sections: Mapping[str, Mapping[str, Fact]]
    findings: tuple[Finding, ...]

    @property
    def broken(self) -> bool:
        return any(finding.broken for finding in self.findings)

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return {
            **{heading: dict(facts) for heading, facts in self.sections.items()},
            "findings": [asdict(finding) for finding in self.findings],
            "broken": self.broken,
        }


def examine(devices: Mapping[str, Fact], findings: Sequence[Finding] = ()) -> Health:
    """All that can be said of this installation. devices, findings: what is known of PyTorch already."""
    from adcdnet.geo.library_data import ignored  # not needed for help

    variables = dict(os.environ)  # before libraries add their own
    wrong = [*_about_python(), *_about_modules(), *findings]
    raster, vector = _drivers(wrong)
    sections: dict[str, Mapping[str, Fact]] = {
        "versions": _versions(),
        "platform": {
            "system": platform.platform(),
            "machine": platform.machine(),
            "Python": f"{platform.python_implementation()} {platform.python_version()}",
            "interpreter": without_home(sys.executable),
        },
        "devices": devices,
        "GDAL drivers, images": raster,
        "GDAL drivers, polygons": vector,
        "PROJ": _projections(variables, wrong) | dict(_databases(ignored)),
        "memory": (memory := machine.memory()),
        "threads": machine.processors(variables),
        "disk": _disk(wrong),
        "environment": machine.environment(variables) or {"GDAL_*, PROJ_*, OMP_*, CUDA_*": "none set"},
    }
    wrong += [Finding(f"{name} points to another installation and is not used", "unset it", False) for name in ignored]
    free = memory["free"]
    if isinstance(free, int) and free < _LITTLE:
        wrong.append(Finding(f"{free} of memory are free", "close other programs, or predict --memory 1GB", False))
    return Health(sections, tuple(wrong))


# --- what is installed -----------------------------------------------------------------------------------------------


def _about_python() -> Iterator[Finding]:
    if not PYTHONS[0] <= sys.version_info[:2] <= PYTHONS[1]:
        first, last = (".".join(map(str, v)) for v in PYTHONS)
        yield Finding(
            f"Python is {platform.python_version()}, adcdnet needs {first} to {last}",
            f"make a new environment with Python {last}",
        )


def _about_modules() -> Iterator[Finding]:
    for name in MODULES:
        error = _load(name)[1]
        if error:
            package = "scikit-learn" if name == "sklearn" else name
            yield Finding(
                f"{name} cannot be loaded: {error}", f"python -m pip install --force-reinstall --no-deps {package}"
            )


def _load(name: str) -> tuple[Any, str]:
    """A module, or None and the first line of why it cannot be loaded."""
    try:
        return importlib.import_module(name), ""
    except Exception as error:  # a broken library may raise anything
        return None, _first_line(error)


def _first_line(error: Exception) -> str:
    return without_home((str(error).splitlines() or [type(error).__name__])[0])


def _versions() -> dict[str, Fact]:
    found: dict[str, Fact] = {}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "not installed"
    for what, module, attribute in (
        ("GDAL of rasterio", "rasterio", "__gdal_version__"),
        ("PROJ of rasterio", "rasterio", "__proj_version__"),
        ("GEOS of rasterio", "rasterio", "__geos_version__"),
        ("GDAL of pyogrio", "pyogrio", "__gdal_version_string__"),
        ("PROJ of pyproj", "pyproj", "proj_version_str"),
        ("GEOS of shapely", "shapely", "geos_version_string"),
    ):
        found[what] = str(getattr(_load(module)[0], attribute, "unknown"))
    return found


def _drivers(wrong: list[Finding]) -> tuple[dict[str, Fact], dict[str, Fact]]:
    """Which formats GDAL knows, of images and of polygons."""
    rasterio, pyogrio = _load("rasterio")[0], _load("pyogrio")[0]
    raster: dict[str, Fact] = {}
    if rasterio is not None:
        with rasterio.Env() as gdal:
            known = gdal.drivers()
        raster = {name: "there" if name in known else "missing" for name in RASTER_DRIVERS}
    vector: dict[str, Fact] = {}
    if pyogrio is not None:
        known = pyogrio.list_drivers()
        vector = {name: "there" if name in known else "missing" for name in VECTOR_DRIVERS}
    for package, found in (("rasterio", raster), ("pyogrio", vector)):
        for name, state in found.items():
            if state == "missing" and name in NEEDED:
                mend = f"unset GDAL_SKIP and OGR_SKIP, or python -m pip install --force-reinstall {package}"
                wrong.append(Finding(f"GDAL of {package} has no driver {name}", mend))
    return raster, vector


# --- coordinates -----------------------------------------------------------------------------------------------------


def _projections(variables: Mapping[str, str], wrong: list[Finding]) -> dict[str, Fact]:
    """A real transformation and a real name by each library that has a PROJ of its own, and every proj.db around."""
    facts: dict[str, Fact] = {}
    failed = []
    for name, attempt in (("rasterio", _by_rasterio), ("pyproj", _by_pyproj)):
        if _load(name)[0] is None:
            continue
        try:
            crs, place = attempt()
        except Exception as error:  # every library has errors of its own
            problem = _first_line(error)
        else:
            off = max(abs(a - b) for a, b in zip(place, PLACE, strict=True))
            problem = "" if off <= _CLOSE else f"{off:.1f} m beside the true place"
            problem = problem or ("" if "UTM zone 33N" in crs else f"EPSG:32633 is {crs[:40]!r}")
        facts[f"EPSG:4326 to EPSG:32633, {name}"] = problem or "right"
        if problem:
            failed.append(name)
    facts |= dict(_databases(variables))
    guilty = [name for name in PROJ_VARIABLES if name in variables]
    if failed:
        unset = f"unset {' and '.join(guilty)}, which another program has set for a PROJ of its own"
        mend = unset if guilty else f"python -m pip install --force-reinstall {' '.join(failed)}"
        wrong.append(Finding(f"{' and '.join(failed)} cannot transform coordinates (PROJ, above)", mend))
    elif guilty:
        what = f"{' and '.join(guilty)} point to another installation of PROJ"
        wrong.append(Finding(what, "it works now; unset them if that changes after an update", False))
    return facts


def _by_rasterio() -> tuple[str, tuple[float, float]]:
    """The definition of EPSG:32633, and where POINT lies in it."""
    crs, warp, rasterio = (importlib.import_module(f"rasterio{part}") for part in (".crs", ".warp", ""))
    with rasterio.Env():
        xs, ys = warp.transform("EPSG:4326", "EPSG:32633", [POINT[0]], [POINT[1]])
        return str(crs.CRS.from_epsg(32633).to_wkt()), (xs[0], ys[0])


def _by_pyproj() -> tuple[str, tuple[float, float]]:
    pyproj = importlib.import_module("pyproj")
    move = pyproj.Transformer.from_crs("EPSG:4326", "EPSG:32633", always_xy=True)
    x, y = move.transform(*POINT)
    return str(pyproj.CRS.from_epsg(32633).to_wkt()), (x, y)


def _databases(variables: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    """Folders where PROJ may look for its data: those that variables name, and those beside programs on the PATH."""
    for name in PROJ_VARIABLES:
        if name in variables:
            for place in variables[name].split(os.pathsep):
                yield f"{name}={without_home(place)}", _database(Path(place))
    seen: set[Path] = set()
    for program in variables.get("PATH", "").split(os.pathsep):
        folder = Path(program).parent / "share" / "proj"
        if folder not in seen and (folder / "proj.db").is_file():
            seen.add(folder)
            yield f"on the PATH: {without_home(str(folder))}", _database(folder)


def _database(folder: Path) -> str:
    """Which version the proj.db of a folder has, or what is wrong with it."""
    file = folder / "proj.db"
    if not file.is_file():
        return "no proj.db there"
    try:
        with closing(sqlite3.connect(f"{file.resolve().as_uri()}?mode=ro", uri=True)) as database:
            found = dict(database.execute("SELECT key, value FROM metadata"))
    except sqlite3.Error as error:
        return f"proj.db is broken ({error})"
    layout = ".".join(found.get(f"DATABASE.LAYOUT.VERSION.{part}", "?") for part in ("MAJOR", "MINOR"))
    return f"proj.db of PROJ {found.get('PROJ.VERSION', 'unknown')}, layout {layout}"


# --- the machine -----------------------------------------------------------------------------------------------------


def _disk(wrong: list[Finding]) -> dict[str, Fact]:
    try:
        return machine.disk()
    except OSError as error:
        wrong.append(
            Finding(
                f"temporary files cannot be written: {_first_line(error)}", "free disk space, or set TMPDIR elsewhere"
            )
        )
        return {"temporary files": "cannot be written"}
