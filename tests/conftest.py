"""What holds for all tests."""

import grpc.aio

# gRPC ends its asyncio engine with the last object that uses it, and waits there for operations of calls that tests
# have abandoned, for ever. One more user keeps the engine until the process ends.
grpc.aio.init_grpc_aio()
