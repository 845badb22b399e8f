"""The built files of the page, as they are committed."""

import gzip
import re
import subprocess
import tomllib
from pathlib import Path

from tests.e2e.node_packages import unavailable

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "edge" / "page"
BUILT = PAGE / "built"
PAGES = ("index.html", "console.html")
BUDGET = 300_000  # bytes, compressed
FIRST_BUDGET = 150_000  # of them, those that the browser loads before the page can be used


def referred(text: str) -> set[str]:
    """Returns the names of the files of the page that a text refers to."""
    return set(re.findall(r"(?:/page/|\./)([A-Za-z_.]+-[A-Z0-9]{8}\.[a-z]+)", text))


def content(name: str) -> str:
    """Returns the content of a file."""
    return gzip.decompress((BUILT / f"{name}.gz").read_bytes()).decode()


def test_the_page_stays_small() -> None:
    """All files of the page have less than 300 KB compressed, and those of the first view half of that."""
    sizes = {file.name: file.stat().st_size for file in BUILT.iterdir()}
    assert BUDGET > sum(sizes.values()), sizes
    for page in PAGES:
        first = referred((BUILT / page).read_text())
        assert FIRST_BUDGET > sum(sizes[f"{name}.gz"] for name in first if not name.startswith("licenses")), sizes


def test_every_file_is_referred_to_and_exists() -> None:
    """Each file is referred to by one of the pages or by another file, and no reference leads nowhere."""
    present = {file.name.removesuffix(".gz") for file in BUILT.glob("*.gz")}
    texts = [*((BUILT / page).read_text() for page in PAGES), *(content(name) for name in present)]
    assert present == set().union(*map(referred, texts))


def test_no_file_refers_to_another_server() -> None:
    """The pages and the styles load nothing of other servers."""
    styles = [content(file.name.removesuffix(".gz")) for file in BUILT.glob("*.css.gz")]
    for text in (*((BUILT / page).read_text() for page in PAGES), *styles):
        assert [] == re.findall(r"https?://|(?<!:)//\w", text)


def test_the_texts_of_the_page_are_in_one_file() -> None:
    """No view has a text of its own: texts and labels are those of `texts.ts`."""
    for file in (PAGE / "src").rglob("*.tsx"):
        code = re.sub(r"//.*|/\*.*?\*/", "", file.read_text())
        found = re.findall(
            r">\s*([A-Z][a-z]+[^<>{}=()]*)</|(?:aria-label|title|placeholder|alt|label|hint)=\"([^\"]+)\"", code
        )
        assert [] == found, file.name


def test_the_wheel_has_what_envoy_reads() -> None:
    """The wheel contains each file and folder that Envoy's configuration refers to, and the page."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    included = project["tool"]["hatch"]["build"]["targets"]["wheel"]["force-include"]
    assert all((ROOT / source).exists() and f"parley/{source}" == target for source, target in included.items())
    named = set(
        re.findall(r"filename: ([\w./]+)|proto_descriptor: ([\w./]+)", (ROOT / "edge" / "envoy.yaml").read_text())
    )
    files = {f"edge/{one or other}" for one, other in named} | {"edge/page/built/index.html", "edge/envoy.yaml"}
    assert {
        file for file in files if not any(file == name or file.startswith(f"{name}/") for name in included)
    } == set()


def test_the_code_of_the_page() -> None:
    """The tests of `edge/page/test` pass, in Node."""
    if not (PAGE / "node_modules" / ".installed").exists():
        unavailable("the packages of the page are not installed; run make page")
    done = subprocess.run(
        ["npm", "test", "--silent"], cwd=PAGE, capture_output=True, text=True, check=False, timeout=120
    )
    assert 0 == done.returncode, done.stdout + done.stderr
