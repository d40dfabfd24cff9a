"""Maps made by many machines: predictions in parts, lists of scenes, and workers of dask."""
