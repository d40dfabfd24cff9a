"""adcdnet: land-cover maps from a multispectral and a panchromatic image, each at its own resolution.

Example::

    import adcdnet as ad

    with ad.Scene.open("ms.tif", "pan.tif") as scene:
        run = ad.train(scene, ad.read_labels("labels.tif", scene.grid), out="runs/first")
        ad.predict(run, scene, out="map.tif")

The command line does the same: `adcdnet --help`.

A name is imported when it is first asked for, so that `adcdnet.nn` needs PyTorch and none of the raster libraries.

How threads wait is said here, because OpenMP reads it once, when PyTorch loads it. A thread that has done its part of
an operation spins until the others have; where another process has taken one of the cores, that is what keeps them from
it. Told to sleep soon, two threads on two busy cores map a scene ten times as fast (scripts/RESULTS.md). Whoever has
set the variable keeps it; whoever imports PyTorch before this package sets it first, or asks for one thread.

GDAL reads its limit once as well. Its own, a twentieth of the machine's memory, would break the limits of `predict`.
Processes that a benchmark starts inherit both.

PROJ and GDAL read where their data lie when rasterio is loaded. What another program has named there is left out.
"""

import os
from typing import TYPE_CHECKING

os.environ.setdefault("GOMP_SPINCOUNT", "1000")
os.environ.setdefault("GDAL_CACHEMAX", "128")  # MB of blocks of open files
if not os.environ.keys().isdisjoint(("PROJ_DATA", "PROJ_LIB", "GDAL_DATA")):
    from adcdnet.geo.library_data import ignore_foreign_data

    ignore_foreign_data()

if TYPE_CHECKING:
    from adcdnet.assess.check import CheckReport, check
    from adcdnet.assess.evaluate import Evaluation, evaluate
    from adcdnet.config import TrainConfig
    from adcdnet.demo.simulate import simulate
    from adcdnet.errors import InputError
    from adcdnet.geo.alignment import align
    from adcdnet.geo.classes import ClassTable
    from adcdnet.geo.labels import Labels, read_labels
    from adcdnet.geo.scene import Scene
    from adcdnet.mapping.model import Model, Run
    from adcdnet.mapping.predict import predict
    from adcdnet.report.write import write_report
    from adcdnet.training.run import train
    from adcdnet.training.scenes import LabelledScene
else:
    _FILE_OF = {
        "CheckReport": "assess.check",
        "ClassTable": "geo.classes",
        "Evaluation": "assess.evaluate",
        "InputError": "errors",
        "LabelledScene": "training.scenes",
        "Labels": "geo.labels",
        "Model": "mapping.model",
        "Run": "mapping.model",
        "Scene": "geo.scene",
        "TrainConfig": "config",
        "align": "geo.alignment",
        "check": "assess.check",
        "evaluate": "assess.evaluate",
        "predict": "mapping.predict",
        "read_labels": "geo.labels",
        "simulate": "demo.simulate",
        "train": "training.run",
        "write_report": "report.write",
    }

    def __getattr__(name):
        from importlib import import_module

        if name not in _FILE_OF:
            raise AttributeError(f"module 'adcdnet' has no attribute {name!r}")
        value = globals()[name] = getattr(import_module(f"adcdnet.{_FILE_OF[name]}"), name)
        return value

    def __dir__():
        return sorted({*globals(), *__all__})


__all__ = [
    "CheckReport",
    "ClassTable",
    "Evaluation",
    "InputError",
    "LabelledScene",
    "Labels",
    "Model",
    "Run",
    "Scene",
    "TrainConfig",
    "align",
    "check",
    "evaluate",
    "predict",
    "read_labels",
    "simulate",
    "train",
    "write_report",
]
