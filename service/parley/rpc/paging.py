"""The size of a page of a list."""

from typing import Protocol

_DEFAULT_PAGE_SIZE, _MAX_PAGE_SIZE = 100, 1000


class _ListRequest(Protocol):
    @property
    def page_size(self) -> int: ...


def page_size(request: _ListRequest) -> int:
    """Returns the size of a page by AIP-158: 0 means the default, and too large a size becomes the maximum."""
    return min(request.page_size or _DEFAULT_PAGE_SIZE, _MAX_PAGE_SIZE)
