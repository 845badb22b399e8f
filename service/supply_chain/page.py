"""The npm packages that are part of the page at `/`, for the bill of materials."""

import base64
import json
from collections.abc import Iterator
from pathlib import Path

from cyclonedx.contrib.license.factories import LicenseFactory
from cyclonedx.model import ExternalReference, ExternalReferenceType, HashAlgorithm, HashType, XsUri
from cyclonedx.model.component import Component, ComponentType
from packageurl import PackageURL

LOCK = Path(__file__).parents[2] / "edge" / "page" / "package-lock.json"
_FOLDER = "node_modules/"
_TYPES = "@types/"  # of no effect at run time
_HASH = "sha512-"


def packages() -> Iterator[Component]:
    """Yields the locked packages of the page, without those that only build it."""
    for folder, entry in json.loads(LOCK.read_bytes())["packages"].items():
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
