"""Builds the `cpu` image without a Docker engine: buildah as root on Debian, on a base image that mmdebstrap makes."""

import json
import os
import re
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import urlsplit

import process_trees

ROOT = Path(__file__).parents[2]
PACKAGES = ("buildah", "crun", "mmdebstrap")
BASE_CONTENT = "python3,python3-venv,ca-certificates"
BASE_SUITE = "bookworm"
PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


class Unavailable(Exception):
    """Why images cannot be built on this machine."""


def timed(what: str, act: Callable):
    """Does it and prints its seconds, and those of CPU, which say more on a busy machine (shown by pytest -s)."""
    before = os.times()
    result = act()
    after = os.times()
    cpu = after.children_user + after.children_system - before.children_user - before.children_system
    print(f"\n{what}: {after.elapsed - before.elapsed:.0f} s, {cpu:.0f} s of CPU", flush=True)
    return result


def install_tools() -> None:
    """Gets buildah, crun and mmdebstrap with apt where they are missing. Raises Unavailable with the reason where that cannot be."""
    if os.getuid() != 0:
        raise Unavailable("images are built by root here")
    release = Path("/etc/os-release")
    if not release.is_file() or not re.search(r"^ID=\"?debian\"?$", release.read_text(), re.MULTILINE):
        raise Unavailable("this is not Debian, whose packages the base image is made of")
    if process_trees.run(["unshare", "--mount", "true"], timeout=60).returncode:
        raise Unavailable("this root may not mount, as in a container without CAP_SYS_ADMIN")
    if all(map(shutil.which, PACKAGES)):
        return
    if not shutil.which("apt-get"):
        raise Unavailable("there is no buildah and no apt-get to install it")
    command = ["apt-get", "install", "-y", "-q", "--no-install-recommends", *PACKAGES]
    for before in ([], ["apt-get", "update", "-q"]):
        if before:
            process_trees.run(before, timeout=300)
        if process_trees.run(command, timeout=600).returncode == 0:
            return
    raise Unavailable(f"apt-get cannot install {', '.join(PACKAGES)}")


def base_tar() -> Path:
    """The root file system of a Debian with Python, made once (a minute or two, 225 MB) and kept in the user's cache."""
    folder = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "azr-nemo" / "container"
    kept = folder / f"debian-{BASE_SUITE}-{BASE_CONTENT.replace(',', '-')}.tar"
    if not kept.is_file():
        folder.mkdir(parents=True, exist_ok=True)
        made = folder / f".{os.getpid()}.tar"
        command = ["mmdebstrap", "--quiet", "--variant=minbase", f"--include={BASE_CONTENT}", BASE_SUITE, str(made)]
        done = process_trees.run(command, timeout=900)
        if done.returncode:
            made.unlink(missing_ok=True)
            raise Unavailable(f"mmdebstrap cannot make the base image: {done.stderr.strip().splitlines()[-1:]}")
        made.rename(kept)
    return kept


def pip_mounts(folder: Path) -> Iterator[str]:
    """buildah's -v options that give a build the index settings of this machine's pip, read-only: a pip.conf and what it names of local folders.

    Nothing of it stays in the image but empty mount points. folder: where the pip.conf is written.
    """
    listed = process_trees.run([sys.executable, "-m", "pip", "config", "list"], timeout=60, check=True).stdout
    settings: dict[str, str] = {}
    for name, value in re.findall(r"^(?:global|install|download|:env:)\.([\w-]+)='(.*)'$", listed, re.MULTILINE):
        settings[name] = f"{settings[name]} {value}" if name in ("find-links", "extra-index-url") and name in settings else value
    mounted: dict[str, str] = {}

    def inside(word: str) -> str:
        """The word as the build sees it: a local folder of packages is mounted, with its parent, where its index has links to its sibling."""
        path = Path(urlsplit(word).path if word.startswith("file://") else word)
        if not path.is_absolute() or not path.exists():
            return word
        shared = path.parent if path.name == "simple" else path
        target = mounted.setdefault(str(shared), f"/mnt/pip/{len(mounted)}")
        return ("file://" if word.startswith("file://") else "") + target + str(path)[len(str(shared)) :]

    names = ("index-url", "extra-index-url", "find-links", "no-index", "trusted-host", "constraint", "proxy", "default-timeout")
    lines = [f"{name} = {' '.join(inside(word) for word in settings[name].split())}" for name in names if name in settings]
    if certificates := settings.get("cert"):
        lines.append(f"cert = {certificates}")
        yield f"{certificates}:{certificates}:ro"
    conf = folder / "pip.conf"
    conf.write_text("\n".join(["[global]", *lines, ""]))
    yield f"{conf}:/etc/pip.conf:ro"
    for source, target in mounted.items():
        yield f"{source}:{target}:ro"


class Buildah:
    """buildah with a storage of its own under `folder`, so that nothing of the machine's images is used or changed."""

    def __init__(self, folder: Path):
        self.folder = folder
        (folder / "tmp").mkdir(parents=True)
        conf = folder / "storage.conf"
        conf.write_text(f'[storage]\ndriver = "overlay"\ngraphroot = "{folder}/graph"\nrunroot = "{folder}/run"\n')
        self.environment = {
            **os.environ,
            "CONTAINERS_STORAGE_CONF": str(conf),
            "BUILDAH_ISOLATION": "chroot",
            "TMPDIR": str(folder / "tmp"),
        }

    def __call__(self, *arguments: str, timeout: float = 600) -> str:
        """Standard output of a buildah command. Raises AssertionError with the end of its errors when it fails."""
        done = process_trees.run(["buildah", *arguments], env=self.environment, timeout=timeout)
        assert done.returncode == 0, f"buildah {arguments[0]} ended with {done.returncode}:\n{(done.stdout + done.stderr)[-4000:]}"
        return done.stdout.strip()

    def import_base(self, tar: Path, name: str) -> None:
        """Makes an image of a root file system and gives it the name that a FROM has."""
        container = self("from", "scratch")
        self("add", "-q", container, str(tar), "/")
        self("config", "--env", f"PATH={PATH}", container)
        self("commit", "--disable-compression", "-q", "--rm", container, name)

    def build(self, target: str, tag: str) -> None:
        """Builds a target of the Dockerfile with this machine's pip settings; an hour at most."""
        mounts = [f"--volume={mount}" for mount in pip_mounts(self.folder)]
        index = os.environ.get("TORCH_INDEX")
        self(
            "bud", "--format=docker", "--pull-never", "--layers=false", "--disable-compression", *mounts,
            *([f"--build-arg=TORCH_INDEX={index}"] if index else []), f"--target={target}", f"--tag={tag}", str(ROOT),
            timeout=3600,
        )  # fmt: skip

    def config(self, image: str) -> dict:
        """The image's configuration: Env, User, Entrypoint, Cmd, Labels, Volumes, Healthcheck."""
        return json.loads(self("inspect", "--type", "image", image))["Docker"]["config"]

    def root(self, image: str) -> Path:
        """A writable root file system of the image."""
        return Path(self("mount", self("from", "--pull-never", image)))

    def close(self) -> None:
        """Gives back all that was stored."""
        process_trees.run(["buildah", "rm", "--all"], env=self.environment, timeout=120)
        process_trees.run(["buildah", "rmi", "--all", "--force"], env=self.environment, timeout=120)
        mounted = [line.split()[1] for line in Path("/proc/self/mounts").read_text().splitlines()]
        for path in sorted((path for path in mounted if path.startswith(f"{self.folder}/")), reverse=True):
            process_trees.run(["umount", "--lazy", path], timeout=60)
