"""The table of vendors' products in docs/how-to/files-as-delivered.md: each row's files are used by its command."""

import re
from pathlib import Path

import numpy as np
import pytest
import rasterio
from affine import Affine

PAGE = Path(__file__).parents[2] / "docs" / "how-to" / "files-as-delivered.md"
ROWS = [
    [cell.strip() for cell in line.strip("|").split("|")]
    for line in PAGE.read_text("utf-8").partition("## Products of vendors")[2].partition("Three kinds")[0].splitlines()
    if line.startswith("| ") and "`" in line
]


def names(cell):
    return re.findall(r"`([^`]+)`", cell)


def write(path, bands, size, pixel):
    path.parent.mkdir(parents=True, exist_ok=True)
    values = np.random.default_rng(0).integers(1, 900, (bands, size, size)).astype(np.uint16)
    profile = {"crs": "EPSG:32632", "transform": Affine(pixel, 0, 600_000, 0, -pixel, 5_700_000)}
    with rasterio.open(
        path, "w", driver="GTiff", height=size, width=size, count=bands, dtype="uint16", **profile
    ) as dataset:
        dataset.write(values)


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row[0])
def test_the_command_of_a_row_takes_the_files_of_the_row(call, tmp_path, row):
    _, ms, pan, command = row
    for name in names(ms):
        write(tmp_path / name, 4 if len(names(ms)) == 1 else 3, 20, 8.0)
    for name in names(pan):
        write(tmp_path / name, 1, 80, 2.0)
    out = ("--out", tmp_path / "scenes.toml")
    if "train" in command:  # names that are not known; `check` opens them as it does
        given = [word for name in names(ms) for word in ("--ms", tmp_path / name)]
        code, said, err = call("check", *given, "--pan", tmp_path / names(pan)[0])
    else:
        code, said, err = call("scenes", tmp_path, *out)
    if "no pair" in command:
        assert code == 1
        assert f"{row[0]} has no PAN band" in err
    else:
        assert code == 0, err
        assert "train" in command or "(1 of 1 pairs)" in said


def test_the_table_has_the_vendors_that_are_asked_for():
    text = " ".join(row[0] for row in ROWS)
    assert all(name in text for name in ("SPOT", "Pléiades", "WorldView", "GaoFen", "PlanetScope"))
