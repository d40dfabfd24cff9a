"""Scores of whole files, wherever they lie and whatever hides their pixels, against a plain reading of the same ground.

The plain reading knows places only: which pixels share ground, what hides them, and a patch cut around each target.
A longer search: pytest tests/mapping/test_properties.py --hypothesis-profile long
"""

from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pytest
import rasterio
import torch
from affine import Affine
from hypothesis import given, note, settings
from hypothesis import strategies as st
from rasterio.enums import ColorInterp

from adcdnet.errors import InputError
from adcdnet.geo.scene import Scene
from adcdnet.mapping.engine import scene_logits
from adcdnet.mapping.predict import predict
from adcdnet.nn.architecture import Layout
from conftest import build_model, write_tif_file

QUICK = settings(max_examples=80, derandomize=True, deadline=None)
CLASSES, COMPARED = 3, 6  # targets of each scene whose scores are compared; whether they have one is, for all
PARTS = 48  # of a PAN pixel: as fine as phases are drawn
TAG = 7  # the nodata value


@dataclass(frozen=True)
class Case:
    """What is drawn. offset: where PAN begins, in PAN pixels below and right of where MS begins."""

    seed: int
    grid: str  # of the targets
    ratio: int
    sizes: tuple[int, int, int, int]  # rows and columns of MS, then of PAN
    whole: tuple[int, int]
    parts: tuple[int, int]  # added to it, in 1 / PARTS
    pixel: float  # side of a PAN pixel
    corner: tuple[float, float]
    crs: str
    flips: tuple[tuple[bool, bool], ...]  # of MS, PAN and mask: stored south-up, stored east to west
    hidden: tuple[str, str]  # how MS and PAN say what is invalid
    mask: str  # "", or the image on whose grid it lies
    rule: str
    smooth: float
    likeness: float
    tile: int
    bands: tuple[int, int]

    @property
    def offset(self):
        return [whole + part / PARTS for whole, part in zip(self.whole, self.parts, strict=True)]


KINDS = ["none", "value", "nan", "alpha", "mask"]
flags = st.booleans()
cases = st.builds(
    Case,
    seed=st.integers(0, 999),
    grid=st.sampled_from(["coarse", "fine"]),
    ratio=st.integers(1, 6),
    sizes=st.tuples(st.integers(1, 8), st.integers(1, 8), st.integers(4, 50), st.integers(4, 50)),
    whole=st.tuples(st.integers(-7, 5), st.integers(-7, 5)),
    parts=st.tuples(
        *[st.sampled_from([0, 0, PARTS // 2, 35, 36]) | st.integers(0, PARTS - 1)] * 2
    ),  # 36: three quarters
    pixel=st.sampled_from([0.31, 1 / 3, 10.0, 15.0]),
    corner=st.tuples(st.integers(-(10**6), 10**6), st.integers(0, 10**7)).map(lambda at: (at[0] / 7, at[1] / 7)),
    crs=st.sampled_from(["EPSG:32633", "EPSG:2056"]),
    flips=st.tuples(*[st.tuples(flags, flags)] * 3),
    hidden=st.tuples(*[st.sampled_from(KINDS)] * 2),
    mask=st.sampled_from(["", "ms", "pan"]),
    rule=st.sampled_from(["plain", "values", "bits", "both"]),
    smooth=st.sampled_from([0.0, 1.2]),
    likeness=st.sampled_from([0.0, 0.7]),
    tile=st.integers(2, 9),
    bands=st.tuples(st.integers(1, 3), st.integers(1, 2)),
)


@cache
def model_of(grid, ratio, bands, smooth, likeness):
    layout = Layout(ms_bands=bands[0], pan_bands=bands[1], ratio=ratio, classes=CLASSES)
    return build_model(layout, grid=grid, smooth=smooth, likeness=likeness, local_priors=0.0)


# ---- what is written


def values_of(rng, bands, shape, kind):
    """An image, north-up, and where it is valid by itself."""
    values = rng.integers(TAG + 1, 999, (bands, *shape)).astype(np.float32)
    lost = rng.random((bands, *shape)) < (0.03 if kind in ("value", "nan") else 0)
    values[lost] = TAG if kind == "value" else np.nan
    valid = ~lost.any(0)
    if kind in ("alpha", "mask"):
        valid = rng.random(shape) > 0.05
    return values, valid


def write(path, values, valid, kind, *, place, crs, flip):
    rows, cols = ((-1 if flipped else 1) for flipped in flip)
    if flip[0]:
        place = place @ Affine.translation(0, values.shape[1]) @ Affine.scale(1, -1)
    if flip[1]:
        place = place @ Affine.translation(values.shape[2], 0) @ Affine.scale(-1, 1)
    values, valid = values[:, ::rows, ::cols], valid[::rows, ::cols]
    if kind != "nan":
        values = values.astype(np.uint16)
    if kind == "alpha":
        values = np.concatenate([values, np.where(valid, 65535, 0)[None].astype(np.uint16)])
    profile = {"nodata": TAG} if kind == "value" else {}
    write_tif_file(path, values, pixel=0, transform=place, crs=crs, **profile)
    with rasterio.open(path, "r+") as file:
        if kind == "alpha":
            file.colorinterp = [ColorInterp.gray, *[ColorInterp.undefined] * (len(values) - 2), ColorInterp.alpha]
        elif kind == "mask":
            file.write_mask(valid)
    return path


# ---- the plain reading


def overlaps(starts, side, other_starts, other_side):
    """(n, m): whether spans that begin there and are so long share ground; along one axis, in PAN pixels."""
    ends, other_ends = starts + side, other_starts + other_side
    return np.minimum(ends[:, None], other_ends) - np.maximum(starts[:, None], other_starts) > 1e-6


def hides(value, case):
    """Whether a value of the mask hides, as the drawn rule says."""
    by_value = case.rule in ("values", "both") and value in (3, 8)
    by_bit = case.rule in ("bits", "both") and bool(value & 0b100 or value & 0b10)
    return bool(value) if case.rule == "plain" else by_value or by_bit


def fold(i, n):
    """The pixel that stands at place i of n, mirrored at both borders."""
    while not 0 <= i < n:
        i = -1 - i if i < 0 else 2 * n - 1 - i
    return i


@dataclass
class Ground:
    """The common extent, standardised, 0 where invalid; and where each image is valid."""

    ms: np.ndarray
    pan: np.ndarray
    ms_valid: np.ndarray
    pan_valid: np.ndarray
    first: tuple[int, int]  # MS pixel that it begins with
    phase: tuple[float, float]


def ground_of(case, model, images, masked):
    """None where MS and PAN have no whole MS pixel in common. masked: of the mask's own pixels, which hide."""
    (ms, ms_valid), (pan, pan_valid) = images
    spans = {}  # beginning of every pixel and its length, in PAN pixels, by axis
    for axis in (0, 1):
        spans["ms", axis] = np.arange(case.sizes[axis]) * float(case.ratio), case.ratio
        spans["pan", axis] = np.arange(case.sizes[2 + axis]) + case.offset[axis], 1
    if masked is not None:
        for image, valid in (("ms", ms_valid), ("pan", pan_valid)):
            touch = [overlaps(*spans[image, axis], *spans[case.mask, axis]).astype(int) for axis in (0, 1)]
            valid &= (touch[0] @ masked.astype(int) @ touch[1].T) == 0
    rows_and_cols, phase = [], []
    for axis in (0, 1):
        first_pan = []  # of each MS pixel: the one that begins 0.25 before it to 0.75 behind it
        for begin in spans["ms", axis][0]:
            near = [k for k in range(-400, 400) if -0.25 <= k + case.offset[axis] - begin < 0.75]
            first_pan.append(near[0])
        there = [i for i, k in enumerate(first_pan) if k >= 0 and k + case.ratio <= case.sizes[2 + axis]]
        if not there:
            return None
        start = first_pan[there[0]]
        rows_and_cols.append((there, list(range(start, start + len(there) * case.ratio))))
        phase.append(start + case.offset[axis] - case.ratio * there[0])
    (ms_rows, pan_rows), (ms_cols, pan_cols) = rows_and_cols
    ms, ms_valid = ms[:, ms_rows][:, :, ms_cols], ms_valid[ms_rows][:, ms_cols]
    pan, pan_valid = pan[:, pan_rows][:, :, pan_cols], pan_valid[pan_rows][:, pan_cols]
    known = model.statistics
    ms, pan = (
        np.where(valid, (values - np.reshape(mean, (-1, 1, 1))) / np.reshape(deviation, (-1, 1, 1)), 0)
        for values, valid, mean, deviation in (
            (ms, ms_valid, known.ms_mean, known.ms_deviation),
            (pan, pan_valid, known.pan_mean, known.pan_deviation),
        )
    )
    return Ground(ms, pan, ms_valid, pan_valid, (ms_rows[0], ms_cols[0]), (phase[0], phase[1]))


@dataclass
class PlainReading:
    """Scores target by target, rows and columns counted from the common extent; they may lie beyond it."""

    case: Case
    model: object
    ground: Ground

    def is_valid(self, row, col):
        g, ratio = self.ground, self.case.ratio
        (h, w), (ph, pw) = g.ms_valid.shape, g.pan_valid.shape
        if self.case.grid == "fine":
            return (
                g.ms_valid[fold(row // ratio, h), fold(col // ratio, w)] and g.pan_valid[fold(row, ph), fold(col, pw)]
            )
        own = [
            g.pan_valid[fold(row * ratio + i, ph), fold(col * ratio + j, pw)]
            for i in range(ratio)
            for j in range(ratio)
        ]
        return g.ms_valid[fold(row, h), fold(col, w)] and all(own)

    def raw(self, row, col):
        """(K,) log likelihoods of one target, by the patch around it."""
        g, ratio, config = self.ground, self.case.ratio, self.model.network.config
        (h, w), (ph, pw) = g.ms_valid.shape, g.pan_valid.shape
        ms_begin, pan_begin = [], []
        for at in (row, col):
            own = at // ratio if self.case.grid == "fine" else at
            ms_begin.append(own - config.before)
            middle = at - ratio // 2 if self.case.grid == "fine" else at * ratio
            pan_begin.append(middle - config.before * ratio)
        rows, cols = (
            [fold(begin + i, n) for i in range(config.size)] for begin, n in zip(ms_begin, (h, w), strict=True)
        )
        fine_rows, fine_cols = (
            [fold(begin + i, n) for i in range(config.size * ratio)]
            for begin, n in zip(pan_begin, (ph, pw), strict=True)
        )
        patches = g.ms[:, rows][:, :, cols], g.pan[:, fine_rows][:, :, fine_cols]
        with torch.inference_mode():
            logits = self.model.network(*(torch.from_numpy(patch[None].astype(np.float32)) for patch in patches)).main[
                0
            ]
        return logits.numpy() - np.log(self.model.members[0].drawn_shares)

    def look(self, row, col):
        g, ratio = self.ground, self.case.ratio
        (h, w), (ph, pw) = g.ms_valid.shape, g.pan_valid.shape
        if self.case.grid == "fine":
            return np.r_[g.ms[:, fold(row // ratio, h), fold(col // ratio, w)], g.pan[:, fold(row, ph), fold(col, pw)]]
        rows, cols = (
            [fold(row * ratio + i, ph) for i in range(ratio)],
            [fold(col * ratio + j, pw) for j in range(ratio)],
        )
        return np.r_[g.ms[:, fold(row, h), fold(col, w)], g.pan[:, rows][:, :, cols].mean((1, 2))]

    def scores(self, row, col):
        """(K,) averaged with those of neighbours."""
        reach = int(np.ceil(self.case.smooth))
        total, weights = 0.0, 0.0
        for i in range(-reach, reach + 1):
            for j in range(-reach, reach + 1):
                if not self.is_valid(row + i, col + j):
                    continue
                weight = np.exp(-(i * i + j * j) / (2 * self.case.smooth**2)) if reach else 1.0
                if self.case.likeness:
                    unlike = np.mean((self.look(row, col) - self.look(row + i, col + j)) ** 2)
                    weight *= np.exp(-unlike / (2 * self.case.likeness**2))
                total, weights = total + weight * self.raw(row + i, col + j), weights + weight
        return total / weights


@(settings(settings.default) if settings.default.max_examples > 100 else QUICK)
@given(case=cases)
def test_scores_are_those_of_a_plain_reading_of_the_same_ground(case):
    rng = np.random.default_rng(case.seed)
    model = model_of(case.grid, case.ratio, case.bands, case.smooth, case.likeness)
    images = [
        values_of(rng, bands, shape, kind)
        for bands, shape, kind in zip(case.bands, (case.sizes[:2], case.sizes[2:]), case.hidden, strict=True)
    ]
    places = [
        Affine(case.pixel * case.ratio, 0, case.corner[0], 0, -case.pixel * case.ratio, case.corner[1]),
        Affine(case.pixel, 0, case.corner[0], 0, -case.pixel, case.corner[1])
        @ Affine.translation(case.offset[1], case.offset[0]),
    ]
    with TemporaryDirectory() as folder:
        files = [
            write(Path(folder) / f"{name}.tif", *image, kind, place=place, crs=case.crs, flip=flip)
            for name, image, kind, place, flip in zip(
                ("ms", "pan"), images, case.hidden, places, case.flips, strict=False
            )
        ]
        options, masked = {}, None
        if case.mask:
            on_pan = case.mask == "pan"
            shape = case.sizes[2:] if on_pan else case.sizes[:2]
            codes = np.where(rng.random(shape) < 0.1, rng.integers(0, 16, shape), 0)
            masked = np.array([[hides(int(value), case) for value in line] for line in codes])
            path = Path(folder) / "clouds.tif"
            write(path, codes[None], masked, "none", place=places[on_pan], crs=case.crs, flip=case.flips[2])
            options = {
                "mask": path,
                "mask_values": (3, 8) if case.rule in ("values", "both") else (),
                "mask_bits": (2, 1) if case.rule in ("bits", "both") else (),
            }
        images = [(values, valid.copy()) for values, valid in images]
        ground = ground_of(case, model, images, masked)
        if ground is None:
            with pytest.raises(InputError, match="no ground in common"):
                Scene.open(*files, **options)
            return
        reading = PlainReading(case, model, ground)
        step = case.ratio if case.grid == "fine" else 1
        shape = tuple(n * step for n in ground.ms_valid.shape)
        valid = np.array([[reading.is_valid(row, col) for col in range(shape[1])] for row in range(shape[0])])
        note(f"{shape} targets, {valid.sum()} valid, phase {ground.phase}")
        model = replace(model, phase=ground.phase)
        out, soft = Path(folder) / "map.tif", Path(folder) / "soft.tif"
        if not valid.any():
            with (
                pytest.raises(InputError, match=r"no valid pixel|hides every pixel"),
                Scene.open(*files, **options) as scene,
            ):
                predict(model, scene, out=out)
            return
        with Scene.open(*files, **options) as scene:
            assert scene.grid_of(case.grid).shape == shape
            predict(model, scene, out=out, probabilities=soft, engine="dense")
            logits = np.full((CLASSES, *shape), np.nan)
            engine = "patch" if valid.size <= 100 else "dense"
            for window, _, part in scene_logits(model, scene, engine=engine, tile=case.tile):
                logits[:, *window.scale(step).slices] = part
        with rasterio.open(out) as hard, rasterio.open(soft) as file:
            found, classes = file.read(), hard.read(1)
            begins = file.transform @ (0, 0)
    down, right = (
        first * case.ratio + (off if case.grid == "fine" else 0)
        for first, off in zip(ground.first, ground.phase, strict=True)
    )
    corner = case.corner[0] + right * case.pixel, case.corner[1] - down * case.pixel
    assert begins == pytest.approx(corner, abs=1e-3 * case.pixel)
    assert np.array_equal(np.isfinite(found).all(0), valid)
    assert np.array_equal(np.isfinite(logits).all(0), valid)
    assert np.array_equal(classes > 0, valid)
    targets = np.argwhere(valid)
    for row, col in targets[rng.permutation(len(targets))[:COMPARED]]:
        expected = reading.scores(int(row), int(col))
        np.testing.assert_allclose(logits[:, row, col], expected, rtol=0, atol=2e-4)
        likely = np.exp(expected - expected.max()) * model.label_shares
        np.testing.assert_allclose(found[:, row, col], likely / likely.sum(), rtol=0, atol=1e-4)
        assert classes[row, col] == model.classes.values[int(found[:, row, col].argmax())]
