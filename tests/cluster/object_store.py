"""An object store on this machine that speaks enough of S3 for GDAL and s3fs: any rights, one list without pages."""

import hashlib
import re
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, unquote, urlsplit
from xml.sax.saxutils import escape


class ObjectStore(ThreadingHTTPServer):
    """objects: content by /bucket/key. closed: buckets that nobody may write to."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Answers)
        self.objects: dict[str, bytes] = {}
        self.closed: set[str] = set()

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"


class _Answers(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: ObjectStore

    def do_GET(self) -> None:
        asked, content = parse_qs(urlsplit(self.path).query), self.server.objects.get(self._key)
        if "list-type" in asked:
            return self._list(asked)
        if self._key.count("/") == 1:
            return self._answer(200, b"")  # any bucket is there
        if content is None:
            return self._answer(404, b"<Error><Code>NoSuchKey</Code></Error>")
        headers = {"ETag": f'"{hashlib.md5(content).hexdigest()}"', "Accept-Ranges": "bytes"}
        headers["Last-Modified"] = "Sat, 28 Nov 2026 10:00:00 GMT"
        part = re.match(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
        if part is None:
            return self._answer(200, content, headers)
        first, last = int(part[1]), min(int(part[2] or len(content)), len(content) - 1)
        headers["Content-Range"] = f"bytes {first}-{last}/{len(content)}"
        return self._answer(206, content[first : last + 1], headers)

    do_HEAD = do_GET

    def do_PUT(self) -> None:
        content = self.rfile.read(int(self.headers["Content-Length"]))
        if self._key.split("/")[1] in self.server.closed:
            return self._answer(403, b"<Error><Code>AccessDenied</Code><Message>Access Denied</Message></Error>")
        if self.headers.get("If-None-Match") == "*" and self._key in self.server.objects:
            return self._answer(412, b"<Error><Code>PreconditionFailed</Code></Error>")
        self.server.objects[self._key] = content
        return self._answer(200, b"", {"ETag": f'"{hashlib.md5(content).hexdigest()}"'})

    def do_POST(self) -> None:
        """Remove several: the only thing that is asked for so."""
        named = re.findall(r"<Key>(.+?)</Key>", self.rfile.read(int(self.headers["Content-Length"])).decode())
        for key in named:
            self.server.objects.pop(f"{self._key.rstrip('/')}/{key}", None)
        return self._answer(200, f"<DeleteResult>{''.join(_key_of(key) for key in named)}</DeleteResult>".encode())

    @property
    def _key(self) -> str:
        return unquote(urlsplit(self.path).path)

    def _list(self, asked: dict[str, list[str]]) -> None:
        bucket, prefix, delimiter = self._key.strip("/"), asked.get("prefix", [""])[0], asked.get("delimiter", [""])[0]
        keys = (
            path.removeprefix(f"/{bucket}/") for path in sorted(self.server.objects) if path.startswith(f"/{bucket}/")
        )
        files, folders = "", {}
        for key in keys:
            below = key.removeprefix(prefix)
            if not key.startswith(prefix):
                continue
            if delimiter and delimiter in below:
                folders[prefix + below.split(delimiter)[0] + delimiter] = None
                continue
            size = len(self.server.objects[f"/{bucket}/{key}"])
            files += f"<Contents>{_key_of(key, tag='')}<Size>{size}</Size></Contents>"
        shared = "".join(f"<CommonPrefixes><Prefix>{escape(folder)}</Prefix></CommonPrefixes>" for folder in folders)
        self._answer(200, f"<ListBucketResult><Name>{bucket}</Name>{files}{shared}</ListBucketResult>".encode())

    def _answer(self, code: int, content: bytes, headers: dict[str, str] | None = None) -> None:
        self.send_response(code)
        for name, value in {"Content-Length": str(len(content)), **(headers or {})}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    def log_message(self, *_: object) -> None:
        pass


def _key_of(key: str, tag: str = "Deleted") -> str:
    inner = f"<Key>{escape(key)}</Key>"
    return f"<{tag}>{inner}</{tag}>" if tag else inner
