"""Tasks as rows of others' data sets: the prompt in two messages, and what the grader needs."""

import json
from collections.abc import Callable
from typing import Any

from azr_nemo.environments.referee import ask, settings, stated
from azr_nemo.tasks.task import Task

Asked = list[dict[str, str]]


def _nemo_gym(asked: Asked, task: Task) -> dict[str, Any]:
    return {"responses_create_params": {"input": asked}, "task": stated(task)}


def _verl(asked: Asked, task: Task) -> dict[str, Any]:
    truth = {"style": "rule", "ground_truth": json.dumps(stated(task))}
    return {"data_source": "absolute_zero", "prompt": asked, "ability": task.type.value, "reward_model": truth}


FORMS: dict[str, Callable[[Asked, Task], dict[str, Any]]] = {"nemo_gym": _nemo_gym, "verl": _verl}


def rows_for(tasks: list[Task], form: str) -> list[dict[str, Any]]:
    """The tasks in one of FORMS, asked in the style chat_thoughts."""
    config = settings([])
    made = []
    for task in tasks:
        prompt = ask(task, config)
        asked = [{"role": "system", "content": prompt.system}, {"role": "user", "content": prompt.user}]
        made.append(FORMS[form](asked, task))
    return made
