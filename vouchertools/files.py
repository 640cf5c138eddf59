"""Files that appear whole or not at all."""

import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import IO


def replace_file(path: Path, write: Callable[[IO[bytes]], None]) -> None:
    """Write beside a path and move into place.

    No reader ever sees half a file, and a crash leaves the old one. The file is readable by its owner alone.
    The temporary one beside it begins with a dot and ends in ``.tmp``, so no data set takes it for one of its
    own.

    Raises
    ------
    OSError
        The folder cannot be written, or the disk is full; the old file is as it was.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".tmp")
    try:
        with open(descriptor, "wb") as file:
            write(file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
