"""The program `pocketvit`: its verbs, and what it says when something goes wrong."""

import errno
import os
import signal
import sys
import threading
from typing import Any

import typer
from rich.console import Console
from typer.core import TyperGroup

from pipeline.cli import (
    build,
    compare,
    deploy,
    device,
    doctor,
    lists,
    measure,
    quantize,
    sensitivity,
    split,
)
from pipeline.errors import UserError
from tvm_passes.errors import LoweringError

INTERRUPTED = 130  # 128 + SIGINT, as shells report it


class _Program(TyperGroup):
    """Turns what users can mend into one sentence; usage errors are left to typer."""

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except BaseException as error:
            # compilers turn an interruption that reaches a callback into errors of their own
            if isinstance(error, KeyboardInterrupt) or (ctx.obj and ctx.obj.is_set()):
                _say("interrupted; run the same command again to resume")
                raise typer.Exit(INTERRUPTED) from None
            if isinstance(error, BrokenPipeError):
                os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # the last flush
                raise typer.Exit(1) from None
            if isinstance(error, UserError | LoweringError):
                _say(str(error))
                raise typer.Exit(1) from None
            if isinstance(error, OSError):
                _say(_sentence(error))
                raise typer.Exit(1) from None
            raise


app = typer.Typer(
    name="pocketvit",
    cls=_Program,
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode="markdown",
    pretty_exceptions_show_locals=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="Vision transformers from timm as small, fast, integer-only libraries for ARM phones.",
)
app.command()(deploy.deploy)
app.command()(quantize.quantize)
app.command()(build.build)
app.command()(measure.measure)
app.add_typer(device.app, name="device")
app.command()(compare.compare)
app.command()(sensitivity.sensitivity)
app.command()(split.split)
app.command()(doctor.doctor)
app.command()(lists.recipes)
app.command()(lists.models)
app.command()(lists.passes)


def main() -> None:
    """Run the program; a terminated process cleans up like an interrupted one."""
    # torch's threads otherwise spin while they wait, which costs dearly on a machine with other
    # work: 50 times the time was seen. Read when torch is first imported.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    interrupted = threading.Event()

    def interrupt(*_: object) -> None:
        interrupted.set()
        raise KeyboardInterrupt

    for name in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(name, interrupt)
    app(obj=interrupted)


def _say(text: str) -> None:
    Console(stderr=True, highlight=False, markup=False, soft_wrap=True).print(f"pocketvit: {text}")


def _sentence(error: OSError) -> str:
    where = f" ({error.filename})" if error.filename else ""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return f"The disk is full{where}; free space and run the same command again to resume."
    return f"{error.strerror or error}{where}; correct the path or its permissions."
