"""Several endpoints as one: drawn by weight, asked again, given up when they are dead."""

import asyncio
import random
from collections.abc import Awaitable, Callable, Iterable, Sequence
from contextlib import AsyncExitStack
from dataclasses import asdict, dataclass
from typing import Any, TypeVar

from polyvec.data.generate.answers import AnswerError, Schema, read_answer
from polyvec.data.generate.chat import Chat, EndpointDeadError, RefusedError, Reply
from polyvec.data.generate.settings import Endpoint
from polyvec.errors import InputError, RemoteError

T = TypeVar("T")
Read = Callable[[dict[str, Any], str], Any]
"""Turns an answer that fits the schema, and the model's name, into what is wanted."""

_MAX_LOST = 5.0
"""Requests lost one after another before an endpoint counts as dead."""
_MAX_LOST_A_JOB = 10
"""A request that every endpoint breaks down over is left to a later run."""
_REFUSED = 0.25
"""What a refused request counts: it may be the fault of one long text."""


@dataclass
class Answered:
    """What came of a question, and what it took."""

    value: Any = None
    """None if no answer was right."""
    endpoint: str = ""
    problem: str = ""
    """What was wrong with the last answer that was."""
    prompt_tokens: int = 0
    answer_tokens: int = 0
    cost: float = 0.0
    lost: bool = False
    """Whether the last one asked gave no answer at all: a later run asks again."""

    def facts(self) -> dict[str, Any]:
        """Return all but the value, without what says nothing."""
        return {name: fact for name, fact in asdict(self).items() if fact and name != "value"}


class Pool:
    """Endpoints, asked side by side; used as ``async with``."""

    def __init__(
        self,
        endpoints: Sequence[Endpoint],
        max_asks: int,
        seed: int,
        on_message: Callable[[str], None],
    ) -> None:
        self.chats = [Chat(endpoint) for endpoint in endpoints]
        self._max_asks, self._seed, self._on_message = max_asks, seed, on_message
        self._lost = [0.0] * len(endpoints)
        self._stack = AsyncExitStack()

    async def __aenter__(self) -> "Pool":
        for chat in self.chats:
            await self._stack.enter_async_context(chat)
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._stack.aclose()

    async def each(self, items: Iterable[T], do: Callable[[T], Awaitable[bool]]) -> None:
        """Do items, as many side by side as the endpoints take, until one returns False."""
        queue = iter(items)

        async def work() -> None:
            for item in queue:
                if not await do(item):
                    return

        slots = sum(chat.endpoint.max_concurrent for chat in self.chats)
        tasks = [asyncio.create_task(work()) for _ in range(slots)]
        try:
            await asyncio.gather(*tasks)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def ask(self, job: str, prompt: str, schema: Schema, read: Read) -> Answered:
        """Ask until an answer is right, each time whoever the weights draw.

        Args:
            job: A name; the same one draws the same endpoints and seeds.
            prompt: What to say.
            schema: What an answer must fit.
            read: Its errors of input are a wrong answer too.

        Raises:
            RemoteError: No endpoint answers any more.
        """
        draw = random.Random(f"{self._seed}/{job}")  # noqa: S311
        answered, asks, lost = Answered(), 0, 0
        while answered.value is None and asks < self._max_asks and lost < _MAX_LOST_A_JOB:
            place = self._draw(draw)
            chat = self.chats[place]
            try:
                reply = await chat.ask(prompt, schema, draw.randrange(2**31))
                self._lost[place] = 0.0
                answered.lost, asks = False, asks + 1
                _count(answered, chat, reply)
                answered.value = read(read_answer(reply.text, schema), chat.endpoint.model)
                answered.endpoint = chat.endpoint.name
                chat.usage.valid += 1
            except (AnswerError, InputError) as error:
                answered.problem = str(error)
            except EndpointDeadError as error:
                self._bury(chat, error)
            except RefusedError as error:
                answered.problem, asks = str(error), asks + 1
                self._lose(place, error)
            except RemoteError as error:
                answered.problem, answered.lost, lost = str(error), True, lost + 1
                self._lose(place, error)
        return answered

    def _draw(self, draw: random.Random) -> int:
        alive = [n for n, chat in enumerate(self.chats) if chat.dead is None]
        if not alive:
            raise RemoteError(
                "No endpoint answers any more. " + " ".join(str(chat.dead) for chat in self.chats)
            )
        return draw.choices(alive, [self.chats[n].endpoint.weight for n in alive])[0]

    def _lose(self, place: int, error: RemoteError) -> None:
        self._lost[place] += _REFUSED if isinstance(error, RefusedError) else 1.0
        if self._lost[place] >= _MAX_LOST:
            self._bury(self.chats[place], error)

    def _bury(self, chat: Chat, error: RemoteError) -> None:
        if chat.dead is None:
            chat.dead = str(error)
            self._on_message(f"{chat.endpoint.name} is asked no more: {error}")

    def facts(self) -> dict[str, dict[str, Any]]:
        """Return what each endpoint did, by name."""
        return {
            chat.endpoint.name: asdict(chat.usage)
            | {"response_format": chat.response_format, "dead": chat.dead}
            for chat in self.chats
        }


def _count(answered: Answered, chat: Chat, reply: Reply) -> None:
    prices = chat.endpoint
    answered.prompt_tokens += reply.prompt_tokens
    answered.answer_tokens += reply.answer_tokens
    spent = reply.prompt_tokens * prices.prompt_price + reply.answer_tokens * prices.answer_price
    answered.cost += spent / 1e6
    if reply.cut:
        raise AnswerError(
            f"the answer was cut off after {prices.max_answer_tokens} tokens (max_answer_tokens)"
        )
