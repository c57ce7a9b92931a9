"""A killed evaluation ends with the results of one that was not, and nothing is asked twice that was answered."""

import json
from concurrent.futures import Future

import pytest
import torch

from azr_nemo.errors import UserError
from azr_nemo.evaluation import results
from azr_nemo.evaluation.eval_settings import load_eval_settings
from azr_nemo.evaluation.harness import SuiteRun
from azr_nemo.evaluation.sampler import Model, find_checkpoint, fingerprint
from azr_nemo.evaluation.suite import Grade, Item, Tools
from azr_nemo.models import resolve_model
from azr_nemo.observe.console import Console
from azr_nemo.settings.schema import ModelConfig

torch.set_num_threads(1)  # several spin against each other on a machine that has other work
GROUPS = {"all": ["lengths", "math500"], "code": ["lengths"]}


class Lengths:
    """Right when the response has an even number of characters."""

    name, group, size, template, max_tokens, origin = "lengths", "code", 12, "raw", 12, "nowhere"

    def convert(self, rows, tools):
        return [Item(str(row), f"question {row} " * (row % 4 + 1)) for row in rows]

    def submit(self, item, response, tools):
        future: Future[Grade] = Future()
        even = len(response) % 2 == 0
        future.set_result(Grade(even, "right" if even else "odd", str(len(response)), {"short": len(response) < 20}))
        return future

    def ideal(self, item):
        return "ab"

    def wrong(self, item):
        return "a"


@pytest.fixture(scope="module")
def model_dir(tmp_path_factory):
    return resolve_model(ModelConfig(path="scratch:tiny"), tmp_path_factory.mktemp("cache"))


def settings(model_dir, *words):
    return load_eval_settings([f"checkpoint={model_dir}", "suite=lengths", "max_batch_rows=4", "platform=cpu", *words], GROUPS)


def run(model_dir, path, *words, model=None):
    chosen = settings(model_dir, *words)
    suite = Lengths()
    items = suite.convert(range(12), None)
    with Console("plain") as console:
        rows = SuiteRun(suite, items, model or Model(chosen), chosen, Tools(None), path).run(console)
    return rows, results.summarise(suite, rows, chosen.pass_k)


SAMPLED = ("samples=2", "temperature=1.0", "pass_k=[1,2]")


@pytest.mark.parametrize("words", [(), SAMPLED], ids=["greedy", "sampled"])
def test_an_evaluation_cut_anywhere_goes_on_to_the_same_results(model_dir, tmp_path, words):
    whole, figures = run(model_dir, tmp_path / "whole.jsonl", *words)
    assert len(whole) == 12 * (2 if words else 1)
    lines = (tmp_path / "whole.jsonl").read_text().splitlines(keepends=True)
    for kept, torn in ((0, lines[0][:30]), (5, ""), (len(lines) - 1, lines[-1][:-1])):
        path = tmp_path / f"cut_{kept}.jsonl"
        path.write_text("".join(lines[:kept]) + torn)
        rows, again = run(model_dir, path, *words)
        assert (rows, again) == (whole, figures)
        assert sorted(path.read_text().splitlines()) == sorted(line.rstrip("\n") for line in lines)


def test_what_was_answered_is_not_asked_again(model_dir, tmp_path):
    asked = []

    class Counting(Model):
        def generate(self, requests, on_sample):
            asked.append(len(requests))
            super().generate(requests, on_sample)

    model = Counting(settings(model_dir))
    path = tmp_path / "rows.jsonl"
    run(model_dir, path, model=model)
    assert asked == [4, 4, 4]
    run(model_dir, path, model=model)
    assert asked == [4, 4, 4]
    lines = path.read_text().splitlines(keepends=True)
    path.write_text("".join(lines[:-1]))
    run(model_dir, path, model=model)
    assert asked == [4, 4, 4, 4]


def test_figures_are_those_of_the_rows(model_dir, tmp_path):
    rows, figures = run(model_dir, tmp_path / "rows.jsonl", *SAMPLED)
    assert figures["pass@1"] == pytest.approx(sum(row["right"] for row in rows) / len(rows))
    pairs = [[row["right"] for row in rows if row["id"] == name] for name in figures["scores"]]
    assert figures["pass@2"] == pytest.approx(sum(any(pair) for pair in pairs) / len(pairs))
    assert figures["low"] <= figures["pass@1"] <= figures["high"]
    assert sum(figures["reasons"].values()) == len(rows)
    assert set(figures["parts"]) == {"short"}


def test_samples_depend_on_the_seed_and_not_on_the_other_suites_items(model_dir, tmp_path):
    one, _ = run(model_dir, tmp_path / "1.jsonl", *SAMPLED)
    other, _ = run(model_dir, tmp_path / "2.jsonl", *SAMPLED, "seed=1")
    assert [row["response"] for row in one] != [row["response"] for row in other]
    first, second = (row["response"] for row in one if row["id"] == "3")
    assert first != second


def test_a_prompt_that_does_not_fit_is_wrong_and_says_so(model_dir, tmp_path):
    rows, figures = run(model_dir, tmp_path / "rows.jsonl", "max_prompt_tokens=24")
    assert 0 < figures["reasons"]["prompt_too_long"] < 12
    assert not any(row["right"] for row in rows if row["reason"] == "prompt_too_long")


def test_results_are_written_and_read_back_and_what_is_no_result_is_refused(tmp_path, model_dir):
    _, figures = run(model_dir, tmp_path / "rows.jsonl")
    path = results.write(tmp_path, {"seed": 0}, {"lengths": figures})
    assert results.read(tmp_path) == results.read(path)
    assert results.read(path)["averages"] == {"code": figures["pass@1"]}
    (tmp_path / "other.json").write_text(json.dumps({"suites": 3}))
    with pytest.raises(UserError, match=r"is not what `azr-nemo eval` writes"):
        results.read(tmp_path / "other.json")
    with pytest.raises(UserError, match=r"has no results\.json"):
        results.read(tmp_path / "nowhere")


def test_the_total_is_the_mean_of_code_and_maths():
    suites = {"a": {"group": "code", "pass@1": 0.5}, "b": {"group": "code", "pass@1": 0.7}, "c": {"group": "math", "pass@1": 0.2}}
    assert results.averages(suites) == pytest.approx({"code": 0.6, "math": 0.2, "total": 0.4})
    assert "total" not in results.averages({"c": suites["c"], "d": {"group": "reasoning", "pass@1": 1.0}})


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["suite=lengths"], "checkpoint is missing"),
        (["checkpoint=x"], "suite is missing: choose from lengths, math500"),
        (["checkpoint=x", "suite=maths500"], r"suite=maths500 is unknown: did you mean math500\?"),
        (["checkpoint=x", "suite=lengths", "tempreature=1"], r"tempreature is not a setting of eval: did you mean temperature\?"),
        (["checkpoint=x", "suite=lengths", "samples=many"], "samples=many has a value of the wrong type"),
        (["checkpoint=x", "suite=lengths", "samples=4"], "samples=4 with temperature=0"),
        (["checkpoint=x", "suite=lengths", "pass_k=2"], r"pass_k=\[2\]: each must lie between 1 and samples=1"),
        (["checkpoint=x", "suite=lengths", "template=haiku"], "template=haiku is unknown"),
        (["checkpoint=x", "suite=lengths", "limit=-1"], "limit=-1 is too small"),
        (["x"], "'x' is not a setting: write key=value"),
    ],
)
def test_a_wrong_setting_is_one_sentence(words, says):
    with pytest.raises(UserError, match=says) as caught:
        load_eval_settings(words, GROUPS)
    assert "\n" not in str(caught.value)


def test_suites_are_named_alone_in_lists_and_by_group():
    def chosen(text):
        return load_eval_settings(["checkpoint=x", f"suite={text}"], GROUPS).suite

    assert chosen("math500") == chosen("[math500]") == ["math500"]
    assert chosen("all") == chosen("[code,math500,lengths]") == ["lengths", "math500"]


def test_a_checkpoint_that_is_none_and_one_without_a_tokenizer_are_one_sentence(model_dir, tmp_path):
    with pytest.raises(UserError, match="holds no model: give a Hugging Face directory"):
        find_checkpoint(str(tmp_path))
    for file in model_dir.iterdir():
        if "token" not in file.name:
            (tmp_path / file.name).write_bytes(file.read_bytes())
    with pytest.raises(UserError, match="has no tokenizer that can be read"):
        Model(settings(tmp_path))


def test_the_fingerprint_changes_with_the_weights(model_dir, tmp_path):
    copy = tmp_path / "copy"
    copy.mkdir()
    for file in model_dir.iterdir():
        (copy / file.name).write_bytes(file.read_bytes())
    assert fingerprint(copy) == fingerprint(model_dir)
    weights = next(copy.glob("*.safetensors"))
    data = bytearray(weights.read_bytes())
    data[-1] ^= 1
    weights.write_bytes(data)
    assert fingerprint(copy) != fingerprint(model_dir)
