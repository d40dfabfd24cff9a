"""Rasters, grids, scenes, labels, and how two images lie on each other. No network."""
