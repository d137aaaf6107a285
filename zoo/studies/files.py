"""Files that are never seen half written."""

import os
from pathlib import Path


def put(path: Path, content: bytes) -> None:
    """Replace a file as a whole: whoever reads it meets the old one or the new one, never half of either."""
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        draft.write_bytes(content)
        os.replace(draft, path)
    finally:
        draft.unlink(missing_ok=True)
