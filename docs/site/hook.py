"""The build hook of the wheel: builds the documentation, which is then part of the wheel."""

import sys
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface


class SiteHook(BuildHookInterface[Any]):
    """Builds `edge/site` for a wheel. `make` builds it for an editable install, which reads the checkout."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Builds the site.

        Args:
            version: `standard` or `editable`.
            build_data: What hatchling packs.
        """
        if version == "editable":
            return
        sys.path.insert(0, self.root)
        from docs.site.build import build

        build(Path(self.root, "edge", "site"))
        build_data["force_include"]["edge/site"] = "parley/edge/site"
