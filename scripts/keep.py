"""Keep what a run has come to, in files that are small enough to read.

    python scripts/keep.py alzoo-runs/gaal-mnist57-1a2b3c4d scripts/results/published/gaal-mnist57

study.toml, which repeats the run; results.jsonl, its records without scores and indices; and table.md, written anew.
They replace what is there from an earlier run. Where images lay is told as folder:PATH/NAME: it is nobody's business.
"""

import argparse
import json
from pathlib import Path

from zoo.studies import measures, report
from zoo.studies.files import put

LEFT_OUT = ("scores", "asked", "notes", "shown")  # of each record


def keep(run: Path, place: Path) -> None:
    """From the folder of a run to its place."""
    report.write(run)
    data = measures.settings(run)["data"]
    texts = {file: (run / file).read_text() for file in ("study.toml", "table.md", "results.jsonl")}
    texts["results.jsonl"] = lighter(texts["results.jsonl"])
    for file, text in texts.items():
        put(place / file, anywhere(text, data).encode())


def anywhere(text: str, data: str) -> str:
    """A text that does not tell in which folder these data lie."""
    source, slash, _ = data.rpartition("/")
    return text.replace(source + slash, "folder:PATH/") if slash else text


def lighter(lines: str) -> str:
    """Records in order, without what takes most of the room."""
    records = [json.loads(line) for line in lines.splitlines()]
    records.sort(key=lambda record: (record["learner"], record["seed"], record["round"]))
    return "".join(
        json.dumps({name: value for name, value in record.items() if name not in LEFT_OUT}) + "\n" for record in records
    )


if __name__ == "__main__":
    ask = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ask.add_argument("run", type=Path)
    ask.add_argument("place", type=Path)
    given = ask.parse_args()
    keep(given.run, given.place)
