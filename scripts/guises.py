"""A labelled scene in the guises in which users have theirs, as docs/concepts/trust.md tries them.

python scripts/guises.py $D/nc_landsat7_x4 --out guises            # makes the files
python scripts/guises.py $D/nc_landsat7_x4 --fill points.gpkg      # into points of `adcdnet sample`, from the labels

fields.gpkg: patches of one class larger than three pixels, a metre narrower all round, in longitude and latitude.
north, south, scenes.toml: both halves. bands: a file per MS band. scaled.tif: MS as (v − 500) · 4, tagged so.
clouds.tif: a mask of 15×30 MS pixels. mine.tif: a split in upright bands. pan_moved.tif: PAN moved by −2 rows and +3
columns. pan_utm.tif: PAN at 30 m in the UTM zone of North Carolina.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import geopandas
import numpy as np
import pyogrio
import rasterio
from affine import Affine
from rasterio.features import shapes
from rasterio.warp import Resampling, calculate_default_transform, reproject
from rasterio.windows import Window
from shapely.geometry import shape

UTM = "EPSG:32617"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("scene", type=Path, help="folder of ms.tif, pan.tif, labels.tif and classes.csv")
    parser.add_argument("--out", type=Path)
    parser.add_argument("--fill", type=Path)
    args = parser.parse_args()
    if args.fill is not None:
        fill(args.fill, args.scene / "labels.tif")
    if args.out is not None:
        args.out.mkdir(parents=True, exist_ok=True)
        fields(args.scene, args.out / "fields.gpkg")
        halves(args.scene, args.out)
        of_ms(args.scene / "ms.tif", args.out)
        of_pan(args.scene / "pan.tif", args.out)


def fill(points: Path, labels: Path) -> None:
    frame = geopandas.read_file(points, layer="points")
    with rasterio.open(labels) as dataset:
        found = [int(value[0]) for value in dataset.sample([(p.x, p.y) for p in frame.geometry])]
    frame["class"] = [value or None for value in found]
    pyogrio.write_dataframe(frame, points, layer="points", driver="GPKG")


def fields(scene: Path, out: Path) -> None:
    names = dict(line.split(",")[:2] for line in (scene / "classes.csv").read_text("utf-8").splitlines()[1:])
    with rasterio.open(scene / "labels.tif") as dataset:
        values, pixel, crs = dataset.read(1), dataset.res[0] * dataset.res[1], dataset.crs
        found = [(shape(g).buffer(-1), names[str(int(v))]) for g, v in shapes(values, values > 0, 4, dataset.transform)]
    frame = geopandas.GeoDataFrame({"class": [n for _, n in found]}, geometry=[g for g, _ in found], crs=crs)
    frame[frame.area > 3 * pixel].to_crs("EPSG:4326").to_file(out)


def halves(scene: Path, out: Path) -> None:
    lines = [f'classes = "{(scene / "classes.csv").resolve()}"']
    with rasterio.open(scene / "ms.tif") as ms:
        half = ms.height // 2
    for name, row in (("north", 0), ("south", half)):
        (out / name).mkdir(exist_ok=True)
        for file in ("ms.tif", "pan.tif", "labels.tif"):
            with rasterio.open(scene / file) as dataset:
                ratio = dataset.height // (2 * half)
                window = Window(0, row * ratio, dataset.width, half * ratio)
                place = dataset.transform @ Affine.translation(0, window.row_off)
                profile = dataset.profile | {"height": window.height, "transform": place}
                with rasterio.open(out / name / file, "w", **profile) as cut:
                    cut.write(dataset.read(window=window))
        files = (f'{what} = "{name}/{what}.tif"' for what in ("ms", "pan", "labels"))
        lines += ["", "[[scene]]", f'name = "{name}"', *files]
    (out / "scenes.toml").write_text("\n".join(lines) + "\n", "utf-8")


def of_ms(ms: Path, out: Path) -> None:
    with rasterio.open(ms) as dataset:
        values, profile = dataset.read(), dataset.profile
    (out / "bands").mkdir(exist_ok=True)
    for number, band in enumerate(values, start=1):
        with rasterio.open(out / "bands" / f"B{number}.tif", "w", **profile | {"count": 1}) as one:
            one.write(band, 1)
    with rasterio.open(out / "scaled.tif", "w", **profile | {"dtype": "float32"}) as scaled:
        scaled.write((values.astype(np.float32) - 500) * 4)
        scaled.scales, scaled.offsets = (0.25,) * len(values), (500.0,) * len(values)
    clouds, mine = np.zeros(values.shape[1:], np.uint8), np.ones(values.shape[1:], np.uint8)
    clouds[10:25, 40:70] = 1
    mine[:, 55:75], mine[:, 95:], mine[:10] = 2, 3, 0
    for name, content in (("clouds.tif", clouds), ("mine.tif", mine)):
        with rasterio.open(out / name, "w", **profile | {"count": 1, "dtype": "uint8", "nodata": None}) as file:
            file.write(content, 1)


def of_pan(pan: Path, out: Path) -> None:
    with rasterio.open(pan) as dataset:
        values, profile = dataset.read(1), dataset.profile
        size = dataset.width, dataset.height
        transform, width, height = calculate_default_transform(dataset.crs, UTM, *size, *dataset.bounds, resolution=30)
        with rasterio.open(out / "pan_moved.tif", "w", **profile) as moved:
            moved.write(np.roll(values, (-2, 3), (0, 1)), 1)
        place = {"src_transform": dataset.transform, "src_crs": dataset.crs, "dst_transform": transform, "dst_crs": UTM}
        found = np.zeros((height, width), np.float32)
        reproject(values.astype(np.float32), found, **place, resampling=Resampling.cubic, dst_nodata=0)
    utm = {"crs": UTM, "transform": transform, "width": width, "height": height, "dtype": "float32", "nodata": 0}
    with rasterio.open(out / "pan_utm.tif", "w", **profile | utm) as file:
        file.write(found, 1)


if __name__ == "__main__":
    main()
