"""How much to think, from the neutral levels to those that a model has, and to and from budgets.

A level that the model lacks becomes its nearest, the lower of two, and a warning says so. OFF is never made into
something else: a caller who wants no reasoning must not pay for some.
"""

from collections.abc import Mapping, Sequence
from typing import TypeGuard

from router_service.core.faults import Fault
from router_service.core.request import ReasoningEffort, ReasoningSettings
from router_service.dialects.base import Quirks
from router_service.dialects.writing import Notices, wrong

LEVELS: tuple[ReasoningEffort, ...] = (
    ReasoningEffort.MINIMAL,
    ReasoningEffort.LOW,
    ReasoningEffort.MEDIUM,
    ReasoningEffort.HIGH,
    ReasoningEffort.XHIGH,
    ReasoningEffort.MAX,
)

# Ours, not a provider's: where a wire takes only the one, the other is read from here.
BUDGETS: Mapping[ReasoningEffort, int] = {
    ReasoningEffort.MINIMAL: 512,
    ReasoningEffort.LOW: 1024,
    ReasoningEffort.MEDIUM: 8192,
    ReasoningEffort.HIGH: 24576,
    ReasoningEffort.XHIGH: 32768,
    ReasoningEffort.MAX: 65536,
}

EFFORT_PATH = "settings.reasoning.effort"
BUDGET_PATH = "settings.reasoning.budget_tokens"


def refuse_off() -> Fault:
    """The fault of OFF for a model that always thinks."""
    return wrong(EFFORT_PATH, "This model always thinks, so reasoning cannot be off. Choose a level or another model.")


def is_claude_thinking(thinking: object) -> TypeGuard[dict[str, object]]:
    """Whether what a request says of Claude's thinking lets it think before it answers."""
    return isinstance(thinking, dict) and thinking["type"] not in {"disabled", "between_tools"}


def levels_of(names: Sequence[str], default: tuple[ReasoningEffort, ...] = LEVELS) -> tuple[ReasoningEffort, ...]:
    """The levels that a model has, by their names in the catalog; `default` where it names none."""
    found = tuple(level for level in LEVELS if level.value in names)
    return found or default


def nearest_level(effort: ReasoningEffort, levels: Sequence[ReasoningEffort]) -> ReasoningEffort:
    """The nearest level that there is, the lower of two."""
    wanted = LEVELS.index(effort)
    return min(levels, key=lambda level: (abs(LEVELS.index(level) - wanted), LEVELS.index(level)))


def level_of_budget(budget_tokens: int) -> ReasoningEffort:
    """The level nearest to a budget, the lower of two."""
    return min(LEVELS, key=lambda level: (abs(BUDGETS[level] - budget_tokens), BUDGETS[level]))


def choose_level(
    asked: ReasoningSettings, levels: Sequence[ReasoningEffort], notices: Notices, *, is_mandatory: bool
) -> ReasoningEffort | None:
    """The level to send to a wire that takes levels. OFF stays OFF, None asks for nothing."""
    effort = asked.effort
    if effort is ReasoningEffort.OFF:
        if is_mandatory:
            raise refuse_off()
        return effort
    if effort is None:
        if asked.budget_tokens is None:
            return None
        if asked.budget_tokens == 0 and not is_mandatory:
            return ReasoningEffort.OFF
        effort = nearest_level(level_of_budget(asked.budget_tokens), levels)
        notices.adjust(BUDGET_PATH, f"This provider takes no budget; the effort {effort.value} is sent.")
        return effort
    level = nearest_level(effort, levels)
    if level is not effort:
        notices.adjust(EFFORT_PATH, f"This model has no effort {effort.value}; {level.value} is sent.")
    return level


def openai_word(asked: ReasoningSettings, quirks: Quirks, notices: Notices) -> str | None:
    """The effort in OpenAI's words, in which OFF is "none" where the model has it; None asks for nothing."""
    has_no_off = bool(quirks.efforts) and not {"off", "none"} & set(quirks.efforts)
    is_mandatory = quirks.is_reasoning_mandatory or has_no_off
    level = choose_level(asked, levels_of(quirks.efforts), notices, is_mandatory=is_mandatory)
    if level is None:
        return None
    return "none" if level is ReasoningEffort.OFF else level.value
