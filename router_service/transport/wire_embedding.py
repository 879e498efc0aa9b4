"""Embeddings between protobuf and values."""

from collections.abc import Mapping, Sequence

from keyswitch.router.v1 import embedding_service_pb2

from router_service.catalog.catalog import Snapshot
from router_service.core.events import Vectors
from router_service.core.faults import Fault, invalid
from router_service.core.outcome import AttemptFailed, Output, ResponseEnded, ResponseStarted
from router_service.core.request import Embedding, EmbeddingTask, ProviderOptions, Settings
from router_service.policy.call import Call
from router_service.transport import wire_build
from router_service.transport.wire_parse import MAX_OPTIONS, known, parse_routing

MOST_INPUTS = 2048

_TASKS: Mapping[int, EmbeddingTask | None] = {
    embedding_service_pb2.EMBEDDING_TASK_UNSPECIFIED: None,
    embedding_service_pb2.EMBEDDING_TASK_QUERY: EmbeddingTask.QUERY,
    embedding_service_pb2.EMBEDDING_TASK_DOCUMENT: EmbeddingTask.DOCUMENT,
}


def parse_embedding(spec: embedding_service_pb2.EmbeddingSpec) -> Embedding:
    """What is to be embedded; model and provider are filled in for each attempt."""
    if not 1 <= len(spec.inputs) <= MOST_INPUTS:
        raise invalid("call.spec.inputs", f"From 1 to {MOST_INPUTS} inputs.")
    for number, item in enumerate(spec.inputs):
        if not item.text:
            raise invalid(f"call.spec.inputs[{number}].text", "An input is a text, and not empty.")
    dimensions = spec.dimensions if spec.HasField("dimensions") else None
    if dimensions is not None and dimensions < 1:
        raise invalid("call.spec.dimensions", "At least 1.")
    if len(spec.provider_options) > MAX_OPTIONS:
        raise invalid("call.spec.provider_options", f"At most {MAX_OPTIONS} entries.")
    routing = parse_routing(spec.upstream_routing, "call.spec.upstream_routing")
    return Embedding(
        model="",
        provider="",
        inputs=tuple(item.text for item in spec.inputs),
        dimensions=dimensions,
        task=known(_TASKS, spec.task, "call.spec.task"),
        settings=Settings(
            provider_options=tuple(ProviderOptions(entry.namespace, entry.json) for entry in spec.provider_options),
            upstream_routing=routing if spec.HasField("upstream_routing") else None,
        ),
    )


def check_fallbacks(call: Call, snapshot: Snapshot) -> None:
    """The routes that a call names must lead to the model that it names."""
    for number, route in enumerate(call.policy.fallbacks):
        model = snapshot.find_model(route.model)
        if model is None or model is not snapshot.find_model(call.model):
            message = "Vectors of two models cannot be compared: name the call's own model, at another provider."
            raise invalid(f"call.route_policy.fallbacks[{number}].model", message)


def name_fields(fault: Fault) -> Fault:
    """The same fault, its fields named as EmbedRequest has them."""
    if "field" in fault.metadata:
        fault.metadata["field"] = _name(fault.metadata["field"])
    fault.fields = {_name(field): message for field, message in fault.fields.items()}
    return fault


def _name(field: str) -> str:
    return field.removeprefix("call.").replace("spec.settings.", "spec.")


class EmbeddingSink:
    """Keeps the one answer of an embedding."""

    def __init__(self) -> None:
        self._response = embedding_service_pb2.EmbedResponse()

    async def send(self, outputs: Sequence[Output]) -> None:
        """Takes events."""
        built = self._response
        for output in outputs:
            match output:
                case ResponseStarted():
                    built.response_id = output.response_id
                    built.resolution.CopyFrom(wire_build.resolution(output.resolution))
                    built.warnings.extend(wire_build.warning(notice) for notice in output.warnings)
                case Vectors():
                    for vector in output.values:
                        built.embeddings.add().values.extend(vector)
                case ResponseEnded():
                    built.receipt.CopyFrom(wire_build.receipt(output.receipt))
                case AttemptFailed() | _:
                    pass  # the receipt tells of attempts and of usage

    def response(self) -> embedding_service_pb2.EmbedResponse:
        """The whole answer."""
        return self._response
