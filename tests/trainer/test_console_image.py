"""The picture of the console in docs/, made by a real run: AZR_WRITE_SCREENSHOTS=1 makes it anew, from a run after its warm start."""

import html
import os
import re
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pytest
import tiny_run
from run_server import shared

ROOT = Path(__file__).parents[2]
SCRIPT = ROOT / "tests" / "observe" / "console_recording.py"
IMAGE = ROOT / "docs" / "images" / "console.svg"
WARMED = [
    "recipe=tiny-1n0g-megatron", f"data.seed_files=[{tiny_run.SEEDS}]", "data.seed_factor=1", "selfplay.steps=3", "selfplay.batch_size=6",
    "rollout.estimate_samples=4", "logging.samples_every=2", "eval.items=15", "eval.every=1",
]  # fmt: skip
UNSAFE = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u200b-\u200f\u202a-\u202e\ufffe\uffff]")


def words(image: str) -> str:
    """The text of an SVG, line by line."""
    lines: dict[float, str] = {}
    for text in ElementTree.fromstring(image).iter("{http://www.w3.org/2000/svg}text"):
        place = float(text.get("y", 0))
        lines[place] = lines.get(place, "") + html.unescape(text.text or "").replace("\xa0", " ")
    return "\n".join(lines[place] for place in sorted(lines))


@pytest.mark.slow
@pytest.mark.timeout(1500)
def test_a_real_run_shows_all_that_one_wants_to_see(tmp_path):
    writing = os.environ.get("AZR_WRITE_SCREENSHOTS") == "1"
    settings = WARMED if writing else [*tiny_run.SETTINGS, "selfplay.steps=2", "logging.samples_every=1"]
    arguments = [tmp_path / "console.svg", "3" if writing else "2", *settings, "run_dir=runs/tiny"]
    done = shared().start(arguments, script=SCRIPT, folder=tmp_path).wait(1400)
    assert done.code == 0, done.output
    image = (tmp_path / "console.svg").read_text()
    text = words(image)
    for label in ("valid proposals", "learnable", "answers right", "held out", "tasks in the buffer", "generated", "executed", "memory"):
        assert label in text
    assert re.search(r"steps.*\d/\d ?ETA \d", text)
    assert re.search(r"solve.*\d+/\d+ ?ETA \d", text)
    assert len(re.findall(r"(propose|solve) (deduction|abduction|induction): \w+.*, reward -?\d", text)) >= 3
    assert not UNSAFE.search(image)
    assert str(tmp_path) not in text
    assert set(re.findall(r"https?://([^/\"' ]+)", image)) == {"www.w3.org"}  # nothing is fetched to draw it
    if writing:
        assert re.search(r"\d programs/s", text)
        IMAGE.write_text(image)
