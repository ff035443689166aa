"""The errors that napari-unet raises, one tree.

::

    NapariUNetError
    ├── ConfigError    a setting, a job or a model card says something impossible
    ├── DataError      an image or its labels cannot be used
    ├── FileError      a file or folder cannot be read or written; `path` names it
    ├── ModelError     a network cannot be built, trained or applied
    └── BackendError   TensorFlow (or another Keras backend) cannot be used here

Each message is written for the person at the microscope: what was asked, what was
found, which rule it breaks and the way out. The edges (docks, command line, worker)
show the message as it is and nothing else.
"""

from __future__ import annotations

from os import PathLike, fspath

__all__ = [
    "BackendError",
    "ConfigError",
    "DataError",
    "FileError",
    "ModelError",
    "NapariUNetError",
]


class NapariUNetError(Exception):
    """Base of every error this package raises on purpose."""


class ConfigError(NapariUNetError):
    """A setting is unknown, out of its bounds, or not built yet."""


class DataError(NapariUNetError):
    """An image or its labels cannot be used as they are."""


class FileError(NapariUNetError):
    """A file or folder cannot be read or written.

    Parameters
    ----------
    path : str or os.PathLike
        What could not be read or written.
    reason : str
        Why, as the rest of a sentence, and what to do.
    """

    def __init__(self, path: str | PathLike[str], reason: str) -> None:
        self.path = fspath(path)
        self.reason = reason
        super().__init__(f"{self.path}: {reason}")

    def __reduce__(self) -> tuple[type[FileError], tuple[str, str]]:
        return FileError, (self.path, self.reason)


class ModelError(NapariUNetError):
    """A network cannot be built, trained or applied."""


class BackendError(NapariUNetError):
    """The library that computes (TensorFlow, by default) cannot be used here."""
