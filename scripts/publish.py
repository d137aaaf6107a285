"""Make weights ready for others: lines of the manifest, cards, a folder for a web server, a repository of the hub.

usage: publish.py [FOLDER]                     # FOLDER/manifest.toml and FOLDER/NAME.md; FOLDER is checkpoints/
       publish.py [FOLDER] --static OUT        # what any web server can serve: ALZOO_WEIGHTS_URL=http://.../OUT
       publish.py [FOLDER] --hub OWNER/NAME    # upload to a repository: pretrained="hf-hub:OWNER/NAME"
       publish.py [FOLDER] --url https://...   # write into the manifest where that folder is served
"""

import argparse
import shutil
import sys
import tomllib
from hashlib import sha256
from pathlib import Path
from typing import Any

import cards
import tomli_w

import checkpoints
import zoo
from checkpoints.weights import ABOUT

LARGEST = 16 << 20  # bytes of one file; a larger one is cut into pieces
HEAD = "# One table per entry.tag: where the file is, and what the weights are. Written by scripts/publish.py.\n\n"


def main() -> None:
    ask = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ask.add_argument("folder", nargs="?", type=Path, default=Path(checkpoints.__file__).parent)
    ask.add_argument("--static", type=Path, metavar="OUT")
    ask.add_argument("--hub", metavar="OWNER/NAME")
    ask.add_argument("--url", help='from where users who have no file download it; "" for nowhere')
    given = ask.parse_args()
    names = write(given.folder, url=given.url)
    if given.static:
        copy(given.folder, given.static)
    if given.hub:
        upload(given.folder, given.hub)
    sys.stdout.write(f"{len(names)} weights: {', '.join(names)}\n")


def write(folder: Path, largest: int = LARGEST, *, url: str | None = None) -> list[str]:
    """The manifest and the cards of all weights in a folder; the names of these. Too large files are cut up.

    url: where the folder is served; None leaves what the manifest says.
    """
    manifest = folder / "manifest.toml"
    if url is None:
        url = tomllib.loads(manifest.read_text()).get("url", "") if manifest.exists() else ""
    known = {w.name: w for w in checkpoints.table(manifest)} if manifest.exists() else {}
    rows = {
        name: line(w.file, w.sha256, w.bytes, pieces=w.pieces, **w.about)
        for name, w in known.items()
        if w.pieces and all((folder / piece.file).exists() for piece in w.pieces)
    }
    for path in sorted(folder.glob("*.*.safetensors")):
        name = path.name.removesuffix(".safetensors")
        card, _ = checkpoints.read(path)
        told = {key: value for key, value in card.get("about", {}).items() if key in ABOUT}
        (folder / f"{name}.md").write_text(cards.page(name, card, cards.tuned(folder, name)))
        rows[name] = {**described(path), **told}
        if path.stat().st_size > largest:
            rows[name]["pieces"] = [described(piece) for piece in cut(path, largest)]
    tables: dict[str, Any] = {"url": url} if url else {}
    for name, row in sorted(rows.items()):
        entry, _, tag = name.partition(".")
        tables.setdefault(entry, {})[tag] = row
    manifest.write_text(HEAD + tomli_w.dumps(tables))
    checkpoints.table(manifest)  # raises for what `zoo.weights` would refuse
    return sorted(rows)


def described(path: Path) -> dict[str, Any]:
    """A file's name, hash and length."""
    data = path.read_bytes()
    return {"file": path.name, "sha256": sha256(data).hexdigest(), "bytes": len(data)}


def line(file: str, sha256: str, bytes: int, *, pieces: Any, **about: Any) -> dict[str, Any]:
    """A table of the manifest as it stood there."""
    return {"file": file, "sha256": sha256, "bytes": bytes, **about, "pieces": [vars(piece) for piece in pieces]}


def cut(path: Path, largest: int) -> list[Path]:
    """A file in pieces of at most so many bytes, in its place."""
    data = path.read_bytes()
    parts = [data[at : at + largest] for at in range(0, len(data), largest)]
    pieces = [path.with_name(f"{path.name}.{i}of{len(parts)}") for i in range(1, len(parts) + 1)]
    for piece, part in zip(pieces, parts, strict=True):
        piece.write_bytes(part)
    path.unlink()
    return pieces


def copy(folder: Path, out: Path) -> None:
    """All files that the manifest names, their cards and the manifest itself, into a folder that is served as it is."""
    out.mkdir(parents=True, exist_ok=True)
    for weights in checkpoints.table(folder / "manifest.toml"):
        for file in (f"{weights.name}.md", *(piece.file for piece in weights.pieces or (weights,))):
            shutil.copyfile(folder / file, out / file)
    shutil.copyfile(folder / "manifest.toml", out / "manifest.toml")


def upload(folder: Path, repository: str) -> None:
    """The same files to a repository of the Hugging Face hub, which is made if there is none."""
    from huggingface_hub import HfApi

    hub = HfApi()
    hub.create_repo(repository, exist_ok=True)
    hub.upload_folder(
        repo_id=repository,
        folder_path=folder,
        allow_patterns=["*.safetensors", "*.safetensors.*", "*.md", "manifest.toml"],
        commit_message=f"Weights of alzoo {zoo.__version__}",
    )


if __name__ == "__main__":
    main()
