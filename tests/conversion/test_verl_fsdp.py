"""veRL's checkpoints, as real FSDP ranks write them, are the same model here; whatever is wrong with one is one sentence."""

import os
import pickle
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from conversion_models import VERL, edit_json, same_weights, weights
from torch import Tensor

from azr_nemo.conversion.convert import convert
from azr_nemo.errors import UserError

pytestmark = pytest.mark.slow  # ranks save what is converted here
Source = Callable[..., Path]


@pytest.fixture
def step(verl_checkpoints: dict[str, Path], tmp_path: Path) -> Path:
    """A checkpoint of two ranks, to be spoilt."""
    return Path(shutil.copytree(verl_checkpoints["fsdp2"], tmp_path / "global_step_7"))


def file(step: Path, rank: int = 0, world: int = 2) -> Path:
    return step / "actor" / f"model_world_size_{world}_rank_{rank}.pt"


@pytest.mark.parametrize("how", VERL)
def test_the_parts_of_all_ranks_make_the_model_that_was_trained(
    source: Source, verl_checkpoints: dict[str, Path], tmp_path: Path, how: str
) -> None:
    convert(verl_checkpoints[how] / "actor", tmp_path / "hf", "hf")
    assert same_weights(source(VERL[how][1]), tmp_path / "hf")


def test_it_becomes_a_checkpoint_and_a_nemo_file_and_has_the_logits_of_transformers(
    source: Source, verl_checkpoints: dict[str, Path], tmp_path: Path
) -> None:
    convert(verl_checkpoints["fsdp2"], tmp_path / "checkpoint", "megatron", verified=True)
    convert(verl_checkpoints["fsdp2"], tmp_path / "model.nemo", "nemo")
    for middle in ("checkpoint", "model.nemo"):
        convert(tmp_path / middle, tmp_path / f"from_{middle}", "hf")
        assert same_weights(source(), tmp_path / f"from_{middle}")


def test_the_latest_checkpoint_of_a_run_is_found_and_its_tokenizer_comes_along(step: Path, tmp_path: Path) -> None:
    (tmp_path / "latest_checkpointed_iteration.txt").write_text("7")
    convert(tmp_path, tmp_path / "hf", "hf")
    for name in ("tokenizer.json", "tokenizer_config.json", "generation_config.json"):
        assert (tmp_path / "hf" / name).read_bytes() == (step / "actor/huggingface" / name).read_bytes()


def test_without_a_configuration_beside_it_one_is_asked_for(source: Source, step: Path, tmp_path: Path) -> None:
    shutil.rmtree(step / "actor/huggingface")
    with pytest.raises(UserError, match=r"huggingface has no config\.json: say with --like which Hugging Face directory"):
        convert(step, tmp_path / "hf", "hf")
    convert(step, tmp_path / "hf", "hf", like=source())
    assert same_weights(source(), tmp_path / "hf")


def plain(hf: Path, step: Path, change: Callable[[dict[str, Tensor], int], object]) -> None:
    """Writes the model as plain tensors, cut along the first dimension but for norms and biases, which every rank has whole."""
    for rank in range(2):
        held = {name: full if full.dim() == 1 else full.chunk(2)[rank].clone() for name, full in weights(hf).items()}
        change(held, rank)
        torch.save(held, file(step, rank))


def test_parts_that_are_plain_tensors_are_joined_and_what_every_rank_has_is_taken_once(source: Source, step: Path, tmp_path: Path) -> None:
    plain(source(), step, lambda held, rank: None)
    convert(step, tmp_path / "hf", "hf")
    assert same_weights(source(), tmp_path / "hf")


ONE = "model.layers.0.mlp.up_proj.weight"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda held, rank: rank or held.update({ONE: held[ONE][:3]}),
            r"up_proj\.weight has shape \(27, 32\), but its config\.json implies",
        ),
        (
            lambda held, rank: rank or held.update({ONE: held[ONE][:, :3]}),
            r"parts of the tensor .*up_proj\.weight do not fit together: \(24, 3\), \(",
        ),
        (lambda held, rank: rank or held.pop(ONE), r"are not of one model: only one of them has a tensor .*up_proj"),
        (lambda held, rank: held.pop(ONE), r"has no tensor .*up_proj\.weight: its files do not match its config\.json"),
        (lambda held, rank: held.update({"score.weight": torch.ones(1)}), r"holds a tensor score\.weight, which the model that its config"),
        (lambda held, rank: held.update({"a.lora_A.weight": torch.ones(1)}), r"lora_A\.weight, which .* merge the adapters"),
        (lambda held, rank: rank or held["model.norm.weight"].add_(1), r"norm\.weight differs between its ranks, though each has all"),
        (lambda held, rank: held[ONE].fill_(torch.nan), r"up_proj\.weight of .* is not finite"),
        (lambda held, rank: held.update({ONE: [1]}), "is not what veRL writes: expected tensors by name"),
        (lambda held, rank: held.clear(), "is not what veRL writes: expected tensors by name"),
    ],
)
def test_parts_that_are_not_those_of_the_model(
    source: Source, step: Path, tmp_path: Path, change: Callable[..., object], message: str
) -> None:
    plain(source(), step, change)
    refused(step, tmp_path, message)


class Evil:
    def __reduce__(self) -> tuple[object, ...]:
        return os.mkdir, ("escaped",)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda step: file(step, 1).unlink(), r"has the files of 1 of 2 ranks: expected model_world_size_2_rank_1\.pt; bring the files of all"),
        (lambda step: shutil.copy(file(step), file(step, 0, 4)), "holds the files of 2 and of 4 ranks: move those"),
        (lambda step: shutil.copy(file(step), file(step, 2)), "has the files of 3 of 2 ranks: expected ranks 0 to 1 alone"),
        (lambda step: edit_json(step / "actor/fsdp_config.json", world_size=8), r"fsdp_config\.json says that there were 8 ranks, but"),
        (lambda step: (step / "actor/fsdp_config.json").write_text("["), r"fsdp_config\.json cannot be read"),
        (lambda step: file(step).write_bytes(file(step).read_bytes()[:5000]), r"rank_0\.pt cannot be read .*: copy it again"),
        (lambda step: file(step).write_bytes(b""), r"rank_0\.pt cannot be read"),
        (lambda step: file(step).write_bytes(pickle.dumps({"a": 1})), r"rank_0\.pt cannot be read"),
        (lambda step: torch.save({"a": Evil()}, file(step)), r"rank_0\.pt is not read: it names posix\.mkdir"),
        (lambda step: torch.save({"a": torch.nn.Linear(1, 1)}, file(step)), r"is not read: it names torch\.nn\.modules\.linear\.Linear"),
        (lambda step: shutil.copy(file(step), file(step, 1)), r"of the tensor .* together have the shape \(\d+, 32\), but the files say"),
        (lambda step: edit_json(step / "actor/huggingface/config.json", hidden_size=64), r"has shape \(257, 32\), but its config\.json implies"),
        (lambda step: edit_json(step / "actor/huggingface/config.json", num_hidden_layers=5, layer_types=None), r"has no tensor model\.layers\.4\."),
        (lambda step: edit_json(step / "actor/huggingface/config.json", num_hidden_layers=3, layer_types=None), r"holds a tensor model\.layers\.3\."),
        (lambda step: edit_json(step / "actor/huggingface/config.json", tie_word_embeddings=True), r"holds a lm_head\.weight that is not its"),
        (lambda step: edit_json(step / "actor/huggingface/config.json", model_type="gpt_neox"), "architecture 'gpt_neox' is not supported"),
    ],
)  # fmt: skip
def test_a_damaged_or_foreign_checkpoint(step: Path, tmp_path: Path, change: Callable[[Path], object], message: str) -> None:
    change(step)
    refused(step, tmp_path, message)


def refused(step: Path, tmp_path: Path, message: str) -> None:
    allowed = set(map(str, torch.serialization.get_safe_globals()))
    with pytest.raises(UserError, match=message):
        convert(step, tmp_path / "out", "hf")
    assert not (tmp_path / "out").exists()
    assert not Path("escaped").exists()
    assert set(map(str, torch.serialization.get_safe_globals())) == allowed, "what a file may name is nobody else's"


def test_only_what_is_on_the_list_is_read_even_where_the_process_allows_more(step: Path, tmp_path: Path) -> None:
    torch.save({"a": Evil()}, file(step))
    torch.serialization.add_safe_globals([(os.mkdir, "posix.mkdir")])
    try:
        refused(step, tmp_path, "it names posix.mkdir")
    finally:
        kept = [one for one in torch.serialization.get_safe_globals() if one != (os.mkdir, "posix.mkdir")]
        torch.serialization.clear_safe_globals()
        torch.serialization.add_safe_globals(kept)


OLDER = {  # before torch 2.5
    b"torch.distributed.tensor\nDTensor\n": b"torch.distributed._tensor.api\nDTensor\n",
    b"torch.distributed.tensor.placement_types\n": b"torch.distributed._tensor.placement_types\n",
    b"torch.distributed.tensor._dtensor_spec\nDTensorSpec\n": b"torch.distributed._tensor.placement_types\nDTensorSpec\n",
    b"torch.distributed.tensor._dtensor_spec\nTensorMeta\n": b"torch.distributed._tensor.placement_types\nTensorMeta\n",
}


def test_the_names_of_older_versions_of_torch_are_known(source: Source, step: Path, tmp_path: Path) -> None:
    for rank in range(2):
        with zipfile.ZipFile(file(step, rank)) as old:
            records = {info.filename: old.read(info) for info in old.infolist()}
        with zipfile.ZipFile(file(step, rank), "w") as new:
            for name, content in records.items():
                for now, before in OLDER.items() if name.endswith("data.pkl") else ():
                    assert now in content
                    content = content.replace(now, before)
                new.writestr(name, content)
    convert(step, tmp_path / "hf", "hf")
    assert same_weights(source(), tmp_path / "hf")
