"""A layer beside a map that says where it may be trusted: how far each pixel is from all that was labelled, and how
likely its class is wrong."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from adcdnet.errors import InputError
from adcdnet.files import MODEL_TAG
from adcdnet.geo.grid import Window, tiles
from adcdnet.geo.raster import RasterReader
from adcdnet.geo.raster_writer import RasterWriter
from adcdnet.geo.scene import Scene
from adcdnet.mapping.applicability import Applicability
from adcdnet.mapping.members import features_of
from adcdnet.mapping.model import Model
from adcdnet.nn.context import CONTEXT_REACH

_WINDOW = 256  # MS pixels per side that are looked at once
MUCH_OUTSIDE = 0.1  # share of a map outside the area of applicability that is worth a warning
_SQUARES, _SIDE = 16, 64  # of MS pixels, by which a scene is judged as a whole
BANDS = ("dissimilarity", "expected error")


def require_applicability(model: Model) -> Applicability:
    """That of the model. InputError where it has none."""
    if model.applicability is None:
        raise InputError(
            "this model has no area of applicability: it was trained with one split, or by an older version; train it "
            "with several folds"
        )
    return model.applicability


def write_trust(model: Model, scene: Scene, probabilities: Path | str, out: Path | str) -> float:
    """Write two float32 bands on the map's grid, nan where it has no class; returns the share that lies outside.

    dissimilarity: to the nearest labelled pixel, over the threshold of the area of applicability: above 1 lies outside.
    expected error: the probability that the map's class is wrong. probabilities: as `predict` wrote them for this map.
    InputError for a model without an area of applicability, and where files do not fit or cannot be written.
    """
    area = require_applicability(model)
    grid, step, outside, mapped = scene.grid_of(model.grid), model.step, 0, 0
    tags = {"ADCDNET_MODEL": model.record.name, MODEL_TAG: model.digest}
    with (
        RasterReader(probabilities) as soft,
        RasterWriter(
            out, grid, count=2, dtype="float32", nodata=float("nan"), descriptions=list(BANDS), tags=tags
        ) as file,
    ):
        if soft.grid.shape != grid.shape or soft.count != len(model.classes):
            raise InputError(
                f"{probabilities} are not of this map: {soft.count} bands of {soft.grid.height}×{soft.grid.width} "
                f"pixels, needed {len(model.classes)} of {grid.height}×{grid.width}"
            )
        for window in tiles(*scene.grid.shape, _WINDOW):
            place = window.scale(step)
            p = soft.read(place)
            known = np.isfinite(p[0])
            layers = np.full((2, *known.shape), np.nan, np.float32)
            if known.any():
                apart = _dissimilarity(model, area, scene, window).repeat(step, 0).repeat(step, 1)[known]
                layers[0, known] = apart / np.float32(area.threshold)
                layers[1, known] = area.expected_error(apart, np.asarray(p[:, known], np.float32))
                outside += int((apart > area.threshold).sum())
                mapped += apart.size
            file.write(layers, place)
    return outside / max(1, mapped)


def share_outside(model: Model, scene: Scene) -> float | None:
    """About which share of a scene is unlike all labels, by some squares of it that are drawn; None for a model without
    an area of applicability, and where they hold no valid pixel."""
    if model.applicability is None:
        return None
    height, width = scene.grid.shape
    columns = -(-width // _SIDE)
    drawn = np.random.default_rng(0).permutation(-(-height // _SIDE) * columns)[:_SQUARES]
    outside, valid = 0, 0
    for row, col in zip(*np.divmod(np.sort(drawn), columns), strict=True):
        window = Window(int(row) * _SIDE, int(col) * _SIDE, _SIDE, _SIDE).within(height, width)
        known = scene.read(window).valid
        if known.any():
            apart = _dissimilarity(model, model.applicability, scene, window)[known]
            outside += int((apart > model.applicability.threshold).sum())
            valid += apart.size
    return outside / valid if valid else None


def _dissimilarity(model: Model, area: Applicability, scene: Scene, window: Window) -> NDArray[np.float32]:
    """(h, w) of the MS pixels of a window."""
    pixels = scene.read(window.grow(CONTEXT_REACH), repeat_edge=True)
    every = np.ones((window.height, window.width), bool)
    features = features_of(*model.statistics.standardise(*pixels), every, sensors="both")
    return area.dissimilarity(features).reshape(every.shape)
