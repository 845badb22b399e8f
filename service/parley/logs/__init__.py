"""Log lines: JSON, or one short line for each event on a terminal."""

from typing import Literal

Level = Literal["debug", "info", "warning", "error"]
