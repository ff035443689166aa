"""Docks, and what connects them to layers and to the worker: Qt, magicgui and napari live here."""

__all__: list[str] = []
