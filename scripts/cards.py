"""The cards of weights in Markdown: what they are, how they were made, how good they are, and what they are not."""

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from scipy.stats import binomtest

from zoo import register


def interval(accuracy: float, n: int) -> tuple[float, float]:
    """Wilson's 95 % interval of an accuracy on n test images."""
    found = binomtest(round(accuracy * n), n).proportion_ci(method="wilson")
    return float(found.low), float(found.high)


def tuned(folder: Path, name: str) -> list[str]:
    """What scripts/finetune_study.py has measured of these weights, a sentence for each line of finetune.jsonl."""
    path = folder / "finetune.jsonl"
    lines = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
    return [gained(line) for line in lines if f"{line['entry']}.{line['tag']}" == name]


def gained(line: Mapping[str, Any]) -> str:
    """One study of fine-tuning in words, also where it does not pay."""
    scaled = f", lr_scale={line['lr_scale']}" if line["lr_scale"] else ""
    low, high = line["low"], line["high"]
    verdict = "it pays" if low > 0 else "it costs" if high < 0 else "no difference is shown"
    return (
        f"To {line['data']}, {'x'.join(map(str, line['shape']))}, {line['labels']} labels, {line['steps']} steps"
        f"{scaled}, {len(line['seeds'])} seeds: accuracy {line['started_mean']:.4f} from these weights, "
        f"{line['scratch_mean']:.4f} from scratch; {line['gain']:+.4f}, 95 % interval {low:+.4f} to {high:+.4f} "
        f"(paired, Student): {verdict}."
    )


def page(name: str, card: dict[str, Any], tuned: Sequence[str] = ()) -> str:
    """The card of one file in Markdown. tuned: what fits that start from it have given, a sentence each."""
    about, entry = card.get("about", {}), register.entries().get(card["name"])
    paper = entry.paper if entry is not None and entry.paper != "-" else "none: plain supervised training"
    low, high = interval(about["accuracy"], about["n"])
    copy = re.search('folder:[^"]+', about.get("pool", ""))
    command = f"python scripts/train_weights.py --name {name}{f' --data {copy[0]}' if copy else ''}"
    given = ", ".join(f"{key}={value}" for key, value in about.get("settings", {}).items())
    rows = {
        "method": f"`{card['name']}` ({paper})",
        "data": f"{about.get('data')}; licence: {about.get('licence')}",
        "images": f"{'x'.join(map(str, card['shape']))} (c h w), {card['classes']} classes",
        "protocol": f"{about.get('labels')} labels, {about.get('unlabeled')} unlabeled images: `{about.get('pool')}`",
        "plan": f"`{card['plan']}`, seed {about.get('seed')}, {about.get('steps')} steps, augment={card['augment']}",
        **({"set beside the plan": given} if given else {}),
        "accuracy of this file": f"{about['accuracy']:.4f} on {about['n']} test images",
        "95 % interval": f"{low:.4f} to {high:.4f} (Wilson, over test images)",
        "accuracy of seeds": ", ".join(f"{value:.4f}" for value in about.get("accuracies", ())),
        "trained on": f"{about.get('device')}, {about.get('minutes')} minutes, commit {about.get('commit')}",
        "numbers": "half precision; no decision on the test images is another" if about.get("half") else "float32",
        **{f"diagnosis: {key}": f"{value:.4g}" for key, value in about.get("diagnosis", {}).items()},
    }
    limits = [
        "Trained on small images of one data set, with few labels: a start for a fit, and a query for that data.",
        "It has seen the labels of the pool above and no others; its query takes those images for labeled.",
        *(entry.doubt(about["diagnosis"]) if entry is not None and entry.doubt else ()),
    ]
    tag = name.partition(".")[2]
    return "\n".join(
        (
            f"# {name}\n",
            f'`zoo.create("{card["name"]}", pretrained="{tag}")`\n',
            "| | |\n|---|---|",
            *(f"| {key} | {value} |" for key, value in rows.items()),
            "\n## Limits\n",
            *(f"- {limit}" for limit in limits),
            *(["\n## Fine-tuning\n", *(f"- {sentence}" for sentence in tuned)] if tuned else []),
            *([] if paper.startswith("none") else [f"\n## Citation\n\n{paper}"]),
            "\n## Made by\n",
            f"alzoo {card['alzoo']}: `{command}`.\n",
        )
    )
