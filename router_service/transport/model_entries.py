"""Entries of the catalog over gRPC: the deployment's models, and an organization's own."""

from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any

from google.protobuf.field_mask_pb2 import FieldMask
from keyswitch.router.v1 import model_service_pb2

from router_service.catalog.catalog import Model, Snapshot
from router_service.catalog.draft import Draft
from router_service.core.faults import Fault, Reason, invalid
from router_service.transport.access import demand_reader, split_name
from router_service.transport.editor import Editor
from router_service.transport.fields import Field, fill, merge, source_number
from router_service.transport.interceptors.identity import caller
from router_service.transport.model_fields import model_fields
from router_service.transport.pages import page
from router_service.transport.provider_servicer import Owner, demand_owner, find_owner
from router_service.transport.request import not_found
from router_service.transport.wire_prices import price_proto


class ModelEntries:
    """The part of ModelService that reads and changes the catalog."""

    def __init__(self, snapshot: Callable[[], Snapshot], editor: Editor, clock: Callable[[], float]) -> None:
        self._snapshot = snapshot
        self._editor = editor
        self._clock = clock

    async def GetModelEntry(  # noqa: N802 # gRPC's name
        self, request: model_service_pb2.GetModelEntryRequest, context: Any
    ) -> model_service_pb2.GetModelEntryResponse:
        """One, as it is in force."""
        owner, model_id = self._named(request.name, "name")
        demand_reader(caller())
        shown = self._found(owner, model_id, self._editor.view())
        return model_service_pb2.GetModelEntryResponse(model_entry=shown)

    async def ListModelEntries(  # noqa: N802 # gRPC's name
        self, request: model_service_pb2.ListModelEntriesRequest, context: Any
    ) -> model_service_pb2.ListModelEntriesResponse:
        """By name."""
        if not request.parent:
            raise invalid("parent", "Write deployment or organizations/{organization}.")
        owner = find_owner(request.parent, caller(), self._snapshot(), "parent")
        demand_reader(caller())
        every = owner.view(self._snapshot()).models.values()
        ids = sorted(model.id for model in every if model.owner == owner.name)
        shown, following = page(ids, request.page_size, request.page_token, ["entries", owner.name])
        draft = self._editor.view()
        return model_service_pb2.ListModelEntriesResponse(
            model_entries=[self._found(owner, one, draft) for one in shown], next_page_token=following
        )

    async def CreateModelEntry(  # noqa: N802 # gRPC's name
        self, request: model_service_pb2.CreateModelEntryRequest, context: Any
    ) -> model_service_pb2.CreateModelEntryResponse:
        """Makes one."""
        if not request.parent:
            raise invalid("parent", "Write deployment or organizations/{organization}.")
        owner = find_owner(request.parent, caller(), self._snapshot(), "parent")
        demand_owner(owner, caller())
        if not request.model:
            raise invalid("model", "The catalog id is required: vendor/model in lower case.")
        path = (*owner.base, "models", request.model)
        name = f"{owner.name or 'deployment'}/models/{request.model}"

        def edit(draft: Draft) -> None:
            if draft.find(path) is not None or request.model in self._snapshot().models:
                message = f"The catalog has {request.model} already; update it, or choose another id."
                raise Fault(Reason.RESOURCE_EXISTS, message, metadata={"name": name})
            draft.changes[path] = merge(request.model_entry, FieldMask(), self._fields(owner), {})

        draft = await self._editor.change(edit, path)
        shown = self._found(owner, request.model, draft)
        return model_service_pb2.CreateModelEntryResponse(model_entry=shown)

    async def UpdateModelEntry(  # noqa: N802 # gRPC's name
        self, request: model_service_pb2.UpdateModelEntryRequest, context: Any
    ) -> model_service_pb2.UpdateModelEntryResponse:
        """Changes the masked fields."""
        given = request.model_entry
        owner, model_id = self._named(given.name, "model_entry.name")
        demand_owner(owner, caller())
        path = (*owner.base, "models", model_id)

        def edit(draft: Draft) -> None:
            shown = self._found(owner, model_id, draft)
            body = merge(given, request.update_mask, self._fields(owner), draft.find(path) or {}, shown)
            draft.put(path, body, given.name, etag=given.etag, override_file=request.override_file)

        draft = await self._editor.change(edit, path)
        return model_service_pb2.UpdateModelEntryResponse(model_entry=self._found(owner, model_id, draft))

    async def DeleteModelEntry(  # noqa: N802 # gRPC's name
        self, request: model_service_pb2.DeleteModelEntryRequest, context: Any
    ) -> model_service_pb2.DeleteModelEntryResponse:
        """Removes what is stored of one."""
        owner, model_id = self._named(request.name, "name")
        demand_owner(owner, caller())
        path = (*owner.base, "models", model_id)

        def edit(draft: Draft) -> None:
            self._found(owner, model_id, draft)
            draft.remove(path, request.name, etag=request.etag)

        await self._editor.change(edit, path)
        return model_service_pb2.DeleteModelEntryResponse()

    def _named(self, name: str, field: str) -> tuple[Owner, str]:
        parent, model_id = split_name(name, "models", field)
        return find_owner(parent, caller(), self._snapshot(), field), model_id

    def _found(self, owner: Owner, model_id: str, draft: Draft) -> model_service_pb2.ModelEntry:
        name = f"{owner.name or 'deployment'}/models/{model_id}"
        model = owner.view(self._snapshot()).models.get(model_id)
        if model is None or model.owner != owner.name:
            raise not_found(name)
        return self._show(owner, name, model, draft)

    def _show(self, owner: Owner, name: str, model: Model, draft: Draft) -> model_service_pb2.ModelEntry:
        path = (*owner.base, "models", model.id)
        below = {} if owner.name else draft.built_in.models.get(model.id, {})
        raw: Mapping[str, Any] = {**below, **(draft.find(path) or {})}
        built = model_service_pb2.ModelEntry(name=name, etag=draft.etag(path), source=source_number(draft.source(path)))
        fill(built, self._fields(owner), {"is_enabled": True, **raw})
        if "price" not in raw and model.price is not None and not model.prices:
            built.looked_up_price.CopyFrom(price_proto(model.price))
        return built

    def _fields(self, owner: Owner) -> tuple[Field, ...]:
        today = datetime.fromtimestamp(self._clock(), UTC).date().isoformat()
        return model_fields(owner.view(self._snapshot()), owner.name, today)
