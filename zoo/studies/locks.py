"""Locks that die with their process: how any number of processes share the folder of a study.

They are those of `flock`, which the system lets go of when the process that holds them ends, however it ends. For
processes on several hosts the network file system has to pass them on to its server: NFS 4 does so, and NFS 3 with a
lock daemon; not mounts with `nolock` or `local_lock`; Lustre where it is mounted with `flock`. Of a host that dies, the
server lets go after its lease, some 90 seconds.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def held(path: Path, *, shared: bool = False, wait: bool = False) -> Iterator[bool]:
    """Hold the lock of this file inside; gives whether it could be had.

    shared: with others who hold it shared, against one who wants it alone. wait: until it can be had.
    Raises OSError where the file system has no locks.
    """
    import fcntl

    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a+b") as file:  # closed, it is free again
        how = (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | (0 if wait else fcntl.LOCK_NB)
        try:
            fcntl.flock(file, how)
            ours = True
        except BlockingIOError:
            ours = False
        except OSError as error:
            raise OSError(f"{path} cannot be locked ({error.strerror}). Give a folder on another disk") from error
        yield ours
