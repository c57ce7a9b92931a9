"""Whatever is done to the buffer, it stays a deduplicated, bounded set that keeps its seeds: compared with a plain list."""

import random
import tempfile
from pathlib import Path

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule
from sample_tasks import adder_task

from azr_nemo.selfplay.buffer import TaskBuffer
from azr_nemo.tasks.task import TaskType

numbers = st.integers(0, 11)
types = st.sampled_from(list(TaskType))


class BufferMachine(RuleBasedStateMachine):
    """The model is a list of [id, type, number, step, seed, attempts, solved] in order of arrival."""

    @initialize(capacity=st.integers(1, 5))
    def open(self, capacity):
        self.folder = tempfile.TemporaryDirectory()
        self.path = Path(self.folder.name) / "tasks.sqlite"
        self.capacity, self.rows, self.saved = capacity, [], None
        self.buffer = TaskBuffer(self.path, capacity)

    def teardown(self):
        if hasattr(self, "buffer"):
            self.buffer.close()
            self.folder.cleanup()

    def known(self, type, number):
        return any(row[1:3] == [type, number] for row in self.rows)

    @rule(type=types, number=numbers, step=st.integers(0, 9), seed=st.booleans())
    def add(self, type, number, step, seed):
        id = self.buffer.add(adder_task(number, type), step, seed)
        if self.known(type, number):
            assert id is None
            return
        assert id is not None
        assert all(id > row[0] for row in self.rows)
        self.rows.append([id, type, number, step, seed, 0, 0])
        excess = sum(row[1] is type for row in self.rows) - self.capacity
        oldest = sorted((row for row in self.rows if row[1] is type and not row[4] and row[0] != id), key=lambda row: (row[3], row[0]))
        self.rows = [row for row in self.rows if row not in oldest[: max(excess, 0)]]

    @rule(number=numbers, type=types)
    def lose_a_transaction(self, number, type):
        try:
            with self.buffer.transaction():
                self.buffer.add(adder_task(number + 100, type), 99)
                raise InterruptedError
        except InterruptedError:
            pass

    @rule(pick=st.integers(0, 100), solved=st.integers(0, 3))
    def record(self, pick, solved):
        if self.rows:
            row = self.rows[pick % len(self.rows)]
            self.buffer.record(row[0], solved, 3)
            row[5], row[6] = row[5] + 3, row[6] + solved

    @rule(step=st.integers(0, 9))
    def remove_after(self, step):
        self.buffer.remove_after(step)
        self.rows = [row for row in self.rows if row[3] <= step]

    @rule()
    def reopen(self):
        self.buffer.close()
        self.buffer = TaskBuffer(self.path, self.capacity)

    @rule()
    def back_up(self):
        self.buffer.backup(self.path.with_name("backup"))
        self.saved = [list(row) for row in self.rows]

    @rule()
    def restore(self):
        if self.saved is not None:
            self.buffer.close()
            self.buffer = TaskBuffer.restore(self.path.with_name("backup"), self.path, self.capacity)
            self.rows = [list(row) for row in self.saved]

    @rule(type=types, count=st.integers(0, 6), seed=st.integers(0, 99), strategy=st.sampled_from(["uniform", "recent"]))
    def sample(self, type, count, seed, strategy):
        since = seed % 4
        drawn = self.buffer.sample(type, count, random.Random(seed), strategy, since_step=since)
        assert drawn == self.buffer.sample(type, count, random.Random(seed), strategy, since_step=since)
        eligible = {row[0] for row in self.rows if row[1] is type and row[3] >= since}
        assert {stored.id for stored in drawn} <= eligible
        assert len({stored.id for stored in drawn}) == len(drawn) == min(count, len(eligible))

    @invariant()
    def holds_what_the_list_holds(self):
        if not hasattr(self, "buffer"):
            return
        stored = self.buffer.tasks()
        assert [[s.id, s.task.type, s.step, s.is_seed, s.attempts, s.solved] for s in stored] == [[*r[:2], *r[3:]] for r in self.rows]
        assert [s.task for s in stored] == [adder_task(row[2], row[1]) for row in self.rows]
        for type in TaskType:
            assert self.buffer.count(type) == sum(row[1] is type for row in self.rows)
            assert all(self.buffer.contains(adder_task(n, type)) == self.known(type, n) for n in range(12))


BufferMachine.TestCase.settings = settings(
    max_examples=settings().max_examples // 4, stateful_step_count=25, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
TestBufferAgainstAList = BufferMachine.TestCase
