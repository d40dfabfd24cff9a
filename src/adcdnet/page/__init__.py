"""One self-contained HTML page of a run and its map, to read, sign and hand on."""

from adcdnet.page.write import write_report

__all__ = ["write_report"]
