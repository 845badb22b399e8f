"""The parts of a request's head that a backend's settings decide: address, query, key, and callers' headers."""

from collections.abc import Iterable, Sequence
from urllib.parse import quote

from yarl import URL

from parley.backends.errors.redaction import may_be_secret, secret_values
from parley.backends.http.keys import KeyRing
from parley.config import ConfigError, UpstreamRequests
from parley.core.errors import InvalidRequest
from parley.core.ports import UpstreamCall

_MODEL = "%7Bmodel%7D"  # `{model}`, as URLs have it
_DOT_SEGMENTS = frozenset({".", ".."})  # they would lead to another path (RFC 3986, 3.3)
_MAX_TARGETS = 1024  # models may be named by callers


class RequestHeads:
    """Builds the addresses and the headers of requests.

    Args:
        url: URL of every call; `{model}` in it is the target's name of the model.
        headers: Sent with every request, unless the settings have a header of the same name, or forward it.
        settings: The settings of the backend.

    Attributes:
        keys: The keys in rotation; None if there are not several.

    Raises:
        ConfigError: If a key cannot be sent in a header.
    """

    def __init__(self, url: str, headers: dict[str, str], settings: UpstreamRequests) -> None:
        for key in settings.keys:
            if not (key.isascii() and key.isprintable()):
                raise ConfigError(
                    "api_key: contains characters that a header cannot contain; remove line breaks and quotes"
                )
        self._url = str(URL(url))
        self._settings = settings
        self._forwarded = frozenset(settings.forward_headers)
        self._targets: dict[tuple[str, str], URL] = {}
        replaced = {name.lower() for name in settings.headers} | self._forwarded
        kept = {name: value for name, value in headers.items() if name.lower() not in replaced}
        self._headers = kept | settings.headers
        self.keys = KeyRing(settings.keys, URL(url).host or url) if len(settings.keys) > 1 else None

    @property
    def url(self) -> URL:
        """A URL of the server: that of every call, unless `varies`."""
        return self.target("", self._only_key)

    @property
    def varies(self) -> bool:
        """Whether the address or the key differs from call to call."""
        return self.keys is not None or _MODEL in self._url

    @property
    def headers(self) -> dict[str, str]:
        """The headers of every request, the key included if there is one only."""
        key = self._only_key
        return self._headers | (dict([self._key_line(key)]) if key and not self._settings.key_parameter else {})

    @property
    def secrets(self) -> Sequence[str]:
        """The texts that no error may repeat."""
        proxy = URL(self._settings.proxy or "")
        values = (*secret_values(self._settings.headers), *secret_values(self._settings.parameters))
        segments = filter(may_be_secret, URL(self._url).path.split("/"))
        secrets = {*self._settings.keys, *values, *segments, *filter(None, [proxy.password])}
        as_in_urls = {quote(one, safe="") for one in secrets}  # which errors may quote
        return sorted(secrets | as_in_urls, key=len, reverse=True)  # one may begin with another

    def of(self, call: UpstreamCall) -> tuple[URL, str]:
        """Returns the URL of a call, and the line of its key; the line is empty if `headers` has the key.

        Raises:
            InvalidRequest: If the model cannot be a part of the path.
        """
        if self.keys is None:
            return self.target(call.model or call.request.model, self._only_key), ""
        key = self.keys.select(call)
        return self.target(call.model or call.request.model, key), self._varying_line(key)

    def target(self, model: str, key: str) -> URL:
        """Returns the URL for a model and a key."""
        name = (model if _MODEL in self._url else "", key if self._settings.key_parameter else "")
        known = self._targets.get(name)
        if known is None:
            if len(self._targets) >= _MAX_TARGETS:
                self._targets.clear()
            known = self._targets[name] = self._make_target(*name)
        return known

    def keys_beside_calls(self) -> Sequence[str]:
        """Returns the keys for a request that is no call, the one to use first at the beginning; `""` for no key."""
        return self.keys.in_order() if self.keys is not None else (self._only_key,)

    def beside(self, path: str, key: str) -> tuple[URL, str]:
        """Returns the URL of another path of the server, with the query of calls, and the line of its key as `of`."""
        url = URL(f"{URL(self._url).origin()}{path}", encoded=True)  # joined, `//a` would name another server
        return self._with_query(url, key), self._varying_line(key)

    def forwarded(self, headers: Iterable[tuple[str, str]]) -> str:
        """Returns the lines of those of a caller's headers that this backend receives."""
        return "".join(f"{name}: {value}\r\n" for name, value in headers if name in self._forwarded)

    @property
    def _only_key(self) -> str:
        return self._settings.keys[0] if len(self._settings.keys) == 1 else ""

    def _make_target(self, model: str, key: str) -> URL:
        # Encoded: without it, `:` and others would be decoded again.
        url = URL(self._url.replace(_MODEL, quote(model, safe="")), encoded=True)
        if model and not _DOT_SEGMENTS.isdisjoint(url.raw_path.split("/")):
            raise InvalidRequest("`model` must be the name of a model", param="model")
        return self._with_query(url, key)

    def _with_query(self, url: URL, key: str) -> URL:
        if query := self._settings.parameters:
            url = url.update_query(query)
        return url.update_query({self._settings.key_parameter: key}) if self._settings.key_parameter and key else url

    def _varying_line(self, key: str) -> str:
        """Returns the line of a key; empty if `headers` or the query has it."""
        return ": ".join(self._key_line(key)) if self.keys is not None and not self._settings.key_parameter else ""

    def _key_line(self, key: str) -> tuple[str, str]:
        name, _, scheme = self._settings.key_form.partition(":")
        return name, f"{scheme.strip()} {key}".lstrip()
