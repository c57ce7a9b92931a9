"""Each task that is solved is asked in one of several wordings; estimates and held-out tasks always in the first."""

from collections import Counter
from dataclasses import replace

import pytest
from sample_tasks import adder_task
from test_schedules import scheduled
from test_step import completion, configured, self_play

from azr_nemo.errors import UserError
from azr_nemo.planning.run_settings import load_settings
from azr_nemo.selfplay.exchange import PromptBatch
from azr_nemo.tasks import KINDS
from azr_nemo.tasks.task import PromptOptions, TaskType

CODE = PromptOptions(style="code", pairs=4)


def code_play(folder, **selfplay):
    play = self_play(folder, configured(task_types=["deduction"], batch_size=6, **selfplay))
    play.solver.options = play.proposer.options = CODE
    return play


def asked(play, number) -> list[PromptBatch]:
    """The batches of a step in which every proposal is a new program and every answer is 0."""
    step, batches, answer = play.step(number), [], None
    while True:
        try:
            batches.append(step.send(answer))
        except StopIteration:
            return batches
        answer = [[said(batches[-1].phase, row + 10 * number)] * prompt.samples for row, prompt in enumerate(batches[-1].prompts)]


def said(phase, number):
    return completion(f" f(x):\n    return x + {number + 200}\n\nf(1)\n\n#" if phase == "propose" else " 0\n", 0)


def prompts(batches, phase) -> list[str]:
    return [prompt.text.full for batch in batches if batch.phase == phase for prompt in batch.prompts]


def wordings(batches, phase) -> Counter[str]:
    """How often the line above the assert is what."""
    return Counter(text.split("\n")[-2] for text in prompts(batches, phase))


def test_solved_tasks_are_asked_in_all_wordings_and_estimated_in_the_first(tmp_path):
    play = code_play(tmp_path, wordings=4)
    batches = [batch for number in range(1, 9) for batch in asked(play, number)]
    assert set(wordings(batches, "solve")) == {"", "# what f returns here", "# a test of f", "# the result of this call"}
    assert min(wordings(batches, "solve").values()) > 4, "drawn evenly, of 48"
    assert set(wordings(batches, "estimate")) == {""}


def test_with_one_wording_it_is_the_first_and_nothing_else_is_drawn_otherwise(tmp_path):
    one, four = (asked(code_play(tmp_path / str(count), wordings=count), 1) for count in (1, 4))
    assert set(wordings(one, "solve")) == {""}
    programs = [
        [[p.text.full.split("\n\n")[0] for p in batch.prompts] for batch in batches if batch.phase == "solve"] for batches in (one, four)
    ]
    assert programs[0] == programs[1]


def test_a_repeated_step_words_them_alike(tmp_path):
    texts = [[p.text.full for b in asked(code_play(tmp_path / name, wordings=4), 1) for p in b.prompts] for name in "ab"]
    assert texts[0] == texts[1]


def test_a_task_is_drawn_only_if_its_longest_wording_fits(tmp_path):
    play = code_play(tmp_path, wordings=4)
    task = adder_task(1, TaskType.DEDUCTION)
    length = max(len(KINDS[task.type].solve_prompt(task, replace(CODE, wording=w)).full) for w in range(4))
    for room, drawn in ((length, True), (length - 1, False)):
        play.solver.fits = lambda text, room=room: len(text) <= room
        assert any(stored.task.program == task.program for stored in play.solver.draw(1, play.rng(1))) == drawn


@pytest.mark.parametrize("schedule", ["merged", "pipelined"])
def test_other_schedules_word_them_too(tmp_path, schedule):
    play = scheduled(tmp_path, schedule, task_types=["deduction"], batch_size=6, wordings=4)
    play.solver.options = play.proposer.options = CODE
    batch = next(play.step(1)) if schedule == "merged" else [*asked(play, 1)][1]
    texts = [prompt.text.full for prompt in batch.prompts if prompt.text.full.endswith("==")]
    assert len({text.split("\n")[-2] for text in texts}) > 1


def test_more_wordings_than_the_style_has_are_refused():
    with pytest.raises(
        UserError, match=r"selfplay.wordings=2: selfplay.prompt_style=r1 words a solver's prompt in 1 way: set selfplay.wordings=1"
    ):
        load_settings(["selfplay.prompt_style=r1", "selfplay.wordings=2"])
    with pytest.raises(UserError, match=r"words a solver's prompt in 4 ways: set selfplay.wordings=4 or less"):
        load_settings(["selfplay.prompt_style=code", "selfplay.wordings=5"])
    assert load_settings(["selfplay.prompt_style=code", "selfplay.wordings=4"]).selfplay.wordings == 4
