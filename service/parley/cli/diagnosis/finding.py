"""The result of one check."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Literal

Status = Literal["ok", "warning", "failed", "skipped"]


@dataclass(frozen=True, slots=True)
class Finding:
    """The result of one check. Never has a secret.

    Attributes:
        check: What is checked: `configuration`, `backends`, `store`, `clocks`, `certificates`, `ports` or
            `permissions`.
        status: `failed` if Parley or some calls do not work; `warning` if they may not.
        message: What was found.
        remedy: What to do; "" if nothing.
    """

    check: str
    status: Status
    message: str
    remedy: str = ""

    @property
    def text(self) -> str:
        """The message and the remedy in one line."""
        return " ".join((f"{self.message}; {self.remedy}" if self.remedy else self.message).split())

    def fields(self) -> Mapping[str, str]:
        """Returns the finding as JSON values."""
        return asdict(self)
