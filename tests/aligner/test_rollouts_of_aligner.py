"""The engine's log on rank 0 keeps every rollout of a step, also when the update leaves some of them out."""

from types import SimpleNamespace

from azr_nemo.aligner.selfplay import SelfPlayRun
from azr_nemo.observe.metrics import MetricsLog, read_metrics
from azr_nemo.observe.rollout_log import RolloutLog, read_rollouts
from azr_nemo.selfplay.batch import Row, give_advantages, training_batch
from azr_nemo.selfplay.exchange import Attempt, Completion, Prompt, StepResult
from azr_nemo.settings.schema import RunConfig
from azr_nemo.tasks.task import PromptText, Role, TaskType


def attempt(kind, reward, length):
    completion = Completion(f"{kind} {reward}", (1, 2), tuple(range(length)), (-0.5,) * length, True)
    return Attempt(Prompt(PromptText("?"), Role.SOLVE, kind), completion, reward, "right" if reward > 0 else "wrong_value")


def test_rows_without_variance_are_left_out_of_the_update_but_not_of_the_rollouts(tmp_path):
    config = RunConfig()
    config.advantage.filter_zero_variance = True
    alike = [attempt(TaskType.ABDUCTION, 1.0, length) for length in (2, 3)]
    different = [attempt(TaskType.DEDUCTION, reward, 4) for reward in (1.0, -0.5)]
    rows = [*different, *alike]
    give_advantages(rows, config, {})
    batch = training_batch([*map(Row.of, rows)], config)
    assert len(batch.prompt_ids) == 2
    result = StepResult(batch, rows, {}, rows)
    console = SimpleNamespace(step_line=lambda *line: None, sample=lambda *sample: None)
    driver = SimpleNamespace(tokens=0, console=console, drive=lambda generator, label: result)
    session = SimpleNamespace(selfplay=SimpleNamespace(step=lambda number: None))
    metrics = MetricsLog(tmp_path, False)
    with RolloutLog(tmp_path, 1.0) as log:
        run = SelfPlayRun(config, session, driver, metrics, log, None)
        run.step(1)
        run.log_metrics({"solve/deduction/reward": 0.25, "advantages_mean": 0.0, "advantages_rms": 1.0}, step=0, prefix="train_rollouts/")
        run.settle()
        assert [row["completion"] for row in read_rollouts(tmp_path)] == [row.completion.text for row in rows], (
            "on disk before a checkpoint is"
        )
    assert [round(row["advantage"], 3) for row in read_rollouts(tmp_path)][2:] == [0, 0]
    assert [row["step"] for row in read_metrics(tmp_path / "metrics.jsonl")] == [1]
    metrics.close()
