"""Shapes of models whose weights are not at hand."""

import pytest

from azr_nemo.conversion.convert import convert
from azr_nemo.errors import UserError
from azr_nemo.megatron.architecture import read_architecture
from azr_nemo.models import tiny
from azr_nemo.models.shape import architectures, model_shape, published
from azr_nemo.settings.schema import ModelConfig

# Parameters in the model cards, in billions.
CARDS = {
    "llama3_1_8b": 8.03,
    "qwen2_5_7b": 7.61,
    "qwen2_5_14b": 14.7,
    "qwen2_5_32b": 32.5,
    "qwen2_5_coder_0_5b": 0.494,
    "qwen2_5_coder_3b": 3.09,
    "qwen2_5_coder_7b": 7.61,
    "qwen2_5_coder_14b": 14.7,
    "qwen3_4b_base": 4.0,
    "smollm2_135m": 0.135,
}
UNSHAPED = {"dtype": None, "architectures": None, "_name_or_path": "", "transformers_version": ""}


@pytest.mark.parametrize("name", architectures())
def test_a_published_shape_has_as_many_parameters_as_its_model_card_says(name):
    shape = read_architecture(published(name))
    attention = shape.hidden * shape.head_dim * (2 * shape.heads + 2 * shape.kv_heads)
    vocabulary = shape.vocab * shape.hidden * (1 if shape.tied else 2)
    total = vocabulary + shape.layers * (attention + 3 * shape.hidden * shape.ffn)
    assert total / 1e9 == pytest.approx(CARDS[name], rel=0.01)


def test_a_directory_that_is_there_counts_more_than_the_architecture(tmp_path):
    published("qwen2_5_7b").save_pretrained(tmp_path)
    assert model_shape(ModelConfig(path=str(tmp_path), architecture="llama3_1_8b")).model_type == "qwen2"


def test_a_nemo_file_has_the_shape_that_it_holds(tmp_path):
    convert(tiny.tiny(tmp_path / "hf", 1), tmp_path / "tiny.nemo", "nemo")
    shape = model_shape(ModelConfig(path=str(tmp_path / "tiny.nemo")))
    assert read_architecture(shape) == read_architecture(model_shape(ModelConfig(path="scratch:tiny")))


def test_an_absent_directory_has_the_shape_of_its_architecture(tmp_path):
    shape = model_shape(ModelConfig(path=str(tmp_path / "none"), architecture="llama3_1_8b"))
    assert (shape.model_type, shape.num_key_value_heads) == ("llama", 8)


def test_embedded_and_scratch_models_have_the_shape_that_they_are_made_with(tmp_path):
    assert model_shape(ModelConfig(path="embedded:smollm2_135m")).num_attention_heads == 9
    made = model_shape(ModelConfig(path=str(tiny.tiny(tmp_path, 1))))
    shape = model_shape(ModelConfig(path="scratch:tiny"))
    assert {**made.to_dict(), **UNSHAPED} == {**shape.to_dict(), **UNSHAPED}


def test_an_unknown_shape_is_told_in_a_sentence(tmp_path):
    with pytest.raises(UserError, match=r"is not a Hugging Face model directory .*model\.architecture, one of llama3_1_8b"):
        model_shape(ModelConfig(path=str(tmp_path / "none")))
    with pytest.raises(UserError, match=r"model\.architecture=gpt5 is unknown: there are llama3_1_8b"):
        model_shape(ModelConfig(path=str(tmp_path / "none"), architecture="gpt5"))
