"""The training run: warm start, seeding, then steps of self-play, each logged, and saved at every `checkpoint.every`."""

from pathlib import Path

from azr_nemo.errors import UserError
from azr_nemo.megatron.distributed import rank, world_size
from azr_nemo.megatron.finite_weights import Diverged, way_back
from azr_nemo.observe.console import Console
from azr_nemo.observe.lanes import append_lanes
from azr_nemo.planning.dry_run import check_run
from azr_nemo.runs.checkpoints import Checkpoint, Checkpoints
from azr_nemo.runs.run_directory import Outcome, RunDirectory
from azr_nemo.selfplay.exchange import StepResult
from azr_nemo.settings.schema import RunConfig
from azr_nemo.trainer.assembly import Run, assembled, follow, introduce
from azr_nemo.trainer.beginning import begin, resume
from azr_nemo.trainer.reporting import Guard, StepReport, rollouts, staleness, step_metrics
from azr_nemo.trainer.stopping import StoppedAtOnce, StopRequest


def train(config: RunConfig, only_seed: bool = False) -> int:
    """Runs or resumes the configured run and returns the exit code: 0 when all is done, 75 when a signal stopped it (`Outcome`). On ranks
    other than 0 it serves rank 0. only_seed: stop before the first step, with the seeds in the checkpoint of step 0.

    Raises UserError for what the user can mend and ExecutorUnavailable when the sandbox is lost.
    """
    check_run(config, world_size() - config.sampler_ranks)
    checkpoints = Checkpoints(Path(config.run_dir), config.checkpoint.keep, config.checkpoint.keep_every)
    if rank():
        return follow(config, checkpoints)
    with RunDirectory(Path(config.run_dir)) as run_dir, StopRequest() as stop, Console(config.logging.console) as console:
        checkpoints.clear_unfinished()
        config, checkpoint = introduce(config, checkpoints, console)
        try:
            outcome = lead(config, run_dir.path, checkpoints, checkpoint, console, stop, only_seed)
        except StoppedAtOnce:
            outcome = Outcome("stopped", checkpoint.step if checkpoint else 0, stop.requested)
        if outcome.kind == "stopped":
            what = f"after step {outcome.step}, which is saved" if outcome.step else "before the first step"
            console.note(f"stopped by {outcome.signal} {what}: the same command goes on from there")
        run_dir.conclude(outcome)
        return outcome.exit_code


def lead(
    config: RunConfig,
    run_dir: Path,
    checkpoints: Checkpoints,
    checkpoint: Checkpoint | None,
    console: Console,
    stop: StopRequest,
    only_seed: bool,
) -> Outcome:
    """Rank 0: goes through the run's phases and ends the other ranks."""
    done = checkpoint.step if checkpoint else 0
    if done >= config.selfplay.steps:
        console.note(f"all {done} steps are done: raise selfplay.steps to go on, or give another run_dir to start anew")
        return Outcome("done", done)
    with assembled(config, run_dir, checkpoints, checkpoint, console, stop) as run:
        try:
            if checkpoint:
                resume(run, checkpoint)
            else:
                begin(run)
            outcome = Outcome("done", done) if only_seed else run_steps(run, done)
        except StoppedAtOnce:
            outcome = Outcome("stopped", done, stop.requested)
        run.leave(outcome.exit_code)
    return outcome


def run_steps(run: Run, done: int) -> Outcome:
    """Steps done+1 .. selfplay.steps. A stop request ends the run after the step in hand, saved."""
    run.stop.check()
    run.clock.lap()
    run.executor.lap()
    guard = Guard(run.config.eval.stop_if_worse)
    guard.recall(run.metrics.rows())
    report = StepReport(run.config, run.metrics, run.console)
    for step in range(done + 1, run.config.selfplay.steps + 1):
        run.driver.lanes.lap()
        sampled = run.flight.take(step)
        result = sampled.result
        between_tokens = run.config.rollout.update_in_flight
        with run.flight.sampling(step):
            trained = learn(run, step, result)
            if between_tokens:
                run.driver.refit()
        if run.config.selfplay.staleness and not between_tokens:
            run.driver.refit()
        last = step == run.config.selfplay.steps
        held_out = run.evaluate(step, always=last)
        report.step(step, step_metrics(result, trained, held_out, run.measured(), sampled.tokens), result.attempts)
        run.rollouts.write(step, rollouts(result))
        run.console.lanes(spans := run.driver.lanes.lap())
        append_lanes(run.run_dir, step, spans)
        if worse := guard.stop_reason(step, held_out):
            run.console.note(worse)
        stopped = run.stop.requested
        if last or worse or stopped or step % run.config.checkpoint.every == 0:
            run.save(step)  # after the step's line in the logs: a resumed run drops lines, it cannot make up for missing ones
        run.saver.check()
        if worse or (stopped and not last):
            return Outcome("worse", step) if worse else Outcome("stopped", step, stopped)
    return Outcome("done", run.config.selfplay.steps)


def learn(run: Run, step: int, result: StepResult) -> dict[str, float]:
    """The update and its metrics. Raises UserError, naming the checkpoint to go on from, when the weights do not stand it."""
    try:
        metrics = run.driver.update(result.batch, refit=not run.config.selfplay.staleness)
        dropped = {"staleness/dropped": float(run.flight.dropped)} if run.config.selfplay.staleness else {}
        return {f"train/{name}": value for name, value in metrics.items()} | staleness(result, step - 1) | dropped
    except Diverged as error:
        raise UserError(way_back(error, step, run.saver.latest())) from error
