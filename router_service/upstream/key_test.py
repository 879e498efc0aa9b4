"""The test of a key from one end to the other: the key, the model, and where it fails the plan that it looks like.

A key is tried at another plan only where that plan has the same origin: a key is bound to its origins, and no test
may carry it elsewhere. Between plans of different origins only the marks that a vendor puts on its keys tell.
"""

from collections.abc import Sequence
from dataclasses import replace

from router_service.catalog.catalog import Endpoint, Provider
from router_service.core.secret import Secret
from router_service.dialects.registry import DIALECTS
from router_service.upstream.client import Upstream
from router_service.upstream.probe import Finding, Outcome, probe, probe_model

_UNDECIDED = frozenset({Outcome.INVALID_KEY, Outcome.NO_BILLING, Outcome.WRONG_PLAN})


async def try_key(
    upstream: Upstream,
    provider: Provider,
    endpoint: Endpoint | None,
    siblings: Sequence[Provider],
    secret: Secret | None,
    time: float,
) -> Finding:
    """Tries the key, then the model where one is named. `siblings` are the other plans of the vendor."""
    dialect = DIALECTS[provider.dialect]
    finding = await probe(upstream, provider, dialect, secret, time)
    is_open = finding.outcome is Outcome.PASSED or (
        finding.outcome is Outcome.INCONCLUSIVE and not finding.upstream_status
    )
    if is_open and endpoint is not None:
        spoken = DIALECTS[endpoint.dialect_at(provider)]
        verified = await probe_model(upstream, provider, endpoint, spoken, secret, time)
        finding = replace(verified, models=finding.models)
    if finding.outcome not in _UNDECIDED:
        return finding
    detected = _plan_by_prefix(provider, siblings, secret)
    if detected is None and endpoint is not None:
        detected = await _plan_by_trial(upstream, provider, endpoint, siblings, secret, time)
    if detected is None:
        return finding
    return replace(finding, outcome=Outcome.WRONG_PLAN, detected_plan=detected.name)


def _plan_by_prefix(provider: Provider, siblings: Sequence[Provider], secret: Secret | None) -> Provider | None:
    """The plan whose mark the key bears; of an unmarked key used on a marked plan the one without marks."""
    if secret is None or provider.plan is None:
        return None
    key = secret.reveal()
    for sibling in siblings:
        if sibling.plan is not None and any(key.startswith(mark) for mark in sibling.plan.key_prefixes):
            return sibling
    own = provider.plan.key_prefixes
    if own and not any(key.startswith(mark) for mark in own):
        return next((sibling for sibling in siblings if sibling.plan and not sibling.plan.key_prefixes), None)
    return None


async def _plan_by_trial(
    upstream: Upstream,
    provider: Provider,
    endpoint: Endpoint,
    siblings: Sequence[Provider],
    secret: Secret | None,
    time: float,
) -> Provider | None:
    """The plan of the same origin and wire at which the model answers to the key."""
    for sibling in siblings:
        if sibling.base_url.origin != provider.base_url.origin or sibling.dialect != provider.dialect:
            continue
        tried = await probe_model(upstream, sibling, endpoint, DIALECTS[endpoint.dialect_at(sibling)], secret, time)
        if tried.outcome is Outcome.PASSED:
            return sibling
    return None
