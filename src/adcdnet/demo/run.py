"""The whole chain on a simulated pair: simulate, train, map, judge, and what each sensor alone would have given."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from affine import Affine

from adcdnet.assess.evaluate import Evaluation, evaluate
from adcdnet.config import TrainConfig
from adcdnet.demo.figure import demo_figure
from adcdnet.demo.simulate import SimulatedScene, simulate
from adcdnet.errors import InputError
from adcdnet.files import MODEL_FILE, as_json, write_whole
from adcdnet.geo.display import stretch
from adcdnet.geo.grid import Grid
from adcdnet.geo.labels import read_labels
from adcdnet.geo.raster import RasterReader, read_band
from adcdnet.geo.raster_writer import write_raster
from adcdnet.geo.scene import Scene
from adcdnet.mapping.model import held_out_name
from adcdnet.mapping.predict import predict
from adcdnet.mapping.progress import Progress, silent
from adcdnet.training.run import train

SCENE = "ms.tif", "pan.tif", "labels.tif"
_SIMULATED = "ADCDNET_SIMULATED"  # tag of a demo's images and labels
SETTINGS = TrainConfig().replace(
    {"split": {"folds": 2}, "stage1": {"steps": 20}, "stage2": {"steps": 150}, "validations": 5}
)


@dataclass(frozen=True)
class DemoResult:
    """evaluation: of the answers to held-out ground. accuracies: overall accuracy on it with both sensors, and each
    alone."""

    evaluation: Evaluation
    accuracies: list[tuple[str, float]]


def write_scene(out: Path, *, seed: int, size: int, ratio: int) -> SimulatedScene:
    """Simulate a landscape of size × size MS pixels and leave its images and labels in `out`, named as in SCENE.

    InputError for a folder that cannot be made, or that holds another scene or run.
    """
    _require_place(out)
    landscape = simulate(size, size, ratio=ratio, seed=seed)
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"{out} cannot be made a folder: {error.strerror}; name another one with --out") from error
    # a made-up place in UTM zone 31 north, so that the files open in a GIS
    grid = Grid(size, size, Affine(landscape.pixel_size, 0, 500_000, 0, -landscape.pixel_size, 5_000_000), "EPSG:32631")
    ms, pan, labels = (out / name for name in SCENE)
    tags = {_SIMULATED: "yes"}
    write_raster(ms, landscape.ms, grid, descriptions=landscape.band_names, nodata=None, tags=tags)
    write_raster(pan, landscape.pan, grid.refine(ratio), descriptions=["pan"], nodata=None, tags=tags)
    write_raster(labels, landscape.labels, grid, classes=landscape.class_table, tags=tags)
    return landscape


def _require_place(out: Path) -> None:
    """InputError for a folder with a scene or a run that no demo made."""
    there = [out / name for name in SCENE if (out / name).exists()]
    foreign = []
    for path in there:
        with RasterReader(path) as raster:
            if _SIMULATED not in raster.tags:
                foreign.append(path)
    if not there and (out / MODEL_FILE).exists():
        foreign = [out / MODEL_FILE]
    if foreign:
        raise InputError(f"{foreign[0]} is none of a demo's and would be replaced; name another folder with --out")


def run_demo(
    out: Path,
    *,
    seed: int,
    size: int,
    ratio: int,
    jobs: int | None = None,
    progress: Progress = silent,
    config: TrainConfig = SETTINGS,
) -> DemoResult:
    """Leave scene, run, map.tif, metrics.json and figure.png in `out`. Three trainings with equal settings, of several
    folds. jobs: as of `train`."""
    config = config.replace({"seed": seed})
    landscape = write_scene(out, seed=seed, size=size, ratio=ratio)
    ms, pan, truth = (out / name for name in SCENE)
    accuracies = []
    for name, sensors, folder in (
        ("MS + PAN", "both", out),
        ("MS alone", "ms", out / "ms_alone"),
        ("PAN alone", "pan", out / "pan_alone"),
    ):
        with Scene.open(ms, pan) as scene:
            labels = read_labels(truth, scene.grid, classes=landscape.class_table)

            def tell(stage: str, step: int, steps: int, figures: Mapping[str, float], name: str = name) -> None:
                progress(f"{name}, {stage}", step, steps, figures)

            own = config.replace({"network": {"sensors": sensors}})
            run = train(scene, labels, out=folder, config=own, jobs=jobs, progress=tell)
            predict(run, scene, out=folder / "map.tif")
        judged = evaluate(folder / held_out_name(), truth)
        accuracies.append((name, judged.scores.oa))
        if sensors == "both":
            evaluation = judged
    content = {
        **json.loads((out / "metrics.json").read_text()),
        "held_out": evaluation.to_dict(),
        "oa": dict(accuracies),
    }
    write_whole(out / "metrics.json", as_json(content))
    everywhere = np.ones((size, size), bool)
    demo_figure(
        out / "figure.png",
        ms=stretch(landscape.ms[[3, 2, 1]].astype(np.float32), everywhere),
        pan=stretch(landscape.pan.astype(np.float32), np.ones(landscape.pan.shape[1:], bool)),
        labels=landscape.labels.astype(np.int64) - 1,
        mapped=read_band(out / "map.tif")[0].astype(np.int64) - 1,
        held_out=read_band(out / held_out_name())[0].astype(np.int64) - 1,
        classes=landscape.class_table,
        lines=[(name, oa, 0.0) for name, oa in accuracies],
    )
    return DemoResult(evaluation, accuracies)
