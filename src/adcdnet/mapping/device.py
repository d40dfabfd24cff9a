"""Where networks run: the processor or a GPU."""

from __future__ import annotations

import torch

from adcdnet.errors import InputError


def pick_device(name: str) -> torch.device:
    """'auto' is the GPU if PyTorch sees one. InputError for a device that is not there."""
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        raise InputError(
            f"device {name!r} cannot be used here: {str(error).splitlines()[0]}; try --device cpu"
        ) from error
    return device
