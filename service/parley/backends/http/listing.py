"""Base class of HTTP backends whose server lists its models."""

from collections.abc import Mapping

from parley.backends.http.backend import HttpBackend
from parley.config import Metadata
from parley.core.errors import UpstreamUnavailable

_FAILURE = "The list of models of the backend cannot be read"
_SECONDS = 20.0
_MAX_SIZE = 8 * 1024 * 1024  # OpenRouter's has about 600 KiB


class ListingBackend(HttpBackend):
    """A backend whose server has the list of its models at `models_path`.

    Attributes:
        models_path: The path from the root of the server.
        listed_prefix: The beginning of names in the list that requests do not have.
    """

    models_path: str
    listed_prefix = ""

    async def list_models(self) -> Mapping[str, Metadata]:
        """Returns the list of models of the server; see the port."""
        data = await self._get(self.models_path, _SECONDS, _MAX_SIZE, _FAILURE)
        from parley.backends import model_list  # most backends read no list

        try:
            return model_list.parse(data, self.listed_prefix)
        except ValueError as error:
            raise UpstreamUnavailable(_FAILURE, cause=f"{self.models_path}: {error}") from None
