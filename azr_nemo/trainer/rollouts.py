"""From a step's attempts to the rows that are kept of them."""

from azr_nemo.observe.rollout_files import Rollout
from azr_nemo.selfplay.step import StepResult


def rollouts(result: StepResult) -> list[Rollout]:
    """Every completion of the step, those that are not trained on too. To be called once rewards have become advantages."""
    return [
        Rollout(
            phase=attempt.phase,
            role=attempt.prompt.role,
            type=attempt.prompt.type,
            task=attempt.task_id,
            references=attempt.references,
            prompt=attempt.prompt.text.full,
            completion=attempt.completion.text,
            outcome=attempt.outcome,
            reward=attempt.reward,
            advantage=attempt.advantage,
            response_tokens=len(attempt.completion.response_ids),
        )
        for attempt in result.rollouts
    ]
