"""The windows of one streamed choice: what is held back, what a guard checks next, and what it lets through.

A window is checked once its new text is long enough. Of each text that goes on, the end (`overlap`) stays held back and
is part of the next window, so that a span is seen whole wherever the border lies. A span that reaches the end of the
window may go on, and is held back whole. Deltas leave in the order of their arrival.
"""

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Mapping, Sequence

from parley.core.guards.decisions import Span
from parley.core.guards.deltas import TEXT_PLACES, HeldDelta, Place, split_choice
from parley.core.guards.texts import has_media_fields
from parley.core.ports.plain_text import PlainText
from parley.guard.v1 import guard_pb2 as guard
from parley.guard.v1.guard_pb2 import Unit
from parley.v1.message_pb2 import ChunkChoice

_OTHERS = Place(guard.KIND_OTHER)  # all unknown fields, where their length is counted
_MAX_HELD = 65536  # code points; a span that is still open then is replaced, and its rest is a text of its own

Spans = Mapping[Place, Sequence[Span]]


class ChoiceWindows:
    """The deltas of one choice that are held back.

    Attributes:
        is_finished: Whether the choice has its finish reason.
        has_media: Whether a delta that was added has sound.
        has_replaced: Whether the latest release has replaced a span.
    """

    def __init__(self, window: int, overlap: int) -> None:
        self._window = window
        self._overlap = overlap
        self._held: list[HeldDelta] = []
        self._new: dict[Place, int] = {}  # code points that no window has had
        self._released: dict[Place, int] = {}  # code points that have left
        self._left: dict[Place, str] = {}  # the end of texts that have left whole, and may go on
        self._tool_names: dict[Place, str] = {}
        self._current: Place | None = None  # the place of the latest text, which may go on
        self._calls: set[Place] = set()  # tool calls that have begun
        self._are_mixed = False  # whether tool calls go on after others have begun: then each may
        self._is_redacted = False
        self.is_finished = False
        self.has_media = False
        self.has_replaced = False

    def add_text(self, text: PlainText) -> None:
        """Holds back a plain text."""
        place = TEXT_PLACES[text.kind]
        last = self._held[-1] if self._held else None
        if last is None or last.place is not place or last.choice.HasField("logprobs"):
            self._held.append(HeldDelta(ChunkChoice(index=0), place, text.text))
        else:
            last.text += text.text
        self._new[place] = self._new.get(place, 0) + len(text.text)
        self._current = place

    def add(self, choice: ChunkChoice) -> None:
        """Holds back the chunk of the choice. Deltas that have nothing but text become one."""
        for delta in split_choice(choice):
            place = delta.place
            if place is not None:
                counted = place if place.is_joined else _OTHERS
                self._new[counted] = self._new.get(counted, 0) + len(delta.text)
            if place is not None and place.is_joined:
                self._begin_or_continue(place)
                if name := delta.tool_name:
                    self._tool_names[place] = name
            if not self._held or not self._held[-1].try_append(delta):
                self._held.append(delta)
        self.has_media = self.has_media or bool(choice.delta.audio.data) or has_media_fields(choice.delta.extra_json)
        self.is_finished = self.is_finished or choice.HasField("finish_reason")

    def _begin_or_continue(self, place: Place) -> None:
        if place.kind == guard.KIND_TOOL_ARGUMENTS and place != self._current:
            self._are_mixed = self._are_mixed or place in self._calls
            self._calls.add(place)
        self._current = place

    @property
    def is_due(self) -> bool:
        """Whether the next window is complete."""
        return self.is_finished or any(new >= self._window for new in self._new.values())

    @property
    def is_empty(self) -> bool:
        """Whether nothing is held back."""
        return not self._held

    def units(self) -> tuple[list[Place], list[Unit]]:
        """Returns the texts of the next window: their places, and the units.

        A text that goes on after it has left whole, because another one began, has its end before it again.
        """
        texts, units = self._texts(), []
        for place, text in texts.items():
            before = self._left.get(place, "")
            offset = self._released.get(place, 0) - len(before)
            units.append(place.unit(before + text, offset, self._tool_names.get(place, "")))
        return list(texts), units

    def release(self, spans: Spans, *, last: bool) -> list[ChunkChoice]:
        """Returns the chunks that may leave after a check, with the spans replaced.

        Args:
            spans: The spans by the place of their text, in code points of its unit.
            last: Whether the texts do not go on.
        """
        self._new.clear()
        self.has_replaced = False
        texts = self._texts()
        spans = {place: _shifted(found, len(self._left.get(place, ""))) for place, found in spans.items()}
        may_go_on = set() if last else self._may_go_on(texts)
        limits = {place: self._limit(text, spans.get(place, ()), place in may_go_on) for place, text in texts.items()}
        count, cuts = self._cut(limits)
        while broken := _broken(cuts, spans):
            limits |= broken
            count, cuts = self._cut(limits)
        for place, text in texts.items():
            self._keep_end(place, text, cuts[place])
        leaving, self._held = self._held[:count], self._held[count:]
        leaving += self._split_next(cuts, leaving)
        return list(self._redacted(leaving, spans))

    def clear(self) -> None:
        """Drops all that is held back."""
        self._held.clear()
        self._new.clear()

    def _texts(self) -> dict[Place, str]:
        """Returns the texts held back, by place."""
        parts: dict[Place, list[str]] = {}
        for delta in self._held:
            if delta.place is not None and delta.text:
                parts.setdefault(delta.place, []).append(delta.text)
        return {place: "".join(found) for place, found in parts.items()}

    def _may_go_on(self, texts: Mapping[Place, str]) -> set[Place | None]:
        """Returns the places whose texts may go on: the latest, and mixed tool calls, unless too much is held back."""
        is_long = sum(map(len, texts.values())) > _MAX_HELD
        return {self._current, *(self._calls if self._are_mixed and not is_long else ())}

    def _limit(self, text: str, spans: Sequence[Span], may_go_on: bool) -> int:
        """Returns how many code points of a text may leave."""
        if not may_go_on:
            return len(text)
        limit = max(0, len(text) - self._overlap)
        for span in spans:
            if span.end == len(text) and len(text) <= _MAX_HELD:
                limit = min(limit, span.start)
            elif span.start < limit < span.end:
                limit = span.end
        return limit

    def _keep_end(self, place: Place, text: str, cut: int) -> None:
        """Keeps the end of a text that leaves whole."""
        if cut == len(text) and place.is_joined and self._overlap:
            self._left[place] = (self._left.get(place, "") + text)[-self._overlap :]
        elif cut:
            self._left.pop(place, None)

    def _cut(self, limits: Mapping[Place, int]) -> tuple[int, dict[Place, int]]:
        """Returns how many deltas leave whole, and how many code points leave of each place.

        The deltas behind one that stays, or stays in part, stay too.
        """
        cuts = dict.fromkeys(limits, 0)
        for count, delta in enumerate(self._held):
            if delta.place is None or not delta.text:
                continue
            end = cuts[delta.place] + len(delta.text)
            if end > limits[delta.place]:
                if not delta.choice.HasField("logprobs"):  # they belong to the whole text
                    cuts[delta.place] = max(cuts[delta.place], limits[delta.place])
                return count, cuts
            cuts[delta.place] = end
        return len(self._held), cuts

    def _split_next(self, cuts: Mapping[Place, int], leaving: Iterable[HeldDelta]) -> list[HeldDelta]:
        """Returns the part of the next delta that leaves, if it has one."""
        if not self._held or (place := self._held[0].place) is None or not self._held[0].text:
            return []
        length = cuts[place] - sum(len(delta.text) for delta in leaving if delta.place == place)
        return [self._held[0].split(length)] if length > 0 else []

    def _redacted(self, leaving: Iterable[HeldDelta], spans: Spans) -> Iterable[ChunkChoice]:
        positions: dict[Place, int] = {}
        for delta in leaving:
            text = delta.text
            if delta.place is not None:
                start = positions.get(delta.place, 0)
                positions[delta.place] = end = start + len(text)
                self._released[delta.place] = self._released.get(delta.place, 0) + len(text)
                text = self._text(delta, start, end, spans.get(delta.place, ()))
            if self._is_redacted:
                delta.choice.ClearField("logprobs")
                delta.choice.delta.audio.ClearField("data") if delta.choice.delta.HasField("audio") else None
            chunk = delta.released(text)
            if chunk is not None:
                yield chunk

    def _text(self, delta: HeldDelta, start: int, end: int, spans: Sequence[Span]) -> str:
        """Returns the text of a delta with the spans replaced; a span is replaced in the delta with its start."""
        found = _within(spans, start, end)
        if found:
            self._is_redacted = self.has_replaced = True
        if delta.place is not None and not delta.place.is_joined:
            return "" if found or (self._is_redacted and delta.repeats) else delta.text
        parts, position = [], start
        for span in found:
            parts.append(delta.text[max(0, position - start) : max(0, span.start - start)])
            if span.start >= start:
                parts.append(span.replacement)
            position = span.end
        parts.append(delta.text[max(0, position - start) :])
        return "".join(parts)


def _shifted(spans: Sequence[Span], length: int) -> Sequence[Span]:
    """Returns spans without what they have of the first code points, which have left."""
    return [
        span._replace(start=max(0, span.start - length), end=span.end - length) for span in spans if span.end > length
    ]


def _within(spans: Sequence[Span], start: int, end: int) -> Sequence[Span]:
    """Returns those of the sorted spans that have a part between `start` and `end`."""
    first = bisect_right(spans, start, key=lambda span: span.end)
    return spans[first : bisect_left(spans, end, lo=first, key=lambda span: span.start)]


def _broken(cuts: Mapping[Place, int], spans: Spans) -> dict[Place, int]:
    """Returns the starts of the spans of which a part only would leave, by place."""
    return {
        place: span.start for place, cut in cuts.items() for span in spans.get(place, ()) if span.start < cut < span.end
    }
