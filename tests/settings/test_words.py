"""KEY=VALUE words: text is taken as it was typed, and what is no setting is one sentence."""

import json
import shutil
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from omegaconf import OmegaConf

from azr_nemo.errors import UserError
from azr_nemo.evaluation.all_suites import groups
from azr_nemo.evaluation.eval_settings import load_eval_settings
from azr_nemo.planning.run_settings import load_settings
from azr_nemo.settings import compose
from azr_nemo.settings.compose import as_yaml, from_yaml
from azr_nemo.settings.schema import RunConfig
from azr_nemo.settings.words import put, split

CASES = Path(__file__).parents[2].parent / "shared" / "cases" / "settings.jsonl"
ODD = "p(1),a=b é#[1]{2} ${x}&'%41"


def given_words(*words: str) -> RunConfig:
    node = OmegaConf.structured(RunConfig)
    for key, value in split(words, "an override", "a=b"):
        put(node, RunConfig, key, value)
    config = OmegaConf.to_object(node)
    assert isinstance(config, RunConfig)
    return config


@pytest.mark.parametrize(
    "text",
    [
        "/x/lr=1e-5/y",
        "/x/été",
        f"/x/{ODD}",
        "~/runs",
        "null",
        "0123",
        "yes",
        "@x",
        "",
        "a: b",
        "/x/it's",
        "-",
        r"\${a}\\${b}\\",
        "${oc.env:HOME}",
    ],
)
def test_text_is_taken_as_it_was_typed(text):
    assert given_words(f"run_dir={text}").run_dir == text


@settings(max_examples=settings().max_examples // 3, deadline=None)  # each makes the whole tree of settings twice
@example(text="\x85")
@example(text="a\u2028b\u2029 é: 1e-5")
@given(text=st.text(st.characters(codec="utf-8", exclude_characters="\0")).filter(lambda text: text[:1] not in ("'", '"')))
def test_any_text_survives_the_command_line_and_a_runs_configuration(tmp_path_factory, text):
    config = given_words(f"recipe={text}", f"run_dir=/x/{text}")
    assert (config.recipe, config.run_dir) == (text, f"/x/{text}")
    path = tmp_path_factory.getbasetemp() / "config.yaml"
    path.write_bytes(as_yaml(config).encode())
    assert from_yaml(path) == config


def test_quotes_around_the_whole_of_a_text_are_hydras_and_are_left_off():
    assert given_words("run_dir='/x y'").run_dir == "/x y"
    assert given_words('model.path=""').model.path == ""


@pytest.mark.parametrize(
    ("value", "files"),
    [
        ("/x/p(1).jsonl", ["/x/p(1).jsonl"]),
        ("[/a b/é.jsonl, '/c,d' ,1]", ["/a b/é.jsonl", "/c,d", "1"]),
        ('["/it\'s",${x}]', ["/it's", "${x}"]),
        ("[]", []),
    ],
)
def test_lists_of_text_are_taken_as_typed_between_their_commas(value, files):
    assert given_words(f"data.seed_files={value}").data.seed_files == files


def test_numbers_flags_and_dictionaries_are_hydras():
    words = ("optim.lr=1e-5", "seed=3", "logging.wandb=true", "selfplay.composite={chance: 0.5, ramp: 3}", "model.seed=${seed}")
    config = given_words(*words, "reward.intrinsic={mine: {coef: 0.1}}", "reward.intrinsic.yours.max=2")
    assert (config.optim.lr, config.seed, config.model.seed, config.logging.wandb) == (1e-5, 3, 3, True)
    assert (config.selfplay.composite.chance, config.selfplay.composite.ramp, config.selfplay.composite.start) == (0.5, 3, 1)
    assert (config.reward.intrinsic["mine"].coef, config.reward.intrinsic["yours"].max, config.reward.intrinsic["halstead"].coef) == (
        0.1,
        2,
        0,
    )


@pytest.mark.parametrize(
    ("word", "sentence"),
    [
        ("+my.key=3", r"\+my\.key is not a setting"),
        ("++optim.lr=1", r"\+\+optim\.lr is not a setting"),
        ("~optim.lr=1", r"~optim\.lr is not a setting"),
        ("hydra.run.dir=/x", r"hydra\.run\.dir is not a setting"),
        ("recipes=x", r"recipes is not a setting: did you mean recipe\?"),
        ("model@x=y", "model@x is not a setting"),
        ("optim.lr.x=1", r"optim\.lr\.x is not a setting"),
        ("reward.intrinsic.a b.coef=1", "is not a setting"),
        ("=3", "'=3' is not an override"),
        ("optim.lr=1,2", "optim.lr=1,2 has a value of the wrong type"),
        ("optim.lr=null", "optim.lr=null has a value of the wrong type"),
        ("optim={lr: 1, foo: 2}", r"optim\.foo is not a setting"),
        ("optim={lr: 1", "cannot be read: write {loss: value"),
        ("data.seed_files=", r"data\.seed_files is empty: write data\.seed_files=\[\] for none"),
        ("data.seed_files=[a", "cannot be read: write"),
        ("data.seed_files=[it's]", "cannot be read: write"),
    ],
)
def test_what_is_no_setting_or_no_value_is_one_sentence(word, sentence):
    with pytest.raises(UserError, match=sentence) as refused:
        given_words(word)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("word", "sentence"),
    [
        ("run_dir=", "run_dir is empty: give the directory"),
        ("resume=", "resume is empty"),
        ("run_dir=/x/\udcff", "is not UTF-8 text: set PYTHONUTF8=1"),
        ("run_dir=/x/\0", "holds a zero byte"),
        ("optim=3", "optim=3 is unknown: there are azr"),
        ("executor.endpoints=[http://a:99999999]", "is not a server's URL"),
        ("advantage=foo", "advantage=foo is unknown: there are dr_grpo, grpo"),
        ("recipe=", "recipe= is unknown"),
    ],
)
def test_what_a_run_cannot_be_is_one_sentence(word, sentence):
    with pytest.raises(UserError, match=sentence) as refused:
        load_settings([word])
    assert "\n" not in str(refused.value)


def test_a_checkout_a_recipe_and_a_home_may_have_any_name(tmp_path, monkeypatch):
    """Nothing of a path is read by Hydra's grammar."""
    home = tmp_path / ODD
    for name in ("conf", "recipes"):
        shutil.copytree(compose.ROOT / name, home / name)
    own = home / "my, recipe=1.yaml"
    samples = "selfplay: {propose_samples: 2, solve_samples: 2}\n"
    own.write_text(f"# @package _global_\ndefaults:\n  - override /model: tiny\n  - override /advantage: dr_grpo\n{samples}")
    monkeypatch.setattr(compose, "ROOT", home)
    monkeypatch.setenv("HOME", str(home))
    config = load_settings(["recipe=~/my, recipe=1.yaml", "eval.data=~/data", "data.seed_files=[~/a,b~]", "model.path=~nobody-here/x"])
    assert (config.recipe, config.run_dir) == ("my, recipe=1", "runs/my, recipe=1")
    assert (config.eval.data, config.data.seed_files, config.model.path) == (f"{home}/data", [f"{home}/a", "b~"], "~nobody-here/x")
    assert config.advantage.name == "dr_grpo"
    assert load_settings(["recipe=tiny-1n0g-megatron"]).recipe == "tiny-1n0g-megatron"


def test_a_run_without_a_recipe_is_the_default_recipes():
    config = load_settings([])
    assert (config.recipe, config.run_dir) == (compose.DEFAULT_RECIPE, f"runs/{compose.DEFAULT_RECIPE}")


@pytest.mark.parametrize("text", ["checkpoint: @x\n", "- 1\n", "optim: [\n", "a: b: c\n"])
def test_a_recipe_or_a_runs_configuration_that_is_no_yaml_is_one_sentence(tmp_path, text):
    path = tmp_path / "mine.yaml"
    path.write_text(text)
    for read in (lambda: load_settings([f"recipe={path}"]), lambda: from_yaml(path)):
        with pytest.raises(UserError) as refused:
            read()
        assert "\n" not in str(refused.value)


EVAL = ["suite=math500"]


@pytest.mark.parametrize("text", ["0123", "yes", "1e3", f"a/{ODD}"])
def test_names_of_an_evaluation_are_taken_as_typed(text):
    found = load_eval_settings([*EVAL, f"checkpoint={text}", f"out={text}", f"data={text}"], groups())
    assert (found.checkpoint, found.out, found.data) == (text, text, text)


@pytest.mark.parametrize(
    ("word", "sentence"),
    [
        ("temperature=nan", "temperature=nan is no finite number"),
        ("math_deadline_s=inf", "math_deadline_s=inf is no finite number"),
        ("executor.wall_s=0", "executor.wall_s=0.0 must be above 0"),
        ("executor.cpu_s=nan", "executor.cpu_s=nan is no finite number"),
        ("executor.name=sandbox_fusion", "executor.endpoints is empty"),
        ("data=", "data is empty"),
        ("pass_k=[0]", "pass_k=0 is too small"),
        ("suite=@x", "suite=@x is unknown"),
        ("+x=1", r"\+x is not a setting of eval"),
    ],
)
def test_an_evaluations_settings_have_the_same_checks(word, sentence):
    with pytest.raises(UserError, match=sentence):
        load_eval_settings([*EVAL, "checkpoint=@x", word], groups())


@pytest.mark.skipif(not CASES.exists(), reason="the cases are not here")
def test_the_collected_cases():
    for case in map(json.loads, CASES.read_text(encoding="utf-8").splitlines()):
        command, word = case["command"], case["word"]
        if command == "train --dry-run" and "sentence" in case["expect"] and "run_dir '" not in case["expect"]:
            with pytest.raises(UserError, match=word.partition("=")[0]):
                load_settings([word])
        elif command == "train --dry-run":
            assert load_settings([word]).run_dir == word.partition("=")[2]
        elif command == "eval" and word.startswith("out="):
            assert load_eval_settings(["checkpoint=x", *EVAL, word], groups()).out == word.partition("=")[2]
