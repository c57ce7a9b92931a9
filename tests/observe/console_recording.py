"""Trains with the console of a terminal and writes what it shows, halfway through sampling the answers of a step, as an SVG.

python console_recording.py OUT.svg STEP OVERRIDE...
"""

import io
import os
import re
import sys
from pathlib import Path
from typing import TextIO

import rich.console
from rich._export_format import CONSOLE_SVG_FORMAT

from azr_nemo.observe import console
from azr_nemo.observe.terminal import RichView
from azr_nemo.observe.view import Phase
from azr_nemo.planning.run_settings import load_settings

WIDTH = 150
# rich's own, without fonts from elsewhere.
FORMAT = re.sub(r"\s*@font-face \{\{.*?\}\}|<!-- Generated .*?-->", "", CONSOLE_SVG_FORMAT, flags=re.DOTALL)


class Recording(RichView):
    """Draws nowhere. Its lines and, at the chosen moment, the picture below them become the image."""

    out_svg: Path
    step_shown: int

    def __init__(self, stream: TextIO) -> None:
        self._recorder = rich.console.Console(record=True, file=io.StringIO(), width=WIDTH, highlight=False)
        super().__init__(stream, self._recorder)
        self._taken = False
        self._steps = 0

    def step(self, step: int, *shown: object) -> None:
        self._steps = step
        super().step(step, *shown)  # type: ignore[arg-type]

    def phase_moved(self, phase: Phase) -> None:
        super().phase_moved(phase)
        if not self._taken and phase.name == "solve" and self._steps == self.step_shown - 1 and 2 * phase.done >= (phase.total or 0):
            self._taken = True
            self._recorder.print(self.picture())
            aside = self.out_svg.with_suffix(".writing")
            self._recorder.save_svg(str(aside), title="azr-nemo train", code_format=FORMAT)
            os.replace(aside, self.out_svg)


def main() -> int:
    Recording.out_svg, Recording.step_shown = Path(sys.argv[1]), int(sys.argv[2])
    console.VIEWS["rich"] = Recording
    from azr_nemo.trainer.loop import train

    return train(load_settings([*sys.argv[3:], "logging.console=rich"]))


if __name__ == "__main__":
    sys.exit(main())
