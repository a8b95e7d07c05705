"""Answers that come line by line: their request counts as being answered until the last one."""

from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack

from starlette.responses import StreamingResponse
from starlette.types import Receive, Scope, Send

LINES_TYPE = "application/x-ndjson"


class Lines(StreamingResponse):
    """JSON objects, one a line, sent as they are made."""

    media_type = LINES_TYPE

    def __init__(
        self, lines: AsyncIterator[bytes], headers: dict[str, str], on_close: Callable[[], None]
    ) -> None:
        """Make an answer.

        Args:
            lines: What is sent.
            headers: Beside those that say how.
            on_close: Called at the end, though the client has hung up and not one was sent.
        """
        # A proxy that waits for the end would show nothing until then.
        kept = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
        super().__init__(lines, headers=headers | kept)
        self._held, self._on_close = AsyncExitStack(), on_close

    def hold(self, held: AsyncExitStack) -> None:
        """Let go of a request's permit and record only when the last line is sent."""
        self._held = held

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the lines until they end or the client hangs up."""
        async with self._held:
            self._held.callback(self._on_close)
            await super().__call__(scope, receive, send)
