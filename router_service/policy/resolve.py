"""Which model a call means: what it names, else the defaults of the application, the organization, the deployment."""

from collections.abc import Sequence
from dataclasses import dataclass

from router_service.catalog.catalog import Model, Snapshot
from router_service.core.faults import Fault, Reason
from router_service.core.resolution import ModelSource, SkippedModelChoice, SkipReason
from router_service.core.secret import quote
from router_service.policy.call import Call


@dataclass(frozen=True, slots=True)
class ModelChoice:
    """The models to try for, best first. More than one only where nothing names a model and any usable one will do."""

    models: tuple[Model, ...]
    source: ModelSource
    skipped: tuple[SkippedModelChoice, ...] = ()


def choose_model(call: Call, snapshot: Snapshot) -> ModelChoice:
    """Resolves the reference. Raises Fault for a model that the call names and cannot have."""
    if call.model:
        return ModelChoice((named_model(call, snapshot, call.model),), ModelSource.CALL)
    skipped: list[SkippedModelChoice] = []
    for source, reference in (
        (ModelSource.APPLICATION_DEFAULT, call.application.default_model),
        (ModelSource.ORGANIZATION_DEFAULT, call.organization.default_model),
        (ModelSource.DEPLOYMENT_DEFAULT, snapshot.default_model),
    ):
        if not reference:
            continue
        model = snapshot.find_model(reference)
        reason = refuse_model(call, model)
        if model is not None and reason is None:
            return ModelChoice((model,), source, tuple(skipped))
        if reason is not None:
            skipped.append(SkippedModelChoice(source, reference, reason))
    allowed = tuple(model for model in snapshot.models.values() if refuse_model(call, model) is None)
    return ModelChoice(allowed, ModelSource.FIRST_USABLE, tuple(skipped))


def named_model(call: Call, snapshot: Snapshot, reference: str) -> Model:
    """The model that a call names itself: an error when it cannot have it, never a silent substitute."""
    model = snapshot.find_model(reference)
    if model is None or not model.is_enabled:
        nearest = [name for name in snapshot.nearest_models(reference) if name != reference]
        hint = f" Did you mean {_either(nearest)}?" if nearest else " ListModels shows what you can use."
        state = "is switched off" if model is not None else "is not known here"
        shown = quote(reference[:128])
        metadata = {"model": shown} | ({"nearest": ",".join(nearest)} if nearest else {})
        raise Fault(Reason.MODEL_NOT_FOUND, f"The model {shown!r} {state}.{hint}", metadata=metadata)
    if not call.application.allows(model.id):
        raise Fault(
            Reason.MODEL_NOT_ALLOWED,
            f"The application {call.application.name} may not use {model.id}; an administrator of the organization "
            "can allow it, or name another model.",
            metadata={"model": model.id, "application": call.application.name},
        )
    return model


def refuse_model(call: Call, model: Model | None) -> SkipReason | None:
    """Why a stored reference to a model is passed over."""
    if model is None:
        return SkipReason.MODEL_NOT_FOUND
    if not model.is_enabled:
        return SkipReason.MODEL_DISABLED
    return None if call.application.allows(model.id) else SkipReason.MODEL_NOT_ALLOWED


def _either(names: Sequence[str]) -> str:
    return " or ".join(repr(name) for name in names[:3])
