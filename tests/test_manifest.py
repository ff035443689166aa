"""The manifest: valid, every name in it importable, and found however the project is installed."""

from __future__ import annotations

import importlib
import json
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest
from npe2 import PluginManifest

ROOT = Path(__file__).resolve().parents[1]
MANIFEST = PluginManifest.from_file(ROOT / "src" / "napari_unet" / "napari.yaml")
COMMANDS = {command.id: command for command in MANIFEST.contributions.commands}

# Finds the manifest as napari does, with an installation ahead of whatever else is on the path.
FIND = """
import json, site, sys
before = set(sys.path)
site.addsitedir(sys.argv[1])
sys.path.sort(key=lambda folder: folder in before)
from npe2 import PluginManifest
import napari_unet
manifest = PluginManifest.from_distribution("napari-unet")
print(json.dumps([manifest.name, len(manifest.contributions.commands), manifest.package_version, napari_unet.__file__]))
"""


def build(hook: str, source: Path, out: Path) -> Path:
    """Run a hook of the build backend in the copy of the project, without a network."""
    code = f"import sys; from setuptools import build_meta; print(build_meta.{hook}(sys.argv[1]))"
    out.mkdir(parents=True)
    done = subprocess.run(
        [sys.executable, "-c", code, str(out)], cwd=source, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return out / done.stdout.split()[-1]


@pytest.fixture(scope="module")
def project(tmp_path_factory) -> Path:
    """Copy of what is needed to build the project."""
    copy = tmp_path_factory.mktemp("project") / "napari-unet"
    ignore = shutil.ignore_patterns("__pycache__", "*.egg-info")
    shutil.copytree(ROOT / "src", copy / "src", ignore=ignore)
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, copy / name)
    return copy


def found_in(installed: Path) -> Path:
    """Find the manifest in an installation; return the package's folder."""
    done = subprocess.run(
        [sys.executable, "-P", "-c", FIND, str(installed)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    name, commands, version, file = json.loads(done.stdout)
    assert (name, commands) == ("napari-unet", len(COMMANDS))
    assert version == importlib.import_module("napari_unet").__version__
    return Path(file).parent


def test_a_wheel_has_manifest_marker_and_registry(project, tmp_path):
    with zipfile.ZipFile(build("build_wheel", project, tmp_path / "out")) as wheel:
        wheel.extractall(tmp_path / "site")
    package = found_in(tmp_path / "site")
    assert package == tmp_path / "site" / "napari_unet"
    for name in ("napari.yaml", "py.typed", "plugin/isbi2012.txt"):
        assert (package / name).is_file(), name


def test_an_sdist_builds_the_same(project, tmp_path):
    with tarfile.open(build("build_sdist", project, tmp_path / "out")) as sdist:
        sdist.extractall(tmp_path / "unpacked", filter="data")
    (unpacked,) = (tmp_path / "unpacked").iterdir()
    with zipfile.ZipFile(build("build_wheel", unpacked, tmp_path / "again")) as wheel:
        wheel.extractall(tmp_path / "site")
    assert found_in(tmp_path / "site") == tmp_path / "site" / "napari_unet"


def test_an_editable_installation_points_into_the_project(project, tmp_path):
    with zipfile.ZipFile(build("build_editable", project, tmp_path / "out")) as wheel:
        wheel.extractall(tmp_path / "site")
    assert found_in(tmp_path / "site") == project / "src" / "napari_unet"


def test_the_manifest_at_the_top_is_the_one_in_the_package():
    assert (ROOT / "napari.yaml").resolve() == ROOT / "src" / "napari_unet" / "napari.yaml"


@pytest.mark.parametrize("command", COMMANDS.values(), ids=COMMANDS)
def test_every_python_name_can_be_imported(command):
    module, name = command.python_name.split(":")
    assert callable(getattr(importlib.import_module(module), name))


def test_nothing_claims_plain_tiff_or_every_folder():
    for reader in MANIFEST.contributions.readers:
        assert not reader.accepts_directories
        assert set(reader.filename_patterns) <= {"*.unet", "*.ome.tif", "*.ome.tiff"}


def test_no_command_has_an_icon():
    # An icon of a font package that is not installed keeps napari 0.9 from starting.
    assert not any(command.icon for command in COMMANDS.values())


def test_each_widget_is_in_the_menu_too():
    contributions = MANIFEST.contributions
    (submenu,) = contributions.menus["napari/layers/segment"]
    entries = {item.command for item in contributions.menus[submenu.submenu]}
    assert entries == {widget.command for widget in contributions.widgets}
