"""A STAC API and a server of files on this machine, with the faults that real ones have, and small scenes on them."""

import json
import re
import socketserver
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from affine import Affine
from numpy.typing import NDArray
from rasterio.io import MemoryFile
from shapely.geometry import shape

from adcdnet.acquire import remote, search

CONFORMS = [
    "https://api.stacspec.org/v1.0.0/core",
    "https://api.stacspec.org/v1.0.0/collections",
    "https://api.stacspec.org/v1.0.0/item-search",
]


@dataclass
class Fault:
    """Answers to requests whose address holds `where`: a status, "stall", "cut" (half of the body), so many times."""

    where: str
    kind: int | str
    times: float = float("inf")
    method: str = ""
    wait: float = 3.0


@dataclass
class Site:
    """What is served. requests: all that came. tokens: those that are taken, None where none is needed.

    delay: seconds before each piece of a file. most: so many files were read at once. retry_after: said with a status.
    """

    port: int = 0
    files: dict[str, bytes] = field(default_factory=dict)
    collections: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    faults: list[Fault] = field(default_factory=list)
    requests: list[str] = field(default_factory=list)
    headers: list[dict[str, str]] = field(default_factory=list)  # of each request
    tokens: set[str] | None = None
    token_life: float = 3600.0
    page: int = 3  # items in one answer, however many are asked for
    delay: float = 0.0
    busy: Counter[str] = field(default_factory=Counter)  # how many pieces of each file are on their way
    most: int = 0
    retry_after: str = ""
    lock: threading.Lock = field(default_factory=threading.Lock)

    @property
    def root(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def api(self) -> str:
        return f"{self.root}/stac"

    def put(self, name: str, array: NDArray[Any], transform: Affine, crs: str, **profile: Any) -> str:
        """An array (h, w) as a tiled GeoTIFF; its address."""
        count, height, width = (1, *array.shape) if array.ndim == 2 else array.shape
        options = {"tiled": True, "blockxsize": 64, "blockysize": 64, "compress": "deflate", **profile}
        with MemoryFile() as memory:
            with memory.open(
                driver="GTiff",
                height=height,
                width=width,
                count=count,
                dtype=array.dtype,
                crs=crs,
                transform=transform,
                **options,
            ) as dataset:
                dataset.write(array.reshape(count, height, width))
            self.files[f"/files/{name}"] = memory.read()
        return f"{self.root}/files/{name}"

    def add(self, item: dict[str, Any]) -> dict[str, Any]:
        self.collections.setdefault(item["collection"], []).append(item)
        return item

    def fail(self, where: str, kind: int | str, **how: Any) -> None:
        self.faults.append(Fault(where, kind, **how))

    def asked(self, text: str) -> int:
        return sum(text in line for line in self.requests)

    def new_token(self) -> dict[str, str]:
        token = f"SECRET{len(self.requests)}"
        if self.tokens is not None:
            self.tokens.add(token)
        end = datetime.now(UTC) + timedelta(seconds=self.token_life)
        return {"token": f"sig={token}", "msft:expiry": end.strftime("%Y-%m-%dT%H:%M:%SZ")}


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    site: Site

    def log_message(self, *_: object) -> None:
        pass

    def do_HEAD(self) -> None:
        self._answer()

    def do_GET(self) -> None:
        self._answer()

    def do_POST(self) -> None:
        self._answer()

    def _answer(self) -> None:
        length = int(self.headers.get("Content-Length") or 0)
        body = self.rfile.read(length)
        self.site.headers.append(dict(self.headers.items()))
        self.site.requests.append(f"{self.command} {self.path} {self.headers.get('Range', '')}")
        fault = next(
            (f for f in self.site.faults if f.times > 0 and f.where in self.path and f.method in ("", self.command)),
            None,
        )
        if fault is not None:
            fault.times -= 1
            if isinstance(fault.kind, int):
                said = {"Retry-After": self.site.retry_after} if self.site.retry_after else {}
                return self._send(fault.kind, b'{"code": "x", "description": "broken"}', said)
            if fault.kind == "stall":
                time.sleep(fault.wait)
        parts = urlsplit(self.path)
        if parts.path.startswith("/files/"):
            with self._counted(parts.path):  # and not until the answer is sent: who has it may ask for the next already
                time.sleep(self.site.delay)
            return self._file(parts.path, parts.query, cut=fault is not None and fault.kind == "cut")
        if parts.path.startswith("/token/"):
            return self._json(self.site.new_token())
        query = json.loads(body) if body else {k: v[0] for k, v in parse_qs(parts.query).items()}
        return self._stac(parts.path, query, cut=fault is not None and fault.kind == "cut")

    @contextmanager
    def _counted(self, path: str) -> Iterator[None]:
        site = self.site
        with site.lock:
            site.busy[path] += 1
            site.most = max(site.most, sum(count > 0 for count in site.busy.values()))
        try:
            yield
        finally:
            with site.lock:
                site.busy[path] -= 1

    def _stac(self, path: str, query: dict[str, Any], *, cut: bool) -> None:
        site, api = self.site, self.site.api
        if path in ("/stac", "/stac/"):
            links = [
                {"rel": "self", "href": api, "type": "application/json"},
                {"rel": "root", "href": api, "type": "application/json"},
                {"rel": "data", "href": f"{api}/collections", "type": "application/json"},
                {"rel": "search", "href": f"{api}/search", "type": "application/geo+json", "method": "GET"},
                {"rel": "search", "href": f"{api}/search", "type": "application/geo+json", "method": "POST"},
            ]
            return self._json(
                {"type": "Catalog", "id": "site", "description": "-", "stac_version": "1.0.0"}
                | {"conformsTo": CONFORMS, "links": links}
            )
        if found := re.fullmatch(r"/stac/collections/([^/]+)", path):
            if found[1] not in site.collections:
                return self._send(404, b'{"code": "NotFoundError", "description": "no such collection"}')
            extent = {"spatial": {"bbox": [[-180, -90, 180, 90]]}, "temporal": {"interval": [[None, None]]}}
            return self._json(
                {"type": "Collection", "id": found[1], "description": "-", "license": "other", "stac_version": "1.0.0"}
                | {"extent": extent, "links": [{"rel": "self", "href": f"{api}/collections/{found[1]}"}]}
            )
        if path == "/stac/search":
            return self._json(self._search(query), cut=cut)
        return self._send(404, b"{}")

    def _search(self, query: dict[str, Any]) -> dict[str, Any]:
        items = [item for name in query["collections"] for item in self.site.collections.get(name, [])]
        if query.get("ids"):
            items = [item for item in items if item["id"] in query["ids"]]
        if query.get("intersects"):
            wanted = shape(query["intersects"])
            items = [item for item in items if "geometry" not in item or shape(item["geometry"]).intersects(wanted)]
        if query.get("datetime"):
            first, last = query["datetime"].split("/")
            items = [item for item in items if first <= _when(item) <= last]
        start = int(query.get("token", 0))
        page = items[start : start + self.site.page]
        links = []
        if start + len(page) < len(items):
            body = {**query, "token": str(start + len(page))}
            links = [{"rel": "next", "href": f"{self.site.api}/search", "method": "POST", "body": body}]
        return {"type": "FeatureCollection", "features": page, "links": links}

    def _file(self, path: str, query: str, *, cut: bool) -> None:
        site = self.site
        if site.tokens is not None and query.removeprefix("sig=") not in site.tokens:
            return self._send(403, b"")
        if path not in site.files:
            return self._send(404, b"")
        body, status, headers = site.files[path], 200, {"Accept-Ranges": "bytes"}
        if wanted := re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", "")):
            total, first = len(body), int(wanted[1])
            last = min(int(wanted[2] or total - 1), total - 1)
            if first >= total:
                return self._send(416, b"")
            body, status = body[first : last + 1], 206
            headers["Content-Range"] = f"bytes {first}-{last}/{total}"
        return self._send(status, body, headers, cut=cut)

    def _json(self, content: dict[str, Any], *, cut: bool = False) -> None:
        self._send(200, json.dumps(content).encode(), {"Content-Type": "application/geo+json"}, cut=cut)

    def _send(self, status: int, body: bytes, headers: dict[str, str] | None = None, *, cut: bool = False) -> None:
        try:
            self.send_response(status)
            for name, value in (headers or {}).items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(body[: len(body) // 2] if cut else body)
            if cut:
                self.close_connection = True
        except OSError:  # whoever asked has gone
            self.close_connection = True


def _when(item: dict[str, Any]) -> str:
    return str(item["properties"].get("datetime") or item["properties"].get("start_datetime"))


class _Server(socketserver.ThreadingMixIn, socketserver.TCPServer):
    daemon_threads = True
    request_queue_size = 64

    def handle_error(self, *_: object) -> None:  # a client that has gone
        pass


def serving(monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    """An empty one, for a fixture; pauses between tries are short."""
    monkeypatch.setattr(remote, "PAUSES", (0.01, 0.01))
    monkeypatch.setattr(search, "_BACK_OFF", 0.01)
    monkeypatch.setitem(remote._OPTIONS, "GDAL_HTTP_LOW_SPEED_TIME", "1")
    for name in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    made = Site()
    server = _Server(("127.0.0.1", 0), type("Handler", (_Handler,), {"site": made}))
    made.port = server.server_address[1]
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    yield made
    server.shutdown()
    server.server_close()
