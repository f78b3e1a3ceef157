"""What a killed run left behind: known by a mark in its environment, ended by the next start.

Everything that is started here inherits the mark: services, servers, and what these start. It names
this checkout and the process that started it all, its owner. Whatever is of this checkout and has
no owner any more is a leftover: two runs side by side leave each other alone.
"""

from __future__ import annotations

import contextlib
import json
import os

import psutil

from local_stack.processes import CHECKOUT, Say, is_alive, is_running, kill_tree

MARK = "IOT_PIPELINE_OWNER"
# Services finish their batch and servers end in order within a second or two. What takes longer is
# killed, and loses nothing by it: that is what they are made for.
DEADLINE_SECONDS = 3.0


def mark() -> dict[str, str]:
    """Return what the environment of a process holds that this one started."""
    owner = psutil.Process()
    return {MARK: json.dumps([str(CHECKOUT), owner.pid, owner.create_time()])}


def mark_children() -> None:
    """Mark all that this process starts from now on, with its environment, as its own."""
    os.environ.update(mark())


def end_leftovers(say: Say) -> None:
    """End what earlier runs of this checkout left behind when they were killed themselves."""
    found = leftovers()
    if not found:
        return
    ids = ", ".join(str(process.pid) for process in found)
    say(f"ending what an earlier run left behind (pid {ids})")
    for process in found:
        with contextlib.suppress(psutil.Error):
            process.terminate()
    psutil.wait_procs(found, DEADLINE_SECONDS)
    for process in found:
        if is_alive(process):
            kill_tree(process.pid)


def leftovers() -> list[psutil.Process]:
    """Return the processes without an owner; of a family (PostgreSQL's) the eldest only."""
    found = {process.pid: process for process in psutil.process_iter() if _is_leftover(process)}
    return [process for process in found.values() if _parent_id(process) not in found]


def _is_leftover(process: psutil.Process) -> bool:
    try:
        mark = process.environ().get(MARK)
        if mark is None or not is_alive(process):
            return False
        checkout, owner_id, owner_created_s = json.loads(mark)
        return checkout == str(CHECKOUT) and not is_running(owner_id, owner_created_s)
    except (psutil.Error, OSError, ValueError, TypeError):
        return False  # another user's, ended meanwhile, or no mark of ours


def _parent_id(process: psutil.Process) -> int | None:
    try:
        return int(process.ppid())
    except psutil.NoSuchProcess:
        return None
