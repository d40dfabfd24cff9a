"""The words that options choose among: those of the settings and of the API, where a test holds them equal.

They stand here once more because a command line that shows its help or completes a word loads no network for it.
"""

from typing import Literal

Profile = Literal["default", "plain", "paper"]
SplitUnit = Literal["blocks", "polygons", "random"]
TargetGrid = Literal["coarse", "fine"]
Engine = Literal["dense", "patch"]
Precision = Literal["float32", "bf16"]
Resampled = Literal["pan", "ms"]
Protocol = Literal["blocks", "strips", "random"]
NETWORKS = (  # names of methods of a benchmark
    "adcdnet, no-stage1, all-parts, random-prior, no-dtm, no-dia, cbam, gru, attention, flatten-head, "
    "gate-fusion, concat-fusion, halo, zeros, no-context, no-smooth, no-local-priors, no-mixup, "
    "no-self-training, patches, tiles, ms-only, pan-only, plain, paper, paper-no-stage1, paper-random-prior, "
    "paper-no-dtm, paper-no-dia, paper-cbam, paper-gru, paper-attention, paper-gate-fusion, paper-concat-fusion, "
    "paper-ms-only, paper-pan-only"
)
