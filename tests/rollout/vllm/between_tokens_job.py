"""`azr-nemo WORDS` whose sampler takes new weights in mid batch: it holds each refit until the first sample of a batch has arrived and most are to come,
or BOUND_S have passed. Without it, the machine says whether a refit meets a sample that is being drawn."""

import sys
import threading
from pathlib import Path

from azr_nemo.cli import main
from azr_nemo.rollout.vllm.vllm_rollout import VllmRollout

BOUND_S = 20.0  # the last refit of a run meets no batch


def hold(path: Path) -> None:
    under_way = threading.Event()
    generate, refit = VllmRollout.generate, VllmRollout.refit

    def generating(self, requests, on_sample=None):
        left = sum(request.samples for request in requests)

        def arrived(index, k, sample):
            nonlocal left
            left -= 1
            if left > 2:
                under_way.set()
            else:
                under_way.clear()
            if on_sample is not None:
                on_sample(index, k, sample)

        return generate(self, requests, arrived)

    def holding(self, weights, version=0):
        if version:
            met = under_way.wait(BOUND_S)
            with path.open("a") as log:
                log.write(f"{version} {'met' if met else 'free'}\n")
        refit(self, weights, version)

    VllmRollout.generate, VllmRollout.refit = generating, holding


if __name__ == "__main__":
    hold(Path(sys.argv[1]))
    sys.argv[1:] = sys.argv[2:]
    sys.exit(main())
