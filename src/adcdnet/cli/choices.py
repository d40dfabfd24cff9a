"""The words that options choose among: those of the settings and of the API, where a test holds them equal.

They stand here once more because a command line that shows its help or completes a word loads no network for it.
"""

from typing import Literal

Profile = Literal["default", "plain", "patch", "paper", "paper-code"]
MemberName = Literal["adcdnet", "plain", "forest", "boosting", "perceptron"]
SplitUnit = Literal["blocks", "polygons", "random"]
TargetGrid = Literal["coarse", "fine"]
Engine = Literal["dense", "patch"]
Precision = Literal["float32", "bf16"]
ExportFormat = Literal["onnx", "pt2"]
Resampled = Literal["pan", "ms"]
Protocol = Literal["blocks", "strips", "random", "scenes", "given"]
NETWORKS = (  # names of methods of a benchmark
    "adcdnet, no-stage1, all-parts, random-prior, no-dtm, no-dia, cbam, gru, attention, learnt-token, "
    "initial-state, no-context, tiles, tiles-plain, one-level, two-levels, four-levels, no-smooth, "
    "local-priors, ms-only, pan-only, committee, committee-adcdnet, committee-forest, committee-no-network, "
    "committee-no-trees, committee-of-plain, committee-of-boosting, committee-of-forest, "
    "committee-of-perceptron, plain, patch, paper, paper-code, patch-all-parts, patch-no-stage1, "
    "patch-random-prior, patch-no-dtm, patch-no-dia, patch-cbam, patch-gru, patch-attention, "
    "patch-learnt-token, patch-initial-state, patch-ms-only, patch-pan-only, patch-no-context, "
    "patch-no-smooth, patch-no-local-priors, patch-flatten-head, patch-gate-fusion, patch-concat-fusion, "
    "patch-halo, patch-zeros, patch-plain, patch-no-mixup, patch-no-self-training, patch-patches, "
    "patch-tiles, paper-no-stage1, paper-random-prior, paper-no-dtm, paper-no-dia, paper-cbam, paper-gru, "
    "paper-attention, paper-learnt-token, paper-initial-state, paper-ms-only, paper-pan-only, "
    "paper-gate-fusion, paper-concat-fusion"
)
