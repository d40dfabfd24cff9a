"""Every command of the tutorial runs, in its order, on a small pair; only training is made short."""

import hashlib
import re
import shlex
from pathlib import Path

import geopandas
import pytest
import rasterio
from rasterio.features import shapes
from shapely.geometry import shape

from adcdnet import cli
from adcdnet.config import TrainConfig
from conftest import QUICK

TUTORIAL = Path(__file__).parents[1] / "docs" / "tutorial.md"
COMMANDS = re.findall(r"^ {4}(adcdnet .+)$", TUTORIAL.read_text("utf-8"), re.MULTILINE)
SHORTER = {"train": ["--config", "quick.toml"], "sample": ["--n", "40"]}  # the only changes; a later option counts
FOLDS = {"split": {"folds": 2}, "members": ["adcdnet", "boosting"]}
NAMES = {1: "meadow", 2: "rock", 4: "water"}
pytestmark = pytest.mark.usefixtures("few_trials")


@pytest.fixture
def folder(labelled_pair, tmp_path, monkeypatch):
    """What a user has at the start: two images and polygons of every field."""
    (tmp_path / "ms.tif").write_bytes(labelled_pair.ms.read_bytes())
    (tmp_path / "pan.tif").write_bytes(labelled_pair.pan.read_bytes())
    (tmp_path / "quick.toml").write_text(TrainConfig.of_profile("patch").replace(QUICK).replace(FOLDS).to_toml())
    with rasterio.open(labelled_pair.ms) as dataset:
        fields = [(shape(s), NAMES[int(v)]) for s, v in shapes(labelled_pair.truth, transform=dataset.transform)]
        crs = dataset.crs
    polygons, names = zip(*fields, strict=True)
    geopandas.GeoDataFrame({"class": names}, geometry=list(polygons), crs=crs).to_file(tmp_path / "polygons.gpkg")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def fill_in(points, pair):
    """What the user does between drawing the sample and judging by it: the true class of every point."""
    drawn = geopandas.read_file(points, layer="points")
    with rasterio.open(pair.ms) as dataset:
        pixels = [dataset.index(point.x, point.y) for point in drawn.geometry]
    drawn["class"] = [NAMES[int(pair.truth[pixel])] for pixel in pixels]
    drawn.to_file(points, layer="points")


def test_its_commands_run_as_they_stand(folder, labelled_pair, monkeypatch, capsys):
    used = [shlex.split(line)[1] for line in COMMANDS]
    assert used == ["check", "align", "train", "predict", "evaluate", "sample", "evaluate", "report"]
    printed = []
    for line in COMMANDS:
        words = shlex.split(line)
        if words[-1] == "points.gpkg" and words[1] == "evaluate":
            fill_in(folder / "points.gpkg", labelled_pair)
        monkeypatch.setattr("sys.argv", [*words, *SHORTER.get(words[1], [])])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        printed.append(capsys.readouterr().out)
        assert ended.value.code in (0, None), line
    assert "correction of PAN" in printed[0]  # what the text says to look at
    assert "verdict: " in printed[0]
    assert "2 folds: OA" in printed[2]
    assert "held-out answers of 2 folds: OA" in printed[4]
    assert "adjusted" in printed[6]
    assert (folder / "map.qml").exists()
    report = (folder / "runs" / "first" / "report.html").read_text("utf-8")
    assert "±" in report
    assert "By a probability sample of" in report
    assert hashlib.sha256((folder / "points.gpkg").read_bytes()).hexdigest() in report
