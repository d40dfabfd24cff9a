"""The days that could give a pair, as one HTML page with a small picture of each."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from html import escape

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from adcdnet.acquire.catalogue import Sensor
from adcdnet.acquire.choose import Candidate, Step, read_coarsely
from adcdnet.acquire.items import Item
from adcdnet.acquire.pair import open_asset
from adcdnet.acquire.search import Catalogue
from adcdnet.errors import InputError

_CUT = 2, 98  # percent of the values that are shown dark and bright at most


def page(catalogue: Catalogue, sensor: Sensor, found: Sequence[Candidate], *, threads: int, step: Step) -> bytes:
    """HTML, whole in itself. A day whose picture cannot be read says why."""
    parts = []
    for number, one in enumerate(found):
        step("looks", number, len(found))
        try:
            picture = f'<img alt="" src="data:image/png;base64,{_picture(catalogue, sensor, one, threads)}">'
        except InputError as error:
            picture = f"<p>no picture: {escape(str(error))}</p>"
        cloud = "not known" if one.cloud is None else f"{one.cloud:.0%}"
        names = ", ".join(escape(item.id) for item in one.items)
        text = f"{one.covered:.0%} covered, of it {cloud} under cloud; {one.clear:.0%} of the area clear"
        parts.append(
            f"<figure>{picture}<figcaption><b>{escape(one.day)}</b><br>{text}<br><small>{names}</small></figcaption></figure>"
        )
    step("looks", len(found), len(found))
    style = "body{font-family:sans-serif}figure{display:inline-block;width:270px;vertical-align:top}img{width:256px}"
    title = f"{escape(sensor.name)}: days that cover the area"
    head = f'<!doctype html><html lang="en"><meta charset="utf-8"><title>{title}</title><style>{style}</style>'
    return f"{head}<h1>{title}</h1>{''.join(parts)}</html>\n".encode()


def _picture(catalogue: Catalogue, sensor: Sensor, one: Candidate, threads: int) -> str:
    """PNG in base64: the first three files of PAN as blue, green and red, or the first one in grey."""
    assets = sensor.pan[2::-1] if len(sensor.pan) >= 3 else sensor.pan[:1]
    layers: list[NDArray[np.float32]] = []
    with ThreadPoolExecutor(threads) as pool:
        jobs = [[pool.submit(_layer, catalogue, item, asset, one) for item in one.items] for asset in assets]
        for of_asset in jobs:
            shown = np.zeros(one.grid.shape, np.float32)
            for job in of_asset:
                layer = job.result()
                shown = np.where(shown == 0, layer, shown)
            layers.append(shown)
    rgb = np.stack(layers if len(layers) == 3 else layers * 3, axis=-1)
    seen = rgb[rgb > 0]
    low, high = np.percentile(seen, _CUT) if seen.size else (0, 1)
    scaled = np.clip((rgb - low) / max(float(high - low), 1e-6), 0, 1) * 255
    content = io.BytesIO()
    Image.fromarray(scaled.astype(np.uint8)).save(content, "PNG")
    return base64.b64encode(content.getvalue()).decode()


def _layer(catalogue: Catalogue, item: Item, asset: str, one: Candidate) -> NDArray[np.float32]:
    layer = np.zeros(one.grid.shape, np.float32)
    raster = open_asset(catalogue, item, asset)
    try:
        read = read_coarsely(raster, one.grid)
    finally:
        raster.close()
    if read is not None:
        layer[read[1].slices] = read[0][0]
    return layer
