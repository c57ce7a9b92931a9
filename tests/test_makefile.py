"""The commands of the Makefile: that all are told, and that LOCKED=1 installs what requirements/cpu.lock says and nothing else."""

import re
import shutil
import tomllib
from pathlib import Path

import process_trees
import pytest
from packaging.requirements import Requirement

ROOT = Path(__file__).parent.parent
MAKEFILE = (ROOT / "Makefile").read_text()
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
# Installed by `make test-slurm` and `make test-environments` alone, which have an order or locks of their own.
NOT_LOCKED = {"launch", "verifiers", "mlflow"}
needs_make = pytest.mark.skipif(not shutil.which("make"), reason="no make here")


def said(*words: str) -> str:
    return process_trees.run(["make", *words], cwd=ROOT, timeout=60, check=True).stdout


@needs_make
def test_help_tells_of_every_command() -> None:
    targets = re.search(r"^\.PHONY: (.*)$", MAKEFILE, re.MULTILINE)
    assert targets
    assert sorted(re.findall(r"^make ([a-z-]+) +\S", said("help"), re.MULTILINE)) == sorted(targets[1].split())


@pytest.mark.parametrize("page", ["README.md", "CONTRIBUTING.md", *(f"docs/{path.name}" for path in sorted((ROOT / "docs").glob("*.md")))])
def test_every_command_that_a_page_names_is_there(page: str) -> None:
    named = set(re.findall(r"\bmake ([a-z]+(?:-[a-z]+)*)(?=[`\n]| +#)", (ROOT / page).read_text()))
    assert named <= set(re.findall(r"^([a-z-]+):", MAKEFILE, re.MULTILINE))


@needs_make
@pytest.mark.parametrize("locked", [True, False])
def test_locked_bounds_every_installation_of_the_default_environment(locked: bool) -> None:
    installations = [line for line in said("-n", "VENV=/nowhere", *["LOCKED=1"] * locked, "dev").splitlines() if "/pip install" in line]
    assert [line.split()[-1] for line in installations] == ["torch==2.13.0", ".", "'.[dev]'"]
    assert all(("--constraint requirements/cpu.lock" in line) == locked for line in installations)


def test_the_lock_has_all_that_pyproject_asks_for_in_a_version_that_it_allows() -> None:
    lines = (ROOT / "requirements" / "cpu.lock").read_text().splitlines()
    locked = dict(line.lower().replace("_", "-").split("==") for line in lines if "==" in line and not line.startswith("#"))
    asked = [
        *PROJECT["dependencies"],
        *(line for name, extra in PROJECT["optional-dependencies"].items() if name not in NOT_LOCKED for line in extra),
    ]
    for requirement in map(Requirement, asked):
        name = requirement.name.lower().replace("_", "-")
        if name in ("torch", "azr-nemo"):  # its version stands in pyproject.toml; this project's extras
            continue
        assert name in locked, f"requirements/cpu.lock lacks {name}: make lock"
        assert requirement.specifier.contains(locked[name], prereleases=True), (
            f"{name}=={locked[name]} is locked, {requirement} is asked for: make lock"
        )


@needs_make
def test_learn_says_what_data_it_needs_before_it_trains() -> None:
    done = process_trees.run(
        ["make", "-o", "setup", "VENV=/nowhere", "learn", "BENCHMARKS=/nowhere/else"], cwd=ROOT, timeout=60, check=False
    )
    assert done.returncode == 2
    assert "give a folder with cruxeval.jsonl" in done.stdout
    assert "/nowhere/bin" not in done.stdout
