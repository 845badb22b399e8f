"""An upstream that records its requests, for the recorder."""

import itertools
import random

from tests.faults.history import (
    UpstreamRequest,
)
from tests.upstream import Answer as Scripted
from tests.upstream import Delay, Events, Json, Received, chunks, completion, ending


class Witness:
    """An upstream that answers each request with a unique text within 30 ms, and records the request."""

    def __init__(self, seed: int) -> None:
        self.requests: list[UpstreamRequest] = []
        self._chance = random.Random(seed)
        self._count = itertools.count(1)

    def __call__(self, request: Received) -> Scripted:
        *context, question = [message["content"] for message in request.json["messages"]]
        answer = f"answer {next(self._count)} to {question}"
        self.requests.append(UpstreamRequest(context, question, answer))
        wait = Delay(self._chance.random() * 0.03)
        if request.json.get("stream"):
            role, *pieces = chunks(answer[:9], answer[9:])
            return Events([role, wait, *pieces, *ending()])
        return Json(completion(answer), wait=wait)
