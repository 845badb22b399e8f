"""The npm packages that are part of the page at `/` and the documentation at `/docs/`, for the bill of materials."""

import base64
import json
from collections.abc import Iterator
from pathlib import Path

from cyclonedx.contrib.license.factories import LicenseFactory
from cyclonedx.model import ExternalReference, ExternalReferenceType, HashAlgorithm, HashType, XsUri
from cyclonedx.model.component import Component, ComponentType
from packageurl import PackageURL

_ROOT = Path(__file__).parents[2]
LOCK = _ROOT / "edge" / "page" / "package-lock.json"
_DOCS_LOCK = _ROOT / "docs" / "site" / "vendor" / "package-lock.json"
_FOLDER = "node_modules/"
_TYPES = "@types/"  # of no effect at run time
_HASH = "sha512-"


def packages() -> Iterator[Component]:
    """Yields the locked packages of the page and the documentation, without those that only build the page."""
    locked = [json.loads(lock.read_bytes())["packages"] for lock in (LOCK, _DOCS_LOCK)]
    for folder, entry in (one for packages in locked for one in packages.items()):
        name = folder.rpartition(_FOLDER)[2]
        if name and not entry.get("dev") and not name.startswith(_TYPES):
            yield _package(name, entry)


def _package(name: str, entry: dict[str, str]) -> Component:
    scope, _, own = name.rpartition("/")
    purl = PackageURL("npm", scope or None, own, entry["version"])
    digest = base64.b64decode(entry["integrity"].removeprefix(_HASH)).hex()
    hashes = [HashType(alg=HashAlgorithm.SHA_512, content=digest)]
    component = Component(
        type=ComponentType.LIBRARY,
        name=name,
        version=entry["version"],
        purl=purl,
        bom_ref=purl.to_string(),
        licenses=[LicenseFactory().make_from_string(entry["license"])],
    )
    files = ExternalReferenceType.DISTRIBUTION
    component.external_references.add(ExternalReference(type=files, url=XsUri(purl.to_string()), hashes=hashes))
    return component
