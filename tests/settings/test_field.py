"""Every setting says what it is and where its bounds are, and what lies outside of them is refused by its name."""

import ast
import math
from dataclasses import fields, is_dataclass
from typing import get_args, get_origin

import pytest

from azr_nemo.errors import UserError
from azr_nemo.evaluation.eval_settings import EvalSettings
from azr_nemo.planning.run_settings import REGISTERED, load_settings
from azr_nemo.settings.compose import ROOT
from azr_nemo.settings.field import check_value, leaves, locate
from azr_nemo.settings.listing import page, text
from azr_nemo.settings.schema import RunConfig

KINDS = [RunConfig, EvalSettings]
LEAVES = [leaf for kind in KINDS for leaf in leaves(kind())]
NUMBERS = [leaf for leaf in LEAVES if leaf.type in (int, float)]


def test_every_setting_has_a_meaning_and_every_number_a_bound():
    assert len(NUMBERS) > 90
    assert not [leaf.key for leaf in LEAVES if not leaf.about.meaning]
    assert not [leaf.key for leaf in NUMBERS if not leaf.about.bounds()]
    assert not [leaf.key for leaf in LEAVES if leaf.about.registered and leaf.about.registered not in {*REGISTERED, "templates"}]


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, -1e9, -(10**9)])
def test_no_number_may_be_nan_infinite_or_far_below_its_bound(value):
    for leaf in NUMBERS:
        with pytest.raises(UserError, match=rf"^{leaf.key}=") as refused:
            check_value(leaf.key, value, leaf.about)
        assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    "word",
    ["optim.beta1=2", "optim.beta2=1", "optim.lr=nan", "executor.wall_s=inf", "reward.right=nan", "reward.intrinsic.halstead.max=inf",
     "advantage.decay=nan", "seed=-1", "selfplay.steps=99999999999", "executor.wall_s=100000", "rollout.memory_fraction=1.5"],
)  # fmt: skip
def test_an_impossible_number_is_refused_by_its_name(word):
    with pytest.raises(UserError, match=word.partition("=")[0].replace(".", r"\.")):
        load_settings([word])


@pytest.mark.parametrize("leaf", [leaf for leaf in LEAVES if leaf.about.choices or leaf.about.registered], ids=lambda leaf: leaf.key)
def test_a_default_is_one_of_its_choices_and_another_word_is_not(leaf):
    known = {**REGISTERED, "templates": ()}
    check_value(leaf.key, leaf.value, leaf.about, known)
    with pytest.raises(UserError, match="unknown: choose"):
        check_value(leaf.key, ["nonesuch"] if isinstance(leaf.value, list) else "nonesuch", leaf.about, known)


def test_the_settings_lie_at_the_bottom_and_import_nothing_that_stands_on_them():
    for path in (ROOT / "azr_nemo" / "settings").glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom) and str(node.module).startswith("azr_nemo"):
                assert node.module == "azr_nemo.errors" or str(node.module).startswith("azr_nemo.settings"), path


def test_a_key_is_found_by_its_type():
    assert locate(RunConfig, "optim.lr") is float
    assert locate(RunConfig, "reward.intrinsic.anything.coef") is float
    for key in ("optim.lrr", "optim.lr.x", "", ".", "optim.", "reward.intrinsic.a-b.coef"):
        assert locate(RunConfig, key) is None


def test_the_page_of_all_settings_is_the_one_that_the_fields_make():
    """`python -m azr_nemo.planning.run_settings > docs/settings.md` makes it anew."""
    assert (ROOT / "docs" / "settings.md").read_text(encoding="utf-8") == page(RunConfig, REGISTERED)


def test_settings_are_printed_by_prefix_with_type_bounds_default_and_meaning():
    assert text(RunConfig, REGISTERED, "optim.beta1").splitlines() == [
        "optim.beta1=0.9", "    number: at least 0 and below 1", "    decay of AdamW's mean of gradients",
    ]  # fmt: skip
    assert "text: trr_plus_plus, reinforce_plus_plus" in text(RunConfig, REGISTERED, "advantage")
    assert "reward.intrinsic.NAME.coef=0" in text(RunConfig, REGISTERED)
    with pytest.raises(UserError, match="no setting of `azr-nemo train` begins with optin"):
        text(RunConfig, REGISTERED, "optin")


def test_settings_hold_nothing_but_text_numbers_flags_and_lists_of_these():
    def kinds(kind):
        for part in fields(kind):
            inner = get_args(part.type)[-1] if get_origin(part.type) else part.type
            yield from kinds(inner) if is_dataclass(inner) else [inner]

    assert {inner for kind in KINDS for inner in kinds(kind)} == {str, int, float, bool}
