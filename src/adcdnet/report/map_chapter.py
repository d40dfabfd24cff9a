"""The map chapter: the images, the map and how sure it is, as still pictures and as data of the viewer."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from adcdnet.assess.areas import Estimate
from adcdnet.geo.display import stretch
from adcdnet.geo.grid import Grid
from adcdnet.report import pictures, words
from adcdnet.report.findings import Findings

_MS_SIDE, _PAN_SIDE = 1024, 1600  # pixels of the images that a page carries
_LOSSLESS = 200_000  # pixels up to which an image is small enough to be a PNG


def write(findings: Findings) -> dict[str, Any]:
    """The template's `map`."""
    return {
        "legend": _legend(findings),
        "layers": _layers(findings),
        "viewer": _viewer(findings),
        "step": findings.survey.step,
        "shape": f"{findings.grid.width / findings.grid.height:.4g}",
    }


def _legend(findings: Findings) -> list[dict[str, Any]]:
    """One row a class, its area as mapped, and adjusted by a sample where there is one."""
    classes, counts, grid = findings.classes, findings.survey.counts, findings.grid
    total = max(1, int(counts.sum()))
    areas = findings.sample.areas if findings.sample else findings.evaluation.areas if findings.evaluation else None
    adjusted = areas.adjusted if areas else None
    return [
        {
            "name": name,
            "color": color,
            "value": value,
            "mapped": words.hectares(grid, count) or f"{words.number(count)} pixels",
            "share": f"{count / total:.1%}",
            "adjusted": None if adjusted is None else _adjusted(adjusted[k], grid),
        }
        for k, (name, color, value, count) in enumerate(
            zip(classes.names, classes.colors, classes.values, counts, strict=True)
        )
    ]


def _adjusted(pixels: Estimate, grid: Grid) -> str:
    """Area ± standard error."""
    return words.hectares(grid, *pixels) or f"{words.number(pixels[0])} ± {words.number(pixels[1])} pixels"


def _layers(findings: Findings) -> list[dict[str, str]]:
    scene, seen = findings.scene, findings.survey
    view = scene.overview(_PAN_SIDE)
    coarse = view if max(view.ms.shape) <= _MS_SIDE else scene.overview(_MS_SIDE)
    bands = pictures.composite_bands(scene.ms_descriptions)
    ms = stretch(coarse.ms[bands], coarse.ms_valid)
    fine = pictures.composite_bands(scene.pan_descriptions)
    pan = stretch(view.pan[fine], view.pan_valid)
    colors = findings.classes.colors
    layers = [
        _layer("ms", "MS", _photo(ms), f"Multispectral image{_shown(bands, scene.ms_descriptions)}"),
        _layer(
            "pan",
            "PAN",
            _photo(pan),
            f"Panchromatic image, at its own resolution{_shown(fine, scene.pan_descriptions)}",
        ),
        _layer("map", "map", pictures.png_of_codes(seen.index, [None, *colors]), "Map, in the colours of its legend"),
    ]
    if seen.probabilities is not None:
        sure, doubt = certainty(seen.probabilities)
        mapped = seen.index > 0
        layers += [
            _layer(
                "probability",
                "probability of the winner",
                pictures.heat(np.clip((sure - 1 / len(colors)) / (1 - 1 / len(colors)), 0, 1), mapped, "viridis"),
                f"Probability of the mapped class, from 1/{len(colors)} (dark) to 1 (yellow)",
            ),
            _layer(
                "entropy",
                "entropy",
                pictures.heat(doubt, mapped, "magma"),
                "Entropy of the class probabilities, from 0 (dark, sure) to that of a guess (light, all classes alike)",
            ),
        ]
    if seen.trust is not None:
        unlike, error = np.nan_to_num(seen.trust)
        outside = f"{findings.product.outside or 0:.1%} of the map lies outside the area of applicability"
        layers += [
            _layer(
                "dissimilarity",
                "unlike all labels",
                pictures.heat(np.clip(unlike / 2, 0, 1), np.isfinite(seen.trust[0]), "magma"),
                f"How unlike all labels a pixel is, from 0 (dark) over the threshold to twice it (light); {outside}",
            ),
            _layer(
                "error",
                "expected error",
                pictures.heat(error, np.isfinite(seen.trust[1]), "magma"),
                "Probability that the mapped class is wrong, from 0 (dark) to 1 (light), fitted to held-out answers",
            ),
        ]
    return layers


def _shown(bands: Sequence[int], names: Sequence[str | None]) -> str:
    """What stands for red, green and blue; nothing of an image in grey."""
    if len(bands) < 3:
        return ""
    return "; shown as red, green and blue: " + ", ".join(names[k] or f"band {k + 1}" for k in bands)


def certainty(probabilities: NDArray[np.uint8]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """(K, h, w) in 255ths -> the largest (h, w), and the entropy in units of log K, both in 0..1."""
    p = probabilities.astype(np.float32)
    p /= np.maximum(p.sum(0), 1)
    entropy = -(p * np.log(np.where(p > 0, p, 1))).sum(0) / math.log(len(p))
    return p.max(0), np.asarray(entropy, np.float32)


def _photo(bands: NDArray[np.float32]) -> str:
    """(1 or 3, h, w) in 0..1."""
    image = pictures.image(bands)
    return pictures.png(image) if image.shape[0] * image.shape[1] <= _LOSSLESS else pictures.jpeg(image)


def _layer(name: str, label: str, source: str, text: str) -> dict[str, str]:
    return {"id": name, "label": label, "src": source, "alt": text}


def _viewer(findings: Findings) -> dict[str, Any]:
    """What the script needs to draw the map and to say what lies under the pointer."""
    seen, grid, classes = findings.survey, findings.grid, findings.classes
    t = grid.transform
    return {
        "height": grid.height,
        "width": grid.width,
        "step": seen.step,
        "rows": seen.index.shape[0],
        "cols": seen.index.shape[1],
        "names": classes.names,
        "colors": classes.colors,
        "index": pictures.packed(seen.index),
        "probabilities": None if seen.probabilities is None else pictures.packed(seen.probabilities),
        "place": [t.c, t.f, t.a, t.e] if findings.scene.placed else None,
    }
