"""Read, change, write: the one loop in which documents of the store are changed."""

import asyncio
from collections.abc import Callable
from typing import Generic, TypeVar
from weakref import WeakValueDictionary

from vault_service.store.store import Conflict, Store, Unsealable

Value = TypeVar("Value")

MAX_ATTEMPTS = 32


class Documents(Generic[Value]):
    """Documents of one kind. Writers in this process take turns per path; others are met with compare-and-set.

    `name` gives the path that a value says it is from. Documents are not sealed, so whoever may write the store may put
    one where another belongs: what is not from where it stands is not taken for what stands there.
    """

    def __init__(
        self,
        store: Store,
        *,
        encode: Callable[[Value], bytes],
        decode: Callable[[bytes], Value],
        name: Callable[[Value], object] | None = None,
    ) -> None:
        self._store = store
        self._encode = encode
        self._decode_bytes = decode
        self._name = name
        self._turns: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()

    async def read(self, path: str, *, request_id: str = "") -> Value | None:
        """Gives what stands there."""
        document = await self._store.read(path, request_id=request_id)
        return self._decode(path, document.value) if document else None

    async def change(
        self,
        path: str,
        change: Callable[[Value | None], Value],
        *,
        request_id: str = "",
    ) -> tuple[Value | None, Value]:
        """Gives what stood there and what stands there now. `change` may be called several times, and may raise.

        When it gives back the very value it was given, nothing is written.
        """
        turn = self._turns.setdefault(path, asyncio.Lock())
        async with turn:
            for _ in range(MAX_ATTEMPTS):
                document = await self._store.read(path, request_id=request_id)
                before = self._decode(path, document.value) if document else None
                after = change(before)
                if after is before:
                    return before, after
                try:
                    await self._store.write(
                        path,
                        self._encode(after),
                        expected_revision=document.revision if document else 0,
                        request_id=request_id,
                    )
                except Conflict:
                    continue
                return before, after
            raise Conflict("the document is written too often")

    def _decode(self, path: str, stored: bytes) -> Value:
        value = self._decode_bytes(stored)
        if self._name is not None and str(self._name(value)) != path:
            raise Unsealable("the document is another's: it was moved")
        return value
