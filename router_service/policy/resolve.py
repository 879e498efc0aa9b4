"""Which model a call means: its context's override, what it names itself, else the defaults, else the first usable."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from router_service.catalog.catalog import FREE, EmbeddingFacts, Endpoint, Model, Provider, Snapshot
from router_service.core.faults import Fault, Reason, invalid
from router_service.core.request import Purpose
from router_service.core.resolution import ModelSource, OverrideLayer, SkippedModelChoice, SkipReason
from router_service.core.secret import quote
from router_service.policy.call import Call


@dataclass(frozen=True, slots=True)
class ModelChoice:
    """The models to try for, best first. More than one where nothing names a model, and for the free pool.

    `is_free_pool`: only the payer FREE serves it.
    """

    models: tuple[Model, ...]
    source: ModelSource
    skipped: tuple[SkippedModelChoice, ...] = ()
    is_free_pool: bool = False


def choose_model(call: Call, snapshot: Snapshot, seed: float = 0.0) -> ModelChoice:
    """Resolves the reference. Raises Fault for a model that the call names and cannot have.

    `seed`, from 0 to 1, turns the free pool.
    """
    skipped: list[SkippedModelChoice] = []
    chosen = _first_stored(call, snapshot, _overrides(call), skipped, seed)
    if chosen is not None:
        return chosen
    if call.model == FREE:
        return _free_pool(call, snapshot, ModelSource.CALL, skipped, seed)
    if call.model:
        return ModelChoice((named_model(call, snapshot, call.model),), ModelSource.CALL, tuple(skipped))
    chosen = _first_stored(call, snapshot, _defaults(call, snapshot), skipped, seed)
    if chosen is not None:
        return chosen
    allowed = tuple(model for model in snapshot.models.values() if refuse_model(call, model) is None)
    return ModelChoice(allowed, ModelSource.FIRST_USABLE, tuple(skipped))


def _overrides(call: Call) -> Iterator[tuple[ModelSource, str]]:
    """What is stored for the call's context, the user's own first, as far as the context lets it be overridden."""
    if not call.context:
        return
    layers, organization = call.application.layers_of(call.context), call.organization
    if OverrideLayer.USER in layers and organization.personal_overrides_enabled and call.user:
        own = organization.personal_overrides.get(call.user, {})
        yield ModelSource.PERSONAL_OVERRIDE, own.get(call.context, "")
    if OverrideLayer.ADMINISTRATOR in layers:
        yield ModelSource.ADMINISTRATOR_OVERRIDE, call.application.overrides.get(call.context, "")
        yield ModelSource.ADMINISTRATOR_OVERRIDE, organization.overrides.get(call.context, "")


def _defaults(call: Call, snapshot: Snapshot) -> Iterator[tuple[ModelSource, str]]:
    yield ModelSource.APPLICATION_DEFAULT, call.application.default_model
    yield ModelSource.ORGANIZATION_DEFAULT, call.organization.default_model
    yield ModelSource.DEPLOYMENT_DEFAULT, snapshot.default_model


def _first_stored(
    call: Call,
    snapshot: Snapshot,
    stored: Iterator[tuple[ModelSource, str]],
    skipped: list[SkippedModelChoice],
    seed: float,
) -> ModelChoice | None:
    """The first stored choice that can be used; those before it are noted."""
    for source, reference in stored:
        if not reference:
            continue
        if reference == FREE:
            pool = _free_pool(call, snapshot, source, skipped, seed)
            if pool.models:
                return pool
            skipped.append(SkippedModelChoice(source, reference, SkipReason.MODEL_NOT_FOUND))
            continue
        model = snapshot.find_model(reference)
        reason = refuse_model(call, model)
        if model is not None and reason is None:
            return ModelChoice((model,), source, tuple(skipped))
        if reason is not None:
            skipped.append(SkippedModelChoice(source, reference, reason))
    return None


def _free_pool(
    call: Call, snapshot: Snapshot, source: ModelSource, skipped: Sequence[SkippedModelChoice], seed: float
) -> ModelChoice:
    """The models of the pool that the application may use, turned by the seed."""
    found = [snapshot.find_model(reference) for reference in snapshot.free_models]
    usable = tuple(model for model in found if model is not None and refuse_model(call, model) is None)
    start = min(int(seed * len(usable)), max(len(usable) - 1, 0))
    return ModelChoice(usable[start:] + usable[:start], source, tuple(skipped), is_free_pool=True)


def named_model(call: Call, snapshot: Snapshot, reference: str) -> Model:
    """The model that a call names itself: an error when it cannot have it, never a silent substitute."""
    model = snapshot.find_model(reference) or _uncatalogued(call, snapshot, reference)
    if model is None or not model.is_enabled:
        near = snapshot.nearest_models(reference) if model is None else []  # a model that is off was not misspelt
        nearest = [name for name in near if _is_enabled(snapshot, name)]
        hint = f" Did you mean {_either(nearest)}?" if nearest else " ListModels shows what you can use."
        state = "is switched off" if model is not None else "is not known here"
        shown = quote(reference[:128])
        metadata = {"model": shown} | ({"nearest": ",".join(nearest)} if nearest else {})
        raise Fault(Reason.MODEL_NOT_FOUND, f"The model {shown!r} {state}.{hint}", metadata=metadata)
    if model.purpose is not call.needs.purpose:
        verb = "embeds texts" if model.purpose is Purpose.EMBEDDING else "completes conversations"
        message = f"{model.id} {verb}, which is not what this call asks for. ListModels shows what can be used for it."
        raise invalid("call.spec.model", message)
    if not call.application.allows(model.id):
        raise _not_allowed(call, model.id, f"may not use {quote(model.id)}")
    return model


def _is_enabled(snapshot: Snapshot, name: str) -> bool:
    found = snapshot.find_model(name)
    return found is not None and found.is_enabled


def not_served(reference: str, provider: Provider, snapshot: Snapshot) -> Fault:
    """The fault of a model that the catalog does not know, or not at this provider."""
    shown = quote(reference[:128])
    near = [
        name
        for name in snapshot.nearest_models(reference)
        if (model := snapshot.find_model(name)) and any(item.provider == provider.id for item in model.endpoints)
    ]
    hint = f" Did you mean {_either(near)}?" if near else f" {provider.id}: before a name means the provider's own."
    metadata = {"model": shown} | ({"nearest": ",".join(near)} if near else {})
    message = f"The catalog has no model {shown!r} at {provider.id}.{hint}"
    return Fault(Reason.MODEL_NOT_FOUND, message, metadata=metadata)


def _uncatalogued(call: Call, snapshot: Snapshot, reference: str) -> Model | None:
    """The model that `provider:upstream-id` means, where the application may name such. It has no price."""
    provider_id, colon, upstream_model = reference.partition(":")
    provider = snapshot.find_provider(provider_id)
    if provider is None or not colon or not upstream_model.isprintable() or not upstream_model.strip():
        return None
    if not call.application.allows_uncatalogued:
        raise _not_allowed(call, quote(reference[:128]), "may not use models that are not in the catalog")
    endpoint = Endpoint(provider.id, upstream_model, provider.quirks)
    embedding = EmbeddingFacts() if call.needs.purpose is Purpose.EMBEDDING else None
    return Model(reference, (endpoint,), display_name=reference, owner=provider.owner, embedding=embedding)


def _not_allowed(call: Call, model: str, what: str) -> Fault:
    return Fault(
        Reason.MODEL_NOT_ALLOWED,
        f"The application {call.application.name} {what}; an administrator of the organization can allow it, or name "
        "another model.",
        metadata={"model": model, "application": call.application.name},
    )


def refuse_model(call: Call, model: Model | None) -> SkipReason | None:
    """Why a stored reference to a model is passed over."""
    if model is None:
        return SkipReason.MODEL_NOT_FOUND
    if not model.is_enabled:
        return SkipReason.MODEL_DISABLED
    if model.purpose is not call.needs.purpose:
        return SkipReason.CAPABILITY_MISSING
    return None if call.application.allows(model.id) else SkipReason.MODEL_NOT_ALLOWED


def _either(names: Sequence[str]) -> str:
    return " or ".join(repr(name) for name in names[:3])
