"""Values to protobuf: receipts, resolutions, warnings, usage and cost."""

from google.protobuf import duration_pb2, timestamp_pb2
from keyswitch.router.v1 import cost_pb2, error_reason_pb2, payer_pb2, receipt_pb2, resolution_pb2, usage_pb2

from router_service.core.events import Usage
from router_service.core.faults import Reason
from router_service.core.receipt import Amount, Attempt, Cost, CostUnknown, Receipt
from router_service.core.request import Notice
from router_service.core.resolution import Payer, Resolution, SkippedCandidate, SkippedModelChoice

_USAGE_FIELDS = tuple(name for name in Usage.__dataclass_fields__ if name != "tool_requests")


def payer(value: Payer | None) -> "payer_pb2.Payer.ValueType":
    """The enum's number."""
    return payer_pb2.PAYER_UNSPECIFIED if value is None else payer_pb2.Payer.Value(f"PAYER_{value.value}")


def reason(value: Reason | None) -> "error_reason_pb2.ErrorReason.ValueType":
    """The enum's number."""
    if value is None:
        return error_reason_pb2.ERROR_REASON_UNSPECIFIED
    return error_reason_pb2.ErrorReason.Value(f"ERROR_REASON_{value.value}")


def timestamp(seconds: float) -> timestamp_pb2.Timestamp:
    """A moment, in seconds since 1970."""
    whole = int(seconds)
    return timestamp_pb2.Timestamp(seconds=whole, nanos=min(999_999_999, int((seconds - whole) * 1e9)))


def duration(seconds: float) -> duration_pb2.Duration:
    """A length of time from 0."""
    seconds = max(0.0, seconds)
    whole = int(seconds)
    return duration_pb2.Duration(seconds=whole, nanos=min(999_999_999, int((seconds - whole) * 1e9)))


def usage(value: Usage) -> usage_pb2.Usage:
    """A running total; what the provider did not say stays absent."""
    built = usage_pb2.Usage(
        input_tokens=value.input_tokens,
        cache_read_tokens=value.cache_read_tokens,
        cache_write_tokens=value.cache_write_tokens,
        output_tokens=value.output_tokens,
        reasoning_tokens=value.reasoning_tokens,
        cache_write_five_minute_tokens=value.cache_write_five_minute_tokens,
        cache_write_one_hour_tokens=value.cache_write_one_hour_tokens,
        input_audio_tokens=value.input_audio_tokens,
        input_image_tokens=value.input_image_tokens,
        output_audio_tokens=value.output_audio_tokens,
        output_image_tokens=value.output_image_tokens,
    )
    for tool in value.tool_requests:
        built.tool_requests.add(tool=tool.tool, request_count=tool.request_count)
    return built


def cost(value: Cost) -> cost_pb2.Cost:
    """Amounts, each or the reason why there is none."""
    built = cost_pb2.Cost(price_revision=value.price_revision, is_estimate=value.is_estimate)
    for name, amount in (
        ("upstream_charged", value.upstream_charged),
        ("list_price", value.list_price),
        ("charged", value.charged),
    ):
        if isinstance(amount, CostUnknown):
            setattr(built, f"{name}_unknown_reason", _unknown(amount))
        else:
            setattr(built, f"{name}_usd_nanos", amount)
    return built


def _unknown(value: CostUnknown) -> "cost_pb2.CostUnknownReason.ValueType":
    return cost_pb2.CostUnknownReason.Value(f"COST_UNKNOWN_REASON_{value.value}")


def warning(value: Notice) -> resolution_pb2.Warning:
    """Something asked for that was not done as asked."""
    return resolution_pb2.Warning(
        field=value.field,
        reason=resolution_pb2.WarningReason.Value(f"WARNING_REASON_{value.reason.name}"),
        message=value.message[:256],
    )


def resolution(value: Resolution) -> resolution_pb2.Resolution:
    """What the router decided."""
    built = resolution_pb2.Resolution(
        requested_model=value.requested_model,
        model=value.model,
        model_source=resolution_pb2.ModelSource.Value(f"MODEL_SOURCE_{value.model_source.value}"),
        provider=value.provider,
        payer=payer(value.payer),
        credential_version=value.credential_version,
        attempt=value.attempt,
    )
    built.skipped_choices.extend(map(skipped_choice, value.skipped_choices))
    return built


def skipped_choice(value: SkippedModelChoice) -> resolution_pb2.SkippedModelChoice:
    """A stored choice that was passed over."""
    return resolution_pb2.SkippedModelChoice(
        source=resolution_pb2.ModelSource.Value(f"MODEL_SOURCE_{value.source.value}"),
        model=value.model,
        reason=resolution_pb2.SkipReason.Value(f"SKIP_REASON_{value.reason.value}"),
    )


def skipped_candidate(value: SkippedCandidate) -> resolution_pb2.SkippedCandidate:
    """A way to answer that was not taken."""
    return resolution_pb2.SkippedCandidate(
        model=value.model,
        provider=value.provider,
        payer=payer(value.payer),
        reason=resolution_pb2.SkipReason.Value(f"SKIP_REASON_{value.reason.value}"),
        message=value.message,
    )


def attempt(value: Attempt) -> receipt_pb2.Attempt:
    """One physical call."""
    built = receipt_pb2.Attempt(
        number=value.number,
        model=value.model,
        provider=value.provider,
        payer=payer(value.payer),
        credential_version=value.credential_version,
        lease_id=value.lease_id,
        upstream_request_id=value.upstream_request_id,
        upstream_backend=value.upstream_backend,
        served_model_id=value.served_model_id,
        failure_reason=reason(value.failure_reason),
        start_time=timestamp(value.start_time),
        provider_usage_json=value.provider_usage_json,
        weight_share=value.weight_share,
    )
    if value.time_to_first_content_seconds is not None:
        built.time_to_first_content.CopyFrom(duration(value.time_to_first_content_seconds))
    if value.duration_seconds is not None:
        built.duration.CopyFrom(duration(value.duration_seconds))
    if value.usage is not None:
        built.usage.CopyFrom(usage(value.usage))
    if value.cost is not None:
        built.cost.CopyFrom(cost(value.cost))
    return built


def receipt(value: Receipt) -> receipt_pb2.Receipt:
    """Everything about a call."""
    built = receipt_pb2.Receipt(
        response_id=value.response_id,
        request_id=value.request_id,
        state=receipt_pb2.ReceiptState.Value(f"RECEIPT_STATE_{value.state.value}"),
        failure_reason=reason(value.failure_reason),
        create_time=timestamp(value.create_time),
        attempts=[attempt(item) for item in value.attempts],
        skipped_candidates=[skipped_candidate(item) for item in value.skipped_candidates],
        skipped_candidate_count=value.skipped_candidate_count,
        markup_basis_points=value.markup_basis_points,
    )
    if value.end_time is not None:
        built.end_time.CopyFrom(timestamp(value.end_time))
    usages = [item.usage for item in value.attempts if item.usage is not None]
    if usages:
        built.usage.CopyFrom(usage(usages[0] if len(usages) == 1 else add_usage(usages)))
    costs = [item.cost for item in value.attempts if item.cost is not None]
    if costs:
        built.cost.CopyFrom(cost(costs[0] if len(costs) == 1 else add_costs(costs)))
    return built


def add_usage(usages: list[Usage]) -> Usage:
    """The sum; a count that nobody gave stays absent."""
    sums: dict[str, int] = {}
    for name in _USAGE_FIELDS:
        known = [count for item in usages if (count := getattr(item, name)) is not None]
        if known:
            sums[name] = sum(known)
    return Usage(**sums, tool_requests=tuple(tool for item in usages for tool in item.tool_requests))


def add_costs(costs: list[Cost]) -> Cost:
    """The sum; known when each of its amounts is."""

    def total(amounts: list[Amount]) -> Amount:
        unknown = next((amount for amount in amounts if isinstance(amount, CostUnknown)), None)
        return unknown if unknown is not None else sum(amount for amount in amounts if isinstance(amount, int))

    return Cost(
        total([item.upstream_charged for item in costs]),
        total([item.list_price for item in costs]),
        total([item.charged for item in costs]),
        next((item.price_revision for item in reversed(costs) if item.price_revision), ""),
        any(item.is_estimate for item in costs),
    )


def abridge(full: receipt_pb2.Receipt, most_bytes: int) -> receipt_pb2.Receipt:
    """A receipt for a status detail, cut by the rule at Receipt in receipt.proto until it fits."""
    built = receipt_pb2.Receipt()
    built.CopyFrom(full)
    for item in built.attempts:
        built.is_abridged = built.is_abridged or bool(item.provider_usage_json)
        item.provider_usage_json = ""
    for skipped in built.skipped_candidates:
        built.is_abridged = built.is_abridged or bool(skipped.message)
        skipped.message = ""
    if built.ByteSize() > most_bytes:
        built.is_abridged = True
        for item in built.attempts:
            item.ClearField("usage")
            item.ClearField("cost")
    if built.ByteSize() > most_bytes:
        for item in built.attempts:
            for name in ("lease_id", "upstream_request_id", "upstream_backend", "served_model_id"):
                item.ClearField(name)
    while built.ByteSize() > most_bytes and built.skipped_candidates:
        del built.skipped_candidates[-1]
    while built.ByteSize() > most_bytes and built.attempts:
        del built.attempts[0]
    return built
