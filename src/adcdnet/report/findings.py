"""What the chapters of a page are written from: a run, its scene, a map of it, and what the labels say of that."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from adcdnet.assess.evaluate import Evaluation, evaluate, labels_in_part
from adcdnet.errors import InputError
from adcdnet.files import MODEL_TAG
from adcdnet.geo.classes import ClassTable
from adcdnet.geo.grid import Grid
from adcdnet.geo.labels import read_labels
from adcdnet.geo.maps import read_classes
from adcdnet.geo.raster import RasterReader
from adcdnet.geo.scene import Scene
from adcdnet.mapping.predict import predict
from adcdnet.mapping.progress import Progress
from adcdnet.mapping.trust import write_trust
from adcdnet.report.sources import RunFiles
from adcdnet.report.survey import Survey, survey
from adcdnet.report.words import operating_point

PREDICTED = 1_000_000  # pixels up to which a map or probabilities that are lacking are made for the page


@dataclass(frozen=True)
class Product:
    """The map of a page and its probabilities, if any. made: no map was named or found, so it was made for the page.

    trust: the layer that says where it may be trusted, and outside: the share of the map that is unlike all labels;
    None without probabilities, of a large scene, and of a run of one split.
    """

    map: Path
    probabilities: Path | None
    made: bool
    trust: Path | None = None
    outside: float | None = None


@dataclass(frozen=True)
class Findings:
    """truth (H, W): class index of the labelled pixels that judge, −1 elsewhere.

    evaluation: by those; None without labels. split, on the MS grid: None where the run's is of another scene, and
    then all labels judge the map. folds, on the MS grid: of a run of several folds, which one tests each pixel, 0 where
    none does; the answers that are judged are then those to held-out ground, not the map. None of other runs. sample:
    evaluation by the probability sample in sample_file, None without one. notes: one sentence each. tags: of the map.
    """

    files: RunFiles
    scene: Scene
    product: Product
    survey: Survey
    split: NDArray[np.uint8] | None
    folds: NDArray[np.uint8] | None
    truth: NDArray[np.int16] | None
    evaluation: Evaluation | None
    sample: Evaluation | None
    sample_file: Path | None
    notes: tuple[str, ...]
    tags: Mapping[str, str]

    @property
    def classes(self) -> ClassTable:
        return self.files.model.classes

    @property
    def step(self) -> int:
        """Map pixels per MS pixel and axis: 1, or the ratio where PAN pixels are mapped."""
        return self.files.model.step

    @property
    def grid(self) -> Grid:
        """That of the map."""
        return self.scene.grid_of(self.files.model.grid)

    @property
    def pixels(self) -> str:
        """What a pixel of the map is one of: "MS pixels" or "PAN pixels"."""
        return "MS pixels" if self.files.model.grid == "coarse" else "PAN pixels"


def find_product(
    files: RunFiles, scene: Scene, named: Path | None, soft: Path | None, *, temp: Path, progress: Progress
) -> Product:
    """A map, its probabilities and how far both may be trusted: as named, else of the run's folder, else into `temp`.

    Probabilities and trust of a large scene are not predicted. InputError for a large scene without any map.
    """
    own = files.folder / f"{files.scene or 'map'}.tif"
    if named is None and own.exists():
        named = own
        beside = files.folder / "probabilities.tif"
        soft = soft or (beside if beside.exists() and not files.scene else None)
    for path in (named, soft):
        if path is not None and _is_of_other_model(path, files):
            raise InputError(
                f"{path} was made by another model than {files.folder} holds, so that this run says nothing of it; "
                "make it anew with adcdnet predict, or name another with --map and --probabilities"
            )
    step = files.model.step
    small = scene.grid.height * scene.grid.width * step**2 <= PREDICTED
    if named is not None and (soft is not None or not small):
        return _with_trust(Product(named, soft, made=False), files, scene, temp / "trust.tif", small=small)
    if not small:
        raise InputError(
            f"{scene.name} is large ({scene.grid.height}×{scene.grid.width} MS pixels) and the run has no map of it; "
            "make one with adcdnet predict and name it with --map"
        )
    tau, prior = operating_point({} if named is None else _tags(named))
    predict(
        files.model,
        scene,
        out=temp / "map.tif",
        probabilities=temp / "probabilities.tif",
        tau=tau,
        prior=prior,
        progress=progress,
    )
    made = Product(named or temp / "map.tif", temp / "probabilities.tif", made=named is None)
    return _with_trust(made, files, scene, temp / "trust.tif", small=True)


def _with_trust(product: Product, files: RunFiles, scene: Scene, out: Path, *, small: bool) -> Product:
    if files.model.applicability is None or product.probabilities is None or not small:
        return product
    outside = write_trust(files.model, scene, product.probabilities, out)
    return replace(product, trust=out, outside=outside)


def look(
    files: RunFiles, scene: Scene, product: Product, *, reading: Mapping[str, Any], sample: Path | None
) -> Findings:
    """Judge the map by the labels of the test part; by all labels where the run's split is of another scene. Of several
    folds judge what members said of ground they had not seen."""
    truth, evaluation = None, None
    grid = scene.grid_of(files.model.grid)
    notes = scene.notes + _which(files) + _of_whom(product)
    split, folds = (_of_scene(path, scene) for path in (files.split, files.folds))
    judged, judged_by = (product.map, None) if folds is None else files.held_out
    own = read_classes(product.map)
    table = files.model.classes if own is None or own.names == files.model.classes.names else None  # with its codes
    if files.labels:
        cut, part = (None, None) if split is None else (files.split, "test")
        labels = read_labels(files.labels, grid, classes=files.model.classes, **reading)
        notes += labels.notes
        judging = labels_in_part(labels, grid, f"the scene {scene.name}", cut, part)
        if folds is not None:
            step = files.model.step
            judging = np.where(folds.repeat(step, 0).repeat(step, 1) > 0, judging, np.int16(-1))
        del labels  # of a large scene gigabytes, while the map is judged
        block = None if folds is None else (files.divided.get("block") or 0) * files.model.step or None
        if (judging >= 0).any():
            truth, evaluation = (
                judging,
                evaluate(judged, files.labels, split=cut, part=part, classes=table, **reading, block=block),
            )
        else:
            notes += ("no labelled pixel of this scene is in the test part, so nothing is said of accuracy",)
    rng = np.random.default_rng(0)  # of the pixels that are looked at where there are very many
    return Findings(
        files,
        scene,
        product,
        survey(
            product.map,
            product.probabilities,
            grid,
            files.model.classes,
            truth,
            trust=product.trust,
            judged_by=judged_by,
            rng=rng,
        ),
        split,
        folds,
        truth,
        evaluation,
        None if sample is None else _by_sample(product.map, sample, table),
        sample,
        notes,
        _tags(product.map),
    )


def _of_scene(path: Path | None, scene: Scene) -> NDArray[np.uint8] | None:
    """A raster on the MS grid; None where there is none or it is of another scene."""
    if path is None:
        return None
    with RasterReader(path) as raster:
        if (raster.grid.shape, raster.grid.transform) != (scene.grid.shape, scene.grid.transform):
            return None
        return np.asarray(raster.read(scene.grid.window)[0], np.uint8)


def _by_sample(map_path: Path, sample: Path, table: ClassTable | None) -> Evaluation:
    """InputError for points that were not drawn by `adcdnet sample`: they say nothing of the whole map."""
    evaluation = evaluate(map_path, sample, classes=table)
    if not evaluation.of_sample:
        raise InputError(
            f"{sample} is no probability sample; fill in a file of `adcdnet sample`, or leave --sample out"
        )
    return evaluation


def _which(files: RunFiles) -> tuple[str, ...]:
    """Of a run of several scenes: which one this is."""
    others = [name for name in files.model.record.scenes if name != files.scene]
    if not others:
        return ()
    return (f"the run has several scenes; this page is of {files.scene}, --scene names another: {', '.join(others)}",)


def _of_whom(product: Product) -> tuple[str, ...]:
    """Of a map that does not say which model made it."""
    if MODEL_TAG in _tags(product.map):
        return ()
    return (f"{product.map.name} does not say which model made it; this page takes it for one of this run",)


def _is_of_other_model(path: Path, files: RunFiles) -> bool:
    """Whether a map says so; one of another program or an older version says nothing."""
    return _tags(path).get(MODEL_TAG, digest := files.model.digest) != digest


def _tags(map_path: Path) -> dict[str, str]:
    with RasterReader(map_path) as raster:
        return raster.tags
