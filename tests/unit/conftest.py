"""Unit tests: one part of Parley at a time, in this process; fakes stand at the ports only."""

from pathlib import Path

import pytest
from google.protobuf.descriptor_pb2 import FileDescriptorSet


@pytest.fixture(scope="session")
def descriptor_comments() -> dict[str, str]:
    """The comments on the values of ErrorReason, by name, from the descriptor that `make gen` writes."""
    data = (Path(__file__).parents[2] / "edge" / "parley.binpb").read_bytes()
    file = next(f for f in FileDescriptorSet.FromString(data).file if f.name == "parley/v1/error_reason.proto")
    enum_type, enum_value = 5, 2
    names = [value.name for value in file.enum_type[0].value]
    return {
        names[location.path[3]]: location.leading_comments
        for location in file.source_code_info.location
        if len(location.path) == 4 and (location.path[0], location.path[2]) == (enum_type, enum_value)
    }
