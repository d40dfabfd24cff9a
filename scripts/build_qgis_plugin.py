"""The QGIS plugin as QGIS installs it: build/adcdnet_provider-VERSION.zip, a folder with its files and the licence.

python scripts/build_qgis_plugin.py             # make qgis
python scripts/build_qgis_plugin.py some.zip    # another place
"""

from __future__ import annotations

import sys
from configparser import ConfigParser
from pathlib import Path
from zipfile import ZIP_DEFLATED, ZipFile, ZipInfo

ROOT = Path(__file__).parents[1]
PLUGIN = ROOT / "qgis_plugin" / "adcdnet_provider"


def metadata() -> dict[str, str]:
    """The fields of metadata.txt."""
    parser = ConfigParser(interpolation=None)
    parser.optionxform = str  # type: ignore[assignment,method-assign]  # names as they are written
    parser.read(PLUGIN / "metadata.txt", encoding="utf-8")
    return dict(parser["general"])


def build(out: Path) -> None:
    """The same bytes from the same files."""
    out.parent.mkdir(parents=True, exist_ok=True)
    files = sorted(path for path in PLUGIN.iterdir() if path.is_file())
    with ZipFile(out, "w") as archive:
        for path in [*files, ROOT / "LICENSE"]:
            entry = ZipInfo(f"{PLUGIN.name}/{path.name}")
            entry.compress_type = ZIP_DEFLATED
            entry.external_attr = 0o644 << 16
            archive.writestr(entry, path.read_bytes())


if __name__ == "__main__":
    target = Path(sys.argv[1]) if sys.argv[1:] else ROOT / "build" / f"{PLUGIN.name}-{metadata()['version']}.zip"
    build(target)
    print(target)
