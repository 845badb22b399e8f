"""The interface of a reader of documents on the web: the metadata and the keys of issuers."""

from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True, slots=True)
class Document:
    """A document as fetched.

    Attributes:
        body: The content.
        fetched: When it was fetched, in Unix seconds.
        max_age: For how many seconds it may be cached, by its headers; None if they do not say.
    """

    body: bytes
    fetched: float
    max_age: float | None = None


class DocumentUnavailable(Exception):
    """A document cannot be fetched. The text is the cause, for the operator."""


class Documents(Protocol):
    """Fetches documents."""

    async def fetch(self, url: str, max_age: float = 0) -> Document:
        """Returns a document that was fetched at most `max_age` seconds ago, by this process or another one.

        Raises:
            DocumentUnavailable: It cannot be fetched.
        """
        ...

    def latest(self, url: str) -> Document | None:
        """Returns the document as last fetched, however old it is; None if there is none."""
        ...
