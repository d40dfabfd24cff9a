"""The modules of ADCD-Net, for any network: they need PyTorch alone and take numbers, not settings."""

from adcdnet.nn.cbam import SpatialAttention
from adcdnet.nn.dia import DeformableInteractiveAttention, scale_gradient
from adcdnet.nn.dtm import DeepTemporalMamba, Explanation, MapDepth, MapToken, SequenceDepth, SequenceToken
from adcdnet.nn.mamba import Mamba, MambaState
from adcdnet.nn.scan import scan_matrix, selective_scan

__all__ = [
    "DeepTemporalMamba",
    "DeformableInteractiveAttention",
    "Explanation",
    "Mamba",
    "MambaState",
    "MapDepth",
    "MapToken",
    "SequenceDepth",
    "SequenceToken",
    "SpatialAttention",
    "scale_gradient",
    "scan_matrix",
    "selective_scan",
]
