"""Imports asyncio without TLS, which the supervisor does not speak: 3 MB. asyncio supports a Python without it."""

import sys

if "ssl" in sys.modules:
    import asyncio
else:
    sys.modules["ssl"] = None  # type: ignore[assignment] # its import fails, as if Python had been built without it
    try:
        import asyncio
    finally:
        del sys.modules["ssl"]

__all__ = ["asyncio"]
