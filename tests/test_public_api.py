"""What is public is listed: in the package, in the docs, and nowhere else."""

from __future__ import annotations

import importlib
import pkgutil
import re
from pathlib import Path

import pytest

import napari_unet

DOCS = Path(__file__).resolve().parents[1] / "docs"
MODULES = sorted(module.name for module in pkgutil.walk_packages(napari_unet.__path__, "napari_unet."))


def test_the_docs_list_exactly_the_public_names():
    rows = re.findall(r"^\| `(\w+)` \|", (DOCS / "api.md").read_text(encoding="utf-8"), re.MULTILINE)
    assert rows == sorted(rows), "the table in docs/api.md is in alphabetical order"
    assert rows == sorted(napari_unet.__all__)


@pytest.mark.parametrize("name", napari_unet.__all__)
def test_each_public_name_is_there_and_documented(name):
    value = getattr(napari_unet, name)
    assert value.__name__ == name
    assert value.__doc__
    assert name in dir(napari_unet)


def test_a_name_that_is_not_public_is_an_attribute_error():
    with pytest.raises(AttributeError, match="has no attribute 'nothing'"):
        _ = napari_unet.nothing


@pytest.mark.parametrize("name", [name for name in MODULES if ".gui" not in name and ".nn" not in name])
def test_each_module_lists_what_it_offers(name):
    module = importlib.import_module(name)
    for public in getattr(module, "__all__", ()):
        assert hasattr(module, public), f"{name}.__all__ lists {public!r}, which is not there"
    assert hasattr(module, "__path__") or hasattr(module, "__all__"), f"{name} has no __all__"
