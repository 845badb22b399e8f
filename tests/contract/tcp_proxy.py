"""A TCP proxy that counts and cuts connections, for a scripted server."""

import asyncio
import threading
from collections.abc import Callable

from tests.upstream import PATIENCE


class TcpProxy:
    """Forwards bytes between its port and the server's, `target`, in a thread."""

    def __init__(self, port: int, target: int, hung_up: Callable[[], None]) -> None:
        self.connections = 0
        self.sent = b""
        self.port = port
        self._target = target
        self._hung_up = hung_up
        self._clients: set[asyncio.StreamWriter] = set()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)

    def start(self) -> None:
        """Listens on the given port, or a free one."""
        self._thread.start()
        asyncio.run_coroutine_threadsafe(self._listen(), self._loop).result(PATIENCE)

    def stop(self) -> None:
        """Closes every connection."""
        asyncio.run_coroutine_threadsafe(self._end(), self._loop).result(PATIENCE)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(PATIENCE)
        self._loop.close()

    def cut(self, *, reset: bool) -> None:
        """Closes the clients' connections after the bytes sent; with a TCP reset if `reset` is set."""
        self._loop.call_soon_threadsafe(self._cut, reset)

    def _cut(self, reset: bool) -> None:
        for client in self._clients:
            if reset:
                linger = (1).to_bytes(4, "little") + bytes(4)
                client.get_extra_info("socket").setsockopt(1, 13, linger)  # SOL_SOCKET, SO_LINGER: close with RST
                client.transport.abort()
            else:
                client.close()

    async def _listen(self) -> None:
        self._server = await asyncio.start_server(self._connected, "127.0.0.1", self.port)
        self.port = self._server.sockets[0].getsockname()[1]

    async def _end(self) -> None:
        self._server.close()
        tasks = asyncio.all_tasks() - {asyncio.current_task()}
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        self._clients.add(writer)
        far_reader, far_writer = await asyncio.open_connection("127.0.0.1", self._target)
        back = asyncio.ensure_future(_copy(far_reader, writer, self._keep))
        back.add_done_callback(lambda _: writer.close())
        try:
            await _copy(reader, far_writer, lambda _: None)
            self._hung_up()
        except asyncio.CancelledError:
            pass
        finally:
            self._clients.discard(writer)
            back.cancel()
            for end in (writer, far_writer):
                end.transport.abort()

    def _keep(self, data: bytes) -> None:
        self.sent = (self.sent + data)[-8192:]


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, then: Callable[[bytes], None]) -> None:
    try:
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
            then(data)
    except OSError:
        return
