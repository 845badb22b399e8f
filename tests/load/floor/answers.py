"""The upstream's answers as generated messages, and these as the bytes of REST."""

import secrets
import time
from collections.abc import Sequence

import orjson

from parley.v1.chat_completions_pb2 import ChatCompletion, ChatCompletionChunk
from parley.v1.message_pb2 import Usage

_DATA, _END = b"data: ", b"\n\n"
_DONE = b"data: [DONE]\n\n"


def new_id() -> str:
    """Returns the id of an answer."""
    return f"chatcmpl-{secrets.token_hex(12)}"


def completion(body: bytes, model: str) -> ChatCompletion:
    """Returns a unary answer as a message."""
    parsed = orjson.loads(body)
    found = parsed["choices"][0]
    answer = ChatCompletion(id=new_id(), object="chat.completion", created=int(time.time()), model=model)
    choice = answer.choices.add(index=0, finish_reason=found["finish_reason"])
    choice.message.role = found["message"]["role"]
    choice.message.content.string_value = choice.message.text = found["message"]["content"]
    _set_usage(answer.usage, parsed["usage"])
    return answer


def completion_json(answer: ChatCompletion) -> bytes:
    """Returns a unary answer as JSON."""
    choice = answer.choices[0]
    message = {"role": choice.message.role, "content": choice.message.text, "refusal": None}
    found = {"index": 0, "message": message, "logprobs": None, "finish_reason": choice.finish_reason}
    return orjson.dumps(
        {
            "id": answer.id,
            "object": answer.object,
            "created": answer.created,
            "model": answer.model,
            "choices": [found],
            "usage": {
                "prompt_tokens": answer.usage.prompt_tokens,
                "completion_tokens": answer.usage.completion_tokens,
                "total_tokens": answer.usage.total_tokens,
            },
        }
    )


class ChunkReader:
    """Turns the events of one stream into messages. The text of events that arrive together is one message."""

    def __init__(self, model: str) -> None:
        self._model = model
        self._id, self._created = new_id(), int(time.time())
        self._sequence = 0

    def read(self, events: Sequence[bytes]) -> list[ChatCompletionChunk]:
        """Returns the chunks of events that have arrived together."""
        chunks: list[ChatCompletionChunk] = []
        text: list[str] = []
        for event in events:
            if event == _DONE:
                break
            parsed = orjson.loads(event[len(_DATA) :])
            choices = parsed["choices"]
            if choices and (content := choices[0]["delta"].get("content")):
                text.append(content)
                continue
            self._add_text(chunks, text)
            chunks.append(self._other(parsed, choices))
        self._add_text(chunks, text)
        return chunks

    def _add_text(self, chunks: list[ChatCompletionChunk], text: list[str]) -> None:
        if text:
            chunk = self._chunk()
            chunk.choices.add(index=0).delta.content = "".join(text)
            chunks.append(chunk)
            text.clear()

    def _other(self, parsed: dict[str, dict[str, int]], choices: list[dict[str, object]]) -> ChatCompletionChunk:
        """Returns the chunk of the role, of the finish reason or of the usage."""
        chunk = self._chunk()
        if not choices:
            _set_usage(chunk.usage, parsed["usage"])
            return chunk
        choice = chunk.choices.add(index=0)
        choice.delta.SetInParent()
        if (finish_reason := choices[0]["finish_reason"]) is not None:
            choice.finish_reason = str(finish_reason)
        else:
            choice.delta.role, choice.delta.content = "assistant", ""
        return chunk

    def _chunk(self) -> ChatCompletionChunk:
        chunk = ChatCompletionChunk(
            id=self._id,
            object="chat.completion.chunk",
            created=self._created,
            model=self._model,
            sequence=self._sequence,
        )
        self._sequence += 1
        return chunk


class EventWriter:
    """Writes the chunks of one stream as server-sent events, without usage."""

    def __init__(self) -> None:
        self._head = b""

    def events(self, chunks: Sequence[ChatCompletionChunk], *, ended: bool) -> bytes:
        """Returns the events of chunks, with `[DONE]` at the end."""
        found = [self._event(chunk) for chunk in chunks if chunk.choices]
        return b"".join([*found, _DONE] if ended else found)

    def _event(self, chunk: ChatCompletionChunk) -> bytes:
        if not self._head:
            stamp = {"id": chunk.id, "object": chunk.object, "created": chunk.created, "model": chunk.model}
            self._head = b'%b%b,"choices":[{"index":0,"delta":' % (_DATA, orjson.dumps(stamp)[:-1])
        choice = chunk.choices[0]
        delta = choice.delta
        fields = {"role": delta.role} if delta.role else {}
        if delta.HasField("content"):
            fields["content"] = delta.content
        reason = orjson.dumps(choice.finish_reason or None)
        return b'%b%b,"logprobs":null,"finish_reason":%b}]}%b' % (self._head, orjson.dumps(fields), reason, _END)


def _set_usage(usage: Usage, found: dict[str, int]) -> None:
    usage.prompt_tokens = found["prompt_tokens"]
    usage.completion_tokens = found["completion_tokens"]
    usage.total_tokens = found["total_tokens"]
