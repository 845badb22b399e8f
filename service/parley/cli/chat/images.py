"""Images of a question, named by their paths."""

import base64
import os
import re
from pathlib import Path
from typing import Any

from parley.supervisor.errors import CommandError

_WORD = re.compile(r"""(?<!\S)@?(?:"[^"]+"|'[^']+'|(?:\\.|[^\s\\])+)""")
_SUFFIX = re.compile(r"(?i)\.(?:png|jpe?g|gif|webp)$")
_STARTS = ("@", "/", "~/", "./", "../")
_AFTER = "?!.,;:)"
_MAX_BYTES = 20 * 1024 * 1024
_RIFF_NAME = slice(8, 12)


def image_type(data: bytes) -> str | None:
    """Returns the media type of an image by its first bytes; None for anything else."""
    for magic, kind in ((b"\x89PNG\r\n\x1a\n", "png"), (b"\xff\xd8\xff", "jpeg"), (b"GIF8", "gif")):
        if data.startswith(magic):
            return f"image/{kind}"
    return "image/webp" if data.startswith(b"RIFF") and data[_RIFF_NAME] == b"WEBP" else None


def image_part(data: bytes, name: str) -> dict[str, Any]:
    """Returns the content part of an image. Raises CommandError for anything else."""
    kind = image_type(data)
    if kind is None:
        raise CommandError(f"{name} is not an image that models read; convert it to PNG, JPEG, GIF or WebP")
    if len(data) > _MAX_BYTES:
        raise CommandError(f"{name} is larger than {_MAX_BYTES >> 20} MiB; make it smaller")
    return {"type": "image_url", "image_url": {"url": f"data:{kind};base64,{base64.b64encode(data).decode()}"}}


def read_image(path: Path) -> dict[str, Any]:
    """Returns the content part of an image file. Raises CommandError."""
    try:
        with path.expanduser().open("rb") as file:
            return image_part(file.read(_MAX_BYTES + 1), str(path))
    except OSError as error:
        raise CommandError(f"{path} cannot be read ({error.strerror})") from error


def message(text: str, images: list[dict[str, Any]]) -> dict[str, Any]:
    """Returns the user message of a text and images."""
    parts = [{"type": "text", "text": text}] if text else []
    return {"role": "user", "content": [*parts, *images] if images else text}


def find_images(text: str) -> tuple[str, list[Path]]:
    """Finds the images that a typed line names: `@photo.png`, or a path that begins with `/`, `~/`, `./` or `../`.

    A path without `@` counts if the file exists, so that text about files stays text. Text of several lines names no
    images: it is pasted, and its author must not choose files of this machine.

    Returns:
        The text, in which the name of each image replaces its path, and the paths.
    """
    paths: list[Path] = []

    def replace(found: re.Match[str]) -> str:
        word = found[0]
        bare = word.rstrip(_AFTER)
        path = Path(os.path.expanduser(_unquoted(bare.removeprefix("@"))))  # noqa: PTH111 - pathlib raises for unknown users
        if not (_SUFFIX.search(path.name) and (bare.startswith("@") or _exists(bare, path))):
            return word
        paths.append(path)
        return path.name + word[len(bare) :]

    return (text, []) if "\n" in text else (_WORD.sub(replace, text), paths)


def _exists(word: str, path: Path) -> bool:
    """Returns whether a word is a path of a file; false also where a folder on the way cannot be read."""
    return word.lstrip("\"'").startswith(_STARTS) and os.path.isfile(path)  # noqa: PTH113 - pathlib raises


def _unquoted(word: str) -> str:
    """Returns a path without the quotes or backslashes that terminals add to dropped files."""
    return word[1:-1] if word[:1] in {'"', "'"} else re.sub(r"\\(.)", r"\1", word)
