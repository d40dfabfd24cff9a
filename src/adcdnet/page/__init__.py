"""One self-contained HTML page of a run and its map, to read, sign and hand on."""
