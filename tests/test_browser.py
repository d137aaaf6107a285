"""The page in a real browser: it draws, sorts and opens without an error, and fits a phone, light and dark."""

import json
import re
import shutil
import subprocess
from html import escape, unescape
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from zoo.studies import report, together

pytestmark = pytest.mark.skipif(shutil.which("chromium") is None, reason="no chromium here")

NAMES = ("random", "vaal", "ssal", "plain+margin", "a_rather_long_name+" + "with_a_rather_long_query" * 3)
PROBE = """
const errors = [];
addEventListener("error", event => errors.push(String(event.message)));
addEventListener("load", async () => {
  const tips = [...document.querySelectorAll(".plot:has(.tip) .chart")].map(chart => {
    const box = chart.getBoundingClientRect(), tip = chart.parentNode.querySelector(".tip");
    if (box.width) chart.dispatchEvent(new PointerEvent("pointermove", {clientX: box.right, clientY: box.top + 40}));
    return tip.innerText;
  });
  const unsorted = [];
  for (const table of document.querySelectorAll("table.sort")) {
    const heads = [...table.tHead.rows[0].cells].filter(head => head.querySelector("button"));
    for (const head of heads) for (const wanted of head.classList.contains("name") ? [1, -1] : [-1, 1]) {
      head.querySelector("button").click();
      const values = [...table.tBodies[0].rows].map(row => row.cells[head.cellIndex].dataset.v).filter(Boolean);
      const apart = (a, b) => head.classList.contains("name") ? a.localeCompare(b) : a - b;
      if (values.some((value, i) => i && wanted * apart(values[i - 1], value) > 0)) unsorted.push(head.innerText);
    }
  }
  const details = document.querySelector("#asked details"), image = details?.querySelectorAll("img")[1];
  if (image) {
    details.open = true;
    image.loading = "eager";
    await image.decode();
    image.click();
  }
  const kept = document.querySelector(".legend button");
  kept?.click();
  parent.document.title = JSON.stringify({
    errors, tips, unsorted,
    tables: document.querySelectorAll("table.sort").length,
    tiles: [...document.querySelectorAll(".tiles li")].map(tile => tile.innerText),
    pressed: document.querySelectorAll(".legend [aria-pressed=true]").length,
    wide: innerWidth,
    reaches: document.documentElement.scrollWidth,
    paper: getComputedStyle(document.body).backgroundColor,
    seen: [...document.querySelectorAll("section")].filter(one => one.offsetHeight > 20).length,
    sections: document.querySelectorAll("section").length,
  });
});
"""


def run_directory(folder: Path, data: str, effect: float = 0.02) -> Path:
    """A run of 3 seeds and 2 rounds with everything that a page can show, and one learner that asks for two images."""
    lines = []
    for seed in range(3):
        for rank, name in enumerate(NAMES):
            for number in range(3):
                last = number == 2
                line: dict[str, Any] = {"learner": name, "seed": seed, "round": number, "labels": 40 + 20 * number}
                line |= {"accuracy": 0.5 + 0.05 * number + effect * rank + 0.004 * ((seed * rank) % 3), "plan": "ours"}
                line |= {"asked": [rank + 9 * number, 80 + seed], "asked_classes": [1, 1, 0], "network": "same"}
                line |= {"scores": [0.75, -0.0625] if number else None, "peak_bytes": 2**28, "query": name}
                line |= {"fit_seconds": 2.0 + rank, "select_seconds": 0.5 if number else None}
                line |= {"confusion": [[8, 1, 1], [0, 10, 0], [2, 0, 8]] if last else None}
                line |= {"diagnosis": {"critic_auc": 0.75} if name == "vaal" else {}, "entry": name}
                line |= {"doubts": ["the critic guesses"] if name == "vaal" else []}
                line |= {"pseudo_labels": {"count": 90, "precision": 0.875} if name == "ssal" else None}
                lines.append(line)
                sheet = folder / "asked" / name / f"seed0-round{number}.png"
                sheet.parent.mkdir(parents=True, exist_ok=True)
                Image.effect_noise((35, 18), 90).save(sheet)
        told = {
            "space": "features of the classifier",
            "shares": [0.5, 0.25],
            "of": 90,
            "classes": ["ant", "bee", "cat"],
        }
        told["points"] = {"unlabeled": [[0, 10], [900, 1000]], "labeled": [[500, 500]], "asked": [[20, 30]]}
        for name in NAMES:
            place = folder / "map" / name / "seed0.jsonl"
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_text(json.dumps(told))
    names = json.dumps(NAMES)
    (folder / "study.toml").write_text(f'data = "{data}"\nlearners = {names}\nseeds = 3\nrounds = 2\n')
    (folder / "results.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return folder


def look(page: Path, profile: Path, width: int = 1280, dark: bool = False) -> dict[str, Any]:
    """What the probe finds on the page; nothing may be said on the console.

    It is in a frame, since a window has a least width.
    """
    text = page.read_text(encoding="utf-8").replace("<head>", f"<head><script>{PROBE}</script>", 1)
    probed = profile.with_suffix(".html")
    frame = f'<iframe style="border:0" width={width} height=900 srcdoc="{escape(text)}"></iframe>'
    probed.write_text(f"<!DOCTYPE html><meta charset=utf-8><title></title>{frame}", encoding="utf-8")
    flags = ["--headless", "--no-sandbox", "--disable-gpu", "--enable-logging=stderr", "--no-first-run"]
    flags += ["--disable-background-networking", "--disable-component-update", "--disable-sync"]
    flags += ["--window-size=1400,1000", f"--user-data-dir={profile}", "--virtual-time-budget=3000"]
    flags += ["--blink-settings=preferredColorScheme=0"] if dark else []
    said = subprocess.run(
        ["chromium", *flags, "--dump-dom", probed.as_uri()], capture_output=True, text=True, timeout=120, check=True
    )
    assert "CONSOLE" not in said.stderr
    found: dict[str, Any] = json.loads(unescape(re.findall(r"<title>(.*?)</title>", said.stdout)[0]))
    assert found["errors"] == []
    assert found["wide"] == width
    assert found["reaches"] <= width
    assert found["seen"] == found["sections"]
    assert found["unsorted"] == []
    return found


def test_everything_on_the_page_works(tmp_path: Path) -> None:
    report.write(run_directory(tmp_path, "digits"))
    found = look(tmp_path / "report.html", tmp_path / "profile")
    assert found["sections"] >= 15
    assert found["tables"] >= 8
    assert found["pressed"] == 1
    assert found["tiles"] == ["0.75", "-0.0625"]
    over_labels, _, over_seconds, _ = found["tips"]
    assert "80 labels" in over_labels
    assert all(name in over_labels for name in NAMES)
    assert "seconds" in over_seconds


def test_it_fits_a_phone_in_the_dark(tmp_path: Path) -> None:
    report.write(run_directory(tmp_path, "digits"))
    dark = look(tmp_path / "report.html", tmp_path / "profile", width=420, dark=True)
    light = look(tmp_path / "report.html", tmp_path / "profile", width=420)
    assert dark["paper"] == "rgb(20, 23, 27)"
    assert light["paper"] == "rgb(255, 255, 255)"


def test_several_runs_fit_on_one_page(tmp_path: Path) -> None:
    runs = [tmp_path / "one", tmp_path / "two"]
    for number, run in enumerate(runs):
        run.mkdir()
        run_directory(run, f"data{number}", 0.02 - 0.01 * number)
    out = together.write(runs)
    for width in (420, 1280):
        found = look(out / "report.html", tmp_path / "profile", width=width)
        assert found["tables"] == 1
        assert len(found["tips"]) == 4
