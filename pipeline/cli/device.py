"""pocketvit device emulate."""

import json as json_module
import time
from contextlib import ExitStack
from typing import Annotated

import typer
from rich import print as show_line

POLL_SECONDS = 0.5

app = typer.Typer(help="Devices to measure on.", no_args_is_help=True)


@app.callback()
def device() -> None:
    """Devices to measure on."""


@app.command()
def emulate(
    cpu: Annotated[
        str,
        typer.Option(help="cortex-a53 (NEON), cortex-a76 (dotprod) or max,sve=off (i8mm)."),
    ] = "cortex-a76",
    key: Annotated[str, typer.Option(help="Name to register under at the tracker.")] = "emulated",
    tracker: Annotated[
        str | None,
        typer.Option(
            metavar="HOST:PORT",
            help="A tracker that runs already.",
            show_default="one is started",
        ),
    ] = None,
    tracker_port: Annotated[
        int | None,
        typer.Option(
            min=1, max=65535, help="TCP port of the tracker that is started.", show_default="any"
        ),
    ] = None,
    port: Annotated[
        int | None,
        typer.Option(min=1, max=65535, help="TCP port of the device.", show_default="any"),
    ] = None,
    count: Annotated[bool, typer.Option(help="Count executed instructions when asked to.")] = True,
    json: Annotated[
        bool, typer.Option("--json", help="Print tracker and key as one line of JSON.")
    ] = False,
) -> None:
    """Start an emulated ARM device that registers at a TVM RPC tracker; Ctrl-C ends it.

    The first start builds it, which takes a few seconds and downloads TVM's runtime for aarch64.
    """
    from pipeline.cli.progress import Bars
    from pipeline.device import build_emulator
    from pipeline.device.emulator import start_emulator
    from pipeline.device.tracker import Address, start_tracker
    from pipeline.errors import UserError

    with Bars() as reporter, reporter.step("build the emulator"):
        install = build_emulator()
    with ExitStack() as running:
        address = (
            Address.parse(tracker)
            if tracker
            else running.enter_context(start_tracker(port=tracker_port))
        )
        emulated = running.enter_context(
            start_emulator(install, cpu, key, address, port, count_instructions=count)
        )
        if json:
            line = {"tracker": str(address), "key": key, "cpu": cpu}
            print(json_module.dumps(line), flush=True)
        else:
            show_line(f"Emulated {cpu} is ready. Measure on it, in another terminal, with\n")
            show_line(f"  pocketvit measure ARTIFACT --tracker {address} --key {key}\n")
        try:
            while emulated.process.running:
                time.sleep(POLL_SECONDS)
        except KeyboardInterrupt:
            return
        raise UserError(
            f"The emulated device ended by itself: {emulated.process.last_line()}; start it again."
        )
