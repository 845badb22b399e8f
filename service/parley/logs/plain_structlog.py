"""Imports structlog without Rich and greenlet, which it imports wherever they are installed.

Rich, for tracebacks in color that Parley does not write, takes a seventh of a process's start, and 4 MB. greenlet, for
threads that Parley does not have, takes 1 MB.
"""

import sys

_blocked = [name for name in ("rich", "greenlet") if name not in sys.modules]
sys.modules.update(dict.fromkeys(_blocked))  # type: ignore[arg-type] # imports fail, as if they were not installed
try:
    import structlog
finally:
    for _name in _blocked:
        del sys.modules[_name]

__all__ = ["structlog"]
