"""A lock file: one process at a time writes in a run folder."""

from __future__ import annotations

import errno
import json
import os
import socket
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path

import psutil

from napari_unet.errors import FileError
from napari_unet.files.atomic import file_error, part_of

__all__ = ["Holder", "Lock"]

_WRITING = 0.2  # seconds within which a new lock file has its content
_ATTEMPTS = 5
_SAME_BOOT = 10.0  # seconds by which the clock may have been set since


@dataclass(frozen=True, slots=True)
class Holder:
    """The process that holds a lock.

    Parameters
    ----------
    pid : int
        Its process id.
    host : str
        Name of its computer.
    start, boot : float
        When it and its computer started, in seconds since 1970, as its own clock said.
    """

    pid: int
    host: str
    start: float
    boot: float

    @classmethod
    def this_process(cls) -> Holder:
        """Describe the calling process."""
        return cls(os.getpid(), socket.gethostname(), psutil.Process().create_time(), psutil.boot_time())

    def is_alive(self) -> bool:
        """Return whether this very process still runs; True for one on another computer.

        The id alone does not tell, because ids are used again; so its start is compared, by
        the clock and since boot: a clock that was set in between changes one of them only.
        """
        if self.host != socket.gethostname():
            return True
        try:
            process = psutil.Process(self.pid)
            if process.status() == psutil.STATUS_ZOMBIE:
                return False
            start = process.create_time()
        except psutil.NoSuchProcess:
            return False
        except psutil.AccessDenied:
            return True
        since_boot = start - psutil.boot_time()
        return abs(start - self.start) < 2.0 or abs(since_boot - (self.start - self.boot)) < 0.5

    def ended_with_its_computer(self) -> bool:
        """Return whether this computer, where it ran, was started again since: then the process did not end by itself."""
        return self.host == socket.gethostname() and abs(self.boot - psutil.boot_time()) > _SAME_BOOT


class Lock:
    """A lock file that names its holder, and is taken over when the holder is dead.

    Parameters
    ----------
    path : pathlib.Path
        The file.
    what : pathlib.Path, optional
        What it locks; by default the folder that it lies in, a run.
    noun : str
        What that is called.
    stale_after : float, optional
        Seconds without a `touch` after which a holder on another computer counts as dead, too. Of one on this computer it is known.
    """

    def __init__(
        self, path: Path, what: Path | None = None, noun: str = "run", stale_after: float | None = None
    ) -> None:
        self.path = path
        self._what, self._noun, self._stale_after = what or path.parent, noun, stale_after
        self._named = what or path  # in errors: a hidden file beside an output says nothing to the user
        self._content: bytes | None = None

    def acquire(self) -> bool:
        """Take the lock.

        Returns
        -------
        bool
            True if it was taken over from a process that died by itself without giving it back, not with its computer.

        Raises
        ------
        FileError
            If a living process holds it (the sentence names the run and the process), or the
            file cannot be written.
        """
        content = json.dumps(asdict(Holder.this_process())).encode()
        died = False
        with _one_at_a_time(self.path.parent, self._named):
            for _ in range(_ATTEMPTS):
                if self._create(content):
                    self._content = content
                    return died
                found = self._read()
                if found is None:
                    continue
                if holder := self._living(found):
                    raise FileError(self._what, self._in_use(holder))
                self._remove(found)
                dead = _holder(found)
                died = dead is not None and not dead.ended_with_its_computer()
        raise FileError(self._what, "is being taken by several processes at once; try again.")

    def is_held(self) -> bool:
        """Return whether a living process holds it, this one included.

        Raises
        ------
        FileError
            If the file cannot be read.
        """
        found = self._read()
        return found is not None and self._living(found) is not None

    def touch(self) -> None:
        """Show processes on other computers that the holder lives."""
        with suppress(OSError):
            os.utime(self.path)  # which makes no file where it was removed

    def release(self) -> None:
        """Give the lock back, if this object holds it."""
        content, self._content = self._content, None
        if content is not None and self._read() == content:
            with suppress(OSError):
                self.path.unlink()

    def _living(self, content: bytes) -> Holder | None:
        """Read who holds the lock; None if that process is dead."""
        holder = _holder(content)
        return holder if holder is not None and holder.is_alive() and not self._is_still(holder) else None

    def _is_still(self, holder: Holder) -> bool:
        """Whether a holder on another computer has not touched it for so long that it must be dead."""
        if self._stale_after is None or holder.host == socket.gethostname():
            return False
        try:
            return time.time() - self.path.stat().st_mtime > self._stale_after
        except OSError:
            return False

    def _in_use(self, holder: Holder) -> str:
        it, other = f"the {self._noun} {self._what.name!r}", "folder" if self._noun == "run" else "name"
        if holder.host != socket.gethostname():
            return (
                f"{it} is in use by process {holder.pid} on {holder.host}. Wait for it or choose another {other}; "
                f"if nothing runs there any more, delete {self.path}."
            )
        own = holder.pid == os.getpid()
        who = f"this program (process {holder.pid})" if own else f"process {holder.pid}"
        return f"{it} is in use by {who}. Wait until it is done, stop it there, or choose another {other}."

    def _create(self, content: bytes) -> bool:
        try:
            with self.path.open("xb") as file:
                file.write(content)
        except FileExistsError:
            return False
        except OSError as error:
            # Windows answers "denied" while a lock that was just removed is still being removed.
            if error.errno == errno.EACCES and self.path.exists():
                return False
            raise file_error(self._named, error, needed=len(content)) from error
        return True

    def _read(self) -> bytes | None:
        """Return the file's content, waiting for one that is being written; None if it is gone."""
        give_up = time.monotonic() + _WRITING
        while True:
            try:
                content = self.path.read_bytes()
            except FileNotFoundError:
                return None
            except OSError as error:
                raise FileError(self.path, f"cannot be read ({error.strerror or error}).") from error
            if _holder(content) is not None or time.monotonic() > give_up:
                return content
            time.sleep(0.01)

    def _remove(self, stale: bytes) -> None:
        """Remove a dead holder's lock, but not one that another process took in the meantime."""
        aside = part_of(self.path)
        try:
            self.path.rename(aside)  # of several processes only one gets it
            if aside.read_bytes() != stale:
                aside.rename(self.path)
                return
            aside.unlink()
        except FileNotFoundError:
            return
        except OSError as error:
            raise file_error(self._named, error) from error


@contextmanager
def _one_at_a_time(folder: Path, named: Path) -> Iterator[None]:
    """Let one process at a time look at a lock and take it over, where the system can do that.

    The system forgets this lock when its holder dies, so it cannot go stale; but Windows and
    some network drives have none, and there `Lock._remove` has to do alone.
    """
    if sys.platform == "win32":
        yield
        return
    import fcntl

    try:
        descriptor = os.open(folder, os.O_RDONLY)
    except OSError as error:
        raise file_error(named, error) from error
    try:
        with suppress(OSError):
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _holder(content: bytes) -> Holder | None:
    """Read who holds a lock; None for a file that a power cut left without content."""
    try:
        fields = json.loads(content)
        return Holder(int(fields["pid"]), str(fields["host"]), float(fields["start"]), float(fields["boot"]))
    except (ValueError, KeyError, TypeError):
        return None
