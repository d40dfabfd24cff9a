"""The sentences of a page. Plain text: the template escapes what is not safe in HTML."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from shlex import quote
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from pyproj import CRS
from pyproj.exceptions import CRSError

from adcdnet.assess.evaluate import Evaluation
from adcdnet.geo.classes import ClassTable
from adcdnet.geo.grid import Grid
from adcdnet.geo.label_rasters import PRODUCT
from adcdnet.geo.pixel_area import pixel_area
from adcdnet.geo.scene import Scene
from adcdnet.mapping.record import RunRecord
from adcdnet.metrics.intervals import FEWEST_BLOCKS
from adcdnet.split.parts import Leakage


class Confusion(NamedTuple):
    """Pixels of class `true` that the map gives to class `mapped`, and their share of all pixels of `true`."""

    true: str
    mapped: str
    pixels: int
    share: float


def most_confused(confusion: NDArray[np.integer], names: Sequence[str], count: int = 3) -> list[Confusion]:
    """The pairs of classes that account for most wrong pixels of a matrix (K, K + 1), most first."""
    classes = len(names)
    wrong = confusion[:, :classes] * ~np.eye(classes, dtype=bool)
    order = np.argsort(-wrong, axis=None, kind="stable")[:count]
    pairs = [divmod(int(cell), classes) for cell in order]
    return [
        Confusion(names[i], names[j], int(wrong[i, j]), float(wrong[i, j] / confusion[i].sum()))
        for i, j in pairs
        if wrong[i, j]
    ]


def number(value: float, decimals: int = 0) -> str:
    """A whole number, or one with decimals, with thin spaces between thousands."""
    return f"{value:,.{decimals}f}".replace(",", "\u202f")


def share(value: float, interval: tuple[float, float] | None = None) -> str:
    """0.876 [0.840, 0.902], or a dash for nan."""
    if math.isnan(value):
        return "–"
    inside = "" if interval is None or math.isnan(interval[0]) else f" [{interval[0]:.3f}, {interval[1]:.3f}]"
    return f"{value:.3f}{inside}"


def hectares(grid: Grid, *pixels: float) -> str | None:
    """The area of so many pixels, ± that of as many more; None where the grid does not say. Decimals for small maps."""
    size = pixel_area(grid).hectares
    if size is None:
        return None
    whole = size * grid.height * grid.width
    decimals = 2 if whole < 100 else 1 if whole < 1_000 else 0
    return " ± ".join(number(count * size, decimals) for count in pixels) + " ha"


def of_scene(scene: Scene, classes: ClassTable, mapped: int, *, map_grid: Grid, pixels: str) -> str:
    """What was mapped, from what; pixels: what those of the map are called."""
    grid = scene.grid
    area = hectares(map_grid, mapped)
    return (
        f"{len(classes)} classes on {number(mapped)} {pixels}{f' ({area})' if area else ''}, mapped from a "
        f"multispectral image ({_bands(scene.ms_bands)}, {grid.height} × {grid.width} pixels{_side(grid)}) and a "
        f"panchromatic image ({_bands(scene.pan_bands)}, {scene.ratio} × {scene.ratio} pixels on each of those)."
    )


def operating_point(tags: Mapping[str, str]) -> tuple[float, tuple[float, ...] | None]:
    """tau and expected shares of a map by its tags; 1 and None (as labelled) where these say nothing readable."""
    prior = tags.get("ADCDNET_PRIOR", "as labelled")
    try:
        tau = float(tags.get("ADCDNET_TAU", "1"))
        return tau, None if prior in ("", "as labelled") else tuple(float(share) for share in prior.split())
    except ValueError:
        return 1.0, None


def of_product(notes: Sequence[str]) -> str:
    """That the labels are somebody else's map, where a note says so; "" otherwise."""
    if not any(note.startswith(PRODUCT) for note in notes):
        return ""
    return " Its labels are a product, not the truth on the ground, so every score here says how well it is repeated."


def of_making(tags: Mapping[str, str], classes: ClassTable) -> str:
    """How the map was made, from its tags, where that is not the usual way; "" where it is or they do not say."""
    said = []
    tau, prior = operating_point(tags)
    if prior is not None and len(prior) == len(classes):
        shares = ", ".join(f"{name} {part:.1%}" for name, part in zip(classes.names, prior, strict=True))
        said.append("all classes expected equally often" if len(set(prior)) == 1 else f"classes expected as {shares}")
    if tau != 1:
        said.append(f"the operating point tau {tau}")
    if (fewest := tags.get("ADCDNET_SIEVED", "0")) != "0":
        said.append(f"patches of fewer than {fewest} pixels given to their largest neighbour")
    return f"The map was made with {'; '.join(said)}." if said else ""


def _bands(count: int) -> str:
    return "1 band" if count == 1 else f"{count} bands"


def _side(grid: Grid) -> str:
    """How wide a pixel is, e.g. " of 57 m"; nothing where no unit is known."""
    if grid.crs is None:
        return ""
    try:
        unit = CRS.from_user_input(grid.crs).axis_info[0].unit_name
    except (CRSError, IndexError):
        return ""
    return f" of {grid.transform.a:.4g} " + {"metre": "m", "degree": "degrees"}.get(unit, unit)


def of_accuracy(evaluation: Evaluation, pixels: str, *, folds: bool = False) -> list[str]:
    """How often the map is right, and which classes it confuses most; pixels: what those of the map are called.

    folds: what is judged are the answers to held-out ground.
    """
    s, ends = evaluation.scores, evaluation.intervals
    judged = "labelled pixels of the test part" if evaluation.part else "labelled pixels"
    if folds:
        judged += ", each judged by members that trained neither on it nor near it"
    named = (("overall accuracy", "oa"), ("mean accuracy of the classes", "aa"), ("kappa", "kappa"))
    figures = ", ".join(f"{name} {share(getattr(s, key), getattr(ends, key, None))}" for name, key in named)
    lines = [
        f"Of {number(sum(s.support))} {judged}, {s.oa:.1%} are mapped right: {figures}. "
        + of_intervals(evaluation, pixels)
    ]
    pairs = most_confused(evaluation.confusion, evaluation.classes.names)
    if pairs:
        said = "; ".join(f"{p.true} mapped as {p.mapped} ({number(p.pixels)} pixels, {p.share:.0%})" for p in pairs)
        lines.append(f"Most often confused: {said}. Shares are of the labelled pixels of the true class.")
    return lines


def of_sample(evaluation: Evaluation) -> str:
    """How often the whole map is right, as a probability sample says."""
    points, oa = number(sum(evaluation.scores.support)), evaluation.scores.oa
    figure = share(oa, evaluation.intervals.oa if evaluation.intervals else None)
    return (
        f"By a probability sample of {points} points, {oa:.1%} of the whole map is right: overall accuracy {figure}. "
        "Unlike labels that somebody chose, these points stand for all ground."
    )


def of_intervals(evaluation: Evaluation, pixels: str) -> str:
    """What stands in square brackets, or why nothing does."""
    if evaluation.intervals is None:
        return (
            f"The labels lie in fewer than {FEWEST_BLOCKS} blocks of ground, too few to say how far these figures may "
            "be off: there are no intervals."
        )
    if evaluation.of_sample:
        return f"Intervals of {evaluation.intervals.level:.0%} in square brackets follow from the sampling design."
    return (
        f"In square brackets, intervals of {evaluation.intervals.level:.0%} from drawing whole blocks of "
        f"{evaluation.block} × {evaluation.block} {pixels} again and again, since neighbouring pixels are right or "
        "wrong together."
    )


def of_command(arguments: Sequence[str]) -> str:
    """The command line, each option on a line of its own; nothing where it is not known."""
    if not arguments:
        return ""
    return "adcdnet " + " ".join(f"\\\n  {word}" if word.startswith("--") else word for word in map(quote, arguments))


def of_model(record: RunRecord, *, looked_at: bool) -> str:
    """Which weights the model is of; looked_at: whether a validation part was looked at on the way."""
    settings = record.settings
    if record.folds > 1:
        return (
            f"Each of {record.folds} folds trained its own members. Networks of all folds answer in the map; trees and "
            "perceptrons were trained once more on all labels. The curves below are of the first fold."
        )
    weights = "the moving average of the weights" if settings.get("average", 1) else "the weights"
    chose = "; the validation part chose nothing" if looked_at else "; there was no validation part"
    again = ""
    if guessed := record.self_trained:
        again = (
            f" Since labels are few, stage II ran a second time: {settings['self_training']:.0%} of its samples came "
            f"from {number(guessed)} pixels without a label, with classes that the first time gave them."
        )
    return f"The model is {weights} at the end of stage II{chose}.{again}"


def of_split(divided: Mapping[str, Any], guard: int) -> str:
    """How the split was made, from what `RunFiles.divided` says."""
    parts = divided["labelled_pixels"]
    uses = (("train", "training"), ("validation", "validation"), ("test", "the test"))
    counts = ", ".join(f"{number(parts[name])} for {use}" for name, use in uses if parts[name])
    if divided.get("part"):
        return f"All of this scene is in one part. Labelled pixels: {counts}."
    return (
        f"The ground was divided into blocks of about {divided['block']} × {divided['block']} MS pixels, each wholly "
        f"in one part, with a guard band of {guard} MS pixels between the parts. Labelled "
        f"pixels: {counts}; {number(parts['guard'])} in the guard band were used for nothing."
    )


def of_folds(record: RunRecord) -> str:
    """How labels were dealt to folds, and of what the map is made."""
    near = record.leakage.get("holding")
    leaked = (
        "" if near is None else f" {near:.1%} of the labelled pixels have a training pixel of their fold within it."
    )
    chosen = ""
    if record.local_priors is not None:
        chosen = " Held-out answers were likelier " + ("with" if record.local_priors else "without")
        chosen += " local class priors, so these count in the map." if record.local_priors else " local class priors."
    scenes, unit = record.scenes.values(), record.settings["split"]["unit"]
    units = {"blocks": "blocks of ground", "polygons": "whole polygons", "random": "single pixels"}
    in_folds = [[n for fold, n in scene["labelled_pixels"].items() if n and "fold" in fold] for scene in scenes]
    unit = "whole scenes" if in_folds and all(len(n) == 1 for n in in_folds) else units[unit]
    return (
        f"The labelled ground was dealt to {record.folds} folds of {unit}. Each fold was answered by members trained "
        f"on the others, with a guard band of {record.guard} MS pixels around it and their training ground hidden."
        f"{leaked}{chosen} The map is made by all folds together, so its accuracy is rather understated. The figures "
        "hold for ground like this, not for other places or dates."
    )


def of_members(record: RunRecord) -> list[tuple[str, ...]]:
    """Name, weight, OA, AA and kappa alone of each member; nothing of a single one."""
    if len(record.members) < 2:
        return []
    return [
        (name, f"{told['weight']:.2f}", *(share(told.get(key) or math.nan) for key in ("oa", "aa", "kappa")))
        for name, told in record.members.items()
    ]


def of_leakage(leakage: Leakage) -> str:
    """What the split says of test pixels that training has seen."""
    if math.isnan(leakage.holding):
        return "Leakage cannot be told: the test part holds no labelled pixel."
    near = (
        "no test pixel has a training pixel within the width of the guard band"
        if leakage.holding == 0
        else f"{leakage.holding:.1%} of the test pixels have a training pixel within the width of the guard band"
    )
    return (
        f"Leakage, counted pixel by pixel: {near}; {leakage.overlapping:.1%} have one within twice that width. "
        "The figures hold for ground like this scene's, not for other places or dates."
    )


def of_sight(training_ground: str, radius: int | None, guard: int) -> str:
    """How far the network looks, and whether training ground was in sight while it made the map."""
    far = ""
    if radius is not None:
        wider = "" if radius <= guard else ", more than the guard band is wide"
        far = f"95 % of what an answer depends on lies within {radius} MS pixels of it{wider}. "
    if training_ground == "hidden":
        return far + "Training ground was hidden from the network while it made this map."
    return far + (
        "The images of training ground, not its labels, were in sight of the network while it made this map. A map "
        "with the mask split.tif and mask value 1 hides them, and shows how much that matters."
    )
