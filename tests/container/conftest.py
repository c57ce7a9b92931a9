"""The `cpu` image, built once for the tests that run it; they want AZR_CONTAINER_TESTS=1, as `make test-container` sets it."""

import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest
from image_build import Buildah, Unavailable, base_tar, install_tools, timed
from oci_run import Container, Options

IMAGE = "localhost/azr-nemo:cpu"


@pytest.fixture(scope="session")
def storage() -> Iterator[Buildah]:
    """buildah, where this machine can build and run images. Says how long each part took."""
    if os.environ.get("AZR_CONTAINER_TESTS") != "1":
        pytest.skip("builds an image, which takes minutes: make test-container")
    try:
        install_tools()
        tar = timed("base image's file system", base_tar)
    except Unavailable as reason:
        pytest.skip(str(reason))
    # Below the file system's root, as a temporary folder of pytest's is too deep for the sockets and too short-lived for the mounts.
    with tempfile.TemporaryDirectory(prefix="azr-container-") as folder:
        buildah = Buildah(Path(folder) / "storage")
        try:
            timed("base image", lambda: buildah.import_base(tar, base_name()))
            yield buildah
        finally:
            buildah.close()


@pytest.fixture(scope="session")
def image(storage: Buildah) -> str:
    """The built `cpu` image's name."""
    timed("build", lambda: storage.build("cpu", IMAGE))
    return IMAGE


@pytest.fixture
def start(storage: Buildah, image: str, tmp_path: Path) -> Iterator[Callable[..., Container]]:
    """start(command, options) runs the image as `docker run` would; what still runs is ended with the test."""
    started: list[Container] = []

    def run(command: Sequence[str] = (), options: Options | None = None) -> Container:
        bundle = tmp_path / f"bundle{len(started)}"
        bundle.mkdir()
        started.append(Container(storage.config(image), storage.root(image), bundle, command, options or Options()))
        return started[-1]

    yield run
    for container in started:
        container.close()


@pytest.fixture(scope="module")
def volumes() -> Iterator[dict[Path, tuple[str, str]]]:
    """/runs and /cache, each a folder of the host that belongs to user 1000, and the seeds, read-only."""
    with tempfile.TemporaryDirectory(prefix="azr-volumes-") as name:
        folder = Path(name)
        folder.chmod(0o755)
        for volume in ("runs", "cache"):
            (folder / volume).mkdir()
            shutil.chown(folder / volume, 1000, 1000)
        yield {folder / "runs": ("/runs", "rw"), folder / "cache": ("/cache", "rw"), Path(__file__).parents[1] / "data": ("/seeds", "ro")}


def base_name() -> str:
    """The name after ARG PYTHON_IMAGE= in the Dockerfile."""
    lines = (Path(__file__).parents[2] / "Dockerfile").read_text().splitlines()
    return next(line.partition("=")[2] for line in lines if line.startswith("ARG PYTHON_IMAGE="))
