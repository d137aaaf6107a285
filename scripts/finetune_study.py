"""Does it pay to start from pretrained weights? Trained on one data set, fit on another, against from scratch.

usage: finetune_study.py --tag digits --data mnist --size 16 [--labels 40] [--entries plain,vaal] [--seeds 5]
                         [--data folder:PATH/mnist]     # where the data set lies unpacked; its last name is told
                         [--lr-scale trunk=0.1]         # of the fit that starts from weights
                         [--out FILE]                   # checkpoints/finetune.jsonl, which publish.py puts on cards

Both learners of a seed see the same images and labels for as many steps. Each entry makes one line: the accuracies of
all seeds, and the mean difference with Student's 95 % interval over seeds. A line of the same study is replaced.
"""

import argparse
import json
import platform
import sys
from pathlib import Path
from typing import Any

import torch
from train_weights import ROOT, accuracy, commit, processor

import zoo
from trainers.seeds import generator
from zoo.datasets import Test
from zoo.studies.measures import mean_interval

STUDY = ("entry", "tag", "data", "shape", "labels", "pool", "steps", "lr_scale")  # what makes two lines the same study


def main() -> None:
    ask = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ask.add_argument("--tag", default="digits")
    ask.add_argument("--data", required=True)
    ask.add_argument("--size", type=int)
    ask.add_argument("--labels", type=int, default=40)
    ask.add_argument("--pool", type=int, default=2_000, help="images, drawn anew for each seed, the labeled among them")
    ask.add_argument("--entries", default=",".join(zoo.names("entries")))
    ask.add_argument("--seeds", type=int, default=5, help="two or more")
    ask.add_argument("--steps", type=int, help="of both; by default those of the plan")
    ask.add_argument("--lr-scale", action="append", default=[], metavar="PART=FACTOR")
    ask.add_argument("--device", default="auto")
    ask.add_argument("--out", type=Path, default=ROOT / "checkpoints" / "finetune.jsonl")
    given = ask.parse_args()
    if given.seeds < 2:
        ask.error("one seed has no interval; give --seeds 5")
    parts = (each.partition("=") for each in given.lr_scale)
    scale = {part: float(factor) for part, _, factor in parts}
    for entry in given.entries.split(","):
        line = compare(entry, given, scale)
        keep(line, given.out)
        sys.stdout.write(
            f"{entry}: {line['started_mean']:.4f} started from {given.tag}, {line['scratch_mean']:.4f} from scratch, "
            f"{line['gain']:+.4f} [{line['low']:+.4f}, {line['high']:+.4f}]\n"
        )
        sys.stdout.flush()


def compare(entry: str, given: argparse.Namespace, scale: dict[str, float]) -> dict[str, Any]:
    """One line: both ways of every seed, and what they differ by."""
    settings = {"device": given.device, **({} if given.steps is None else {"steps": given.steps})}
    started, scratch = [], []
    for seed in range(given.seeds):
        pool, test = some(given, seed)
        tuned = zoo.create(entry, seed=seed, pretrained=given.tag, lr_scale=scale, **settings).fit(pool)
        fresh = zoo.create(entry, seed=seed, **settings).fit(pool)
        started.append(accuracy(tuned, test))
        scratch.append(accuracy(fresh, test))
    gain, low, high = mean_interval([with_ - without for with_, without in zip(started, scratch, strict=True)])
    (weights,) = zoo.weights(f"{entry}.{given.tag}")
    return {
        "entry": entry,
        "tag": given.tag,
        "data": given.data.rpartition("/")[2],
        "shape": list(pool.shape),
        "labels": given.labels,
        "pool": len(pool),
        "steps": fresh.loop.steps,
        "lr_scale": scale,
        "seeds": list(range(given.seeds)),
        "started": started,
        "scratch": scratch,
        "started_mean": mean_interval(started)[0],
        "scratch_mean": mean_interval(scratch)[0],
        "gain": gain,
        "low": low,
        "high": high,
        "n": len(test.images),
        "sha256": weights.sha256,
        "machine": f"{platform.machine()}, {processor(given.device)}",
        "commit": commit(),
    }


def some(given: argparse.Namespace, seed: int) -> tuple[zoo.Pool, Test]:
    """A part of the data set's pool with its labels revealed, and all test images."""
    whole, test = zoo.data(given.data, initial=0, seed=seed, size=given.size)
    kept = torch.randperm(len(whole), generator=generator(seed, "part"))[: given.pool]
    pool = zoo.Pool.of(whole.images[kept], whole.oracle(kept), whole.classes, whole.names)
    return pool.reveal(torch.arange(given.labels)), test


def keep(line: dict[str, Any], out: Path) -> None:
    """The line in its file, in the place of one of the same study."""
    lines = [json.loads(text) for text in out.read_text().splitlines()] if out.exists() else []
    others = [other for other in lines if any(other[key] != line[key] for key in STUDY)]
    fresh = out.with_name(f".{out.name}")
    fresh.write_text("".join(f"{json.dumps(each)}\n" for each in (*others, line)))
    fresh.replace(out)


if __name__ == "__main__":
    main()
