"""Absolute Zero for trainers that take environments of PrimeIntellect's `verifiers` 0.4, such as prime-rl: the taskset, the loop, a one-reply harness.

The loop is written as their own proposer_solver example is: the proposer's trace becomes a task, n solvers answer it, and the proposer earns by how many
were right. Tasks are kept in a buffer of ours, and everything is graded in our jail.
"""

import asyncio
from collections.abc import Iterator
from itertools import count
from typing import Any, Literal

import httpx
import verifiers.v1 as vf

from azr_nemo.environments.referee import Messages, Referee, Reply, messages, referee, stated, task_of
from azr_nemo.selfplay.proposer import Proposed
from azr_nemo.tasks import KINDS
from azr_nemo.tasks.task import Task, TaskType

NO_MODEL = 97  # verifiers' exit code of a program that lost its model


class AbsoluteZeroTaskConfig(vf.TaskConfig):
    settings: list[str] = []
    """KEY=VALUE as of `azr-nemo train`: data.seed_files, selfplay.task_types, rollout.estimate_samples, reward.*, executor.*"""


class AbsoluteZeroTasksetConfig(vf.TasksetConfig):
    play: Literal["solve", "self_play"] = "self_play"
    """solve: the tasks that the buffer begins with, one episode a task. self_play: proposals without end, each solved by the same model."""
    buffer: str = ""
    """The buffer's file, which one process at a time writes; empty: a temporary one."""
    task: AbsoluteZeroTaskConfig = AbsoluteZeroTaskConfig()


class AbsoluteZeroData(vf.TaskData):
    """One seat's task. type: deduction, abduction or induction. known: the whole task where it is to be solved, None where one is to be proposed."""

    type: str
    known: dict[str, Any] | None = None


class AbsoluteZeroTask(vf.Task[AbsoluteZeroData, vf.State, AbsoluteZeroTaskConfig]):
    """A task to solve is graded in the jail; a proposal is judged by what it does to the solvers, in the environment's `finalize`."""

    @vf.reward
    async def solver(self, trace: vf.Trace) -> dict[str, float]:
        """The settings' reward for the answer; the metric `score` is how right it is, in [0, 1]."""
        if self.data.known is None:
            return {}
        judge = referee(tuple(self.config.settings))
        graded = await asyncio.to_thread(judge.grade, task_of(self.data.known), reply(trace))
        trace.record_metric("score", graded.score)
        return {"solver": graded.reward}

    async def validate(self, runtime: vf.Runtime) -> bool | None:
        """Whether the known answer is right, without a model."""
        if self.data.known is None:
            return None
        judge, task = referee(tuple(self.config.settings)), task_of(self.data.known)
        verdict = await asyncio.to_thread(lambda: judge.verify(task, KINDS[task.type].known_answer(task)))
        return verdict.score == 1


class AbsoluteZeroTaskset(vf.Taskset[AbsoluteZeroTask, AbsoluteZeroTasksetConfig]):
    """The buffer's tasks, or turns to propose: their prompts are written when it is their turn."""

    def __init__(self, config: AbsoluteZeroTasksetConfig) -> None:
        super().__init__(config)
        self.INFINITE = config.play == "self_play"

    @property
    def referee(self) -> Referee:
        """The one of this process."""
        return referee(tuple(self.config.task.settings), self.config.buffer)

    def load(self) -> Iterator[AbsoluteZeroTask]:
        if self.config.play == "solve":
            yield from (self.to_solve(stored.task, name=f"{stored.task.type}-{stored.id}") for stored in self.referee.tasks())
            return
        types = self.referee.config.selfplay.task_types
        for number in count():
            kind = types[number % len(types)]
            yield AbsoluteZeroTask(AbsoluteZeroData(type=kind, name=f"propose-{kind}-{number}"), self.config.task)

    def to_solve(self, task: Task, **named: Any) -> AbsoluteZeroTask:
        data = AbsoluteZeroData(type=task.type.value, known=stated(task), **asked(self.referee.ask(task)), **named)
        return AbsoluteZeroTask(data, self.config.task)

    def to_propose(self, turn: AbsoluteZeroTask, proposed: Proposed) -> AbsoluteZeroTask:
        return turn.with_data(**asked(messages(proposed.row.prompt.text)))


class OneReplyConfig(vf.HarnessConfig):
    pass


class OneReply(vf.Harness[OneReplyConfig]):
    """Asks the model once, from this process: no program is started, and no tools are given."""

    APPENDS_SYSTEM_PROMPT = True
    EXECUTES_CODE = False
    NEEDS_CONTAINER = False

    async def launch(
        self,
        ctx: vf.ModelContext,
        trace: vf.Trace,
        runtime: vf.Runtime,
        endpoint: str,
        secret: str,
        mcp_urls: dict[str, str],
        data: vf.TaskData,
    ) -> vf.ProgramResult:
        system, user = self.resolve_text_prompt(data)
        said = [{"role": "system", "content": system}] if system else []
        body = {"model": ctx.model, "messages": [*said, {"role": "user", "content": user or ""}]}
        try:
            async with httpx.AsyncClient(timeout=None) as client:  # the seat's own time limits hold
                answer = await client.post(f"{endpoint}/chat/completions", json=body, headers={"Authorization": f"Bearer {secret}"})
        except httpx.TransportError as error:
            return vf.ProgramResult(NO_MODEL, "", f"{type(error).__name__}: {error}")
        return vf.ProgramResult(0 if answer.is_success else 1, "", "" if answer.is_success else answer.text)


class AbsoluteZeroConfig(vf.EnvConfig):
    proposer: vf.AgentConfig = vf.AgentConfig(runtime=vf.SubprocessConfig())
    solver: vf.AgentConfig = vf.AgentConfig(runtime=vf.SubprocessConfig())
    train_proposer: bool = True
    """Whether proposals are training data; false leaves the solvers' answers alone."""
    train_solver: bool = True
    """Whether answers are training data; false leaves the proposals alone."""


class AbsoluteZero(vf.Env[AbsoluteZeroConfig]):
    """One episode: a task that is solved once, or a proposal and `rollout.estimate_samples` answers to it."""

    taskset: AbsoluteZeroTaskset

    def __init__(self, config: AbsoluteZeroConfig) -> None:
        super().__init__(config)
        self._settled: dict[str, Proposed] = {}  # by the proposer's trace

    async def setup(self, agents: vf.Agents) -> None:
        agents.proposer.trainable = self.config.train_proposer
        agents.solver.trainable = self.config.train_solver

    async def run(self, task: AbsoluteZeroTask, agents: vf.Agents) -> None:
        if task.data.known is not None:
            await agents.solver.run(task)
            return
        judge = self.taskset.referee
        proposed = judge.propose(TaskType(task.data.type), task.data.idx or 0)
        trace = await agents.proposer.run(self.taskset.to_propose(task, proposed))
        if not trace.ok:
            return
        new = await asyncio.to_thread(judge.settle, proposed, reply(trace))
        self._settled[trace.id] = proposed
        if new is not None:
            to_solve = self.taskset.to_solve(new)
            async with asyncio.TaskGroup() as group:
                for _ in range(judge.config.rollout.estimate_samples):
                    group.create_task(agents.solver.run(to_solve))

    async def finalize(self, task: AbsoluteZeroTask, episode: vf.Episode) -> None:
        """What the proposal earns. An answer that could not be had or graded fails the episode: a solve rate is never guessed."""
        for trace in episode.traces:
            proposed = self._settled.pop(trace.id, None)
            if proposed is None:
                continue
            answers = [other for other in episode.traces if other.agent.name == "solver"]
            if not all(other.ok for other in answers):
                raise ValueError("an answer to the proposed task could not be graded")
            valid = proposed.fresh
            trace.record_reward("proposer", self.taskset.referee.earn(proposed, [other.metrics["score"] for other in answers]))
            trace.record_metric("valid", valid)
            if valid:
                trace.record_metric("solve_rate", proposed.solve_rate)


def reply(trace: vf.Trace) -> Reply:
    """What the model said, and whether it ended by itself."""
    return Reply(trace.last_reply, not trace.is_truncated)


def asked(prompt: Messages) -> dict[str, str]:
    """The prompt as fields of verifiers' task data."""
    return {"system_prompt": prompt.system, "prompt": prompt.user}
