"""A Parley with TLS, whose certificate expires soon and can be renewed."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import trustme

from tests.processes import started
from tests.prometheus import Prometheus, scraping

_DAYS = 5
_LATER = 90
_CONFIG = """\
backends: {{unused: {{kind: openai, base_url: "http://127.0.0.1:1/v1"}}}}
models: [{{id: unused, targets: [{{backend: unused}}]}}]
tls: {{certificate: "{folder}/tls.pem", key: "{folder}/tls.key"}}
"""


@contextmanager
def secured(folder: Path, rules: str) -> Iterator[tuple[Prometheus, Callable[[], None]]]:
    """Runs the Parley and a Prometheus; yields it, with the function that renews the certificate."""
    authority = trustme.CA()

    def issue(days: int) -> None:
        leaf = authority.issue_cert("localhost", not_after=datetime.now(UTC) + timedelta(days=days))
        leaf.private_key_pem.write_to_path(folder / "tls.key")
        leaf.cert_chain_pems[0].write_to_path(folder / "tls.pem")

    issue(_DAYS)
    (folder / "parley.yaml").write_text(_CONFIG.format(folder=folder))
    with started("--config", str(folder / "parley.yaml"), folder=folder) as parley:  # noqa: SIM117 - in this order
        with scraping(parley.metrics, folder, rules) as prometheus:
            yield prometheus, lambda: issue(_LATER)
