"""The request header `Cache-Control`."""

from math import inf

import pytest

from parley.core.cache.control import CacheControl, cache_control

NO_CACHE = CacheControl(0.0, may_keep=True, directive="no_cache")
NO_STORE = CacheControl(0.0, may_keep=False, directive="no_store")


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        (None, CacheControl(inf)),
        ("", CacheControl(inf)),
        ("no-transform, only-if-cached", CacheControl(inf)),
        ("no-cache", NO_CACHE),
        ("NO-CACHE , max-age=60", NO_CACHE),
        ("no-store", NO_STORE),
        ("no-cache, no-store", NO_STORE),
        ("max-age=60", CacheControl(60.0)),
        ('Max-Age = "60"', CacheControl(60.0)),
        ("max-age=0", NO_CACHE),
        ("max-age", NO_CACHE),
        ("max-age=-1", NO_CACHE),
        ("max-age=soon", NO_CACHE),
        ("max-age=\u0661", NO_CACHE),
        ("max-age=" + "9" * 400, CacheControl(1e9)),
    ],
)
def test_directives(header: str | None, expected: CacheControl) -> None:
    """`no-store` wins over `no-cache`, which is a `max-age` of 0; an invalid age is 0; other directives are ignored."""
    assert expected == cache_control(header)
