"""Tasks as rows of others' data sets: the prompt in two messages, and what the grader needs.

`python -m azr_nemo.environments.rows --turns 1000 > turns.jsonl` writes the rows of self-play under NeMo Gym: their prompts are written when asked for.
"""

import argparse
import json
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from azr_nemo.environments.referee import ask, settings, stated
from azr_nemo.tasks.styles.chat import SYSTEM
from azr_nemo.tasks.task import Role, Task, TaskType

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


def turns(count: int, roles: Sequence[str], types: Sequence[str]) -> Iterator[dict[str, Any]]:
    """Rows of self-play for NeMo Gym: `count` turns of each role and task type, which take turns themselves."""
    for number in range(count):
        for type in types:
            for role in roles:
                asked = {"input": [{"role": "system", "content": SYSTEM}]}
                yield {"responses_create_params": asked, "turn": {"role": role, "type": type, "number": number}}


def main() -> None:
    roles, types = [role.value for role in Role], [type.value for type in TaskType]
    parser = argparse.ArgumentParser(prog="python -m azr_nemo.environments.rows", description="Rows of self-play under NeMo Gym.")
    parser.add_argument("--turns", type=int, required=True, help="of each role and task type, at least 1")
    parser.add_argument("--roles", nargs="+", choices=roles, default=roles)
    parser.add_argument("--types", nargs="+", choices=types, default=types)
    asked = parser.parse_args()
    if asked.turns < 1:
        parser.error(f"--turns {asked.turns}: give at least 1")
    for row in turns(asked.turns, asked.roles, asked.types):
        print(json.dumps(row))


if __name__ == "__main__":
    main()
