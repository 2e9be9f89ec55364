"""pocketvit doctor."""

import json as json_module
from dataclasses import asdict
from typing import Annotated

import typer

from pipeline.cli import options


def doctor(
    android: Annotated[
        bool, typer.Option("--android", help="Also check what Android phones need.")
    ] = False,
    json: options.Json = False,
) -> None:
    """Check whether this machine has all that is needed, and say how to mend what is missing.

    The exit status is 1 when something is missing.
    """
    from pipeline.doctor import run_checks

    checks = run_checks(android)
    if json:
        print(json_module.dumps([asdict(check) for check in checks], indent=2))
    else:
        width = max(len(check.name) for check in checks)
        for check in checks:
            print(f"{'ok     ' if check.ok else 'MISSING'}  {check.name:<{width}}  {check.detail}")
            if not check.ok:
                print(f"{'':<{width + 9}}  mend it with: {check.fix}")
    if not all(check.ok for check in checks):
        raise typer.Exit(1)
