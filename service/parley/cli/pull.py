"""`parley models pull`: fetches the weights of a model for llama.cpp."""

import json
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated

from cyclopts import Parameter

from parley.cli.shared import download, http_source
from parley.cli.shared.download import Fetched, Show
from parley.cli.shared.options import JsonOption, StateDirOption
from parley.supervisor import folders
from parley.supervisor.errors import CommandError

_NAME = re.compile(r"[A-Za-z0-9][\w.+-]*")
_SUFFIX = ".gguf"
_TENTHS = 10


def pull(
    source: Annotated[str, Parameter(name="SOURCE", help="The address or the path of a GGUF file.")],
    /,
    *,
    sha256: Annotated[
        str | None,
        Parameter(
            name="--sha256", help="The checksum that the file must have. An address may end in #sha256=… instead."
        ),
    ] = None,
    name: Annotated[
        str | None, Parameter(name="--name", help="The name of the file here. Default: that of the source.")
    ] = None,
    state_dir: StateDirOption = None,
    json: JsonOption = False,
) -> None:
    """Fetch the weights of a model into the folder `models` of the state folder. Run it again to go on."""
    found = http_source.parse(source)
    checksum = http_source.checked_sha256(sha256) if sha256 is not None else found.sha256
    target = folders.state_dir(state_dir) / "models" / _file_name(name or found.file_name)
    with progress(target.name) as show:
        fetched = download.fetch(found, target, checksum, show)
    _print(fetched, as_json=json)


def _file_name(name: str) -> str:
    """Returns the name of the file. Raises CommandError."""
    if not _NAME.fullmatch(name):
        raise CommandError("--name: the name of the file must have letters, digits, `.+-_` only; name another")
    return name if name.endswith(_SUFFIX) else f"{name}{_SUFFIX}"


def _print(fetched: Fetched, *, as_json: bool) -> None:
    if as_json:
        print(json.dumps({"path": str(fetched.path), "sha256": fetched.sha256, "bytes": fetched.size}))
        return
    path = json.dumps(str(fetched.path), ensure_ascii=False)
    print(f"{fetched.path}{'' if fetched.is_new else ' (was there already)'}")
    print(f"sha256 {fetched.sha256}\n\nIn parley.yaml:\n")
    print(f"backends:\n  local: {{kind: llama_cpp, model_path: {path}}}")
    print(f"models:\n  - {{id: {fetched.path.stem}, targets: [{{backend: local}}]}}")


@contextmanager
def progress(name: str) -> Iterator[Show]:
    """Yields a function that shows the progress of a download: a bar on a terminal, otherwise a line each tenth."""
    if not sys.stderr.isatty():
        yield _tenths(name)
        return
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn

    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn())
    with Progress(*columns, TimeRemainingColumn(), console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(name, total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)


def _tenths(name: str) -> Show:
    last = -1

    def show(done: int, total: int | None) -> None:
        nonlocal last
        tenth = done * _TENTHS // total if total else 0
        if tenth != last:
            last = tenth
            print(f"parley: {name}: {done >> 20} MiB{f' of {total >> 20} MiB' if total else ''}", file=sys.stderr)

    return show
