"""Data of PROJ and GDAL that another installation has named in the environment: not used, and said once.

PostGIS, QGIS and others set PROJ_DATA, PROJ_LIB or GDAL_DATA for libraries of their own. With an older proj.db the PROJ
of rasterio knows no coordinate system, and says nothing. So these variables are judged before rasterio reads them.
"""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Iterator, MutableMapping
from importlib.util import find_spec
from pathlib import Path

PROJ_VARIABLES, GDAL_VARIABLE = ("PROJ_DATA", "PROJ_LIB"), "GDAL_DATA"
ignored: dict[str, str] = {}  # variables that were taken out of this process's environment, and what they said
Layout = tuple[int, int]  # of a proj.db: major and minor version


def ignore_foreign_data(variables: MutableMapping[str, str] = os.environ) -> None:
    """Take out the variables that name data of another installation. Changes nothing where none is set."""
    for name, why in list(_foreign(variables)):
        ignored[name] = variables.pop(name)
        logging.getLogger("adcdnet").warning(
            f"note: {name}={ignored[name]} is not used: it is of another installation ({why}); unset it for adcdnet"
        )


def _foreign(variables: MutableMapping[str, str]) -> Iterator[tuple[str, str]]:
    """Names of variables and why they do not fit. Where it is unknown what is needed, none is named."""
    named = [name for name in PROJ_VARIABLES if name in variables]
    if named:
        needed = max(filter(None, map(proj_layout, own_folders("proj"))), default=None)
        for name in named:
            layout = proj_layout(*map(Path, variables[name].split(os.pathsep)))
            if needed and (layout is None or layout[0] != needed[0] or layout < needed):
                has = "no proj.db that can be read" if layout is None else "proj.db of layout {}.{}".format(*layout)
                yield name, f"{has}, {needed[0]}.{needed[1]} is needed"
    if GDAL_VARIABLE in variables:
        own = {folder.resolve() for folder in own_folders("gdal")}
        if own and Path(variables[GDAL_VARIABLE]).resolve() not in own:
            yield GDAL_VARIABLE, "the GDAL of rasterio brings its own"


def own_folders(library: str) -> list[Path]:
    """Where the data of the installed "proj" or "gdal" lie: inside packages, otherwise beside the interpreter."""
    packages = []
    for package in ("rasterio", "pyogrio"):
        spec = find_spec(package)  # does not load it
        packages += [Path(place) / f"{library}_data" for place in (spec and spec.submodule_search_locations) or ()]
    beside = [Path(sys.prefix, *parts, "share", library) for parts in ((), ("Library",))]
    return [place for place in packages if place.is_dir()] or [place for place in beside if place.is_dir()]


def proj_layout(*folders: Path) -> Layout | None:
    """The layout of the first proj.db in these folders, which is what PROJ opens; None where it cannot be read."""
    import sqlite3  # only where a variable is set
    from contextlib import closing

    file = next((folder / "proj.db" for folder in folders if (folder / "proj.db").is_file()), None)
    if file is None:
        return None
    try:
        with closing(sqlite3.connect(f"{file.resolve().as_uri()}?mode=ro", uri=True)) as database:
            content = dict(database.execute("SELECT key, value FROM metadata"))
        return int(content["DATABASE.LAYOUT.VERSION.MAJOR"]), int(content["DATABASE.LAYOUT.VERSION.MINOR"])
    except (sqlite3.Error, KeyError, ValueError):
        return None
