"""A reward function for verl: `custom_reward_function.path=.../azr_nemo/environments/verl_reward.py`. Programs run in this process's jail, or on the
servers of `AZR_NEMO_SANDBOX=http://node1:8080,http://node2:8080` (`azr-nemo sandbox serve`)."""

import json
import os
from typing import Any

from azr_nemo.environments.referee import Reply, referee, task_of


def compute_score(data_source: str, solution_str: str, ground_truth: str, extra_info: Any = None, **_: Any) -> dict[str, Any]:
    """What verl's reward managers ask for, of a row of `azr-nemo seed --schema verl`. score: the settings' reward, which verl trains on."""
    servers = os.environ.get("AZR_NEMO_SANDBOX", "")
    words = ("executor=sandbox_fusion", f"executor.endpoints=[{servers}]") if servers else ()
    graded = referee(words).grade(task_of(json.loads(ground_truth)), Reply(solution_str))
    return {"score": graded.reward, "right": graded.score, "reason": graded.reason}
