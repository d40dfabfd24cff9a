"""Inputs that claim more than they hold, or never end: one line, and soon."""

import os
import struct

import numpy as np
import pytest
import torch

from adcdnet import cli
from adcdnet.config import TrainConfig
from adcdnet.errors import InputError
from adcdnet.geo import raster
from adcdnet.geo.classes import ClassTable
from adcdnet.geo.raster import read_band
from adcdnet.geo.scene_files import read_scenes
from adcdnet.mapping.model import Model

ONE_LINE = r"\A[^\n]{1,400}\Z"


def write_claim(path, side, bands=1):
    """A TIFF of 122 bytes that says it has so many pixels a side."""
    tags = [(256, 4, side), (257, 4, side), (258, 3, 8), (259, 3, 1), (262, 3, 1), (273, 4, 8), (277, 3, bands)]
    tags += [(278, 4, side), (279, 4, 0)]
    entries = b"".join(struct.pack("<HHII", tag, kind, 1, value) for tag, kind, value in tags)
    path.write_bytes(b"II*\0" + struct.pack("<IH", 8, len(tags)) + entries + bytes(4))
    return path


def test_a_header_that_claims_a_million_pixels_a_side(tmp_path):
    with pytest.raises(InputError, match="claims 1000000×1000000 pixels and holds 122 bytes, too few"):
        read_band(write_claim(tmp_path / "a.tif", 10**6))


def test_a_vrt_that_claims_more_than_its_sources_hold(tmp_path, write_tif):
    write_tif("ms.tif", np.ones((13, 11), np.uint8))
    source = '<SimpleSource><SourceFilename relativeToVRT="1">ms.tif</SourceFilename></SimpleSource>'
    band = f'<VRTRasterBand dataType="Byte" band="1">{source}</VRTRasterBand>'
    (tmp_path / "a.vrt").write_text(f'<VRTDataset rasterXSize="1000000" rasterYSize="1000000">{band}</VRTDataset>')
    with pytest.raises(InputError, match="claims 1000000×1000000 pixels"):
        read_band(tmp_path / "a.vrt")


def test_an_image_whose_tiles_are_all_alike_is_read(tmp_path, write_tif, monkeypatch):
    """Deflate makes a thousandth of it: far from what no image can be."""
    monkeypatch.setattr(raster, "_LARGE", 0)
    path = write_tif("plain.tif", np.ones((2048, 2048), np.uint8), compress="deflate", tiled=True)
    assert read_band(path)[0].all()


def test_thousands_of_bands(tmp_path, write_tif):
    path = write_tif("bands.tif", np.ones((raster.MOST_BANDS + 1, 1, 1), np.uint8))
    with pytest.raises(InputError, match="has 1025 bands, 1024 at most are read"):
        read_band(path)
    assert raster.open_raster(write_tif("most.tif", np.ones((raster.MOST_BANDS, 1, 1), np.uint8))).count == 1024


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes here")
@pytest.mark.parametrize("read", [read_band, ClassTable.read, TrainConfig.read, read_scenes, Model.load])
@pytest.mark.parametrize("kind", ["pipe", "/dev/zero"])
def test_pipes_and_devices_are_no_files(tmp_path, read, kind):
    path = tmp_path / "pipe"
    os.mkfifo(path)
    with pytest.raises(InputError, match="is a pipe or a device; a file is needed"):
        read(path if kind == "pipe" else type(path)(kind))


@pytest.mark.parametrize("text", ["a = " + "[" * 10_000 + "]" * 10_000, "a." * 10_000 + "b = 1"])
@pytest.mark.parametrize("read", [read_scenes, TrainConfig.read])
def test_settings_nested_thousands_deep(tmp_path, read, text):
    (tmp_path / "deep.toml").write_text(text)
    with pytest.raises(InputError, match=ONE_LINE):
        read(tmp_path / "deep.toml")


def test_thousands_of_scenes(tmp_path):
    """Those that train are open at once; those to map are opened one by one."""
    scene = '[[scene]]\nname = "s{}"\nms = "m.tif"\npan = "p.tif"\nlabels = "l.tif"\n'
    (tmp_path / "many.toml").write_text("".join(map(scene.format, range(10_000))))
    with pytest.raises(InputError, match="names 10000 scenes, 1000 at most are read; divide it"):
        read_scenes(tmp_path / "many.toml")
    assert len(read_scenes(tmp_path / "many.toml", labelled=False)) == 10_000


def test_thousands_of_classes_are_one_line(tmp_path):
    (tmp_path / "c.csv").write_text("value,name\n" + "".join(f"{k % 300},c\n" for k in range(10_000)))
    with pytest.raises(InputError, match=ONE_LINE):
        ClassTable.read(tmp_path / "c.csv")


def test_a_table_of_gigabytes_is_not_read(tmp_path):
    with (tmp_path / "c.csv").open("wb") as file:
        file.truncate(2**40)
    with pytest.raises(InputError, match="has 1099511627776 bytes"):
        ClassTable.read(tmp_path / "c.csv")


def numpy_fails():
    np.zeros((10**6, 10**6, 10**3))


def torch_fails():
    torch.zeros(10**15)


def gpu_fails():
    raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 9 GiB.")


@pytest.mark.parametrize("fails", [numpy_fails, torch_fails, gpu_fails])
def test_memory_that_cannot_be_had_is_one_line(call, monkeypatch, fails):
    monkeypatch.setattr(cli, "app", lambda args: fails())
    code, _, err = call("doctor")
    assert (code, err.count("\n")) == (1, 1)
    assert err.startswith("adcdnet: out of memory (")
    assert "give a smaller --memory, smaller tiles or a smaller image" in err


def test_other_faults_of_the_program_stay_what_they_are(call, monkeypatch):
    def fails(args):
        raise RuntimeError("shapes differ")

    monkeypatch.setattr(cli, "app", fails)
    with pytest.raises(RuntimeError, match="shapes differ"):
        call("doctor")
