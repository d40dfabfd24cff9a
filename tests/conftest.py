"""What several tests share: rasters of a few pixels, and the way to the real scenes."""

import os
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from affine import Affine
from numpy.typing import NDArray
from rasterio.errors import NotGeoreferencedWarning

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
