"""adcdnet: land-cover maps from a multispectral and a panchromatic image, each at its own resolution.

Example::

    import adcdnet as ad

    with ad.Scene.open("ms.tif", "pan.tif") as scene:
        run = ad.train(scene, ad.read_labels("labels.tif", scene.grid), out="runs/first")
        ad.predict(run, scene, out="map.tif")

The command line does the same: `adcdnet --help`.
"""

from adcdnet.checkpoint import Model, Run
from adcdnet.classes import ClassTable
from adcdnet.config import TrainConfig
from adcdnet.errors import InputError
from adcdnet.evaluation import Evaluation, evaluate
from adcdnet.inference import predict
from adcdnet.labels import Labels, read_labels
from adcdnet.scene import Scene
from adcdnet.simulate import simulate
from adcdnet.training import train

__all__ = [
    "ClassTable",
    "Evaluation",
    "InputError",
    "Labels",
    "Model",
    "Run",
    "Scene",
    "TrainConfig",
    "evaluate",
    "predict",
    "read_labels",
    "simulate",
    "train",
]
