"""From a place on the map to a labelled pair: searched for in a STAC catalogue, read by windows on native grids."""
