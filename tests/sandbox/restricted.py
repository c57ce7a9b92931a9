"""A process that gives something up and then reports, as JSON, which rung an executor finds there and what attacks come to. Run by test_jail.py.

Arguments: `no-user-namespaces`, `no-host-name` and `no-landlock` for what the kernel shall refuse, as a container's default profile and an older
kernel do; the file that holds a secret; the folder of the attacks.
"""

import errno
import json
import os
import socket
import sys

CLONE_NEWUSER = 0x10000000


def refuse(given_up: list[str]) -> None:
    """For this process and all below it, by a filter that lets everything else pass."""
    import pyseccomp as seccomp

    program = seccomp.SyscallFilter(defaction=seccomp.ALLOW)
    if "no-user-namespaces" in given_up:
        program.add_rule(seccomp.ERRNO(errno.EPERM), "unshare")
        program.add_rule(seccomp.ERRNO(errno.EPERM), "clone", seccomp.Arg(0, seccomp.MASKED_EQ, CLONE_NEWUSER, CLONE_NEWUSER))
        program.add_rule(seccomp.ERRNO(errno.ENOSYS), "clone3")  # its flags cannot be seen
    if "no-host-name" in given_up:
        program.add_rule(seccomp.ERRNO(errno.EPERM), "sethostname")
    if "no-landlock" in given_up:
        program.add_rule(seccomp.ERRNO(errno.ENOSYS), seccomp.resolve_syscall(seccomp.Arch.NATIVE, "landlock_create_ruleset"))
    program.load()


def report(secret_file: str) -> dict[str, object]:
    from attacks import FILES, NETWORK, PROCESSES, fitted
    from lies import FORGING

    from azr_nemo.sandbox.executor import ExecutorUnavailable, Limits, Request
    from azr_nemo.sandbox.local import jail
    from azr_nemo.sandbox.local.pool import LocalPool

    said: dict[str, object] = {"reasons": {probe.rung: probe.reason for probe in jail.probe()}}
    try:
        pool = LocalPool(workers=1, limits=Limits(wall_s=30.0, cpu_s=30.0))
    except ExecutorUnavailable as error:
        return said | {"refused": str(error)}
    with pool, socket.create_server(("127.0.0.1", 0)) as server:
        attacks = [
            one for one in FILES + NETWORK + PROCESSES + FORGING if one.machine in ("", os.uname().machine) and "timeout" not in one.accept
        ]
        port = server.getsockname()[1]
        results = pool.run(Request(fitted(one.program, secret_file, port), one.arguments) for one in attacks)
        succeeded = [
            f"{attack}: {outcome}"
            for attack, outcomes in zip(attacks, results, strict=True)
            for outcome in outcomes
            if outcome.status not in attack.accept or (outcome.ok and attack.value not in (None, outcome.value))
        ]
        (after,) = pool.submit(Request("def f(x):\n    return x + 1", ("1",))).result()
        return said | {"describe": pool.describe(), "attacks": len(attacks), "succeeded": succeeded, "after": after.value}


if __name__ == "__main__":
    *given_up, secret_file, folder = sys.argv[1:]
    sys.path.insert(0, folder)
    if given_up:
        refuse(given_up)
    print(json.dumps(report(secret_file)))
