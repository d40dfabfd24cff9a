"""The modules of ADCD-Net, for any network: they need PyTorch alone and take numbers, not settings."""

from adcdnet.nn.dia import DeformableInteractiveAttention, scale_gradient
from adcdnet.nn.dtm import DeepTemporalMamba, MapDepth, MapToken, SequenceDepth, SequenceToken
from adcdnet.nn.mamba import Mamba
from adcdnet.nn.scan import selective_scan

__all__ = [
    "DeepTemporalMamba",
    "DeformableInteractiveAttention",
    "Mamba",
    "MapDepth",
    "MapToken",
    "SequenceDepth",
    "SequenceToken",
    "scale_gradient",
    "selective_scan",
]
