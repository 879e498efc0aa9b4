"""What the operator reads in the log when the store is not ready."""

import ast
from pathlib import Path
from typing import Any

from vault_service.core.faults import Fault, Reason
from vault_service.observe.complaints import AGAIN_SECONDS, Complaints
from vault_service.store.store import Denied, Unavailable

STORES = Path(__file__).resolve().parents[3] / "vault_service" / "store"

NAMES_IN_DETAILS = frozenset(
    {"key", "login.role", "login.secret_id_file", "login.token_file", "mode", "mount", "owner_only", "path"}
)
"""What may stand in the words of a store's error: a file, its rights, the names of a role, a mount, a key."""


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def test_a_problem_is_said_when_it_begins_changes_lasts_and_comes_back() -> None:
    clock, said = Clock(), list[Any]()
    complaints = Complaints(lambda event, **words: said.append((event, words["cause"])), clock=clock)
    for _ in range(3):
        complaints.note("store_not_ready", Denied("mount a fresh secret id"))
        complaints.note("change_log_not_read", Denied("mount a fresh secret id"))
    assert said == [(event, "mount a fresh secret id") for event in ("store_not_ready", "change_log_not_read")]
    said.clear()
    complaints.note("store_not_ready", Unavailable("the Vault server cannot be reached"))
    assert said == [("store_not_ready", "the Vault server cannot be reached")]
    clock.now = AGAIN_SECONDS
    complaints.note("store_not_ready", Unavailable("the Vault server cannot be reached"))
    assert len(said) == 2
    complaints.forget("store_not_ready")
    complaints.note("store_not_ready", Unavailable("the Vault server cannot be reached"))
    assert len(said) == 3


def test_only_words_of_our_own_are_said() -> None:
    said: list[Any] = []
    complaints = Complaints(lambda _, **words: said.append((words["cause"], words["error_type"])), clock=Clock())
    for problem in (Fault(Reason.VAULT_SEALED), TimeoutError("sk-canary"), RuntimeError("sk-canary")):
        complaints.note("store_not_ready", problem)
    assert said == [("ERROR_REASON_VAULT_SEALED", "Fault"), ("no answer in time", "TimeoutError"), ("", "RuntimeError")]


def test_errors_of_stores_hold_nothing_of_what_was_sent() -> None:
    found: set[str] = set()
    for path in sorted(STORES.glob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Raise) and isinstance(node.exc, ast.Call) and node.exc.args:
                found |= {
                    ast.unparse(part.value)
                    for part in ast.walk(node.exc.args[0])
                    if isinstance(part, ast.FormattedValue)
                }
    assert found == NAMES_IN_DETAILS
