"""Copies of the public files become items that are read back only as they were written."""

import gzip
import hashlib
import json
import re
import sys
import types

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from azr_nemo.errors import UserError
from azr_nemo.evaluation import prepare as module
from azr_nemo.evaluation.code import HUMANEVAL_PLUS, LCB_EXECUTION, LIVECODEBENCH, MBPP_PLUS
from azr_nemo.evaluation.maths import MATH_SUITES
from azr_nemo.evaluation.places import PLACES
from azr_nemo.evaluation.prepare import HUB, MANIFEST, load, prepare
from azr_nemo.evaluation.suite import Item, Tools

TOOLS = Tools(None)  # type: ignore[arg-type]  # these suites convert without tools
SUITES = {suite.name: suite for suite in MATH_SUITES}
ROWS = [{"problem": f"What is {n} + {n}?", "answer": 2 * n} for n in range(3)]


class Raw:
    """A suite whose items are the rows."""

    group, template, max_tokens = "code", "r1", 100

    def __init__(self, name, size):
        self.name, self.size, self.origin = name, size, f"download {name} from its home"

    def convert(self, rows, tools):
        return [Item(f"{self.name}/{number}", str(sorted(row)), row) for number, row in enumerate(rows)]


def write(path, rows):
    path.parent.mkdir(parents=True, exist_ok=True)
    text = "".join(json.dumps(row) + "\n" for row in rows)
    data = json.dumps(rows).encode() if path.suffix == ".json" else text.encode()
    path.write_bytes(gzip.compress(data) if path.suffix == ".gz" else data)
    return path


@pytest.mark.parametrize(
    "file",
    [
        "math500.jsonl", "MATH-500.jsonl", "math500.jsonl.gz", "math500.json", "data/math500/test.jsonl", "MATH-500/test.jsonl",
        "math500_full.jsonl", "deep/er/math500/test.jsonl.gz",
    ],
)  # fmt: skip
def test_a_file_is_recognised_by_its_usual_names_and_comes_back_as_items(tmp_path, file):
    source = write(tmp_path / "in" / file, ROWS)
    notes = prepare([tmp_path / "in"], tmp_path / "out", SUITES, TOOLS, ["math500"]).notes
    assert notes == [f"math500: 3 of 500 items from {source.name}."]
    items = load(tmp_path / "out", SUITES["math500"])
    assert items == SUITES["math500"].convert(ROWS, TOOLS)
    entry = json.loads((tmp_path / "out" / MANIFEST).read_text())["math500"]
    written = (tmp_path / "out" / "math500.jsonl").read_bytes()
    assert entry == {
        "items": 3, "expected": 500, "sha256": hashlib.sha256(written).hexdigest(),
        "sources": [{"file": source.name, "sha256": hashlib.sha256(source.read_bytes()).hexdigest()}],
    }  # fmt: skip
    assert [path.name for path in (tmp_path / "out").iterdir() if "partial" in path.name] == []


@pytest.mark.parametrize(
    ("suite", "file"),
    [
        ("aime24", "aime24/test.jsonl"), ("aime24", "AIME_2024.jsonl"), ("aime25", "aime25.jsonl"), ("amc23", "amc23.jsonl"),
        ("minerva", "minerva_math/test.jsonl"), ("olympiadbench", "olympiadbench/test.json"), ("cruxeval_o", "cruxeval_200.jsonl"),
        ("cruxeval_i", "cruxeval/test.jsonl"), ("humaneval_plus", "HumanEvalPlus-v0.1.10.jsonl.gz"), ("humaneval", "HumanEval.jsonl.gz"),
        ("mbpp_plus", "MbppPlus.jsonl"), ("livecodebench_execution", "execution/test.jsonl"), ("livecodebench_execution", "execution-v2.jsonl"),
        ("livecodebench", "release_v5.jsonl"), ("lcb_generation", "code_generation_lite/test.jsonl"),
    ],
)  # fmt: skip
def test_every_suite_has_names_by_which_its_file_is_found(tmp_path, suite, file):
    write(tmp_path / "in" / file, ROWS)
    write(tmp_path / "in" / "unrelated.jsonl", ROWS)
    suites = {name: Raw(name, 3) for name in (suite, "other")}
    notes = prepare([tmp_path / "in"], tmp_path / "out", suites, TOOLS).notes
    assert notes == [f"{suite}: 3 items from {file.rpartition('/')[2]}.", "other is missing: download other from its home."]


def test_the_best_name_wins_and_the_first_source_before_it(tmp_path):
    write(tmp_path / "a" / "cruxeval_200.jsonl", ROWS[:1])
    write(tmp_path / "b" / "cruxeval.jsonl", ROWS[:2])
    write(tmp_path / "c" / "cruxeval.jsonl", ROWS)
    suites = {"cruxeval_i": Raw("cruxeval_i", 800)}
    (note,) = prepare([tmp_path / "a", tmp_path / "b", tmp_path / "c"], tmp_path / "out", suites, TOOLS).notes
    assert note == "cruxeval_i: 2 of 800 items from cruxeval.jsonl."


def test_the_parts_of_a_release_make_up_one_suite_and_later_parts_do_not_belong_to_it(tmp_path):
    for number, name in enumerate(["test", "test2", "test3", "test6"]):
        write(tmp_path / "code_generation_lite" / f"{name}.jsonl", [{"part": number}])
    suites = {"livecodebench": Raw("livecodebench", 880)}
    (note,) = prepare([tmp_path], tmp_path / "out", suites, TOOLS).notes
    assert note == "livecodebench: 3 of 880 items from test.jsonl, test2.jsonl, test3.jsonl."
    assert [item.reference["part"] for item in load(tmp_path / "out", suites["livecodebench"])] == [0, 1, 2]


def test_the_real_files_are_found_counted_and_read_back(tmp_path, shared_data):
    suites = {**SUITES, "cruxeval_o": Raw("cruxeval_o", 800), "humaneval": Raw("humaneval", 164), "mbpp_plus": Raw("mbpp_plus", 378)}
    notes = prepare([shared_data], tmp_path, suites, TOOLS).notes
    assert [note.partition(":")[0] + ":" + note.partition(":")[2][:20] for note in notes if "missing" not in note] == [
        "math500: 500 items from math", "aime24: 30 items from aime2", "amc23: 40 items from amc23", "cruxeval_o: 200 of 800 items fr",
        "humaneval: 164 items from Huma", "mbpp_plus: 378 items from Mbpp",
    ]  # fmt: skip
    assert [note.split()[0] for note in notes if "missing" in note] == ["aime25", "minerva", "olympiadbench"]
    for name in ("math500", "cruxeval_o", "mbpp_plus"):
        assert len(load(tmp_path, suites[name])) in (500, 200, 378)


def test_suites_that_were_prepared_before_stay_and_one_is_replaced(tmp_path):
    write(tmp_path / "in" / "aime24.jsonl", ROWS)
    write(tmp_path / "in" / "amc23.jsonl", ROWS)
    prepare([tmp_path / "in"], tmp_path / "out", SUITES, TOOLS, ["aime24", "amc23"])
    write(tmp_path / "in" / "amc23.jsonl", ROWS[:2])
    prepare([tmp_path / "in"], tmp_path / "out", SUITES, TOOLS, ["amc23"])
    assert len(load(tmp_path / "out", SUITES["aime24"])) == 3
    assert len(load(tmp_path / "out", SUITES["amc23"])) == 2


def test_values_that_strict_json_lacks_and_odd_text_survive(tmp_path):
    row = {"inputs": [float("inf"), -0.0, 10**40], "text": "\u2028 \ud800 \x85 é\n"}
    write(tmp_path / "mbpp.jsonl", [row])
    suites = {"mbpp": Raw("mbpp", 1)}
    prepare([tmp_path / "mbpp.jsonl"], tmp_path / "out", suites, TOOLS)
    assert load(tmp_path / "out", suites["mbpp"])[0].reference == row


def damaged(path, how):
    data = path.read_bytes()
    contents = {
        "cut": data[: len(data) // 2],
        "not JSON": b"<html>not found</html>\n",
        "no object": b"[1]\n",
        "no text": b"\xff\xfe\x00",
        "empty": b"",
    }
    path.write_bytes(contents[how])
    return path


@pytest.mark.parametrize(
    ("file", "how", "sentence"),
    [
        ("aime24.jsonl", "cut", "line 2 of .*aime24.jsonl is not JSON: it was not downloaded whole; get it again"),
        ("aime24.jsonl.gz", "cut", "aime24.jsonl.gz cannot be read .*damaged or was not downloaded whole; get it again"),
        ("aime24.jsonl.gz", "not JSON", "aime24.jsonl.gz cannot be read"),
        ("aime24.jsonl", "not JSON", "line 1 of .*aime24.jsonl is not JSON"),
        ("aime24.jsonl", "no object", "line 1 of .*aime24.jsonl is not a JSON object"),
        ("aime24.json", "no object", "aime24.json is not a JSON object"),
        ("aime24.json", "cut", "aime24.json is not JSON"),
        ("aime24.jsonl", "no text", "aime24.jsonl cannot be read"),
        ("aime24.jsonl", "empty", "aime24.jsonl is no file for aime24 .it has no rows.: take"),
    ],
)
def test_a_damaged_source_is_named_in_one_sentence_and_nothing_is_written(tmp_path, file, how, sentence):
    damaged(write(tmp_path / file, ROWS), how)
    (refused,) = prepare([tmp_path], tmp_path / "out", SUITES, TOOLS, ["aime24"]).refused
    assert re.search(sentence, refused)
    assert "\n" not in refused
    assert not (tmp_path / "out").exists()


STRAY = {
    "mbpp.jsonl": ({"task_id": 1, "text": "Write a function.", "code": "x", "test_list": ["assert 1"]}, "mbpp_plus", "row 1.* task_id is int"),
    "execution_log.json": ({"started": "today"}, "lcb_execution", "row 1: id is missing"),
    "livecodebench_results.jsonl": ({"pass@1": 0.5}, "livecodebench", "row 1: question_id is missing"),
    "humaneval_plus.jsonl": (
        {"task_id": "HumanEval/0", "prompt": "p", "canonical_solution": "s", "entry_point": "f", "test": "t"}, "humaneval_plus", "a text of tests",
    ),
}  # fmt: skip


def test_files_that_a_wildcard_found_and_that_do_not_convert_are_named_and_the_others_go_on(tmp_path):
    for file, (row, _, _) in STRAY.items():
        write(tmp_path / "in" / file, [row])
    pq.write_table(pa.Table.from_pylist([STRAY["humaneval_plus.jsonl"][0]]), tmp_path / "in" / "humanevalplus-test.parquet")
    write(tmp_path / "in" / "aime24.jsonl", ROWS)
    suites = {suite.name: suite for suite in (MBPP_PLUS, LCB_EXECUTION, LIVECODEBENCH, HUMANEVAL_PLUS, SUITES["aime24"])}
    done = prepare([tmp_path / "in"], tmp_path / "out", suites, TOOLS)
    assert done.notes[-1] == "aime24: 3 of 30 items from aime24.jsonl."
    assert len(done.refused) == len(STRAY) + 1
    for file, (_, name, reason) in STRAY.items():
        (sentence,) = (each for each in done.refused if f"/{file} " in each)
        assert re.search(f"{file} is no file for {name} .*{reason}.*: download ", sentence)
        assert "again" not in sentence
    assert [path.name for path in (tmp_path / "out").iterdir() if path.suffix == ".jsonl"] == ["aime24.jsonl"]


def test_the_next_file_that_fits_is_tried(tmp_path):
    write(tmp_path / "amc23_log.jsonl", [{"started": "today"}])
    write(tmp_path / "amc23_rows.jsonl", ROWS)
    done = prepare([tmp_path], tmp_path / "out", SUITES, TOOLS, ["amc23"])
    assert [sentence.partition("(")[0] for sentence in done.refused] == [f"{tmp_path}/amc23_log.jsonl is no file for amc23 "]
    assert done.notes[-1] == "amc23: 3 of 40 items from amc23_rows.jsonl."


def test_what_was_prepared_before_is_a_source_like_any_other(tmp_path):
    row = {"id": "0", "code": "def add(a):\n    return a", "input": "add(1)", "output": "1"}
    write(tmp_path / "in" / "lcb_execution.jsonl", [row])
    suites = {suite.name: suite for suite in (LCB_EXECUTION, LIVECODEBENCH)}
    prepare([tmp_path / "in"], tmp_path / "one", suites, TOOLS)
    done = prepare([tmp_path / "one"], tmp_path / "two", suites, TOOLS)
    assert done.refused == []
    assert done.notes[0] == "lcb_execution: 1 of 479 items from lcb_execution.jsonl."
    assert "livecodebench is missing" in done.notes[1]
    assert load(tmp_path / "two", LCB_EXECUTION) == load(tmp_path / "one", LCB_EXECUTION)


def test_a_row_without_its_fields_is_named(tmp_path):
    write(tmp_path / "aime24.jsonl", [ROWS[0], {"problem": "?"}])
    (refused,) = prepare([tmp_path], tmp_path / "out", SUITES, TOOLS).refused
    assert "row 2 of aime24 has no answer" in refused


def test_unknown_suites_missing_sources_and_nothing_found_are_sentences(tmp_path):
    with pytest.raises(UserError, match="suite math5000 is unknown: choose from math500, "):
        prepare([tmp_path], tmp_path / "out", SUITES, TOOLS, ["math5000"])
    with pytest.raises(UserError, match="nowhere is not there"):
        prepare([tmp_path / "nowhere"], tmp_path / "out", SUITES, TOOLS)
    with pytest.raises(
        UserError, match=r"no benchmark file was found in .*: amc23 is missing: take .*huggingface.co/datasets/math-ai/amc23"
    ):
        prepare([tmp_path], tmp_path / "out", SUITES, TOOLS, ["amc23"])


def test_parquet_gives_the_same_items_and_a_damaged_file_is_a_sentence(tmp_path):
    (tmp_path / "aime24.parquet").write_bytes(b"PAR1")
    (refused,) = prepare([tmp_path], tmp_path / "out", SUITES, TOOLS, ["aime24"]).refused
    assert re.search("aime24.parquet cannot be read .*: it is damaged or was not downloaded whole; get it again", refused)
    pq.write_table(pa.Table.from_pylist(ROWS), tmp_path / "aime24.parquet")
    prepare([tmp_path], tmp_path / "out", SUITES, TOOLS, ["aime24"])
    assert load(tmp_path / "out", SUITES["aime24"]) == SUITES["aime24"].convert(ROWS, TOOLS)


@pytest.mark.parametrize("how", ["cut", "not JSON", "empty"])
def test_a_prepared_file_that_changed_is_refused(tmp_path, how):
    write(tmp_path / "aime24.jsonl", ROWS)
    prepare([tmp_path], tmp_path / "out", SUITES, TOOLS, ["aime24"])
    damaged(tmp_path / "out" / "aime24.jsonl", how)
    with pytest.raises(UserError, match=r"aime24.jsonl is not what was prepared \(its hash differs\): run `azr-nemo data prepare` again$"):
        load(tmp_path / "out", SUITES["aime24"])


def test_what_was_not_prepared_says_where_to_get_it_and_a_damaged_manifest_is_refused(tmp_path):
    with pytest.raises(UserError, match=r"aime24.jsonl is missing: take .*, then run `azr-nemo data prepare`"):
        load(tmp_path, SUITES["aime24"])
    write(tmp_path / "amc23.jsonl", ROWS)
    prepare([tmp_path], tmp_path / "out", SUITES, TOOLS, ["amc23"])
    with pytest.raises(UserError, match=r"aime24.jsonl is missing"):
        load(tmp_path / "out", SUITES["aime24"])
    (tmp_path / "out" / MANIFEST).write_text("{")
    for action in (
        lambda: load(tmp_path / "out", SUITES["amc23"]),
        lambda: prepare([tmp_path], tmp_path / "out", SUITES, TOOLS, ["amc23"]),
    ):
        with pytest.raises(UserError, match=r"manifest.json is damaged: delete it and run"):
            action()


class FakeHub(types.ModuleType):
    """huggingface_hub as far as it is used: every dataset has its split in one file, beside others."""

    def __init__(self, folder):
        super().__init__("huggingface_hub")
        self.folder, self.downloaded = folder, []
        write(folder / "test.jsonl", ROWS)
        write(folder / "data" / "train-00000.jsonl", ROWS[:1])
        self.HfApi = lambda: self

    def list_repo_files(self, repo, repo_type):
        assert repo_type == "dataset"
        return ["README.md", "data/train-00000.jsonl", "test.jsonl"]

    def hf_hub_download(self, repo, name, repo_type):
        self.downloaded.append((repo, name))
        return str(self.folder / name)


def fake_datasets():
    fake = types.ModuleType("datasets")
    fake.__spec__ = types.SimpleNamespace(name="datasets")
    fake.load_dataset = lambda repo, split: iter(ROWS) if split == "test" else iter(())
    return fake


def test_the_hub_gives_the_same_items_with_and_without_the_datasets_package(tmp_path, monkeypatch):
    hub = FakeHub(tmp_path / "hub")
    monkeypatch.setitem(sys.modules, "huggingface_hub", hub)
    monkeypatch.setitem(sys.modules, "datasets", None)
    real = module.importlib.util.find_spec
    monkeypatch.setattr(module.importlib.util, "find_spec", lambda name: None if name == "datasets" else real(name))
    notes = prepare([HUB], tmp_path / "files", SUITES, TOOLS, ["aime24"]).notes
    assert notes == ["aime24: 3 of 30 items from hub:math-ai/aime24."]
    assert hub.downloaded == [("math-ai/aime24", "test.jsonl")]
    monkeypatch.setitem(sys.modules, "datasets", fake_datasets())
    monkeypatch.setattr(module.importlib.util, "find_spec", lambda name: object())
    prepare([HUB], tmp_path / "datasets", SUITES, TOOLS, ["aime24"])
    for name in ("aime24.jsonl", MANIFEST):
        assert (tmp_path / "files" / name).read_bytes() == (tmp_path / "datasets" / name).read_bytes()


def test_local_copies_come_before_the_hub(tmp_path, monkeypatch):
    hub = FakeHub(tmp_path / "hub")
    monkeypatch.setitem(sys.modules, "huggingface_hub", hub)
    monkeypatch.setattr(module.importlib.util, "find_spec", lambda name: None)
    write(tmp_path / "in" / "aime24.jsonl", ROWS[:1])
    notes = prepare([HUB, tmp_path / "in"], tmp_path / "out", SUITES, TOOLS, ["aime24", "amc23"]).notes
    assert notes == ["aime24: 1 of 30 items from aime24.jsonl.", "amc23: 3 of 40 items from hub:math-ai/amc23."]


def test_a_hub_out_of_reach_or_without_the_split_is_one_sentence(tmp_path, monkeypatch):
    hub = FakeHub(tmp_path / "hub")
    monkeypatch.setitem(sys.modules, "huggingface_hub", hub)
    monkeypatch.setattr(module.importlib.util, "find_spec", lambda name: None)

    def unreachable(*arguments, **named):
        raise ConnectionError("no route\nto host")

    monkeypatch.setattr(hub, "hf_hub_download", unreachable)
    (refused,) = prepare([HUB], tmp_path / "out", SUITES, TOOLS, ["aime24"]).refused
    assert re.search("math-ai/aime24 cannot be downloaded from the Hugging Face hub .*: give a local copy", refused)
    assert "\n" not in refused
    monkeypatch.setattr(hub, "list_repo_files", lambda repo, repo_type: ["README.md", "test.csv"])
    (refused,) = prepare([HUB], tmp_path / "out", SUITES, TOOLS, ["aime24"]).refused
    assert "math-ai/aime24 has no file of test that can be read" in refused


def test_files_of_a_dataset_whose_script_would_run_are_read_as_files():
    assert module._hub_files([f"test{n}.jsonl" for n in ("", 2, 3, 4, 5, 6)] + ["code_generation_lite.py"], PLACES["livecodebench"]) == [
        "test.jsonl", "test2.jsonl", "test3.jsonl", "test4.jsonl", "test5.jsonl",
    ]  # fmt: skip


def test_a_folder_that_cannot_be_written_is_one_sentence(tmp_path):
    write(tmp_path / "aime24.jsonl", ROWS)
    (tmp_path / "out").write_text("a file")
    with pytest.raises(UserError, match=r"out/.*cannot be written"):
        prepare([tmp_path], tmp_path / "out", SUITES, TOOLS, ["aime24"])
