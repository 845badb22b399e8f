"""`python -m tests.nodes.upstream ADDRESS PORT SECONDS`: a chat completions server for the drill, in its own process.

It answers `answer N to QUESTION` after a random time of at most SECONDS, in one piece or as a stream. `GET /seen` has
the number of requests and the most at a time, by the first word of the question.
"""

import asyncio
import itertools
import random
import sys
from collections import Counter

from aiohttp import web

from tests.upstream import DONE, USAGE, chunk, completion, event

_PIECES = 5


class Upstream:
    """The handlers."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._count = itertools.count(1)
        self._requests: Counter[str] = Counter()
        self._running: Counter[str] = Counter()
        self._most: Counter[str] = Counter()

    def application(self) -> web.Application:
        """Returns the application."""
        made = web.Application()
        made.router.add_post("/v1/chat/completions", self.complete)
        made.router.add_get("/seen", self.seen)
        return made

    async def seen(self, _: web.Request) -> web.Response:
        """Returns the counts."""
        return web.json_response({"requests": self._requests, "most": self._most})

    async def complete(self, request: web.Request) -> web.StreamResponse:
        """Answers a request."""
        body = await request.json()
        question = body["messages"][-1]["content"]
        kind = question.split()[0]
        self._requests[kind] += 1
        self._running[kind] += 1
        self._most[kind] = max(self._most[kind], self._running[kind])
        try:
            return await self._answer(request, f"answer {next(self._count)} to {question}", bool(body.get("stream")))
        finally:
            self._running[kind] -= 1

    async def _answer(self, request: web.Request, text: str, is_stream: bool) -> web.StreamResponse:
        seconds = random.random() * self._seconds
        if not is_stream:
            await asyncio.sleep(seconds)
            return web.json_response(completion(text))
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        await response.write(event(chunk({"role": "assistant", "content": ""})))
        size = len(text) // _PIECES + 1
        for start in range(0, len(text), size):
            await asyncio.sleep(seconds / _PIECES)
            await response.write(event(chunk({"content": text[start : start + size]})))
        await response.write(event(chunk({}, "stop")) + event(chunk(choices=[], usage=USAGE)) + DONE.encode())
        return response


def main() -> None:
    """Serves until the process is ended."""
    address, port, seconds = sys.argv[1:]
    web.run_app(Upstream(float(seconds)).application(), host=address, port=int(port), print=None, access_log=None)


if __name__ == "__main__":
    main()
