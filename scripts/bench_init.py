"""Accuracy against labels per class on the right half of a scene: from scratch, and from a model of the left half.

    python scripts/bench_init.py SCENE_FOLDER --out runs/init

The folder holds ms.tif, pan.tif, labels.tif and classes.csv. The left half trains one model on all its labels. Of the
right half, the split's training part keeps so many labelled pixels of each class, drawn by the seed; there is no
validation part, and the test part (the same for all) judges at tau 0. The guard is that of every split. Columns:
trained from scratch, begun from the left half's model, and the same without stage I (its prior is kept as it is); all
without a second round (self_training = 0).
"""

from __future__ import annotations

import argparse
import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np

from adcdnet import ClassTable, Labels, Scene, TrainConfig, predict, read_labels, train
from adcdnet.config import SplitConfig
from adcdnet.geo.maps import read_map
from adcdnet.geo.raster_writer import write_raster
from adcdnet.metrics import confusion_matrix, scores
from adcdnet.nn.architecture import PatchArchitecture
from adcdnet.split.blocks import split_blocks
from adcdnet.split.parts import TEST, TRAIN
from adcdnet.training.scenes import LabelledScene

REACH = PatchArchitecture().reach
GAP = 2 * REACH  # MS pixels between the halves, so that their windows share no ground


def few(labels: Labels, part: np.ndarray, count: int, seed: int) -> Labels:
    """At most `count` labelled training pixels of each class, and all others as they are."""
    rng = np.random.default_rng(seed)
    index = np.where(part == TRAIN, -1, labels.index)
    for k in range(len(labels.classes)):
        places = np.argwhere((part == TRAIN) & (labels.index == k))
        index[tuple(rng.permutation(places)[:count].T)] = k
    return replace(labels, index=index.astype(np.int16))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--steps", type=int, default=400)
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--counts", type=int, nargs="+", default=[10, 25, 50, 100, 200])
    arguments = parser.parse_args()
    folder, out = arguments.folder, arguments.out
    # what --init brings, and nothing else
    quick = {"members": ["adcdnet"], "stage2": {"steps": arguments.steps}, "self_training": 0.0}
    with Scene.open(folder / "ms.tif", folder / "pan.tif") as scene, tempfile.TemporaryDirectory() as temp:
        labels = read_labels(folder / "labels.tif", scene.grid, classes=ClassTable.read(folder / "classes.csv"))
        width = scene.grid.width
        col = np.arange(width)[None, :] + np.zeros_like(labels.index)
        valid = scene.read(scene.grid.window).valid
        left = np.where(valid & (col < width // 2 - GAP), TRAIN, 0).astype(np.uint8)
        right_labels = replace(labels, index=np.where(col < width // 2, -1, labels.index).astype(np.int16))
        right = split_blocks(
            right_labels, valid & (col >= width // 2), reach=REACH, config=SplitConfig(validation=0, test=0.4), seed=0
        ).part
        parts = {}
        for name, part in (("left", left), ("right", right)):
            parts[name] = Path(temp, f"{name}.tif")
            write_raster(parts[name], part, scene.grid, nodata=0)
        if not (out / "left" / "model.safetensors").exists():
            one = LabelledScene(scene, labels, split=parts["left"])
            train([one], out=out / "left", config=TrainConfig.of_profile("patch").replace(quick))
        columns = [f"{score} {start}" for score in ("OA", "AA", "kappa") for start in ("scratch", "init", "no stage I")]
        print("|", " | ".join(["labels a class", "seed", *columns]), "|")
        starts = ((None, {}), (out / "left", {}), (out / "left", {"stage1": {"steps": 0}}))
        for count in arguments.counts:
            for seed in range(arguments.seeds):
                one = LabelledScene(scene, few(labels, right, count, seed), split=parts["right"])
                found = []
                for init, stage1 in starts:
                    config = TrainConfig.of_profile("patch").replace({**quick, **stage1, "seed": seed})
                    run = train([one], out=out / "try", config=config, init=init)
                    predict(run, scene, out=Path(temp, "map.tif"), tau=0.0)
                    values, _ = read_map(Path(temp, "map.tif"))
                    tested = (right == TEST) & (labels.index >= 0)
                    answer = np.searchsorted(labels.classes.values, values[tested])
                    found.append(scores(confusion_matrix(labels.index[tested], answer, len(labels.classes))))
                row = [f"{getattr(s, name):.3f}" for name in ("oa", "aa", "kappa") for s in found]
                print("|", " | ".join([str(count), str(seed), *row]), "|", flush=True)


if __name__ == "__main__":
    main()
