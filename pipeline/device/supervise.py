"""Run a command until it ends or our parent does, then leave no process and no file behind.

Run as a script: ``python supervise.py FOLDER COMMAND...``. The parent keeps our standard input open
and never writes to it. The kernel closes a pipe however its owner ends (return, exception, SIGTERM,
SIGKILL), so this needs no signal handler in the parent.
"""

import ctypes
import os
import shutil
import signal
import subprocess
import sys
import threading

PR_SET_CHILD_SUBREAPER = 36


def main(folder: str, command: list[str]) -> int:
    """Run `command` as its own process group and return its exit status.

    Args:
        folder: removed with all its files at the end.
        command: program and arguments.
    """
    # orphans of the command become our children, so that we can wait for their end too
    ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    child = subprocess.Popen(command, stdin=subprocess.DEVNULL, start_new_session=True)

    def kill_group() -> None:
        try:
            os.killpg(child.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass

    def kill_when_parent_is_gone() -> None:
        os.read(sys.stdin.fileno(), 1)
        kill_group()

    threading.Thread(target=kill_when_parent_is_gone, daemon=True).start()
    status = child.wait()
    kill_group()  # what the command itself left behind
    try:
        while True:
            os.wait()
    except ChildProcessError:
        shutil.rmtree(folder, ignore_errors=True)
    return status


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], sys.argv[2:]))
