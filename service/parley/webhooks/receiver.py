"""Sends alerts to a URL, signed as Standard Webhooks specifies: https://github.com/standard-webhooks/standard-webhooks."""

import base64
import hashlib
import hmac
import os
import time
from collections.abc import Callable
from http import HTTPStatus

import aiohttp

from parley.config import Webhook
from parley.core.ports.alerts import Alert, ReceiverGoneError

_TIMEOUT = aiohttp.ClientTimeout(total=15, connect=5)


class WebhookReceiver:
    """Sends alerts to one webhook. Neither its URL, which may hold a token, nor its secret is in any result."""

    def __init__(self, webhook: Webhook, clock: Callable[[], float] = time.time) -> None:
        """Creates a receiver that connects at its first alert.

        Args:
            webhook: The URL and the secret.
            clock: Returns Unix seconds.
        """
        self._url = webhook.url
        self._key = webhook.signing_key
        self._clock = clock

    async def send(self, alert: Alert) -> str | None:
        """Delivers an alert. Only a 2xx status accepts it; redirects are not followed.

        Returns:
            None if it was accepted, else the reason.

        Raises:
            ReceiverGoneError: The status is 410.
        """
        body = alert.payload.encode()
        headers = self._headers(alert.id, body)
        try:
            async with (
                aiohttp.ClientSession(timeout=_TIMEOUT, trust_env=True) as session,
                session.post(self._url, data=body, headers=headers, allow_redirects=False) as response,
            ):
                status = response.status
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            return _reason(error)
        if status == HTTPStatus.GONE:
            raise ReceiverGoneError("the receiver answered 410")
        return None if status // 100 == 2 else f"the receiver answered {status}"  # noqa: PLR2004 - 2xx

    def _headers(self, alert_id: str, body: bytes) -> dict[str, str]:
        moment = str(int(self._clock()))
        signed = hmac.digest(self._key, f"{alert_id}.{moment}.".encode() + body, hashlib.sha256)
        return {
            "content-type": "application/json",
            "user-agent": "parley",
            "webhook-id": alert_id,
            "webhook-timestamp": moment,
            "webhook-signature": f"v1,{base64.b64encode(signed).decode()}",
        }


def _reason(error: Exception) -> str:
    """Returns the kind of a failure: its own text may contain the URL."""
    number = getattr(error, "errno", None)
    return f"{type(error).__name__}: {os.strerror(number)}" if number else type(error).__name__
