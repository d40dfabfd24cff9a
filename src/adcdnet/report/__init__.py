"""One self-contained HTML page of a run and its map, to read, sign and hand on; and what the DTM heads looked at."""
