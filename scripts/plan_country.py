"""Scenes, bytes, core-hours and money of a map of a country: the table of docs/how-to/plan-a-country.md.

    python scripts/plan_country.py [--money 0.05]

Computed from the size of scenes and from the seconds a pixel that scripts/RESULTS.md has, "Speed of prediction".
money: of a core-hour, in any currency; set your own.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass

AREA = 10_000.0  # km²
CORE_SECONDS = 494 / 25e6  # of an MS pixel: CPU seconds of the scene of 20,000² PAN pixels, whatever the ratio is
CLASSES = 10


@dataclass(frozen=True)
class Sensor:
    """ms, pan: metres of a pixel. side: km of a scene. fresh: share of a scene that adds ground, beside overlaps."""

    name: str
    ms: float
    ms_bands: int
    pan: float
    pan_bands: int
    side: float
    fresh: float


SENSORS = (
    Sensor("Landsat 8 and 9, MS 30 m, PAN 15 m", 30, 6, 15, 1, 180, 0.7),
    Sensor("Sentinel-2, 20 m with 10 m as PAN", 20, 6, 10, 4, 110, 0.8),
)


def rows(money: float) -> list[tuple[str, ...]]:
    """Of each figure its name, whether it is measured or computed, and its value for every sensor."""
    table: list[tuple[str, ...]] = [("of 10,000 km²", "", *(sensor.name for sensor in SENSORS))]
    for name, kind, value in (
        ("scenes", "computed", lambda s: f"{scenes(s):.2f}"),
        ("MS pixels of these, millions", "computed", lambda s: f"{pixels(s) / 1e6:.0f}"),
        ("bytes of images, uint16, GB", "computed", lambda s: f"{image_bytes(s) / 1e9:.1f}"),
        (
            f"bytes of tiles on the way, {CLASSES} classes, GB",
            "computed",
            lambda s: f"{4 * CLASSES * pixels(s) / 1e9:.1f}",
        ),
        ("core-seconds a million MS pixels", "measured", lambda _: f"{CORE_SECONDS * 1e6:.0f}"),
        ("core-hours", "computed", lambda s: f"{hours(s):.2f}"),
        (f"money at {money:g} a core-hour", "computed", lambda s: f"{money * hours(s):.3f}"),
    ):
        table.append((name, kind, *(value(sensor) for sensor in SENSORS)))
    return table


def scenes(sensor: Sensor) -> float:
    return AREA / (sensor.side**2 * sensor.fresh)


def pixels(sensor: Sensor) -> float:
    """Of whole scenes, overlaps included."""
    return scenes(sensor) * (sensor.side * 1000 / sensor.ms) ** 2


def image_bytes(sensor: Sensor) -> float:
    fine = sensor.pan_bands * (sensor.ms / sensor.pan) ** 2
    return 2 * pixels(sensor) * (sensor.ms_bands + fine)


def hours(sensor: Sensor) -> float:
    return pixels(sensor) * CORE_SECONDS / 3600


def table(money: float) -> str:
    lines = ["| " + " | ".join(row) + " |" for row in rows(money)]
    return "\n".join([lines[0], "|---" * (2 + len(SENSORS)) + "|", *lines[1:]])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--money", type=float, default=0.05)
    print(table(parser.parse_args().money))


if __name__ == "__main__":
    main()
