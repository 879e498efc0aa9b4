"""Changes of the configuration over gRPC: drafted, checked as a whole like the file, written, and in force at once."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial

import structlog

from router_service.catalog.defaults import load_built_in
from router_service.catalog.draft import Draft
from router_service.catalog.problems import ConfigurationError, Path, Problem, show_path
from router_service.catalog.reload import Configuration
from router_service.core.faults import Fault, Reason
from router_service.database.patience import left_seconds
from router_service.state.documents import DocumentStore, Superseded, unavailable

MOST_TRIES = 10
TURN_SECONDS = 30.0

Edit = Callable[[Draft], None]
Explain = Callable[[tuple[Problem, ...]], Fault]

log = structlog.get_logger(__name__)


class Editor:
    """The one way to change what is stored."""

    def __init__(self, configuration: Configuration, store: DocumentStore) -> None:
        self._configuration = configuration
        self._store = store
        self._lock = asyncio.Lock()

    def view(self) -> Draft:
        """What is in force, to be read."""
        return Draft(self._configuration.file, self._configuration.documents, load_built_in())

    async def change(self, edit: Edit, subject: Path = (), explain: Explain | None = None) -> Draft:
        """Does what `edit` does to a draft, and gives what is in force then. `edit` may run more than once.

        Raises what `edit` raises, and Fault where the result does not fit; nothing is changed then. `subject` is the
        path whose problems are told as fields of the request, unless `explain` tells them.
        """
        async with self._turn():
            for _ in range(MOST_TRIES):
                draft = await self._try(edit, explain or partial(_unfit, subject))
                if not draft.changes:
                    return draft
                try:
                    written = await self._store.write(draft.documents.revision, draft.changes)
                except Superseded:
                    await self._refresh()
                    continue
                self._configuration.take(written)
                log.info("configuration_changed", revision=self._configuration.current.revision)
                return self.view()
        message = "The configuration kept changing meanwhile; try again."
        raise Fault(Reason.CONFIGURATION_UNAVAILABLE, message, retry_after_seconds=1.0)

    async def try_out(self, edit: Edit, explain: Explain) -> Draft:
        """Everything that `change` does but the writing: the draft with the changes in it. Raises as `change` does."""
        async with self._turn():
            return await self._try(edit, explain)

    async def refresh(self) -> bool:
        """Takes what other routers have stored. True where that changed anything. Raises Fault."""
        # Under the lock: what was loaded before a write of our own must not be taken after it.
        async with self._turn():
            return await self._refresh()

    @asynccontextmanager
    async def _turn(self) -> AsyncIterator[None]:
        """One after the other. Whoever is before may wait for a store that does not answer."""
        try:
            async with asyncio.timeout(left_seconds(TURN_SECONDS)):
                await self._lock.acquire()
        except TimeoutError:
            raise unavailable() from None
        try:
            yield
        finally:
            self._lock.release()

    async def _try(self, edit: Edit, explain: Explain) -> Draft:
        draft = self.view()
        edit(draft)
        if draft.changes:
            try:
                await asyncio.to_thread(self._configuration.check, draft.result(), frozenset(draft.changes))
            except ConfigurationError as error:
                raise explain(error.problems) from None
        return draft

    async def _refresh(self) -> bool:
        documents = await self._store.load(self._configuration.documents.revision)
        if documents is None:
            return False
        return self._configuration.take(documents)


def _unfit(subject: Path, problems: tuple[Problem, ...]) -> Fault:
    """A configuration that would not be sound, as the fault of the request that would have made it so."""
    prefix = show_path(subject)
    fields: dict[str, str] = {}
    for problem in problems:
        is_inside = prefix and problem.path.startswith(prefix)
        name = problem.path.removeprefix(prefix).lstrip(".") if is_inside else problem.path
        fields.setdefault(name or "name", problem.message[:256])
    field, message = next(iter(fields.items()))
    more = f" There are {len(fields) - 1} more." if len(fields) > 1 else ""
    return Fault(Reason.INVALID_REQUEST, f"{field}: {message}.{more}", metadata={"field": field}, fields=fields)
