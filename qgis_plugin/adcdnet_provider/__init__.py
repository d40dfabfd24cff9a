"""A Processing provider for QGIS that starts the program `adcdnet` as a process of its own."""


def classFactory(iface):  # the name that QGIS looks for
    from .plugin import Plugin

    return Plugin(iface)
