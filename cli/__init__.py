"""The command line.

Reads arguments, starts flows, prints results. Imports nothing heavy before a command needs it.
"""

from __future__ import annotations

import io
import os
import signal
import sys

import click

from ..addresses import hide_in_process, hide_secrets
from ..errors import TorchrelayError
from . import look, score, start, train, upkeep, weights  # noqa: F401 - each adds its commands
from .common import commands
from .failures import accept_all_text, drop_output, exit_code_of, explain, tell_notes

SIGINT_EXIT, SIGTERM_EXIT = 130, 143


def main() -> None:
    """Run the command line.

    Exit code 0 done, 1 the run failed, 2 bad usage, recipe or data, 130 and 143 signals.
    """
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(SIGTERM_EXIT))
    _handle_sighup()
    accept_all_text()
    hide_in_process()
    try:
        commands.main(standalone_mode=False, prog_name="torchrelay")
        sys.stdout.flush()  # else an error of that comes when nobody can tell it any more
    except click.ClickException as error:
        error.show(shown := io.StringIO())
        click.echo(hide_secrets(shown.getvalue()), err=True, nl=False)
        sys.exit(error.exit_code)
    except TorchrelayError as error:
        click.echo(hide_secrets(f"error: {error}"), err=True)
        sys.exit(error.exit_code)
    except (KeyboardInterrupt, click.Abort):
        click.echo(
            "interrupted; `torchrelay runs` shows the run, `torchrelay resume RUN` lets it go on",
            err=True,
        )
        sys.exit(SIGINT_EXIT)
    except BrokenPipeError:
        drop_output()
    except Exception as error:
        if (said := explain(error)) is None:
            raise
        drop_output()
        click.echo(hide_secrets(f"error: {said}"), err=True)
        tell_notes(error)
        sys.exit(exit_code_of(error))


def _handle_sighup() -> None:
    """Take the loss of the terminal for SIGTERM, so that work ends in good order.

    A signal that `nohup` ignores stays ignored.
    """
    if not hasattr(signal, "SIGHUP") or signal.getsignal(signal.SIGHUP) is not signal.SIG_DFL:
        return
    terminals = [descriptor for descriptor in (0, 1, 2) if os.isatty(descriptor)]

    def end(number: int, frame: object) -> None:
        # A shell passes it on, and the system sends it too: a second one must not mean that nobody
        # wants to wait.
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
        nowhere = os.open(os.devnull, os.O_RDWR)
        for descriptor in (
            terminals
        ):  # a write to a terminal that is gone is an error, and would be taken for the run's
            os.dup2(nowhere, descriptor)
        os.kill(os.getpid(), signal.SIGTERM)

    signal.signal(signal.SIGHUP, end)
