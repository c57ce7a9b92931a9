"""One of two ranks that lead one replica of TensorRT-LLM between them, a stand-in here. `replica_job.py FOLDER`; RANK says which."""

import os
import sys

from test_trtllm import two_ranks

if __name__ == "__main__":
    two_ranks(int(os.environ["RANK"]), sys.argv[1])
