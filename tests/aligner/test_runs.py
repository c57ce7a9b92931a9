"""Whole runs: NeMo-Aligner's PPOTrainer.fit() over real self-play, with NeMo's own generation and the jailed executor."""

import json

from safetensors.torch import load_file


def lines(run):
    return [row for row in map(json.loads, (run / "metrics.jsonl").read_text().splitlines()) if row["step"]]


def test_three_steps_train_with_gradients(whole_run, request):
    run, printed = whole_run
    told = next(line for line in printed.splitlines() if "PPOTrainer" in line)
    assert "SelfPlayPPOTrainer(nemo_aligner.algorithms.ppo.PPOTrainer)" in told
    assert "SelfPlayActor(nemo_aligner.models.nlp.gpt.megatron_gpt_ppo_actor.MegatronGPTActorModel)" in told
    rows = lines(run)
    assert [row["step"] for row in rows] == [1, 2, 3]
    capture = request.config.pluginmanager.getplugin("capturemanager")
    with capture.global_and_fixture_disabled():
        print(f"\n{told}")
        for row in rows:
            names = ("train/grad_norm", "train/advantages_rms", "train/entropy", "train/clip_fraction", "train/kl", "train/tokens")
            print(f"  step {row['step']}: " + ", ".join(f"{name.removeprefix('train/')} {row[name]:.4g}" for name in names))
    assert all(row["train/grad_norm"] > 1e-3 for row in rows)
    assert any(row["train/advantages_rms"] > 0.1 for row in rows), "rewards differed within a group"
    assert all(row["train/clip_fraction"] == 0 and abs(row["train/kl"]) < 1e-6 for row in rows), "one optimizer step a batch"


def test_programs_ran_in_the_jail(whole_run):
    _, printed = whole_run
    assert "executor: local executor, rung" in printed
    assert "rung D" not in printed


def test_a_step_is_a_checkpoint_that_converts_to_hugging_face(whole_run, weights, default):
    run, _ = whole_run
    checkpoint = run / "checkpoints" / "step_000003"
    assert {path.name for path in checkpoint.iterdir()} == {"nemo", "rng", "trainer.json", "buffer.sqlite", "config.yaml", "state.json"}
    assert json.loads((checkpoint / "trainer.json").read_text())["step"] == 3
    before, after = load_file(default / "model" / "model.safetensors"), weights(checkpoint)
    assert before.keys() == after.keys()
    assert max(float((before[key] - after[key]).abs().max()) for key in before) > 1e-5


def test_a_killed_run_repeats_its_third_step_exactly(whole_run, killed_run, weights):
    whole, (killed, printed) = whole_run[0], killed_run
    assert "resumed after step 2" in printed
    one, two = weights(whole / "checkpoints" / "step_000003"), weights(killed / "checkpoints" / "step_000003")
    assert all(one[key].equal(two[key]) for key in one)
    told = [lines(run)[-1] for run in (whole, killed)]
    own = {"time"} | {name for name in told[0] if name.startswith(("time/", "memory/", "throughput/", "step/"))}
    assert {n: v for n, v in told[0].items() if n not in own} == {n: v for n, v in told[1].items() if n not in own}


def test_a_killed_run_ends_with_the_same_tasks(whole_run, killed_run):
    import sqlite3

    def tasks(run):
        with sqlite3.connect(run / "checkpoints" / "step_000003" / "buffer.sqlite") as database:
            return database.execute("SELECT * FROM tasks ORDER BY id").fetchall()

    assert len(tasks(whole_run[0])) > 18
    assert tasks(whole_run[0]) == tasks(killed_run[0])


def test_a_resumed_run_has_one_line_a_step(killed_run):
    assert [row["step"] for row in lines(killed_run[0])] == [1, 2, 3]
