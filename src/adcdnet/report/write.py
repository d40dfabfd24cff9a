"""From a run and a map to report.html: find the files, look at each once, fill the template."""

from __future__ import annotations

import tempfile
from base64 import b64encode
from collections.abc import Mapping, Sequence
from datetime import date
from hashlib import sha256
from importlib import resources
from importlib.metadata import version
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from adcdnet.errors import InputError
from adcdnet.files import refuse_overwriting, write_whole
from adcdnet.geo import alignment
from adcdnet.geo.image import Files
from adcdnet.geo.masks import MaskRule
from adcdnet.mapping.engine import check_scene
from adcdnet.mapping.model import Run
from adcdnet.mapping.progress import Progress, silent
from adcdnet.report import chapters, examples, map_chapter, use_chapter
from adcdnet.report.findings import Findings, find_product, look
from adcdnet.report.pictures import unaddressed, within_page
from adcdnet.report.sources import read_run


def write_report(
    run: Run | Path | str,
    *,
    map_path: Path | str | None = None,
    probabilities: Path | str | None = None,
    ms: Files | None = None,
    pan: Files | None = None,
    mask: Path | str | None = None,
    mask_values: Sequence[int] | None = None,
    mask_bits: Sequence[int] | None = None,
    ms_bands: Sequence[str] | None = None,
    pan_bands: Sequence[str] | None = None,
    labels: Files | None = None,
    column: str | None = None,
    layer: str | None = None,
    min_share: float | None = None,
    scene: str | None = None,
    fix_shift: bool = False,
    sample: Path | str | None = None,
    out: Path | str | None = None,
    progress: Progress = silent,
) -> Path:
    """Write one self-contained HTML page of a run and a map, by default report.html in the run's folder; its path.

    map_path, probabilities: as `predict` wrote them; by default map.tif and probabilities.tif of the run's folder, and
    where there are none the scene is mapped for the page. ms, pan, mask and bands as of `Scene.open`, labels,
    column, layer and min_share as of `read_labels`: by default what the run was trained on, with the correction of PAN
    that it had. scene: which one of a run of several, by default the first; map and page are then by default called as
    it is, NAME.tif and report-NAME.html. fix_shift: measure the correction of PAN in images that the run was not
    trained with. sample: a probability sample of the map, for adjusted areas.
    The drawings also go, as SVG, and the pictures, as PNG or JPEG, into a folder of the page's name beside it.
    InputError where a file is lacking or does not fit the run, or the page cannot be written.
    """
    folder = run.folder if isinstance(run, Run) else Path(run)
    if out is not None and Path(out).suffix != ".html":
        raise InputError(f"{out} must end in .html; name the page to write")
    given = {"ms": _paths(ms), "pan": _paths(pan), "mask": _paths(mask), "labels": _paths(labels)}
    bands = {"ms": ms_bands, "pan": pan_bands}
    chosen = {image: wanted for image, wanted in bands.items() if wanted is not None}
    files = read_run(folder, given, scene, chosen, MaskRule.of(mask_values, mask_bits))
    page = folder / (f"report-{files.scene}.html" if files.scene else "report.html") if out is None else Path(out)
    with files.open() as opened, tempfile.TemporaryDirectory() as temp:
        check_scene(files.model, opened)
        if fix_shift and files.pan_shift == (0, 0):
            opened = alignment.fix_shift(opened)
        product = find_product(files, opened, _path(map_path), _path(probabilities), temp=Path(temp), progress=progress)
        given_reading = {"column": column, "layer": layer, "min_share": min_share}
        reading = {**files.reading, **{name: value for name, value in given_reading.items() if value is not None}}
        findings = look(files, opened, product, reading=reading, sample=_path(sample))
        drawings: dict[str, str] = {}
        content = _chapters(findings, drawings)
    beside = page.with_suffix("")
    pictures = {name: unaddressed(source) for name, source in _pictures(content).items()}
    written = [page, *(beside / f"{name}.svg" for name in drawings)]
    written += [beside / f"{name}.{ending}" for name, (ending, _) in pictures.items()]
    read = [product.map, product.probabilities, _path(sample), *(source.path for source in files.sources.values())]
    refuse_overwriting(written, read)
    try:
        beside.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"{beside} cannot be made a folder: {error.strerror}; choose another --out") from error
    for name, svg in drawings.items():
        write_whole(beside / f"{name}.svg", svg.encode())
    for name, (ending, held) in pictures.items():
        write_whole(beside / f"{name}.{ending}", held)
    write_whole(page, _render(content, drawings).encode())
    return page


def _chapters(findings: Findings, drawings: dict[str, str]) -> dict[str, Any]:
    return {
        "run": findings.files.folder.resolve().name,
        "scene": findings.files.scene or findings.scene.name,
        "summary": chapters.summary(findings),
        "warnings": chapters.warnings(findings),
        "map": map_chapter.write(findings),
        "split": chapters.split(findings),
        "sample": chapters.sample(findings),
        "accuracy": chapters.accuracy(findings, drawings),
        "trust": chapters.trust(findings, drawings),
        "training": chapters.training(findings, drawings),
        "use": use_chapter.write(findings, drawings),
        "examples": examples.write(findings),
        "repeat": chapters.repeat(findings),
    }


def _pictures(content: Mapping[str, Any]) -> dict[str, str]:
    """Data addresses of the images and maps of a page, by the names of their files; examples are left out."""
    shown = {layer["id"]: layer["src"] for layer in content["map"]["layers"]}
    if content["split"]:
        shown["split"] = content["split"]["src"]
    return shown | {
        mask["name"].lower().replace(",", "").replace(" ", "_"): mask["src"] for mask in content["use"]["masks"]
    }


def _render(content: Mapping[str, Any], drawings: Mapping[str, str]) -> str:
    own = resources.files("adcdnet.report")
    environment = Environment(
        loader=PackageLoader("adcdnet.report", "."),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    script = (own / "viewer.js").read_text("utf-8")
    return environment.get_template("template.html").render(
        **content,
        drawn={name: Markup(within_page(svg, name)) for name, svg in drawings.items()},
        style=Markup((own / "style.css").read_text("utf-8")),
        script=Markup(script),
        script_hash=b64encode(sha256(script.encode()).digest()).decode(),  # no other script may run in the page
        version=version("adcdnet"),
        today=date.today().isoformat(),
    )


def _path(given: Path | str | None) -> Path | None:
    return None if given is None else Path(given)


def _paths(given: Files | None) -> list[Path]:
    if given is None:
        return []
    return [Path(given)] if isinstance(given, Path | str) else [Path(file) for file in given]
