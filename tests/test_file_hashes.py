"""Hashes are those of the files, whatever they were made from, and what differs from them is named."""

import hashlib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from azr_nemo.errors import UserError
from azr_nemo.file_hashes import Written, compare, compare_recorded, write_file


@given(st.lists(st.binary(max_size=50), max_size=5))
def test_parts_have_the_hash_of_the_whole(parts: list[bytes]) -> None:
    whole = b"".join(parts)
    assert Written.of(parts) == Written.of(whole) == Written(len(whole), hashlib.sha256(whole).hexdigest())


def test_what_was_written_is_what_is_read(tmp_path: Path) -> None:
    content = bytes(range(256)) * 10_000
    assert write_file(tmp_path / "a", content) == Written.read(tmp_path / "a")
    compare(tmp_path, {"a": Written.of(content).sha256})


def test_a_file_that_differs_or_is_gone_is_named(tmp_path: Path) -> None:
    hashes = {name: write_file(tmp_path / name, name.encode()).sha256 for name in "abc"}
    (tmp_path / "b").write_bytes(b"B")
    with pytest.raises(UserError, match=r"is damaged: b is not what was written \(its sha256 differs\)$"):
        compare(tmp_path, hashes)
    (tmp_path / "b").unlink()
    with pytest.raises(UserError, match=r"is damaged: b cannot be read \(No such file or directory\)$"):
        compare(tmp_path, hashes)


def test_what_has_no_record_is_taken_as_it_is(tmp_path: Path) -> None:
    compare_recorded(tmp_path, "weights")
