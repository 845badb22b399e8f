"""Fetches the weights of models before the start: `model_url` of the configuration, and `parley models pull`."""

import re
from dataclasses import replace
from pathlib import Path

from parley.cli.shared import http_source
from parley.cli.shared.process_settings import model_backends
from parley.cli.shared.startup import StartSummary
from parley.config import Config, LlamaCppBackend
from parley.config.file import with_files
from parley.supervisor.errors import CommandError
from parley.supervisor.messages import Progress

_NAME = re.compile(r"[A-Za-z0-9][\w.+-]*")
_SUFFIX = ".gguf"


def file_path(state: Path, name: str) -> Path:
    """Returns the path of a model's file in the state folder. Raises CommandError for an unsuitable name."""
    if not _NAME.fullmatch(name):
        raise CommandError("--name: the name of the file must have letters, digits, `.+-_` only; name another")
    return state / "models" / (name if name.endswith(_SUFFIX) else f"{name}{_SUFFIX}")


def fetched(config: Config, state: Path, shown: StartSummary | None, *, quiet: bool = False) -> Config:
    """Fetches the files that the backends name by `model_url` and that are missing.

    Args:
        config: The configuration.
        state: The state folder.
        shown: Shows the progress; None for lines on stderr.
        quiet: Whether there are no such lines.

    Returns:
        The configuration with the paths of the files.

    Raises:
        CommandError: A file cannot be fetched, or is not the right one.
    """
    remote = {name: one for name, one in model_backends(config).items() if one.model_url is not None}
    if not remote:
        return config
    paths = {name: replace(one, model_path=_fetch(one, state, shown, quiet=quiet)) for name, one in remote.items()}
    return with_files(replace(config, backends={**config.backends, **paths}), config.files)


def _fetch(backend: LlamaCppBackend, state: Path, shown: StartSummary | None, *, quiet: bool) -> Path:
    from parley.cli.shared import download, download_progress

    source = http_source.parse(backend.model_url or "")
    target = backend.model_path or file_path(state, source.file_name)
    if target.exists() and source.sha256 in {None, download.recorded_sha256(target)}:
        return target  # without its checksum, which takes seconds of each start for large files
    text = f"Fetching {target.name}"
    by_line = (lambda *_: None) if quiet else download_progress.tenths(target.name)

    def show(done: int, total: int | None) -> None:
        if shown is None:
            by_line(done, total)
        else:
            shown.show(Progress(text, done / total if total else None))

    path = download.fetch(source, target, source.sha256, show).path
    if shown is not None:
        shown.finish()
    return path
