"""The protos as other languages generate code from them."""

from pathlib import Path

import pytest
from google.protobuf.descriptor_pb2 import FileDescriptorProto, FileDescriptorSet

FILES = [
    file
    for file in FileDescriptorSet.FromString((Path(__file__).parents[2] / "edge" / "parley.binpb").read_bytes()).file
    if file.package.startswith("parley.")
]


@pytest.mark.parametrize("file", FILES, ids=lambda file: Path(file.name).stem)
def test_language_options_follow_the_package(file: FileDescriptorProto) -> None:
    """Generated names follow the package and the file, in every file: a change would break the code of callers."""
    words = Path(file.name).stem.split("_")
    expected = {
        "csharp_namespace": ".".join(part.capitalize() for part in file.package.split(".")),
        "go_package": f"{file.package.replace('.', '/')};{file.package.replace('.', '')}",
        "java_multiple_files": True,
        "java_outer_classname": "".join(word.capitalize() for word in (*words, "proto")),
        "java_package": file.package,
    }
    assert expected == {field.name: value for field, value in file.options.ListFields()}
