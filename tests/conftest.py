"""What several tests share: rasters of a few pixels, a network of a few weights, and the way to the real scenes."""

import os
import subprocess
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from http.server import ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import numpy as np
import pytest
import rasterio
import torch
from affine import Affine
from hypothesis import settings
from numpy.typing import NDArray
from rasterio.errors import NotGeoreferencedWarning
from torch import nn

from adcdnet import cli
from adcdnet.config import AnswerConfig, TrainConfig
from adcdnet.geo.band_statistics import BandStatistics
from adcdnet.geo.classes import ClassTable
from adcdnet.geo.labels import Labels, read_labels
from adcdnet.geo.scene import Scene
from adcdnet.mapping.model import Model, Run
from adcdnet.mapping.progress import Progress, silent
from adcdnet.mapping.record import RunRecord
from adcdnet.nn import DeformableInteractiveAttention
from adcdnet.nn.adcdnet import ADCDNet
from adcdnet.nn.architecture import Layout
from adcdnet.nn.prior import PriorNet
from adcdnet.split import blocks
from adcdnet.training.run import train

settings.register_profile("long", max_examples=2000, deadline=None)  # pytest --hypothesis-profile long

ROOT = Path(__file__).parents[1]
UTM = "EPSG:32633"
UTM_SPELT = "+proj=utm +zone=33 +datum=WGS84 +units=m +no_defs"  # the same, without its name
CORNER = (500_000.0, 5_000_000.0)  # x and y of the upper left corner of the tiny MS image
PIXEL = 12.0  # metres: side of an MS pixel


def write_tif_file(
    path: Path,
    array: NDArray[Any],
    *,
    corner: tuple[float, float] = CORNER,
    pixel: float = PIXEL,
    crs: str | None = UTM,
    **profile: Any,
) -> Path:
    """Array (h, w) or (bands, h, w) as a GeoTIFF; pixel=0 leaves out the place, photometric=None leaves it to GDAL."""
    bands = array if array.ndim == 3 else array[None]
    if pixel:
        profile["transform"] = Affine(pixel, 0, corner[0], 0, -pixel, corner[1])
    profile = {"photometric": "minisblack", "crs": crs, "dtype": bands.dtype} | profile
    if profile["photometric"] is None:
        del profile["photometric"]
    count, height, width = bands.shape
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", NotGeoreferencedWarning)
        with rasterio.open(path, "w", driver="GTiff", height=height, width=width, count=count, **profile) as dataset:
            dataset.write(bands)
    return path


def write_vrt_file(source: Path, *, crs: str = UTM, pixel: float = PIXEL, nodata: str = "") -> Path:
    """A uint8 GeoTIFF with another CRS text or nodata value than a GeoTIFF can hold, beside it as .vrt."""
    with rasterio.open(source) as dataset:
        size = f'rasterXSize="{dataset.width}" rasterYSize="{dataset.height}"'
    place = f"<GeoTransform>{CORNER[0]}, {pixel}, 0, {CORNER[1]}, 0, -{pixel}</GeoTransform><SRS>{crs}</SRS>"
    empty = f"<NoDataValue>{nodata}</NoDataValue>" if nodata else ""
    values = f"<SimpleSource><SourceFilename>{source}</SourceFilename></SimpleSource>"
    band = f'<VRTRasterBand dataType="Byte" band="1">{empty}{values}</VRTRasterBand>'
    path = source.with_suffix(".vrt")
    path.write_text(f"<VRTDataset {size}>{place}{band}</VRTDataset>")
    return path


@pytest.fixture
def write_tif(tmp_path: Path) -> Callable[..., Path]:
    """write_tif(name, array, **options as for write_tif_file) -> path, in the test's own folder."""

    def write(name: str, array: NDArray[Any], **options: Any) -> Path:
        return write_tif_file(tmp_path / name, array, **options)

    return write


@pytest.fixture
def tiny_pair(write_tif: Callable[..., Path]) -> Callable[..., tuple[Path, Path]]:
    """tiny_pair(ratio=2, height=13, width=11) -> paths of an MS image with 5 bands and a PAN image, values 1..999."""

    def write(ratio: int = 2, height: int = 13, width: int = 11) -> tuple[Path, Path]:
        rng = np.random.default_rng(ratio)
        ms = rng.integers(1, 1000, (5, height, width)).astype(np.uint16)
        pan = rng.integers(1, 1000, (height * ratio, width * ratio)).astype(np.uint16)
        return write_tif("ms.tif", ms), write_tif("pan.tif", pan, pixel=PIXEL / ratio)

    return write


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder of the real scenes."""
    folder = Path(os.environ.get("ADCDNET_DATA", ROOT.parent / "shared" / "data"))
    if not folder.is_dir():
        pytest.skip(f"no real scenes in {folder}; set ADCDNET_DATA to the folder that holds them")
    return folder


@pytest.fixture
def call(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str, str]]:
    """call("predict", run, ...) -> exit code, stdout, stderr of the entry point."""

    def run(*arguments: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["adcdnet", *map(str, arguments)])
        code = 0
        try:
            cli.main()
        except SystemExit as ended:
            code = int(ended.code or 0)
        printed = capsys.readouterr()
        return code, printed.out, printed.err

    return run


def left_by_a_killed_process(folder: Path) -> Path:
    """A folder that a process held when it ended, without any time to tidy up; made where there is none."""
    folder.mkdir(exist_ok=True)
    code = "import os, pathlib, sys; from adcdnet.files import HeldFolder\n"
    code += "held = HeldFolder.hold(pathlib.Path(sys.argv[1])); os._exit(held is None)"
    subprocess.run([sys.executable, "-c", code, str(folder)], check=True)
    return folder


# for tests that must hold on both
DEVICES = ["cpu", pytest.param("cuda", marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU here"))]

SMALL = {"widths": [4, 5, 6], "hidden": 7, "token_dims": [6, 8]}  # a network that takes milliseconds
PAPER = {  # as published, but small: settings of the network and its answers
    **asdict(TrainConfig.of_profile("paper").network),
    **TrainConfig.of_profile("paper").answers.model_dump(),
    **SMALL,
}


def liven(network: nn.Module, seed: int = 0) -> nn.Module:
    """Away from its neutral start, as if trained: BatchNorm statistics, DIA gates and the prior's standardising."""
    generator = torch.Generator().manual_seed(seed)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
            module.running_mean.normal_(std=0.3, generator=generator)
            module.running_var.uniform_(0.5, 1.5, generator=generator)
            nn.init.normal_(module.weight, 1, 0.3, generator=generator)
            nn.init.normal_(module.bias, 0, 0.3, generator=generator)
        elif isinstance(module, DeformableInteractiveAttention):
            for p in module.parameters():
                nn.init.normal_(p, std=0.7, generator=generator)
        elif isinstance(module, PriorNet):
            module.mean.normal_(generator=generator)
            module.deviation.uniform_(0.5, 2, generator=generator)
    return network.eval()


def build_model(layout: Layout, *, seed: int = 0, **changes: Any) -> Model:
    """A small livened network with all that a map needs; `changes` are settings of the network or its answers."""
    of_answers = {name: changes.pop(name) for name in AnswerConfig.model_fields if name in changes}
    settings = TrainConfig.of_profile("patch").replace({"network": {**SMALL, **changes}, "answers": of_answers})
    config = settings.network
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        network = liven(ADCDNet(config, layout), seed)
        side = config.size
        classifier = network.decision.classifier
        with torch.no_grad():  # logits that differ between pixels and are 0 in the mean, so that all classes occur
            classifier.weight *= 20
            ms, pan = (
                torch.randn(9, layout.ms_bands, side, side),
                torch.randn(9, layout.pan_bands, side * layout.ratio, side * layout.ratio),
            )
            classifier.bias -= network(ms, pan).main.mean(0)
    rng = np.random.default_rng(seed)
    statistics = BandStatistics(
        tuple(rng.uniform(400, 600, layout.ms_bands)),
        tuple(rng.uniform(200, 300, layout.ms_bands)),
        tuple(rng.uniform(400, 600, layout.pan_bands)),
        tuple(rng.uniform(200, 300, layout.pan_bands)),
    )
    names = [f"class {k}" for k in range(layout.classes)]
    values = [3 * k + 2 for k in range(layout.classes)]
    shares = [rng.dirichlet(np.full(layout.classes, 5.0)) for _ in range(2)]
    label_shares, drawn_shares = (tuple(share.tolist()) for share in shares)
    table = ClassTable.of(values, names)
    return Model.of_network(
        network, statistics, table, label_shares, drawn_shares, record=RunRecord(name="tiny"), answers=settings.answers
    )


@pytest.fixture
def tiny_scene(write_tif: Callable[..., Path]) -> Iterator[Scene]:
    """29 × 37 MS pixels of 5 bands at ratio 2, values 1..999; a corner of MS and a few PAN pixels are invalid."""
    rng = np.random.default_rng(29)
    ms = rng.integers(1, 1000, (5, 29, 37)).astype(np.uint16)
    pan = rng.integers(1, 1000, (58, 74)).astype(np.uint16)
    ms[:, :6, :9] = 0
    pan[40, 30:35] = 0
    with Scene.open(write_tif("ms.tif", ms, nodata=0), write_tif("pan.tif", pan, pixel=PIXEL / 2, nodata=0)) as scene:
        yield scene


@pytest.fixture
def tiny_model() -> Model:
    """For `tiny_scene`, with 3 classes of the values 2, 5 and 8."""
    return build_model(Layout(ms_bands=5, pan_bands=1, ratio=2, classes=3))


QUICK = {  # settings of a training that takes a second
    "network": {**SMALL, "patch": 9},
    "members": ["adcdnet"],
    "split": {"block": 16, "folds": 1},
    "stage1": {"steps": 3, "tiles": 4, "tile": 16, "batch": 16, "targets": 64},
    "stage2": {"steps": 12, "tiles": 4, "tile": 16, "batch": 16, "targets": 512, "learning_rate": 0.01},
    "validations": 3,
}


@dataclass(frozen=True)
class LabelledPair:
    """Files of a pair with 4 MS bands, and what is known of it."""

    ms: Path
    pan: Path
    labels: Path
    classes: Path
    truth: NDArray[np.uint8]  # values 1, 2 and 4

    def open(self) -> Scene:
        return Scene.open(self.ms, self.pan)

    def read_labels(self, scene: Scene) -> Labels:
        return read_labels(self.labels, scene.grid, classes=ClassTable.read(self.classes))

    def train(self, out: Path, *, progress: Progress = silent, **changes: Any) -> Run:
        """A short training; `changes` are settings, merged into the quick ones."""
        with self.open() as scene:
            config = TrainConfig.of_profile("patch").replace(QUICK).replace(changes)
            return train(scene, self.read_labels(scene), out=out, config=config, device="cpu", progress=progress)


@pytest.fixture(scope="session")
def labelled_pair(tmp_path_factory: pytest.TempPathFactory) -> LabelledPair:
    """83 × 71 MS pixels at ratio 2 in 3 classes that differ in colour; a tenth unlabelled, an invalid corner."""
    folder = tmp_path_factory.mktemp("pair")
    rng = np.random.default_rng(83)
    fields = rng.integers(3, size=(17, 15)).repeat(5, 0).repeat(5, 1)[:83, :71]
    colours = np.array([[300, 500, 400, 100], [500, 300, 100, 400], [100, 400, 500, 300]])
    ms = np.clip(colours[fields].transpose(2, 0, 1) + rng.normal(0, 60, (4, 83, 71)), 1, None).astype(np.uint16)
    bright = np.array([300, 400, 500])[fields].repeat(2, 0).repeat(2, 1)
    pan = np.clip(bright + rng.normal(0, 60, bright.shape), 1, None).astype(np.uint16)
    ms[:, :4, :6] = 0
    truth = np.array([1, 2, 4], np.uint8)[fields]
    labels = np.where(rng.random(truth.shape) < 0.1, 0, truth).astype(np.uint8)
    classes = folder / "classes.csv"
    classes.write_text("value,name,color\n1,meadow,#00ff00\n2,rock,#808080\n4,water,#0000ff\n")
    return LabelledPair(
        write_tif_file(folder / "ms.tif", ms, nodata=0),
        write_tif_file(folder / "pan.tif", pan, pixel=PIXEL / 2, nodata=0),
        write_tif_file(folder / "labels.tif", labels),
        classes,
        truth,
    )


@pytest.fixture(scope="session")
def few_trials() -> Iterator[None]:
    """Splits are made from a few random assignments only: what is tested of them does not depend on how many."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(blocks, "_TRIALS", 12)
        yield


@pytest.fixture(scope="session")
def quick_run(labelled_pair: LabelledPair, few_trials: None, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """What one short training on the labelled pair left, in a folder called run; to be looked at only."""
    return labelled_pair.train(tmp_path_factory.mktemp("quick") / "run")


@contextmanager
def serving(server: ThreadingHTTPServer) -> Iterator[None]:
    """The server answers meanwhile, in a thread of this process."""
    with server:
        thread = Thread(target=server.serve_forever, daemon=True)
        thread.start()
        try:
            yield
        finally:
            server.shutdown()
            thread.join()
