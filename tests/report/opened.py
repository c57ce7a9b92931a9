"""A report as a reader has it: written, and opened in a browser."""

from pathlib import Path
from typing import Any

from playwright.sync_api import Browser, expect

from azr_nemo.observe.report.blocks import blocks
from azr_nemo.observe.report.page import page, write
from azr_nemo.observe.report.read import Reader, names

PATIENCE_MS = 60_000  # the machine may be at work
# Waits by playwright's own loop: wait_for_function evaluates texts in the page, which the page's policy forbids.
expect.set_options(timeout=PATIENCE_MS)


def report_of(to: Path, *runs: Path) -> Path:
    """The report of these runs as `azr-nemo report` writes it."""
    titles = names(runs)
    write(page(", ".join(titles), blocks([Reader(run, name).read() for run, name in zip(runs, titles, strict=True)])), to)
    return to


class Opened:
    """A page in a browser context of its own. asked: the addresses that it asked for, its own left out. said: errors on its console."""

    def __init__(self, browser: Browser, address: str, **context: Any):
        self.context = browser.new_context(viewport={"width": 1400, "height": 1000}, **context)
        self.context.set_default_timeout(PATIENCE_MS)
        self.asked: list[str] = []
        self.said: list[str] = []
        own = address.split("#")[0]
        self.page = self.context.new_page()
        self.page.on("request", lambda request: None if request.url.split("#")[0] == own else self.asked.append(request.url))
        self.page.on("console", lambda message: self.said.append(message.text) if message.type in ("error", "warning") else None)
        self.page.on("pageerror", lambda error: self.said.append(str(error)))
        self._devtools = self.context.new_cdp_session(self.page)
        self._devtools.send("Performance.setTimeDomain", {"timeDomain": "threadTicks"})
        self._devtools.send("Performance.enable")  # before the page: its counts begin here
        self.page.goto(address)
        self.page.wait_for_selector("body[data-ready=yes]")

    def processor_seconds(self) -> float:
        """Of the page's process so far, all its threads. The clock on the wall says more about what else this machine does."""
        found = {metric["name"]: metric["value"] for metric in self._devtools.send("Performance.getMetrics")["metrics"]}
        return float(found["ProcessTime"])

    def counts(self) -> str:
        return self.page.text_content("#count")
