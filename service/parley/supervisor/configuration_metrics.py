"""Metrics of the configuration: its reloads, and whether its file is the one in use. The supervisor alone has them."""

import time
import zlib
from dataclasses import dataclass
from pathlib import Path

_TEXT = """\
# HELP parley_config_reloads_total Reloads of the configuration, by outcome.
# TYPE parley_config_reloads_total counter
parley_config_reloads_total{{outcome="success"}} {succeeded}
parley_config_reloads_total{{outcome="failure"}} {failed}
# HELP parley_config_last_reload_successful 1 if the latest reload succeeded, and before the first.
# TYPE parley_config_last_reload_successful gauge
parley_config_last_reload_successful {is_successful}
# HELP parley_config_last_reload_success_timestamp_seconds When the configuration in use was loaded.
# TYPE parley_config_last_reload_success_timestamp_seconds gauge
parley_config_last_reload_success_timestamp_seconds {loaded}
# HELP parley_config_file_in_use 1 if the configuration in use is that of its file.
# TYPE parley_config_file_in_use gauge
parley_config_file_in_use {is_in_use}
"""


@dataclass(frozen=True, slots=True)
class ConfigurationFile:
    """A file of configuration at a time.

    Attributes:
        path: The absolute path; None for the default configuration, which has no file.
        checksum: The checksum of the content; None if it could not be read.
    """

    path: str | None = None
    checksum: int | None = None

    @classmethod
    def read(cls, path: Path | None) -> "ConfigurationFile":
        """Returns the present state of a file."""
        if path is None:
            return cls()
        try:
            return cls(str(path.absolute()), zlib.crc32(path.read_bytes()))
        except OSError:
            return cls(str(path.absolute()))

    def is_unchanged(self) -> bool:
        """Returns whether the file has the same content now."""
        return self.path is None or self == self.read(Path(self.path))


class ConfigurationMetrics:
    """Counts reloads, and compares the file with what is in use."""

    def __init__(self, file: ConfigurationFile) -> None:
        """Regards a file as in use since now."""
        self._file = file
        self._loaded = time.time()
        self._succeeded = self._failed = 0
        self._is_successful = True

    def record_success(self, file: ConfigurationFile) -> None:
        """Records that all workers use a file."""
        self._succeeded += 1
        self._is_successful = True
        self._file, self._loaded = file, time.time()

    def record_failure(self) -> None:
        """Records that workers go on with the configuration of before."""
        self._failed += 1
        self._is_successful = False

    def text(self) -> bytes:
        """Returns the metrics in Prometheus' text format."""
        return _TEXT.format(
            succeeded=self._succeeded,
            failed=self._failed,
            is_successful=int(self._is_successful),
            loaded=round(self._loaded, 3),
            is_in_use=int(self._file.is_unchanged()),
        ).encode()
