"""Writes a descriptor whose completions get encoded requests: `python -m protos.openapi.encoded TRANSCODER OUTPUT`.

The edge's scripts write a completion's request as protobuf (edge/lua/encoding.lua). To the transcoder it is bytes, a
google.api.HttpBody, for which it keeps no parser of JSON and no types while the call lasts.
"""

import sys
from pathlib import Path

from google.protobuf.descriptor_pb2 import FileDescriptorSet

_METHODS = ("CreateChatCompletionJson", "StreamChatCompletionEvents")


def main(transcoder: Path, output: Path) -> None:
    """Writes the descriptor set `output` from that of the transcoder."""
    files = FileDescriptorSet.FromString(transcoder.read_bytes())
    services = [service for file in files.file for service in file.service]
    for method in (method for service in services for method in service.method if method.name in _METHODS):
        method.input_type = ".google.api.HttpBody"
    output.write_bytes(files.SerializeToString())


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))
