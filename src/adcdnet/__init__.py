"""adcdnet: land-cover maps from a multispectral and a panchromatic image, each at its own resolution.

Example::

    import adcdnet as ad

    with ad.Scene.open("ms.tif", "pan.tif") as scene:
        run = ad.train(scene, ad.read_labels("labels.tif", scene.grid), out="runs/first")
        ad.predict(run, scene, out="map.tif")

The command line does the same: `adcdnet --help`.

A name is imported when it is first asked for, so that `adcdnet.nn` needs PyTorch and none of the raster libraries.
"""

from typing import TYPE_CHECKING

# at once, since importing the file `simulate` later would put the file in the place of the function
from adcdnet.simulate import simulate

if TYPE_CHECKING:
    from adcdnet.alignment import align
    from adcdnet.checking import CheckReport, check
    from adcdnet.checkpoint import Model, Run
    from adcdnet.classes import ClassTable
    from adcdnet.config import TrainConfig
    from adcdnet.errors import InputError
    from adcdnet.evaluation import Evaluation, evaluate
    from adcdnet.inference import predict
    from adcdnet.labels import Labels, read_labels
    from adcdnet.material import LabelledScene
    from adcdnet.page import write_report
    from adcdnet.scene import Scene
    from adcdnet.training import train
else:
    _FILE_OF = {
        "CheckReport": "checking",
        "ClassTable": "classes",
        "Evaluation": "evaluation",
        "InputError": "errors",
        "LabelledScene": "material",
        "Labels": "labels",
        "Model": "checkpoint",
        "Run": "checkpoint",
        "Scene": "scene",
        "TrainConfig": "config",
        "align": "alignment",
        "check": "checking",
        "evaluate": "evaluation",
        "predict": "inference",
        "read_labels": "labels",
        "train": "training",
        "write_report": "page",
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
