"""The executor: every rung of the jail, the remote servers one by one, and the executor that a run would have."""

import os
import time
from collections.abc import Iterator

import requests

from azr_nemo.doctor.findings import Finding, error, warning
from azr_nemo.sandbox.configured import make_executor
from azr_nemo.sandbox.endpoint import Endpoint, EndpointFailed
from azr_nemo.sandbox.executor import ExecutorUnavailable
from azr_nemo.sandbox.fusion import TOKEN_VARIABLE
from azr_nemo.sandbox.local import jail
from azr_nemo.settings.schema import ExecutorConfig


def execution(config: ExecutorConfig) -> Iterator[Finding]:
    """The ladder here, then the configured executor. With sandbox_fusion each server is asked; it is an error when none answers."""
    for probe in jail.probe():
        yield Finding(f"jail {jail.LETTERS[probe.rung]}: {probe.rung}", probe.reason)
    if config.name == "sandbox_fusion":
        answers = [_ask(url, config.patience_s) for url in config.endpoints]
        alive = any(failure is None for _, _, failure in answers)
        for name, found, failure in answers:
            if failure is None:
                yield Finding(f"endpoint {name}", found)
            else:
                mend = "start the server (azr-nemo sandbox serve), open its port, or take it out of executor.endpoints"
                yield (warning if alive else error)(f"endpoint {name}", failure, mend)
        if not alive:
            return
    try:
        with make_executor(config) as executor:
            yield Finding("executor", executor.describe())
    except ExecutorUnavailable as problem:
        yield error("executor", f"none: {problem}", "install bubblewrap or libseccomp here, or name servers with executor=sandbox_fusion")


def _ask(url: str, patience_s: float) -> tuple[str, str, str | None]:
    """(the server's name, what answered and in how many ms, why it failed)."""
    with requests.Session() as session:
        session.trust_env = False
        endpoint = Endpoint(url, session, os.environ.get(TOKEN_VARIABLE), patience_s)
        began = time.monotonic()
        try:
            endpoint.hello()
        except EndpointFailed as problem:
            return endpoint.name, "", str(problem)
        return endpoint.name, f"{endpoint.kind}, answered in {1000 * (time.monotonic() - began):.0f} ms", None
