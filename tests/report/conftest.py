"""A real Chromium without a network, and runs to report on."""

import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import synthetic
import tiny_run
from opened import PATIENCE_MS, Opened
from playwright.sync_api import Browser, sync_playwright

CHROMIUM = os.environ.get("AZR_CHROMIUM") or shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
SORTED = "def f(words):\n    return sorted(words)"


@pytest.fixture(scope="module")  # while it is there an event loop runs, beside which other tests' loops cannot
def chromium() -> Iterator[Browser]:
    if not CHROMIUM:
        pytest.skip("no Chromium here: install one, or set AZR_CHROMIUM to its path")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"], timeout=PATIENCE_MS)
        yield browser
        browser.close()


@pytest.fixture
def open_page(chromium) -> Iterator[Callable[..., Opened]]:
    """Opens an HTML file, offline; at the end it must have asked for nothing and complained of nothing."""
    opened: list[Opened] = []

    def open(path: Path, fragment: str = "", **context) -> Opened:
        opened.append(Opened(chromium, path.as_uri() + fragment, offline=True, **context))
        return opened[-1]

    yield open
    for one in opened:
        asked = [address for address in one.asked if not address.startswith(("data:", "blob:"))]
        one.context.close()
        assert not asked, f"the page asked for {asked}"
        assert not one.said, one.said


@pytest.fixture(scope="session")
def real_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of the tiny recipe of two steps, as a user starts one."""
    run_dir = tmp_path_factory.mktemp("runs") / "real"
    tiny_run.finish(tiny_run.start(run_dir, "selfplay.steps=2", "eval.every=1"))
    return run_dir


@pytest.fixture
def small_run(tmp_path: Path) -> Path:
    """Ten steps, three tasks, four answers to the second, one of them wrong. The third came from the first two."""
    run_dir = tmp_path / "small"
    synthetic.metrics(run_dir, 10)
    synthetic.tasks(
        run_dir / "buffer.sqlite",
        [
            {"id": 1, "program": "def f(a):\n    return a", "is_seed": True, "step": 0},
            {
                "id": 2,
                "program": "def f(words):\n    return sorted(words)",
                "inputs": ["['b']"],
                "outputs": ["['b']"],
                "step": 1,
                "attempts": 4,
                "solved": 3,
            },
            {
                "id": 3,
                "type": "induction",
                "program": "def f(n):\n    return n * n",
                "inputs": ["1", "2"],
                "outputs": ["1", "4"],
                "message": "squares",
                "step": 2,
                "references": [1, 2],
                "attempts": 2,
                "thought": "Something with numbers.",
            },
        ],
    )
    wrong = {"task": 2, "completion": "['c']", "outcome": "wrong_value", "reward": -0.5, "advantage": -1.25, "response_tokens": 4}
    synthetic.rollouts(run_dir, 1, [{"task": 2, "completion": "['b']"}, wrong])
    synthetic.rollouts(
        run_dir,
        2,
        [{"task": 2, "phase": "solve"}, {"task": 2}, {"task": 3, "phase": "propose", "outcome": "solve_rate=0.50"}],
    )
    return run_dir
