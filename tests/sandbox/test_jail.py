"""The ladder tells the truth about this machine."""

import pytest

from azr_nemo.sandbox.executor import ExecutorUnavailable
from azr_nemo.sandbox.local import jail
from azr_nemo.sandbox.local.jailed import landlock
from azr_nemo.sandbox.local.seccomp import cell_filter


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


def test_the_filter_is_a_bpf_program():
    assert len(cell_filter()) % 8 == 0
    assert 40 < len(cell_filter()) // 8 < 400
