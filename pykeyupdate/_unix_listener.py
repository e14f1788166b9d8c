"""Unix sockets that listen for one user: made, replaced and removed safely.

Theory of operation. Nobody can connect to a socket before it listens. So a socket is
bound, its file gets mode 0600, and only then it listens: whatever the umask of the
process (which other threads share), nobody else can ever connect. (Linux gives the file
the mode of the socket, and 0600 is set there first, so that it is never seen with
another.) The file of a process that has died is recognized by its refusal to be
connected to. To recognize and replace it while no other process does the same, the
folder is locked.
"""

import contextlib
import errno
import os
import socket
import stat
import time
from collections.abc import Iterator
from typing import Union

from ._finding import name_of
from ._fork_lock import importing
from ._static_lookup import is_instance

_BACKLOG = 128
_LOCK_SECONDS = 5.0
_MODE = 0o600

Path = Union[str, "os.PathLike[str]"]
Identity = tuple[int, int]


def check_path(function: str, path: Path) -> str:
    """Check the path of a socket and return it as text."""
    if not hasattr(socket, "AF_UNIX"):
        raise NotImplementedError(
            f"{function} needs Unix sockets, and Python has none on this system: call "
            "pykeyupdate.connections(), totals() and rekey_all() in the program itself"
        )
    text = path if is_instance(path, str, bytes) else os.fspath(path)
    if not is_instance(text, str):
        raise TypeError(
            f"{function}: path must be a str or a path, not {name_of(path)}"
        )
    plain = str.__str__(text)  # a derived class may print and compare in any way
    if not plain or "\0" in plain:
        raise ValueError(f"{function}: path must name a file, not {plain!r}")
    return plain


def listen(path: str) -> "tuple[socket.socket, Identity]":
    """Return a socket that listens at a path, and what tells its file from others.

    Raises ``FileExistsError`` if something else is there, ``OSError`` (``EADDRINUSE``)
    if a process listens there, and what the system says of the path.
    """
    with _locked(os.path.dirname(path) or "."):
        _make_room(path)
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            with contextlib.suppress(OSError):  # elsewhere than on Linux
                os.fchmod(listener.fileno(), _MODE)
            listener.bind(path)
            os.chmod(path, _MODE)
            listener.setblocking(False)
            listener.listen(_BACKLOG)
            return listener, _identity(os.lstat(path))
        except BaseException:
            listener.close()
            raise


def remove(path: str, identity: Identity) -> None:
    """Remove a socket's file, unless it has been replaced."""
    with contextlib.suppress(OSError):
        if _identity(os.lstat(path)) == identity:
            os.unlink(path)


def _identity(found: os.stat_result) -> Identity:
    return found.st_dev, found.st_ino


@contextlib.contextmanager
def _locked(folder: str) -> Iterator[None]:
    with importing:
        import fcntl
    handle = os.open(folder, os.O_RDONLY)
    try:
        ends = time.monotonic() + _LOCK_SECONDS
        while True:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > ends:
                    raise
                time.sleep(0.01)
            except OSError:  # a file system without locks
                break
        yield
    finally:
        # A child that was forked meanwhile has the handle, too, and with it the lock.
        with contextlib.suppress(OSError):
            fcntl.flock(handle, fcntl.LOCK_UN)
        os.close(handle)


def _make_room(path: str) -> None:
    """Remove the file of a process that has died; refuse any other."""
    try:
        found = os.lstat(path)
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(found.st_mode):
        raise FileExistsError(
            errno.EEXIST, "there is a file that is no socket; remove it", path
        )
    if _is_alive(path):
        raise OSError(
            errno.EADDRINUSE,
            "a process listens there; give each process a path of its own",
            path,
        )
    os.unlink(path)


def _is_alive(path: str) -> bool:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.setblocking(False)
        try:
            probe.connect(path)
        except (ConnectionRefusedError, FileNotFoundError):
            return False
        except BlockingIOError:  # it has many clients
            return True
        return True
