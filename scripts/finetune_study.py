"""Does it pay to start from pretrained weights? Trained on one data set, fit on another, against from scratch.

usage: finetune_study.py --tag digits --data mnist [--size 16] [--labels 40] [--entries plain,vaal] [--seeds 5]

Both learners of a seed see the same labels for as many steps. One line each: mean accuracies, and the mean difference
with Student's 95 % interval over seeds.
"""

import argparse
import sys
from typing import Any

import zoo
from zoo.datasets import Test
from zoo.studies.measures import mean_interval


def main() -> None:
    ask = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ask.add_argument("--tag", default="digits")
    ask.add_argument("--data", required=True)
    ask.add_argument("--size", type=int)
    ask.add_argument("--labels", type=int, default=40)
    ask.add_argument("--entries", default="plain")
    ask.add_argument("--seeds", type=int, default=5, help="two or more")
    ask.add_argument("--steps", type=int, help="of both; by default those of the plan")
    ask.add_argument("--device", default="auto")
    given = ask.parse_args()
    if given.seeds < 2:
        ask.error("one seed has no interval; give --seeds 5")
    for entry in given.entries.split(","):
        pairs = []
        for seed in range(given.seeds):
            pool, test = zoo.data(given.data, initial=given.labels, seed=seed, size=given.size)
            steps = {} if given.steps is None else {"steps": given.steps}
            settings: dict[str, Any] = {"seed": seed, "device": given.device, **steps}
            started = zoo.create(entry, pretrained=given.tag, **settings).fit(pool)
            pairs.append((accuracy(started, test), accuracy(zoo.create(entry, **settings).fit(pool), test)))
        gain, low, high = mean_interval([with_ - without for with_, without in pairs])
        with_, without = (sum(values) / len(pairs) for values in zip(*pairs, strict=True))
        sys.stdout.write(
            f"{entry}: {given.tag} to {given.data}, {given.labels} labels, {given.seeds} seeds: "
            f"{with_:.4f} started from weights, {without:.4f} from scratch, "
            f"{gain:+.4f} [{low:+.4f}, {high:+.4f}]\n"
        )
        sys.stdout.flush()


def accuracy(learner: zoo.Learner, test: Test) -> float:
    return (learner.predict(test.images).argmax(1) == test.targets).double().mean().item()


if __name__ == "__main__":
    main()
