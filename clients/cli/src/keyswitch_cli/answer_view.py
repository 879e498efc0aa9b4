"""An answer as it comes, on the terminal."""

from __future__ import annotations

from keyswitch.router.v1 import error_reason_pb2, payer_pb2, resolution_pb2, stream_pb2
from rich.console import Console

from keyswitch_cli import words


class AnswerView:
    """Prints events the moment they come: text to `out`, everything else to `err`."""

    def __init__(self, out: Console, err: Console, *, show_thoughts: bool) -> None:
        self._out = out
        self._err = err
        self._show_thoughts = show_thoughts
        self._tools: dict[int, str] = {}
        self._arguments: dict[int, list[str]] = {}
        self._is_line_open = False
        self._open_kind = ""

    def show(self, event: stream_pb2.StreamEvent) -> None:
        """Prints what an event says to a person, if anything."""
        match event.WhichOneof("event"):
            case "part_delta":
                self._show_delta(event.part_delta)
            case "part_started":
                self._begin(event.part_started)
            case "part_ended":
                self._finish(event.part_ended.index)
            case "attempt_failed":
                self._show_failed(event.attempt_failed)
            case "response_started":
                self._show_warnings(event.response_started)
            case _:
                pass

    def end(self) -> None:
        """Leaves the cursor at the start of a line."""
        if self._is_line_open:
            console = self._err if self._open_kind == "reasoning" else self._out
            console.print()
            self._is_line_open = False

    def _begin(self, started: stream_pb2.PartStarted) -> None:
        match started.WhichOneof("kind"):
            case "tool_call":
                self._tools[started.index] = words.harmless(started.tool_call.name)
                self._arguments[started.index] = []
            case "media":
                self._remark(f"[{words.harmless(started.media.media_type)} {words.harmless(started.media.uri)}]")
            case "provider":
                self._remark(f"[{words.harmless(started.provider.kind)}, run by the provider]")
            case _:
                pass

    def _show_delta(self, delta: stream_pb2.PartDelta) -> None:
        match delta.WhichOneof("delta"):
            case "text":
                self._write(self._out, "text", delta.text.text)
            case "reasoning" if self._show_thoughts:
                self._write(self._err, "reasoning", delta.reasoning.text)
            case "arguments":
                self._arguments[delta.index].append(delta.arguments.json)
            case "citation":
                citation = delta.citation.citation
                self._write(self._out, "text", f" [{citation.title or citation.uri or 'source'}]")
            case _:
                pass

    def _finish(self, index: int) -> None:
        if index in self._tools:
            arguments = words.harmless("".join(self._arguments[index]))
            self._remark(f"→ {self._tools[index]}({arguments})", style="cyan")

    def _show_failed(self, failed: stream_pb2.AttemptFailed) -> None:
        reason = words.enum_word(error_reason_pb2.ErrorReason, failed.reason, "ERROR_REASON_")
        payer = words.enum_word(payer_pb2.Payer, failed.payer, "PAYER_").replace(" ", "_").upper()
        goes_on = "; trying the next" if failed.HasField("retry_delay") else ""
        self._remark(f"! {words.last(failed.provider)} failed for {payer}: {reason}{goes_on}", style="yellow")

    def _show_warnings(self, started: stream_pb2.ResponseStarted) -> None:
        for warning in started.warnings:
            reason = words.enum_word(resolution_pb2.WarningReason, warning.reason, "WARNING_REASON_")
            self._remark(f"! {warning.field} {reason}: {warning.message}", style="yellow")

    def _write(self, console: Console, kind: str, text: str) -> None:
        if self._open_kind != kind:
            self.end()
        if console.is_terminal:
            text = words.harmless(text)
        console.print(text, end="", style="dim" if kind == "reasoning" else None, markup=False, soft_wrap=True)
        console.file.flush()
        self._open_kind = kind
        self._is_line_open = not text.endswith("\n")

    def _remark(self, text: str, style: str = "dim") -> None:
        self.end()
        self._err.print(text, style=style, markup=False, soft_wrap=True)
