"""Programs may import what they are given beside the standard library, on every rung, and nothing else."""

import pytest

from azr_nemo.sandbox.executor import ExecutorUnavailable, Limits, Request
from azr_nemo.sandbox.local import jail
from azr_nemo.sandbox.local.pool import LocalPool

PATIENT = Limits(wall_s=30.0, cpu_s=30.0)
DETERMINANT = """import numpy as np, typing_extensions
def f(rows):
    return round(float(np.linalg.det(np.array(rows, dtype=float))), 6), str(np.float64(0.1) + np.float64(0.2))"""
TRY_TORCH = (
    "def f(x):\n    try:\n        import torch\n    except (ImportError, PermissionError):\n        return 'not here'\n    return 'here'"
)


@pytest.mark.parametrize("rung", [*jail.LADDER, jail.Rung.UNJAILED], ids=str)
def test_numpy_computes_in_the_jail_and_its_values_are_no_literals(rung):
    if rung in jail.LADDER and not (probe := jail.probe_rung(rung)).ok:
        pytest.skip(probe.reason)
    with LocalPool(workers=1, limits=PATIENT, rung=rung, modules=["numpy", "typing_extensions"]) as pool:
        (outcome,) = pool.submit(Request(DETERMINANT, ("[[1, 2], [3, 4]]",), deterministic=True)).result()
        assert outcome.value == "(-2.0, '0.30000000000000004')"
        (array,) = pool.submit(Request("import numpy\ndef f(x):\n    return numpy.zeros(x)", ("3",))).result()
        assert array.status == "not_literal"
        (lazy,) = pool.submit(
            Request("def f(x):\n    from numpy.polynomial import Polynomial\n    return float(Polynomial([1, 2])(x))", ("3",))
        ).result()
        assert lazy.value == "7.0"
        if rung is not jail.Rung.UNJAILED:
            assert pool.submit(Request(TRY_TORCH, ("1",))).result()[0].value == "'not here'"


def test_without_modules_the_standard_library_is_all_there_is(pool):
    for name in ("numpy", "torch", "azr_nemo", "pip"):
        (outcome,) = pool.submit(Request(TRY_TORCH.replace("torch", name), ("1",))).result()
        assert outcome.value == "'not here'", name


@pytest.mark.parametrize("name", ["no_such_package", "numpy.linalg", "../numpy", ""])
def test_a_module_that_is_not_there_is_named(name):
    with pytest.raises(ExecutorUnavailable, match=r"executor\.modules: .* is not an installed package"):
        LocalPool(workers=1, modules=[name])


def test_a_module_that_does_not_import_says_so(tmp_path, monkeypatch):
    (tmp_path / "brokenpackage").mkdir()
    (tmp_path / "brokenpackage" / "__init__.py").write_text("raise RuntimeError('not today')")
    tmp_path.chmod(0o755)
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(ExecutorUnavailable, match="could not lock itself in: RuntimeError: not today"):
        LocalPool(workers=1, modules=["brokenpackage"])
