"""Imports structlog without Rich, which it would import for tracebacks in color that Parley does not write.

Rich takes a seventh of a process's start, and 4 MB.
"""

import sys

if "rich" in sys.modules:
    import structlog
else:
    sys.modules["rich"] = None  # type: ignore[assignment] # its import fails, as if it were not installed
    try:
        import structlog
    finally:
        del sys.modules["rich"]

__all__ = ["structlog"]
