"""Rasters behind an address, read by windows: again where the net fails, with a new token where one has ended.

GDAL reads them; it is told per read how long to wait. What it says of a failure may hold a token, so that none of its
words reach a log or an error. The only file of this room that opens rasters.
"""

from __future__ import annotations

import logging
import re
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, TypeVar

import numpy as np
import rasterio
from numpy.typing import NDArray
from rasterio.enums import Resampling
from rasterio.errors import RasterioError

from adcdnet.acquire.items import without_query
from adcdnet.errors import InputError
from adcdnet.geo.grid import Grid, Window
from adcdnet.geo.raster import grid_of, read_north_up

T = TypeVar("T")
PAUSES = (1.0, 3.0, 8.0, 20.0)  # seconds before each further try
_REFUSED, _GONE = (401, 403), (404, 410)
_OPTIONS = {
    "GDAL_DISABLE_READDIR_ON_OPEN": "EMPTY_DIR",  # no search for files beside
    "GDAL_PAM_ENABLED": "NO",
    "GDAL_INGESTED_BYTES_AT_OPEN": "32768",  # a header is read at once
    "GDAL_HTTP_MERGE_CONSECUTIVE_RANGES": "YES",
    "GDAL_HTTP_CONNECTTIMEOUT": "10",
    "GDAL_HTTP_TIMEOUT": "300",
    "GDAL_HTTP_LOW_SPEED_LIMIT": "1",  # bytes a second; fewer for so long count as a stall:
    "GDAL_HTTP_LOW_SPEED_TIME": "30",
    "CPL_VSIL_CURL_NON_CACHED": "/vsicurl/:/vsis3/:/vsigs/:/vsiaz/",  # what failed once must not be remembered
}
_PLACES = {"http": "/vsicurl/", "https": "/vsicurl/", "s3": "/vsis3/", "gs": "/vsigs/"}


class _Changed(Exception):
    """Another file is now where one was."""


class RemoteRaster:
    """A raster by its address, open. One thread at a time reads it; others wait.

    grid, count, dtype, nodata, descriptions: as in the file. address: without what may be secret.
    sign: makes the address that is read now; it is given the one that was refused, or "". options: GDAL's, beyond ours.
    account: what to say where a server refuses. Raises InputError, in one line without anything secret.
    """

    def __init__(
        self,
        address: str,
        sign: Callable[[str], str] | None = None,
        *,
        options: Mapping[str, str] | None = None,
        account: str = "",
    ) -> None:
        _path(address)  # one that can be read at all
        self.address = without_query(address)
        self._sign = sign or (lambda _: address)
        self._options, self._account = {**_OPTIONS, **(options or {})}, account
        self._dataset: Any = None
        self._opened = ""  # the address that it was opened by
        self._looks: tuple[Any, ...] = ()  # what a file that is opened again must have as before
        self._lock = threading.Lock()
        (self.grid, _), header = self._try(lambda dataset: (grid_of(dataset), dataset))
        self.count, self.dtype, self.nodata = int(header.count), str(header.dtypes[0]), header.nodata
        self.descriptions: tuple[str | None, ...] = header.descriptions

    def read(self, window: Window, *, shape: tuple[int, int] | None = None) -> NDArray[Any]:
        """(count, h, w) of a window inside the grid; made coarser to a shape, by picking pixels, if there is one."""
        how: dict[str, Any] = {}
        if shape is not None:
            how = {"out_shape": (self.count, *shape), "resampling": Resampling.nearest}
        return self._try(lambda dataset: read_north_up(dataset, list(range(1, self.count + 1)), window, **how))

    def close(self) -> None:
        if self._dataset is not None:
            self._dataset.close()
        self._dataset = None

    def _try(self, work: Callable[[Any], T]) -> T:
        """Work on the open file, as often as is worth it."""
        refused = ""
        with self._lock:
            for pause in (*PAUSES, None):
                address = self._sign(refused)
                try:
                    with rasterio.Env(**self._options), _listening() as heard:
                        self._open(address)
                        done = work(self._dataset)
                        _require_whole(heard)
                        self._require_same()
                        return done
                except _Changed:
                    raise InputError(
                        f"{self.address} was changed while it was read; run the same command again"
                    ) from None
                except InputError:  # of the geo room, which names the address as it was opened
                    raise InputError(
                        f"{self.address} does not say by a transform where it lies; leave it out"
                    ) from None
                except (OSError, RasterioError) as error:
                    self.close()
                    code = _code([*heard, *_chain(error)])
                    if code in _GONE or pause is None or (code in _REFUSED and refused):
                        raise InputError(f"{self.address} cannot be read: {self._why(code, error)}") from None
                    refused = address if code in _REFUSED or code is None else ""
                    if code not in _REFUSED:
                        time.sleep(pause)
        raise AssertionError("the last try returns or raises")

    def _open(self, address: str) -> None:
        if self._dataset is not None and address != self._opened:
            self.close()
        if self._dataset is None:
            self._dataset, self._opened = rasterio.open(_path(address)), address

    def _require_same(self) -> None:
        looks = tuple(getattr(self._dataset, name) for name in ("shape", "transform", "crs", "dtypes"))
        if self._looks not in ((), looks):
            raise _Changed
        self._looks = looks

    def _why(self, code: int | None, error: BaseException) -> str:
        if code in _REFUSED:
            return f"the server refuses ({code}); {self._account or 'it needs an account, or forbids this file'}"
        if code in _GONE:
            return f"there is no such file ({code}); the catalogue is wrong or the file has moved; take another date"
        if code is not None:
            how = "asks for fewer requests" if code == 429 else "fails"
            return f"the server {how} ({code}) after {len(PAUSES) + 1} tries; try again later"
        words = re.sub(r"[?]\S+", "", re.sub(r"'?/vsi\S+", "the file", _chain(error)[-1]))
        return f"{words[:160]} ({len(PAUSES) + 1} tries); it is damaged, or the net fails"


def _path(address: str) -> str:
    """What GDAL takes for an address. InputError for one that is none of the net."""
    scheme, found, rest = address.partition("://")
    if not found or scheme not in _PLACES:
        raise InputError(
            f"{without_query(address)!r} is no address that is read; one of {', '.join(_PLACES)} is needed"
        )
    return _PLACES[scheme] + (address if scheme.startswith("http") else rest)


def _chain(error: BaseException | None) -> list[str]:
    """What an error says, and what caused it, the innermost last."""
    said = []
    while error is not None:
        said.append(" ".join(str(error).split()))
        error = error.__cause__
    return said


def _code(said: list[str]) -> int | None:
    """The status of the answer that made a read fail, of what GDAL and rasterio said."""
    codes = [int(found[1]) for text in said if "respon" in text and (found := re.search(r"(\d{3})\s*$", text))]
    bad = [code for code in codes if code >= 400 and code != 416]  # 416: asked beyond the end of a file cut short
    return bad[-1] if bad else None


def _require_whole(heard: list[str]) -> None:
    """OSError where GDAL was content with a part: it takes a header that was cut off, without what is missing."""
    for text in heard:
        if re.search(r"IO error|[Rr]ead error|corrupt|failed with response", text):
            raise OSError(text)


class _Listener(logging.Filter):
    """Keeps what GDAL says in a thread that listens from the log: it may name an address with its token."""

    def __init__(self) -> None:
        super().__init__()
        self.of_thread = threading.local()

    def filter(self, record: logging.LogRecord) -> bool:
        heard: list[str] | None = getattr(self.of_thread, "heard", None)
        if heard is None:
            return True
        heard.append(record.getMessage())
        return False


_LISTENER = _Listener()


@contextmanager
def _listening() -> Iterator[list[str]]:
    """What GDAL says while the block runs, in this thread."""
    for name in ("rasterio._env", "rasterio._err", "rasterio._base", "rasterio._io", "rasterio"):
        logging.getLogger(name).addFilter(_LISTENER)  # once: the same one is not added again
    heard: list[str] = []
    _LISTENER.of_thread.heard = heard
    try:
        yield heard
    finally:
        _LISTENER.of_thread.heard = None


def window_of(grid: Grid, bounds: tuple[float, float, float, float]) -> Window:
    """The pixels of a north-up grid that touch bounds (left, bottom, right, top); it may reach beyond the grid."""
    left, bottom, right, top = bounds
    (col, row), (end_col, end_row) = ~grid.transform @ (left, top), ~grid.transform @ (right, bottom)
    first_row, first_col = (int(np.floor(round(v, 6))) for v in (row, col))
    stop_row, stop_col = (int(np.ceil(round(v, 6))) for v in (end_row, end_col))
    return Window(first_row, first_col, stop_row - first_row, stop_col - first_col)
