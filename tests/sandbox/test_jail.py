"""The ladder tells the truth about this machine, and about machines that lack something: what it finds there holds against attacks."""

import json
import os
import shutil
import stat
import sys
import sysconfig
import tempfile
from collections.abc import Iterator
from pathlib import Path

import process_trees
import pytest

from azr_nemo.sandbox.executor import ExecutorUnavailable
from azr_nemo.sandbox.local import jail
from azr_nemo.sandbox.local.jailed import landlock

HERE = Path(__file__).parent
ROOT = HERE.parent.parent
ATTACKS = ROOT / "tests" / "security"
SECRET = "correct-horse-battery-staple"
NOBODY = str(jail.NOBODY)
LEFT_OUT = shutil.ignore_patterns("site-packages", "test", "tests", "idlelib", "lib2to3", "tkinter", "ensurepip", "config-*", "pkgconfig")


def test_every_rung_is_tried_and_says_in_a_sentence_why_it_does_not_hold():
    probes = jail.probe()
    assert [probe.rung for probe in probes] == list(jail.LADDER)
    assert all(probe.reason for probe in probes)
    assert all(probe.ok == (probe.reason == "holds") for probe in probes)


def test_without_bubblewrap_its_rung_says_so(monkeypatch):
    monkeypatch.setattr(jail.shutil, "which", lambda name: None)
    assert "bwrap is not installed" in jail.probe_rung(jail.Rung.BUBBLEWRAP).reason


def test_without_libseccomp_no_rung_holds_and_the_sentence_names_it(monkeypatch):
    def missing() -> bytes:
        raise ExecutorUnavailable("needs libseccomp.so.2")

    monkeypatch.setattr(jail, "cell_filter", missing)
    with pytest.raises(ExecutorUnavailable, match=r"libseccomp.*allow_unjailed"):
        jail.choose(allow_unjailed=False)
    assert jail.choose(allow_unjailed=True).rung is jail.Rung.UNJAILED


def test_without_landlock_the_last_rung_is_refused_and_the_others_say_what_is_lost(monkeypatch):
    monkeypatch.setattr(landlock, "abi", lambda: 0)
    assert "no landlock" in jail.probe_rung(jail.Rung.LANDLOCK).reason
    for rung in (jail.Rung.BUBBLEWRAP, jail.Rung.NAMESPACES):
        tried = jail.probe_rung(rung)
        if tried.ok:
            assert "no landlock in this kernel" in jail.plan(rung).describe()


def test_a_rung_that_leaks_is_not_taken(monkeypatch):
    open_plan = jail.plan(jail.Rung.UNJAILED)
    leaking = jail.Plan(jail.Rung.LANDLOCK, (), {**open_plan.first_frame, "landlock": False, "filter": "", "namespaces": False})
    monkeypatch.setattr(jail, "plan", lambda rung: leaking)
    tried = jail.probe_rung(jail.Rung.LANDLOCK)
    assert not tried.ok
    assert "read a file" in tried.reason
    assert "open a socket" in tried.reason


def others_may_read(path: Path) -> bool:
    return all(part.stat().st_mode & stat.S_IXOTH for part in (path, *path.parents))


@pytest.fixture(scope="module")
def open_folder() -> Iterator[Path]:
    """A folder that every user may read; pytest's own are not."""
    folder = Path(tempfile.mkdtemp(prefix="azr-restricted-"))
    folder.chmod(0o755)
    yield folder
    shutil.rmtree(folder)


@pytest.fixture(scope="module")
def secret_file(open_folder: Path) -> Path:
    file = open_folder / "secret"
    file.write_text(SECRET)
    (open_folder / "secret_module.py").write_text(f"SECRET = {SECRET!r}")
    return file


@pytest.fixture(scope="module")
def everybodys_python(open_folder: Path) -> str:
    """An interpreter that an ordinary user can start: this one, or a copy where its folder is closed to others."""
    if not others_may_read(ROOT) or not others_may_read(Path(sysconfig.get_path("purelib"))):
        pytest.skip("the repository or its virtual environment cannot be read by other users")
    prefix, copy = Path(sys.base_prefix), open_folder / "python"
    if others_may_read(prefix) and others_may_read(Path(sys.executable).resolve()):
        return jail.interpreter()
    try:
        shutil.copytree(prefix, copy, symlinks=True, ignore=LEFT_OUT, copy_function=os.link)
    except (OSError, shutil.Error):
        shutil.rmtree(copy, ignore_errors=True)
        shutil.copytree(prefix, copy, symlinks=True, ignore=LEFT_OUT)
    return str(copy / "bin" / Path(jail.interpreter()).name)


def report(secret_file: Path, *given_up: str, python: str = sys.executable, command: tuple[str, ...] = ()) -> dict:
    """What restricted.py says, started by `command`; skips where the environment cannot be made."""
    if landlock.abi() == 0:
        pytest.skip("this kernel has no landlock to begin with")
    environment = {
        "PYTHONPATH": f"{ROOT}:{sysconfig.get_path('purelib')}",
        "PATH": os.environ["PATH"],
        "LD_LIBRARY_PATH": f"{Path(python).parent.parent / 'lib'}:{os.environ.get('LD_LIBRARY_PATH', '')}",
        "PYTHONDONTWRITEBYTECODE": "1",
    }
    words = [*command, python, str(HERE / "restricted.py"), *given_up, str(secret_file), str(ATTACKS)]
    ran = process_trees.run(words, env=environment, cwd="/", timeout=120)
    if ran.returncode and command and "restricted.py" not in ran.stderr:
        pytest.skip(f"the environment cannot be made here: {ran.stderr.strip()[:200]}")
    assert ran.returncode == 0, ran.stderr
    assert secret_file.read_text() == SECRET
    return json.loads(ran.stdout)


def holds(said: dict) -> bool:
    """Whether programs run there and every attack fails."""
    return said["succeeded"] == [] and said["attacks"] > 80 and said["after"] == "2"


def as_an_ordinary_user() -> tuple[str, ...]:
    if os.getuid() != 0:
        return ()
    if shutil.which("setpriv") is None:
        pytest.skip("setpriv is not installed")
    return ("setpriv", "--reuid", NOBODY, "--regid", NOBODY, "--clear-groups")


@pytest.mark.slow
def test_an_ordinary_user_gets_a_rung_that_holds(secret_file, everybodys_python):
    said = report(secret_file, python=everybodys_python, command=as_an_ordinary_user())
    assert said["reasons"][jail.Rung.LANDLOCK] == "holds"
    assert holds(said), said


@pytest.mark.slow
def test_an_ordinary_user_without_user_namespaces_gets_the_last_rung_and_it_holds_against_his_own_files(secret_file, everybodys_python):
    """Nothing but landlock and the filter stands between the program and files and processes of the same user."""
    if os.getuid() == 0:
        os.chown(secret_file, jail.NOBODY, jail.NOBODY)
    said = report(secret_file, "no-user-namespaces", python=everybodys_python, command=as_an_ordinary_user())
    assert "rung C" in said["describe"]
    assert "user nobody" not in said["describe"]
    assert holds(said), said


@pytest.mark.slow
def test_where_a_container_forbids_user_namespaces_it_is_the_last_rung(secret_file):
    said = report(secret_file, "no-user-namespaces")
    assert "rung C" in said["describe"]
    assert "user namespace" in said["reasons"][jail.Rung.BUBBLEWRAP] or "bwrap is not installed" in said["reasons"][jail.Rung.BUBBLEWRAP]
    assert "unshare" in said["reasons"][jail.Rung.NAMESPACES]
    assert holds(said), said


@pytest.mark.slow
def test_where_a_container_lets_nobody_name_a_machine_the_rungs_with_namespaces_hold_all_the_same(secret_file):
    """So it is in podman, whose default filter allows namespaces."""
    said = report(secret_file, "no-host-name")
    assert said["reasons"] == {probe.rung: probe.reason for probe in jail.probe()}
    assert holds(said), said


@pytest.mark.slow
def test_a_root_who_is_the_only_user_of_his_namespace_and_may_make_no_other_gets_the_last_rung(secret_file):
    """So it is in rootless containers without further ids: there is no nobody to become, and no second namespace."""
    none_left = 'echo 0 > /proc/sys/user/max_user_namespaces && exec "$@"'
    if shutil.which("unshare") is None:
        pytest.skip("unshare is not installed")
    said = report(secret_file, command=("unshare", "--user", "--map-root-user", "sh", "-c", none_left, "sh"))
    assert "rung C" in said["describe"]
    assert "user nobody" not in said["describe"]
    assert holds(said), said


@pytest.mark.slow
@pytest.mark.skipif(os.getuid() != 0, reason="only root has capabilities to give up")
def test_a_root_without_the_capability_to_change_users_gets_the_last_rung(secret_file):
    if shutil.which("setpriv") is None:
        pytest.skip("setpriv is not installed")
    said = report(secret_file, "no-user-namespaces", command=("setpriv", "--inh-caps", "-all", "--bounding-set", "-all"))
    assert "rung C" in said["describe"]
    assert "user nobody" not in said["describe"]
    assert holds(said), said


@pytest.mark.slow
def test_without_landlock_a_namespace_holds_and_the_description_says_what_is_lost(secret_file):
    said = report(secret_file, "no-landlock")
    assert "no landlock" in said["reasons"][jail.Rung.LANDLOCK]
    if "refused" in said:
        pytest.skip("no rung with namespaces holds on this machine, so nothing is left without landlock")
    assert "rung A" in said["describe"] or "rung B" in said["describe"]
    assert "no landlock in this kernel" in said["describe"]
    assert holds(said), said


@pytest.mark.slow
def test_without_either_it_is_refused_in_one_sentence_that_names_the_override(secret_file):
    said = report(secret_file, "no-user-namespaces", "no-landlock")
    assert "executor.allow_unjailed=true" in said["refused"]
    assert "this kernel has no landlock" in said["refused"]
    assert "\n" not in said["refused"]
