"""Images of a question."""

from pathlib import Path

import pytest

from parley.cli.chat import images
from parley.supervisor.errors import CommandError

PNG = b"\x89PNG\r\n\x1a\n" + bytes(8)


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    """A picture whose name has a space."""
    path = tmp_path / "a photo.png"
    path.write_bytes(PNG)
    return path


@pytest.mark.parametrize("form", ['"{}"', "'{}'", "@'{}'", "{escaped}", "@{escaped}"])
def test_a_path_names_an_image(photo: Path, form: str) -> None:
    """Quoted and escaped paths, as terminals insert them for dropped files, are found; the text keeps the name."""
    word = form.format(photo, escaped=str(photo).replace(" ", "\\ "))
    assert ("What is in a photo.png?", [photo]) == images.find_images(f"What is in {word}?")


@pytest.mark.parametrize(
    "text",
    [
        "Is @ada there?",
        "Look at /nowhere/photo.png",
        "It costs ~5 euros, see ~5/photo.png",
        "/" + "a" * 300 + ".png",
        "/" + "a/" * 5000 + "photo.png",
        "photo.png",
        "Read /etc/hosts",
        "An e-mail to ada@host.png",
        "pasted\n@photo.png",
        "",
    ],
)
def test_text_stays_text(text: str) -> None:
    """Mentions, paths of nothing, other files and text of several lines name no image."""
    assert (text, []) == images.find_images(text)


def test_an_image_is_a_part_of_the_message(photo: Path) -> None:
    """The message has the text, then the image as a data URL with the type of its content."""
    message = images.message("Look", [images.read_image(photo)])
    text, image = message["content"]
    assert {"type": "text", "text": "Look"} == text
    assert image["image_url"]["url"].startswith("data:image/png;base64,iVBORw0KGgo")


@pytest.mark.parametrize(
    ("data", "kind"),
    [
        (PNG, "image/png"),
        (b"\xff\xd8\xff\xe0", "image/jpeg"),
        (b"GIF89a", "image/gif"),
        (b"RIFF0000WEBP", "image/webp"),
    ],
)
def test_the_content_decides_the_type(data: bytes, kind: str) -> None:
    """The first bytes tell the type, as names may be wrong."""
    assert kind == images.image_type(data)


def test_other_files_are_refused(tmp_path: Path) -> None:
    """A file that is no image is not sent, whatever its name."""
    path = tmp_path / "secret.png"
    path.write_bytes(b"root:x:0:0")
    with pytest.raises(CommandError, match="is not an image that models read; convert it to PNG"):
        images.read_image(path)
    with pytest.raises(CommandError, match=r"/nowhere.png cannot be read \(No such file or directory\)"):
        images.read_image(Path("/nowhere.png"))
