"""Which images finished tiles belong to: all that GDAL reads of them, wherever it lies."""

import os
import shutil
import zipfile
from contextlib import nullcontext
from email.message import Message
from pathlib import Path

import numpy as np
import pytest
import rasterio

from adcdnet.errors import InputError
from adcdnet.geo.grid import Window
from adcdnet.geo.origins import files_behind
from adcdnet.geo.scene import Scene
from adcdnet.mapping.journal import Journal, _pin_of_address, fingerprint
from adcdnet.mapping.memory import Sizes
from adcdnet.mapping.predict import predict
from adcdnet.nn.architecture import Layout
from conftest import PIXEL, build_model, write_vrt_file


@pytest.fixture
def pair(write_tif):
    """One band each, uncompressed, so that other values leave the size as it is."""
    rng = np.random.default_rng(3)
    ms, pan = (rng.integers(1, 255, shape).astype(np.uint8) for shape in ((29, 37), (58, 74)))
    return write_tif("ms.tif", ms), write_tif("pan.tif", pan, pixel=PIXEL / 2)


def of(model, *files, **options):
    with Scene.open(*files, **options) as scene:
        return fingerprint(model, scene, ())


def change(path, where=-9):
    """Another value somewhere, by a program that keeps size and time."""
    before = path.stat()
    content = bytearray(path.read_bytes())
    content[where] ^= 1
    path.write_bytes(content)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


def test_an_image_of_other_values_at_the_same_time_is_another(pair, tiny_model):
    before = of(tiny_model, *pair)
    change(pair[0])
    assert of(tiny_model, *pair) != before


def test_the_time_of_a_file_does_not_count(pair, tiny_model):
    before = of(tiny_model, *pair)
    os.utime(pair[1], ns=(0, 0))
    assert of(tiny_model, *pair) == before


@pytest.mark.parametrize("depth", [1, 2])
def test_the_source_of_a_vrt_counts_and_that_of_a_vrt_in_it(pair, tiny_model, depth):
    vrt = write_vrt_file(pair[0])
    if depth == 2:
        inner = vrt.rename(vrt.with_name("inner.vrt"))
        vrt.write_text(inner.read_text().replace("ms.tif", "inner.vrt"))
    before = of(tiny_model, vrt, pair[1])
    assert of(tiny_model, vrt, pair[1]) == before
    change(pair[0])
    assert of(tiny_model, vrt, pair[1]) != before


def test_an_archive_counts_and_what_is_taken_out_of_it(pair, tiny_model, tmp_path):
    archive = tmp_path / "both.zip"
    with zipfile.ZipFile(archive, "w") as opened:
        opened.write(pair[0], "a/ms.tif")
        opened.write(pair[0], "b/ms.tif")
    inside = [f"/vsizip/{archive}/{folder}/ms.tif" for folder in "ab"]
    before = of(tiny_model, inside[0], pair[1])
    assert of(tiny_model, inside[1], pair[1]) != before
    with zipfile.ZipFile(archive, "a") as opened:
        opened.writestr("c", "")
    assert of(tiny_model, inside[0], pair[1]) != before


def test_an_archive_that_was_moved_is_the_same(pair, tiny_model, tmp_path):
    seen = set()
    for folder in ("one", "another"):
        (tmp_path / folder).mkdir()
        archive = tmp_path / folder / "ms.zip"
        with zipfile.ZipFile(archive, "w") as opened:
            opened.write(pair[0], "a/ms.tif")
        seen.add(of(tiny_model, f"/vsizip/{archive}/a/ms.tif", pair[1]))
    assert len(seen) == 1


class Served:
    """Stands for `urlopen`: what a server tells of any file."""

    def __init__(self, monkeypatch, **headers):
        self.headers = Message()
        for name, value in headers.items():
            self.headers[name.replace("_", "-")] = value
        monkeypatch.setattr("adcdnet.mapping.journal.urlopen", lambda *_, **__: nullcontext(self))


def test_an_image_on_the_net_is_told_by_size_and_version_but_not_by_its_signature(monkeypatch):
    def pin(address="https://there/a/ms.tif?sign=1", size=9, **version):
        Served(monkeypatch, Content_Range=f"bytes 0-0/{size}", **version)
        return _pin_of_address(address)

    first = pin(ETag="v1")
    assert pin("https://there/a/ms.tif?sign=2", ETag="v1") == first
    assert len({first, pin(ETag="v2"), pin(size=10, ETag="v1"), pin(Last_Modified="yesterday")}) == 4


def test_an_image_on_the_net_without_a_version_is_refused(monkeypatch):
    Served(monkeypatch, Content_Length="9")
    with pytest.raises(InputError, match=r"^https://there/ms.tif comes with neither ETag nor Last-Modified") as refused:
        _pin_of_address("https://there/ms.tif?secret")
    assert "secret" not in str(refused.value)


def test_a_server_that_is_not_there_is_named_in_a_line():
    with pytest.raises(InputError, match=r"^http://127.0.0.1:9/ms.tif cannot be asked for its version: URLError"):
        _pin_of_address("http://127.0.0.1:9/ms.tif")


@pytest.mark.parametrize("ending", [".tif.aux.xml", ".tif.ovr", ".tif.msk", ".tfw", ".wld", ".TIF.AUX.XML", ".hdr"])
@pytest.mark.parametrize("by_vrt", [False, True])
def test_a_file_beside_an_image_counts(pair, tiny_model, ending, by_vrt):
    ms, pan = pair
    named = write_vrt_file(ms) if by_vrt else ms
    beside = ms.with_name(ms.stem + ending)
    before = of(tiny_model, named, pan)
    if ending in (".tif.ovr", ".tif.msk"):
        shutil.copy(ms, beside)
    else:
        beside.write_text("<PAMDataset/>" if "xml" in ending.lower() else "12\n0\n0\n-12\n500006\n4999994\n")
    assert of(tiny_model, named, pan) != before


def test_a_mask_counts(pair, tiny_model, write_tif):
    mask = write_tif("mask.tif", np.eye(29, 37, dtype=np.uint8))
    before = of(tiny_model, *pair, mask=mask)
    change(mask)
    assert of(tiny_model, *pair, mask=mask) != before


def test_two_files_of_an_image_changed_for_each_other_count(pair, tiny_model, write_tif):
    two = [write_tif(name, np.full((29, 37), 7, np.uint8)) for name in ("a.tif", "b.tif")]
    for file in two:
        os.utime(file, ns=(0, 0))
    assert of(tiny_model, two, pair[1]) != of(tiny_model, two[::-1], pair[1])


def test_images_that_were_moved_are_the_same(pair, tiny_model, tmp_path):
    before = of(tiny_model, *pair)
    moved = tmp_path / "moved"
    moved.mkdir()
    assert of(tiny_model, *(Path(shutil.move(file, moved)) for file in pair)) == before


@pytest.mark.parametrize(
    ("address", "listed"),
    [
        ("/vsicurl/http://localhost/ms.tif", ["/vsicurl/http://localhost/ms.tif"]),
        ("https://localhost/ms.tif", []),
        ("/vsimem/ms.tif", ["/vsimem/ms.tif"]),
    ],
)
def test_what_lies_on_the_net_is_not_resumed(address, listed):
    with pytest.raises(
        InputError, match="nobody can tell whether it has changed; copy it to a file, or leave out --re"
    ):
        files_behind(address, listed)


def test_tiles_of_the_old_source_of_a_vrt_are_not_used(pair, tmp_path, monkeypatch):
    """By the whole way: stopped after half of the tiles, the source replaced, resumed."""
    monkeypatch.setattr("adcdnet.mapping.memory.LARGEST_TILE", 16)

    model = build_model(Layout(ms_bands=1, pan_bands=1, ratio=2, classes=3))
    vrt = write_vrt_file(pair[0])
    with Scene.open(vrt, pair[1]) as scene, pytest.raises(KeyboardInterrupt):
        predict(model, scene, out=tmp_path / "map.tif", resume=True, progress=stop_at_half)
    assert list((tmp_path / ".map.tif.tiles").glob("*.npz"))
    before = pair[0].stat()
    with rasterio.open(pair[0], "r+") as dataset:
        dataset.write(255 - dataset.read())
    os.utime(pair[0], ns=(before.st_atime_ns, before.st_mtime_ns))
    for name, resume in (("map.tif", True), ("whole.tif", False)):
        with Scene.open(vrt, pair[1]) as scene:
            predict(model, scene, out=tmp_path / name, resume=resume)
    assert (tmp_path / "map.tif").read_bytes() == (tmp_path / "whole.tif").read_bytes()


def test_a_tile_of_pixels_that_no_sample_sees_is_made_anew(pair, tmp_path, monkeypatch):
    """The file as it was but for one value, and the fingerprint blind to it."""
    monkeypatch.setattr("adcdnet.mapping.memory.LARGEST_TILE", 16)
    monkeypatch.setattr("adcdnet.mapping.journal._pin", lambda file: (file.name, 0, ""))
    model = build_model(Layout(ms_bands=1, pan_bands=1, ratio=2, classes=3))
    with Scene.open(*pair) as scene, pytest.raises(KeyboardInterrupt):
        predict(model, scene, out=tmp_path / "map.tif", resume=True, progress=stop_at_half)
    with rasterio.open(pair[0], "r+") as dataset:
        dataset.write(255 - dataset.read())
    for name, resume in (("map.tif", True), ("whole.tif", False)):
        with Scene.open(*pair) as scene:
            predict(model, scene, out=tmp_path / name, probabilities=tmp_path / f"p-{name}", resume=resume)
    assert (tmp_path / "p-map.tif").read_bytes() == (tmp_path / "p-whole.tif").read_bytes()


def stop_at_half(what, done, total, figures):
    if done > total / 2:
        raise KeyboardInterrupt


class Payload:
    """What unpickling runs."""

    def __init__(self, made):
        self.made = str(made)

    def __reduce__(self):
        return os.mkdir, (self.made,)


def test_a_tile_that_holds_code_is_damaged_and_the_code_does_not_run(tmp_path):
    journal = Journal(tmp_path / "map.tif", "f", {}, lasting=True)
    journal.begin(Sizes(16, 1))
    payload = np.array([Payload(tmp_path / "made")], dtype=object)
    np.savez(journal.folder / "0_0_1_1.npz", logits=payload, allow_pickle=True)
    with pytest.raises(InputError, match="is damaged; remove it, and --resume computes this tile anew"):
        journal.read(Window(0, 0, 1, 1))
    journal.end(whole=True)
    assert not (tmp_path / "made").exists()
