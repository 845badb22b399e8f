"""`python -m docs.site [--strict] OUTPUT`: builds the site into a folder."""

import sys
from pathlib import Path

from docs.site.build import BuildError, build

if __name__ == "__main__":
    *options, folder = sys.argv[1:]
    try:
        build(Path(folder), strict="--strict" in options)
    except BuildError as error:
        sys.exit(str(error))
