"""The modules of ADCD-Net, for any network: they need PyTorch alone and take numbers, not settings.

A name is imported when it is first asked for, so that `architecture` can be read without PyTorch. The folder works
when it is copied elsewhere.
"""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .dia import DIA, DeformableInteractiveAttention, scale_gradient
    from .dtm import DeepTemporalMamba, Explanation, MapDepth, MapToken, SequenceDepth, SequenceToken
    from .mamba import BiMamba, Mamba, MambaState
    from .scan import scan_form, scan_matrix, selective_scan
else:
    _FILE_OF = {
        "BiMamba": "mamba",
        "DIA": "dia",
        "DeepTemporalMamba": "dtm",
        "DeformableInteractiveAttention": "dia",
        "Explanation": "dtm",
        "Mamba": "mamba",
        "MambaState": "mamba",
        "MapDepth": "dtm",
        "MapToken": "dtm",
        "SequenceDepth": "dtm",
        "SequenceToken": "dtm",
        "scale_gradient": "dia",
        "scan_form": "scan",
        "scan_matrix": "scan",
        "selective_scan": "scan",
    }

    def __getattr__(name):
        from importlib import import_module

        if name not in _FILE_OF:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        value = globals()[name] = getattr(import_module(f".{_FILE_OF[name]}", __name__), name)
        return value

    def __dir__():
        return sorted({*globals(), *__all__})


__all__ = [
    "DIA",
    "BiMamba",
    "DeepTemporalMamba",
    "DeformableInteractiveAttention",
    "Explanation",
    "Mamba",
    "MambaState",
    "MapDepth",
    "MapToken",
    "SequenceDepth",
    "SequenceToken",
    "scale_gradient",
    "scan_form",
    "scan_matrix",
    "selective_scan",
]
