"""One rank of a job that the doctor looks at: `azr-nemo doctor` with one part replaced, as named by the first argument."""

import sys
import time
from typing import Any

from azr_nemo import cli
from azr_nemo.doctor import ranks


def main(ailment: str, rank: int) -> None:
    real_now, real_reduce, real_introduce = ranks.now, ranks._reduce, ranks._introduce
    if ailment == "skewed" and rank == 1:
        ranks.now = lambda: real_now() + 120
    if ailment == "hangs" and rank == 1:

        def hang(*arguments: Any) -> Any:
            time.sleep(600)
            return real_reduce(*arguments)

        ranks._reduce = hang
    if ailment == "absent" and rank == 1:

        def stay_away(*arguments: Any) -> Any:
            time.sleep(600)
            return real_introduce(*arguments)

        ranks._introduce = stay_away
    cli.main()


if __name__ == "__main__":
    import os

    main(sys.argv.pop(1), int(os.environ["RANK"]))
