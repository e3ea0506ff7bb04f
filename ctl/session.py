"""What every command gets: the global options, and ways to reach the cluster and the terminal."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ctl import output
from ctl.endpoint import Endpoint, resolve
from ctl.errors import CommandError, ExitCode
from ctl.output import Format
from ctl.render import records
from ctl.render.table import Style
from ctl.signals import Signals

if TYPE_CHECKING:
    from ctl.client import Client


@dataclass(frozen=True)
class Session:
    """One run of shardctl."""

    output: Format
    endpoint_flag: str | None
    timeout: float
    quiet: bool
    verbose: bool
    no_color: bool
    signals: Signals

    def endpoint(self) -> Endpoint:
        """Where the coordinator is."""
        return resolve(self.endpoint_flag)

    def client(self, endpoint: Endpoint | None = None) -> Client:
        """A connection to the coordinator, to be used with `with`."""
        from ctl.client import Client  # zmq costs more than everything that --help needs

        return Client(endpoint or self.endpoint(), self.timeout)

    def style(self, descriptor: int = 1) -> Style:
        """How tables look on that descriptor."""
        return output.style_of(descriptor, self.output is Format.WIDE, self.no_color)

    def print(self, text: str) -> None:
        """Data, to stdout."""
        try:
            sys.stdout.write(text + "\n")
            sys.stdout.flush()
        except BrokenPipeError:
            raise
        except OSError as error:
            output.forget_stdout()  # or the interpreter would try to write it once more
            why = error.strerror or str(error)
            raise CommandError(ExitCode.FAILED, "cannot write the output", why) from error

    def show(self, data: Mapping[str, Any], text: Callable[[Style], str]) -> None:
        """One answer, in the format that was asked for."""
        if self.output is Format.JSON:
            self.print(records.document(data))
        elif self.output is Format.JSONL:
            self.print(records.line(data))
        else:
            self.print(text(self.style()))

    def show_rows(
        self,
        data: Mapping[str, Any],
        rows: Sequence[Mapping[str, Any]],
        text: Callable[[Style], str],
    ) -> None:
        """A list: with `-o jsonl` every row is a line of its own."""
        if self.output is Format.JSONL:
            if rows:
                self.print(records.lines(rows))
        else:
            self.show(data, text)

    def note(self, text: str) -> None:
        """What people may want to know; programs and `-q` do not get it."""
        if not self.quiet and not self.output.machine:
            output.say(text)

    def hint(self, text: str) -> None:
        """Like `note`, but only for somebody at a terminal or with `-v`."""
        if self.verbose or (sys.stderr is not None and sys.stderr.isatty()):
            self.note(text)
