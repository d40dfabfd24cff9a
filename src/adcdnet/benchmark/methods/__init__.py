"""The methods we compare with. Each is fitted on the same training area as ADCD-Net and read at the same tau.

    classifier = METHODS["forest"](area, pixels, bands, seed=0)     # area with the default PatchArchitecture
    logits = classifier.logits(pixels)                              # (K, h, w)

Written from the publications that each file names; the sizes are theirs.
"""

from __future__ import annotations

from adcdnet.benchmark.methods.classifier import Classifier, Fit
from adcdnet.benchmark.methods.cnn import TWO_BRANCH_CNN
from adcdnet.benchmark.methods.dbaf import DBAF
from adcdnet.benchmark.methods.features import BandRoles
from adcdnet.benchmark.methods.mft import MFT_METHOD
from adcdnet.benchmark.methods.mlp import fit_mlp
from adcdnet.benchmark.methods.resnet import DUAL_RESNET
from adcdnet.benchmark.methods.trees import fit_boosting, fit_forest
from adcdnet.benchmark.methods.unet import fit_unet

METHODS: dict[str, Fit] = {
    "forest": fit_forest,
    "boosting": fit_boosting,
    "mlp": fit_mlp,
    "two-branch-cnn": TWO_BRANCH_CNN.fit,
    "dual-resnet": DUAL_RESNET.fit,
    "mft": MFT_METHOD.fit,
    "dbaf": DBAF.fit,
    "unet": fit_unet,
}

__all__ = ["METHODS", "BandRoles", "Classifier", "Fit"]
