"""Models handed on: one graph that other runtimes run, with its card; and STAC items of maps."""
