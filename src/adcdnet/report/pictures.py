"""Arrays and drawings as text that a page holds: data addresses of PNG and JPEG images, and SVG in the page's inks."""

from __future__ import annotations

import base64
import io
import re
import warnings
import zlib
from collections.abc import Callable, Sequence

import numpy as np
from matplotlib import colormaps, rc_context
from matplotlib.colors import to_hex, to_rgb
from matplotlib.figure import Figure
from numpy.typing import NDArray
from PIL import Image

from adcdnet.report.drawings import INK, style

_HEAT = 64  # shades
_COMPOSITE = ("red", "green", "blue")


def image(bands: NDArray[np.float32]) -> NDArray[np.float32]:
    """(1, h, w) -> grey (h, w); (3, h, w) -> RGB (h, w, 3)."""
    return bands[0] if len(bands) == 1 else bands.transpose(1, 2, 0)


def jpeg(image: NDArray[np.floating]) -> str:
    """(h, w) grey or (h, w, 3) RGB in 0..1, of a photograph's kind."""
    return _address(Image.fromarray(_bytes(image)), "jpeg", quality=88)


def png(image: NDArray[np.floating]) -> str:
    """(h, w) grey or (h, w, 3) RGB in 0..1, without loss."""
    return _address(Image.fromarray(_bytes(image)), "png", optimize=True)


def png_of_codes(codes: NDArray[np.uint8], colors: Sequence[str | None]) -> str:
    """(h, w) codes, each in its colour; None is transparent."""
    image = Image.fromarray(np.ascontiguousarray(codes))
    image.putpalette([round(255 * v) for color in colors for v in to_rgb(color or "#000000")])
    clear = bytes(0 if color is None else 255 for color in colors)
    return _address(image, "png", optimize=True, transparency=clear)


def heat(values: NDArray[np.floating], where: NDArray[np.bool_], name: str) -> str:
    """(h, w) in 0..1 in the shades of a colour map; transparent elsewhere than `where`."""
    shades = [to_hex(shade) for shade in colormaps[name](np.linspace(0, 1, _HEAT))]
    codes = np.where(where, 1 + np.rint(np.where(where, values, 0) * (_HEAT - 1)), 0).astype(np.uint8)
    return png_of_codes(codes, [None, *shades])


def unaddressed(source: str) -> tuple[str, bytes]:
    """Of a data address made here: the ending of a file's name, and what the file holds."""
    head, content = source.split(",", 1)
    return "jpg" if "jpeg" in head else "png", base64.b64decode(content)


def packed(values: NDArray[np.uint8]) -> str:
    """Raw bytes for the viewer: deflated, base64."""
    return base64.b64encode(zlib.compress(np.ascontiguousarray(values).tobytes(), 9)).decode()


def composite_bands(descriptions: Sequence[str | None]) -> list[int]:
    """Which bands to show as red, green and blue: those of that name; else the first three, taken as blue, green, red.

    One band, the first, where there are fewer than three.
    """
    names = [(text or "").lower() for text in descriptions]
    named = [[k for k, name in enumerate(names) if re.search(rf"\b{color}\b", name)] for color in _COMPOSITE]
    if all(named):
        return [numbers[0] for numbers in named]
    return [2, 1, 0] if len(names) >= 3 else [0]


def svg(draw: Callable[[Figure], None], width: float, height: float) -> str:
    """A drawing of width × height inches as SVG, whose inks follow the page."""
    content = io.StringIO()
    with rc_context(style()), warnings.catch_warnings():  # type: ignore[arg-type]
        warnings.filterwarnings("ignore", "Glyph .* missing")  # text stays text: the reader's fonts draw it
        figure = Figure(figsize=(width, height), layout="constrained")
        draw(figure)
        figure.savefig(content, format="svg", transparent=True, metadata={"Date": None})
    text = re.sub(r"<metadata>.*?</metadata>", "", content.getvalue(), flags=re.DOTALL)
    text = re.sub(r"font-family: [^;\"]*; ", "", text[text.index("<svg") :])  # the page's own font
    return re.sub(INK, "currentColor", text, flags=re.IGNORECASE)  # black where there is no page


def within_page(text: str, name: str) -> str:
    """SVG whose ids no other drawing of the page has."""
    text = re.sub(r'\bid="', f'id="{name}-', text)
    text = text.replace('"url(#', f'"url(#{name}-').replace('xlink:href="#', f'xlink:href="#{name}-')
    return text.replace("url(#", f"url(#{name}-").replace(f"url(#{name}-{name}-", f"url(#{name}-")


def _bytes(image: NDArray[np.floating]) -> NDArray[np.uint8]:
    return np.ascontiguousarray(np.rint(255 * np.clip(image, 0, 1)), np.uint8)


def _address(image: Image.Image, kind: str, **options: object) -> str:
    content = io.BytesIO()
    image.save(content, kind, **options)
    return f"data:image/{kind};base64,{base64.b64encode(content.getvalue()).decode()}"
