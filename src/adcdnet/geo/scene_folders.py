"""Pairs of MS and PAN in a folder, known by the names that agencies and vendors give their files.

PRODUCTS is the table of these names. Earlier products go first: a file of one of their pairs is not looked at again.
"""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fnmatch import fnmatch
from glob import escape
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from adcdnet.errors import InputError
from adcdnet.geo.scene_files import SceneFiles

_IN = r"(?P<at>(?:[^/]+/)*?)"  # the folder of a pair, as short as it can be
_END = r"\.(?:tiff?|jp2|vrt|img|ntf)"
_LABELS = "labels.*", "polygons.*", "training.*"
_VECTORS = ".gpkg", ".shp", ".gdb", ".geojson", ".json", ".fgb", ".gml", ".kml"
_LABEL_ENDS = *_VECTORS, ".tif", ".tiff", ".vrt", ".img", ".csv"  # the likeliest first
_SHOWN = 3  # names in one line


@dataclass(frozen=True)
class Product:
    """How the files of one kind of delivery are named.

    file: pattern of a path below the folder, in any case of letters; IMAGE stands for one of the words of an image.
    Files whose named groups agree are of one scene. ms, pan: words, one for each file of the image, in the order of
    wavelengths. mask: its word. mask_values, mask_bits: what of it hides.
    """

    name: str
    file: str
    ms: tuple[str, ...]
    pan: tuple[str, ...]
    mask: str = ""
    mask_values: tuple[int, ...] = ()
    mask_bits: tuple[int, ...] = ()


_TM_BANDS = "B1", "B2", "B3", "B4", "B5", "B7"  # blue to short-wave infrared, the same six as ...
_OLI_BANDS = "B2", "B3", "B4", "B5", "B6", "B7"  # ... these of Landsat 8: scenes of both can be trained together
_RED_EDGE = "B05", "B06", "B07", "B8A", "B11", "B12"  # delivered at 20 m
_VISIBLE = "B02", "B03", "B04", "B08"  # delivered at 10 m
_CLOUD_BITS = 0, 1, 3, 4  # of QA_PIXEL: fill, dilated cloud, cloud, cloud shadow
_CLOUD_CLASSES = 0, 3, 8, 9, 10, 11  # of SCL: no data (its JP2 have no nodata value), shadow, clouds, cirrus, snow
_FOLDER_OF_MS, _FOLDER_OF_PAN = ("(?:MS|MUL|RGBNIR)",), ("PAN",)
PRODUCTS = (
    Product(
        "Landsat 8 or 9, Level 1",
        _IN + r"(?P<id>L[CO]0?[89]\w*)_IMAGE" + _END,
        ms=_OLI_BANDS,
        pan=("B8",),
        mask="QA_PIXEL",
        mask_bits=_CLOUD_BITS,
    ),
    Product(
        "Landsat 7, Level 1",
        _IN + r"(?P<id>LE0?7\w*)_IMAGE" + _END,
        ms=_TM_BANDS,
        pan=("B8",),
        mask="QA_PIXEL",
        mask_bits=_CLOUD_BITS,
    ),
    Product(
        "Sentinel-2, Level 2A",
        _IN + r"(?:R[12]0m/)?(?P<id>[^/]+)_IMAGE" + _END,
        ms=tuple(f"{band}_20m" for band in _RED_EDGE),
        pan=tuple(f"{band}_10m" for band in _VISIBLE),
        mask="SCL_20m",
        mask_values=_CLOUD_CLASSES,
    ),
    Product(
        "Sentinel-2, a file a band",
        _IN + r"(?P<id>(?:[^/]*T\d\d[A-Z]{3}_(?:\d{8}T\d{6}_)?)?)IMAGE" + _END,  # of a tile, or bare names of bands
        ms=_RED_EDGE,
        pan=_VISIBLE,
        mask="SCL",
        mask_values=_CLOUD_CLASSES,
    ),
    Product(
        "SPOT 6/7 or Pléiades",
        _IN + r"(?:IMG_[^/]*/)?IMG_(?P<id>SPOT[67]|PHR1[AB])_IMAGE_(?P<rest>\d{8})[^/]*" + _END,
        ms=("MS",),
        pan=("P",),
    ),
    Product(
        "Maxar",
        _IN
        + r"(?:[^/]*_(?:MUL|PAN)/)?\d\d[A-Z]{3}\d{8}-IMAGE(?P<level>1B|2A|3[A-Z])S(?:_R\d+C\d+)?-(?P<id>[^/]+)"
        + _END,
        ms=("M",),
        pan=("P",),
    ),
    Product("folders _MUL and _PAN", _IN + r"(?P<id>[^/]+)_IMAGE/[^/]+" + _END, ms=("MUL",), pan=("PAN",)),
    Product(
        "GaoFen",
        _IN + r"(?P<id>GF\d[A-D]?_[^/]+?)[-_]IMAGE(?P<rest>\d?[^/.]*)" + _END,
        ms=("(?:MSS|MUX)",),
        pan=("PAN",),
    ),
    Product(
        "SpaceNet", _IN + r"IMAGE/(?P<id>[^/]*?)IMAGE(?P<rest>(?:_[^/]+)?)" + _END, ms=_FOLDER_OF_MS, pan=_FOLDER_OF_PAN
    ),
    Product("folders MS and PAN", _IN + r"IMAGE/(?P<id>[^/]+)" + _END, ms=_FOLDER_OF_MS, pan=_FOLDER_OF_PAN),
    Product(
        "ms.tif and pan.tif",
        _IN + r"(?P<id>(?:[^/]*[-_. ])?)IMAGE(?P<rest>(?:[-_. ][^/]*)?)" + _END,
        ms=("(?:ms|mss|mul|multispectral)",),
        pan=("(?:pan|panchromatic)",),
        mask="clouds?(?:[-_]?mask)?",
    ),
)
WITHOUT_PAN = (  # names of files, and what to say of them
    (r"\d{8}_\d{6}_\w+_(?:1B|3A|3B)_(?:Analytic|Visual)\w*\.tif", "PlanetScope has no PAN band"),
    (r"L[A-Z]\d\d_L2\w+_B\d\.tif", "Landsat Level 2 has no PAN band; use Level 1 (L1TP) of the same scenes"),
    (r"LT0?[45]\w+_B\d\.tif", "Landsat 4 and 5 have no PAN band"),
)


class FoundScene(NamedTuple):
    """A pair that opens. bands: of MS and PAN. hidden: the share that its mask hides.

    remarks: what a reader of the file should know, one sentence each.
    """

    files: SceneFiles
    product: str
    bands: tuple[int, int]
    ratio: int
    hidden: float
    remarks: tuple[str, ...]


class Findings(NamedTuple):
    """What a folder holds. refused: name of each pair that does not open, and why. notes: one sentence each."""

    scenes: tuple[FoundScene, ...]
    refused: tuple[tuple[str, str], ...]
    notes: tuple[str, ...]


class _Pair(NamedTuple):
    """Files of one scene by what they are ("ms", "pan", "mask") and their place in it. at: the folder of the pair."""

    product: Product
    at: str
    id: str
    files: dict[str, dict[int, list[str]]]

    @property
    def all_files(self) -> list[str]:
        return [file for images in self.files.values() for files in images.values() for file in files]


def find_scenes(folder: Path | str, *, labels: Sequence[str] = (), column: str | None = None) -> Findings:
    """The pairs in a folder and below, each opened once, by name.

    labels: names of label files, * for any text, in the place of labels.*, polygons.*, training.* and ..._labels.*;
    they lie in a folder of the pair or, for all pairs, in `folder` itself. column: of polygon files, for the class.
    Raises InputError where nothing is found, in one line that says what was looked for.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise InputError(f"{folder} is no folder; name the one that holds the images")
    there = _files_below(folder)
    notes = [
        f"{said} ({_some(found)})"
        for pattern, said in WITHOUT_PAN
        if (found := [file for file in there if re.fullmatch(pattern, PurePosixPath(file).name, re.IGNORECASE)])
    ]
    pairs, alone = _pairs_of(there)
    if alone and not notes:
        notes.append(f"{_some(alone)}: named as one image of a pair, without the other")
    if not pairs:
        names = ", ".join(product.name for product in PRODUCTS)
        raise InputError(
            f"{folder} has no pair of MS and PAN: {'; '.join(notes) or f'looked for names of {names}'}; "
            "unpack archives, or name a pair ms.tif and pan.tif"
        )
    scenes, refused = [], []
    for name, pair in zip(_names(pairs, folder), pairs, strict=True):
        try:
            scenes.append(_opened(folder, there, name, pair, labels, column))
        except InputError as error:
            refused.append((name, str(error)))
    return Findings(tuple(scenes), tuple(refused), tuple(notes))


def _files_below(folder: Path) -> list[str]:
    """Paths relative to a folder, with / between their parts, in order; a .gdb folder counts as a file."""
    found = []
    for parent, folders, files in os.walk(folder):
        within = Path(parent).relative_to(folder)
        databases = [name for name in folders if name.lower().endswith(".gdb")]
        folders[:] = [name for name in folders if name not in databases and not name.startswith(".")]
        found += [(within / name).as_posix() for name in (*files, *databases) if not name.startswith(".")]
    return sorted(found)


def _pairs_of(files: Sequence[str]) -> tuple[list[_Pair], list[str]]:
    """All pairs, and the files that would be of one if the other image were there."""
    pairs: list[_Pair] = []
    used: set[str] = set()
    alone: set[str] = set()
    for product in PRODUCTS:
        whole: dict[tuple[str, ...], _Pair] = {}
        for file in files:
            if file in used:
                continue
            for image, place, match in _roles(product, file):
                groups = match.groupdict("")
                of_name = (groups.get(group, "").strip("-_. ") for group in ("id", "rest"))
                key = tuple(text.casefold() for text in groups.values())
                pair = whole.setdefault(key, _Pair(product, groups["at"], "_".join(filter(None, of_name)), {}))
                pair.files.setdefault(image, {}).setdefault(place, []).append(file)
        for pair in whole.values():
            if {"ms", "pan"} <= set(pair.files):
                pairs.append(pair)
                used.update(pair.all_files)
            elif set(pair.files) != {"mask"}:
                alone.update(pair.all_files)
    return pairs, sorted(alone - used)


def _roles(product: Product, file: str) -> Iterator[tuple[str, int, re.Match[str]]]:
    """What a file can be in a product: which image, its place among that image's files."""
    for image, words in (("ms", product.ms), ("pan", product.pan), ("mask", (product.mask,) if product.mask else ())):
        for place, word in enumerate(words):
            if match := re.fullmatch(product.file.replace("IMAGE", word), file, re.IGNORECASE):
                yield image, place, match


def _names(pairs: Sequence[_Pair], folder: Path) -> list[str]:
    """A name of its own for each pair: what its files have in common, or their folder; longer where two have one."""
    short = [pair.id or PurePosixPath(pair.at).name or folder.resolve().name for pair in pairs]
    often = Counter(name.casefold() for name in short)
    names: list[str] = []
    for name, pair in zip(short, pairs, strict=True):
        if often[name.casefold()] > 1:
            name = "-".join([*PurePosixPath(pair.at).parts, *([pair.id] if pair.id else [])]) or name
        before = sum(other.casefold() == name.casefold() for other in names)
        names.append(f"{name}-{before + 1}" if before else name)
    return names


def _opened(
    folder: Path, there: Sequence[str], name: str, pair: _Pair, labels: Sequence[str], column: str | None
) -> FoundScene:
    images: dict[str, tuple[Path, ...]] = {}
    for image, places in pair.files.items():
        for same in places.values():
            if len(same) > 1:
                raise InputError(
                    f"{_some(same)} could each be the {image.upper()} of one scene; leave one there, or join tiles, "
                    "e.g. with gdalbuildvrt"
                )
        images[image] = tuple(folder / places[place][0] for place in sorted(places))
    near = _beside(there, pair)
    above = [file for file in there if "/" not in file]  # what serves all pairs lies in the folder itself
    of_labels = _labels_of(near, pair, labels) or _labels_of(above, pair, labels)
    tables = [file for file in (*near, *above) if PurePosixPath(file).name == "classes.csv"]
    product = pair.product
    files = SceneFiles(
        name=name,
        ms=_one_or_all(images["ms"]),
        pan=_one_or_all(images["pan"]),
        mask=images["mask"][0] if "mask" in images else None,
        mask_values=product.mask_values if "mask" in images else (),
        mask_bits=product.mask_bits if "mask" in images else (),
        labels=folder / of_labels[0] if of_labels else None,
        classes=folder / tables[0] if of_labels and tables else None,
        column=column if of_labels else None,
    )
    remarks = []
    if not of_labels:
        remarks.append(f"no labels found: looked for {', '.join(labels or (*_LABELS, '..._labels.*'))}")
    if len(of_labels) > 1:
        remarks.append(f"other labels there: {_some(of_labels[1:])}")
    with files.open() as scene:
        if files.labels is not None:
            try:
                files.read_labels(scene.grid)
            except InputError as error:
                remarks.append(f"labels left out: {error}")
                files = files.model_copy(update={"labels": None, "classes": None, "column": None})
        return FoundScene(
            files, product.name, (scene.ms_bands, scene.pan_bands), scene.ratio, scene.hidden, tuple(remarks)
        )


def _beside(there: Sequence[str], pair: _Pair) -> list[str]:
    """All files in the folders of a pair but its images."""
    images = pair.all_files
    folders = {PurePosixPath(file).parent for file in images} | {PurePosixPath(pair.at)}
    return [file for file in there if PurePosixPath(file).parent in folders and file not in images]


def _labels_of(near: Sequence[str], pair: _Pair, wanted: Sequence[str]) -> list[str]:
    """Which of the files beside a pair are its labels, the likeliest first."""
    stems = [pair.id, *(PurePosixPath(file).stem for file in pair.all_files)]
    patterns = wanted or [*(f"{escape(stem)}_labels.*" for stem in stems if stem), *_LABELS]
    usable = [PurePosixPath(file) for file in near if PurePosixPath(file).suffix.lower() in _LABEL_ENDS]
    usable.sort(key=lambda file: _LABEL_ENDS.index(file.suffix.lower()))
    fitting = [str(file) for pattern in patterns for file in usable if fnmatch(file.name.lower(), pattern.lower())]
    return list(dict.fromkeys(fitting))


def _one_or_all(files: tuple[Path, ...]) -> Path | tuple[Path, ...]:
    return files[0] if len(files) == 1 else files


def _some(files: Sequence[str]) -> str:
    """The first few names."""
    more = f" and {len(files) - _SHOWN} more" if len(files) > _SHOWN else ""
    return ", ".join(files[:_SHOWN]) + more
