"""`parley doctor`: checks everything that Parley needs, with a remedy for each problem."""

import asyncio
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from parley.cli.diagnosis import backends, certificates, clocks, configuration, permissions, ports, store
from parley.cli.diagnosis.finding import Finding
from parley.cli.shared import operating, options
from parley.cli.shared.key_output import print_json
from parley.cli.shared.prose import print_wrapped
from parley.config import Config
from parley.supervisor.addresses import Address
from parley.supervisor.errors import CommandError
from parley.supervisor.folders import running_process
from parley.supervisor.plan import DEFAULT_METRICS

_INDENT = 9  # columns of the status


def doctor(  # noqa: PLR0913 - the command's options
    *,
    config: options.ConfigOption = None,
    state_dir: options.StateDirOption = None,
    http: options.HttpOption = Address("127.0.0.1", 8080),  # noqa: B008 - a constant
    grpc: options.GrpcOption = Address("127.0.0.1", 50051),  # noqa: B008 - a constant
    metrics: options.MetricsOption = None,
    no_calls: Annotated[
        bool, Parameter(name="--no-calls", negative=(), help="Call no backend. Otherwise each is asked for one word.")
    ] = False,
    json: options.JsonOption = False,
) -> None:
    """Check configuration, each backend with one cheap call, store, clocks, certificates, ports and permissions.

    Nothing is changed, whether or not Parley runs. Exit code 1 if a check failed; warnings do not count.
    """
    folder = operating.folder(state_dir)
    running = running_process(folder)
    checked, findings = configuration.read(config)
    if checked is None:
        reason = "the configuration cannot be read"
        findings += [Finding(one, "skipped", reason) for one in ("backends", "store", "clocks", "certificates")]
    else:
        findings += asyncio.run(_with_config(checked, folder, calls=not no_calls, runs=running is not None))
        findings += certificates.check(checked)
    addresses = {"--http": http, "--grpc": grpc, "--metrics": metrics or DEFAULT_METRICS}
    findings += ports.check(addresses, running, has_tls=checked is not None and checked.tls is not None)
    findings += permissions.check(checked, folder)
    _print(findings, as_json=json)


def _run_dir(folder: Path) -> Path:
    """Returns the run folder without its link, whose path can be too long for the sockets in it."""
    found = folder / "run"
    return found.readlink() if found.is_symlink() else found


async def _with_config(config: Config, folder: Path, *, calls: bool, runs: bool) -> list[Finding]:
    """Returns the findings that need the configuration."""
    run_dir = _run_dir(folder) if runs else None
    called = await backends.check(config, run_dir) if calls else list(backends.skipped(config))
    return [*called, *await store.check(config, folder), *await clocks.check(config, folder, calls=calls)]


def _print(findings: Sequence[Finding], *, as_json: bool) -> None:
    """Prints the findings. Raises CommandError if a check failed."""
    if as_json:
        print_json([dict(finding.fields()) for finding in findings])
    else:
        for line in _lines(findings):
            print_wrapped(line, indent=_INDENT)
    if failed := sum(finding.status == "failed" for finding in findings):
        raise CommandError(f"{failed} check{'' if failed == 1 else 's'} failed")


def _lines(findings: Iterable[Finding]) -> Iterable[str]:
    for finding in findings:
        yield f"{finding.status:<8} {finding.check:<13} {finding.text}"
