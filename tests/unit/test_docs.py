"""The documents against the code: what they name exists, and the tables that they repeat are the code's."""

import ast
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

from router_service.core.faults import LAWS, Law, Reason
from tests.security.promises import PROMISES
from vault_service.core.faults import TABLE

ROOT = Path(__file__).resolve().parents[2]
FEATURES = ROOT / "docs" / "features.md"
CALLING = ROOT / "docs" / "calling.md"
SKIPPED_FOLDERS = {"node_modules", "gen"}

IDS = [*(f"A{n}" for n in range(1, 30)), *(f"B{n}" for n in range(1, 8)), *(f"C{n}" for n in range(1, 19))]
IDS += [f"D{n}" for n in range(1, 10)]

LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
SPAN = re.compile(r"`[^`\n]+`")
TEST = re.compile(r"((?:tests|clients)/[\w/.-]+\.(?:py|go))::(\w+)(?:::(\w+))?")
MACHINE = re.compile(
    r"(?<![\w.$}…])/(?:work|tmp|home|root|Users)/|pypi\.org|registry\.npmjs|proxy\.golang|artifactory|\bnexus\b",
    re.IGNORECASE,
)


def documents() -> list[Path]:
    """Every Markdown file of the project."""
    found = []
    for path in ROOT.rglob("*.md"):
        parts = path.relative_to(ROOT).parts
        if not any(part.startswith(".") or part in SKIPPED_FOLDERS for part in parts):
            found.append(path)
    return sorted(found)


def name(path: Path) -> str:
    """A document's path from the root."""
    return str(path.relative_to(ROOT))


@cache
def comments(package: str) -> dict[str, str]:
    """What the contract says of each reason, without its status and its example."""
    text = (ROOT / "protos" / "keyswitch" / package / "v1" / "error_reason.proto").read_text()
    found: dict[str, str] = {}
    lines: list[str] = []
    for line in text.splitlines():
        value = re.match(r"\s*ERROR_REASON_(\w+) = \d+;", line)
        if value:
            found[value[1]] = " ".join(lines).partition(" Status ")[0].partition(" {")[0].strip()
        stripped = line.strip()
        lines = [*lines, stripped.removeprefix("//").strip()] if stripped.startswith("//") else []
    return found


def reaction(law: Law) -> str:
    """What the router does by itself before the commit point."""
    if law.is_retryable_here:
        return "tries again, then elsewhere"
    return "tries elsewhere" if law.may_fail_over else "-"


def router_table() -> str:
    """The table of the router's reasons as docs/calling.md has it."""
    rows = ["| reason | status | before the first content | after it | what it means |", "|---|---|---|---|---|"]
    for reason in Reason:
        law = LAWS[reason]
        after = "`ABORTED`" if law.is_upstream else "-"
        meaning = comments("router")[reason.value]
        rows.append(f"| `{reason.value}` | `{law.code.name}` | {reaction(law)} | {after} | {meaning} |")
    return "\n".join(rows) + "\n"


def vault_table() -> str:
    """The table of the credential service's reasons as docs/calling.md has it."""
    rows = ["| reason | status | wait | what to do |", "|---|---|---|---|"]
    for reason, row in TABLE.items():
        wait = "-" if row.retry_seconds is None else f"{row.retry_seconds:g} s"
        rows.append(
            f"| `{reason.value.removeprefix('ERROR_REASON_')}` | `{row.code.value}` | {wait} | {row.sentence} |"
        )
    return "\n".join(rows) + "\n"


def anchors(path: Path) -> set[str]:
    """The headings of a document as links name them."""
    headings = re.findall(r"^#+ (.+)$", path.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def code(text: str) -> Iterator[str]:
    """Everything in a document that is code: spans, fenced blocks and indented lines."""
    is_fenced = False
    for line in text.splitlines():
        if line.lstrip().startswith("```"):
            is_fenced = not is_fenced
        elif is_fenced or line.startswith("    "):
            yield line
        else:
            yield from SPAN.findall(line)


def targets() -> set[str]:
    """The targets of the Makefile."""
    return set(re.findall(r"^([a-z][a-z-]*):", (ROOT / "Makefile").read_text(), re.MULTILINE))


def rows() -> list[list[str]]:
    """The rows of the feature matrix: id, feature, state, proof."""
    lines = (line for line in FEATURES.read_text().splitlines() if re.match(r"\| [A-D]\d+ \|", line))
    return [[cell.strip() for cell in line.strip("|").split(" | ")] for line in lines]


@cache
def definitions(path: Path) -> dict[str, set[str]]:
    """The functions of a Python file under "", and the methods of each class."""
    found: dict[str, set[str]] = {"": set()}
    for node in ast.parse(path.read_text()).body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            found[""].add(node.name)
        elif isinstance(node, ast.ClassDef):
            methods = (one for one in node.body if isinstance(one, ast.FunctionDef | ast.AsyncFunctionDef))
            found[node.name] = {one.name for one in methods}
        elif isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
            found[node.targets[0].id] = set()  # a test case that hypothesis makes of a state machine
    return found


def exists(file: str, first: str, second: str) -> bool:
    """Whether a test is there; a suite's test counts for the classes that run the suite."""
    path = ROOT / file
    if not path.exists():
        return False
    if path.suffix == ".go":
        return re.search(rf"^func {first}\(", path.read_text(), re.MULTILINE) is not None
    here = definitions(path)
    if not second:
        return first in here[""] or first in here
    suites = [definitions(suite) for suite in sorted((ROOT / "tests" / "suites").glob("*.py"))]
    inherited = {method for suite in suites for kind, methods in suite.items() if kind for method in methods}
    return first in here and (second in here[first] or second in inherited)


def test_the_matrix_has_every_feature_once_and_in_order() -> None:
    assert [row[0] for row in rows()] == IDS
    assert all(len(row) == 4 for row in rows())


@pytest.mark.parametrize("feature", IDS)
def test_a_feature_has_a_state_and_what_works_a_proof(feature: str) -> None:
    (row,) = (row for row in rows() if row[0] == feature)
    _, _, state, proof = row
    assert re.fullmatch(r"works|partly: .+|not yet", state), state
    assert bool(TEST.search(proof)) == (state != "not yet"), proof


def test_each_promise_has_its_words_and_tests_in_the_threat_model() -> None:
    text = (ROOT / "docs" / "security" / "threat-model.md").read_text()
    rows = {
        int(row[1]): (row[2], row[4])
        for row in re.finditer(r"^\| (\d+) \| (.+?) \| (.+?) \| (.+) \|$", text, re.MULTILINE)
    }
    assert {number: words for number, (words, _) in rows.items()} == PROMISES
    assert all(TEST.search(tests) for _, tests in rows.values())


def test_every_test_that_a_document_names_exists() -> None:
    named = {(name(path), match.groups("")) for path in documents() for match in TEST.finditer(path.read_text())}
    assert named
    missing = sorted((document, *test) for document, test in named if not exists(*test))
    assert missing == []


@pytest.mark.parametrize("path", documents(), ids=name)
def test_links_lead_somewhere(path: Path) -> None:
    broken = []
    for link in LINK.findall(path.read_text()):
        if re.match(r"[a-z]+:", link):
            continue
        target, _, anchor = link.partition("#")
        found = (path.parent / target).resolve() if target else path
        if not found.exists() or (anchor and found.suffix == ".md" and anchor not in anchors(found)):
            broken.append(link)
    assert broken == []


@pytest.mark.parametrize("path", documents(), ids=name)
def test_make_targets_exist(path: Path) -> None:
    named = {
        target for text in code(path.read_text()) for target in re.findall(r"(?:^|[\s`])make ([a-z][a-z-]*)", text)
    }
    assert named <= targets()


@pytest.mark.parametrize("path", documents(), ids=name)
def test_no_document_knows_the_machine_that_it_was_written_on(path: Path) -> None:
    assert [line for line in path.read_text().splitlines() if MACHINE.search(line)] == []


@pytest.mark.parametrize("table", [router_table, vault_table])
def test_the_tables_of_errors_are_the_codes(table: object) -> None:
    assert callable(table)
    assert table() in CALLING.read_text()


def test_no_document_holds_a_token() -> None:
    assert [name(path) for path in documents() if re.search("eyJ[A-Za-z0-9_-]{16,}", path.read_text())] == []
