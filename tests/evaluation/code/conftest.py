"""A jail for graders, and small rows in the shape of the public files."""

import gzip
import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from azr_nemo.evaluation.suite import Grade, Item, Suite, Tools
from azr_nemo.sandbox.executor import ExecutorUnavailable
from azr_nemo.sandbox.local.pool import LocalPool


@pytest.fixture(scope="session")
def tools() -> Iterator[Tools]:
    try:
        pool = LocalPool(workers=2)
    except ExecutorUnavailable as error:
        pytest.skip(str(error))
    with pool:
        yield Tools(pool)


@pytest.fixture(scope="session")
def grade(tools):
    def graded(suite: Suite, item: Item, response: str) -> Grade:
        return suite.submit(item, response, tools).result(timeout=240)

    return graded


@pytest.fixture(scope="session")
def public_rows(shared_data: Path):
    def read(name: str) -> list[dict[str, Any]]:
        opener = gzip.open if name.endswith(".gz") else open
        with opener(shared_data / name, "rt", encoding="utf-8") as file:
            return [json.loads(line) for line in file]

    return read


@pytest.fixture(scope="session")
def wrongly_graded(tools):
    """Ids and reasons of the items whose ideal response is not right, and of those whose wrong response is."""

    def found(suite: Suite, items: list[Item]) -> tuple[dict[str, str], dict[str, str]]:
        failures: list[dict[str, str]] = []
        items = [replace(item, reference=json.loads(json.dumps(item.reference))) for item in items]  # as they are kept on disk
        for response, expected in ((suite.ideal, True), (suite.wrong, False)):
            pending = [(item.id, suite.submit(item, response(item), tools)) for item in items]
            grades = {name: future.result() for name, future in pending}
            failures.append({name: each.reason for name, each in grades.items() if each.right != expected})
        return failures[0], failures[1]

    return found
