"""Damaged and hostile files, made from code, through the commands that read them: each must end in one clear line.

    python scripts/attack_files.py [--each 100] [--seed 0] [--kind model raster shapes table settings]

Every file is read by a process of its own with 10 seconds and 1 GB. A file may also be read to its end, where the
damage lies in values or does no harm. Prints counts, and each failure with the bytes that made it kept in --keep.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import os
import resource
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NoReturn

import geopandas
import numpy as np
import rasterio
import torch
from affine import Affine
from rasterio.features import shapes
from shapely.geometry import shape

import adcdnet as ad
from adcdnet import cli
from adcdnet.demo.simulate import simulate

SECONDS, MOST = 10, 2**30  # of one file: time, and bytes of resident memory
UTM = "EPSG:32633"
PAIR = ("--ms", "ms.tif", "--pan", "pan.tif")
NUMBERS = (b"0", b"-1", b"1e308", b"NaN", b"null", b"99999999999999999999", b'""', b"[]", b"{}", b"true", b"1.5")
TOKENS = (b"\0", b"\xff\xfe", b"\x1b[2J", b'"', b"[" * 5000, b"<![CDATA[", b"/vsicurl/http://127.0.0.1:1/", b"../" * 9)


def prepare(folder: Path) -> None:
    """A scene, a run and a map of it, and labels, tables and settings in several formats."""
    made = simulate(96, 96, ratio=2, seed=3)
    transform = Affine(made.pixel_size, 0, 5e5, 0, -made.pixel_size, 5e6)

    def write(name: str, values: np.ndarray, step: int = 1, driver: str = "GTiff") -> None:
        place = {"crs": UTM, "transform": transform @ Affine.scale(1 / step)}
        size = dict(zip(("count", "height", "width"), values.shape, strict=True))
        with rasterio.open(folder / name, "w", driver=driver, dtype=values.dtype, **size, **place) as file:
            file.write(values)

    write("ms.tif", made.ms.astype(np.uint16))
    write("pan.tif", made.pan.reshape(1, *made.pan.shape[-2:]).astype(np.uint16), 2)
    labels = np.asarray(made.labels, np.int64)
    labels = (labels + 1 if labels.min() < 0 else labels).astype(np.uint8)
    write("labels.tif", labels[None])
    for name, driver in (("ms.img", "HFA"), ("ms.bin", "ENVI"), ("ms.png", "PNG"), ("ms.jp2", "JP2OpenJPEG")):
        with contextlib.suppress(rasterio.errors.RasterioError):
            write(name, made.ms[:3].astype(np.uint16), driver=driver)
    (folder / "ms.vrt").write_text(
        f'<VRTDataset rasterXSize="96" rasterYSize="96"><SRS>{UTM}</SRS><GeoTransform>{transform.c}, {transform.a}, 0, '
        f'{transform.f}, 0, {transform.e}</GeoTransform><VRTRasterBand dataType="UInt16" band="1"><SimpleSource>'
        '<SourceFilename relativeToVRT="1">ms.tif</SourceFilename><SourceBand>1</SourceBand></SimpleSource>'
        "</VRTRasterBand></VRTDataset>\n"
    )
    drawn = [(shape(g), int(v)) for g, v in shapes(labels, labels > 0, 4, transform)]
    frame = geopandas.GeoDataFrame({"class": [f"c{v}" for _, v in drawn]}, geometry=[g for g, _ in drawn], crs=UTM)
    for name in ("l.gpkg", "l.geojson", "l.fgb", "l.shp"):
        frame.to_file(folder / name)
    points = frame.geometry.representative_point()
    rows = [f"{p.x},{p.y},{name}" for p, name in zip(points, frame["class"], strict=True)]
    (folder / "points.csv").write_text("x,y,class\n" + "\n".join(rows) + "\n")
    values = sorted(set(labels[labels > 0].tolist()))
    (folder / "classes.csv").write_text("value,name,color\n" + "".join(f"{v},c{v},#{v:06x}\n" for v in values))
    (folder / "prior.csv").write_text("value,share\n" + "".join(f"{v},1\n" for v in values))
    (folder / "scenes.toml").write_text(
        'classes = "classes.csv"\n[[scene]]\nname = "a"\nms = ["ms.tif"]\npan = "pan.tif"\nlabels = "labels.tif"\n'
    )
    config = ad.TrainConfig.of_profile("patch").replace({"members": ["perceptron", "boosting"], "split": {"folds": 1}})
    with ad.Scene.open(folder / "ms.tif", folder / "pan.tif") as scene:
        run = ad.train(scene, ad.read_labels(folder / "labels.tif", scene.grid), out=folder / "run", config=config)
        ad.predict(run, scene, out=folder / "map.tif")


READ: dict[str, dict[str, tuple[str, ...]]] = {  # by kind: the file that is damaged, and a command that reads it
    "model": {"run/model.safetensors": ("predict", "run/model.safetensors", *PAIR, "--out", "out.tif")},
    "raster": {
        "ms.tif": ("check", *PAIR),
        "map.tif": ("sample", "--map", "map.tif", "--n", "20", "--out", "out.gpkg"),
        "ms.vrt": ("check", "--ms", "ms.vrt", "--pan", "pan.tif"),
        "ms.img": ("check", "--ms", "ms.img", "--pan", "pan.tif"),
        "ms.bin": ("check", "--ms", "ms.bin", "--pan", "pan.tif"),
        "ms.hdr": ("check", "--ms", "ms.bin", "--pan", "pan.tif"),
        "ms.png": ("check", "--ms", "ms.png", "--pan", "pan.tif"),
        "ms.jp2": ("check", "--ms", "ms.jp2", "--pan", "pan.tif"),
    },
    "shapes": {
        name: ("check", *PAIR, "--labels", name.replace("dbf", "shp"))
        for name in ("l.gpkg", "l.geojson", "l.fgb", "l.shp", "l.dbf", "points.csv")
    },
    "table": {
        "classes.csv": ("check", *PAIR, "--labels", "labels.tif", "--classes", "classes.csv"),
        "prior.csv": ("predict", "run", *PAIR, "--prior", "prior.csv", "--out", "out.tif"),
    },
    "settings": {
        "scenes.toml": ("predict", "run", "scenes.toml", "--out", "maps"),
        "run/config.toml": (
            *("train", *PAIR, "--labels", "missing.tif"),
            *("--config", "run/config.toml", "--out", "new"),
        ),
        "run/inputs.json": ("report", "run", "--map", "missing.tif"),
        "run/metrics.json": ("report", "run", "--map", "missing.tif"),
    },
}


def flip(content: bytes, rng: np.random.Generator) -> bytes:
    changed = bytearray(content)
    for place in rng.integers(0, min(len(content), int(rng.choice([64, 4096, 2**40]))), int(rng.integers(1, 9))):
        changed[place] = int(rng.integers(256))
    return bytes(changed)


def cut(content: bytes, rng: np.random.Generator) -> bytes:
    return content[: int(rng.integers(0, len(content)))]


def swap(content: bytes, rng: np.random.Generator) -> bytes:
    a, b, c = sorted(rng.integers(0, len(content) + 1, 3).tolist())
    return content[:a] + content[b:c] + content[a:b] + content[c:]


def insert(content: bytes, rng: np.random.Generator) -> bytes:
    place = int(rng.integers(0, len(content) + 1))
    return content[:place] + TOKENS[int(rng.integers(len(TOKENS)))] + content[place:]


def header(content: bytes, rng: np.random.Generator) -> bytes:
    """A number in a text, or four bytes of a binary head, made another; the length of a safetensors header is kept."""
    size = int.from_bytes(content[:8], "little")
    if content[8:9] == b"{" and size < len(content):
        kept = json.loads(content[8 : 8 + size])
        words = kept["__metadata__"]["adcdnet"].encode()
        kept["__metadata__"]["adcdnet"] = other_number(words, rng).decode("utf-8", "replace")
        text = json.dumps(kept).encode() if rng.random() < 0.7 else other_number(content[8 : 8 + size], rng)
        return len(text).to_bytes(8, "little") + text + content[8 + size :]
    if b"\0" not in content[:512]:
        return other_number(content, rng)
    place = int(rng.integers(0, min(len(content), 400)))
    return content[:place] + rng.choice([b"\xff" * 4, b"\0" * 4, b"\x7f\xff\xff\xff"]) + content[place + 4 :]


def other_number(text: bytes, rng: np.random.Generator) -> bytes:
    places = [k for k, byte in enumerate(text) if chr(byte).isdigit()] or [0]
    start = end = int(rng.choice(places))
    while end < len(text) and chr(text[end]) in "0123456789.e-+":
        end += 1
    return text[:start] + NUMBERS[int(rng.integers(len(NUMBERS)))] + text[end:]


DAMAGES: tuple[Callable[[bytes, np.random.Generator], bytes], ...] = (flip, cut, swap, insert, header)


def end_as(words: Sequence[str], said: Path) -> NoReturn:
    """Be the command, in this process, and end as it does; its words go to a file. For forked processes."""
    with said.open("wb") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    sys.argv = ["adcdnet", *words]
    sys.stdout, sys.stderr = io.TextIOWrapper(os.fdopen(1, "wb")), io.TextIOWrapper(os.fdopen(2, "wb"))
    code = 0
    try:
        cli.main()
    except SystemExit as ended:
        code = int(ended.code or 0)
    except BaseException as error:
        print(f"Traceback: {error!r}", file=sys.stderr)
        code = 99
    with contextlib.suppress(OSError):
        sys.stdout.flush()
        sys.stderr.flush()
    os._exit(code)


def call(words: tuple[str, ...], said: Path) -> tuple[str, float, int]:
    """What became of a command in a process of its own, its seconds and its most resident memory in bytes."""
    started = time.monotonic()
    child = os.fork()
    if child == 0:
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        end_as(words, said)
    while True:
        ended, status, used = os.wait4(child, os.WNOHANG)
        if ended:
            break
        if time.monotonic() - started > SECONDS:
            os.kill(child, signal.SIGKILL)
            os.wait4(child, 0)
            return "too slow", SECONDS, 0
        time.sleep(0.005)
    seconds, memory = time.monotonic() - started, used.ru_maxrss * 1024
    return verdict(status, said.read_text("utf-8", "replace"), memory), seconds, memory


def verdict(status: int, said: str, memory: int) -> str:
    last = (said.strip().splitlines() or [""])[-1]
    if os.WIFSIGNALED(status):
        return f"killed by signal {os.WTERMSIG(status)}"
    if "Traceback" in said:
        return "traceback"
    if memory > MOST:
        return "too much memory"
    if os.WEXITSTATUS(status) == 0:
        return "read"
    if last.startswith(("adcdnet: ", "verdict: cannot be used")) or "scenes could not be mapped" in last:
        return "one line"
    return "other words"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--each", type=int, default=100, help="damaged files of each kind")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--kind", nargs="+", choices=list(READ), default=list(READ))
    parser.add_argument(
        "--keep", type=Path, default=Path("attack").absolute(), help="folder of what was not refused well"
    )
    args = parser.parse_args()
    torch.set_num_threads(1)  # threads of the parent would not live in its children
    bad = 0
    with tempfile.TemporaryDirectory() as temp:
        whole, desk, said = Path(temp, "whole"), Path(temp, "desk"), Path(temp, "said")
        whole.mkdir()
        prepare(whole)
        print(f"{'kind':9} {'files':>5} {'one line':>9} {'read':>5} {'failed':>6} {'slowest':>8} {'memory':>8}")
        for kind in args.kind:
            rng = np.random.default_rng([args.seed, list(READ).index(kind)])
            counts, slowest, largest = Counter[str](), 0.0, 0
            files = [name for name in READ[kind] if (whole / name).exists()]
            for number in range(args.each):
                name, damage = files[number % len(files)], DAMAGES[int(rng.integers(len(DAMAGES)))]
                shutil.rmtree(desk, ignore_errors=True)
                shutil.copytree(whole, desk)
                (desk / name).write_bytes(damage((whole / name).read_bytes(), rng))
                os.chdir(desk)
                ended, seconds, memory = call(READ[kind][name], said)
                os.chdir(temp)
                counts[ended] += 1
                slowest, largest = max(slowest, seconds), max(largest, memory)
                if ended not in ("one line", "read"):
                    bad += 1
                    args.keep.mkdir(exist_ok=True)
                    shutil.copy(desk / name, args.keep / f"{kind}-{number}-{Path(name).name}")
                    words = said.read_text("utf-8", "replace")[-300:]
                    print(f"  {kind} {number} {damage.__name__} {name}: {ended}: {words!r}")
            failed = sum(counts.values()) - counts["one line"] - counts["read"]
            figures = f"{counts['one line']:9} {counts['read']:5} {failed:6} {slowest:7.1f}s {largest / 2**20:5.0f} MB"
            print(f"{kind:9} {args.each:5} {figures}", flush=True)
    return int(bad > 0)


if __name__ == "__main__":
    sys.exit(main())
