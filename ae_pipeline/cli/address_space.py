"""Whether a process may use enough addresses (`ulimit -v`) to compute: found out before anything is loaded.

Native libraries that get no memory while they are loaded, or for a thread, end the process without a word of ours. So
where there is a limit, they are first loaded in a process of their own, which tells what they take.
"""

import os
import resource
import subprocess
import sys

from ae_pipeline.errors import PipelineError

_LOAD = """
import ae_pipeline.codec.codec, ae_pipeline.store.writing.encoding, ae_pipeline.store.reading.decode, torch
torch.nn.functional.linear(torch.ones(8, 8), torch.ones(8, 8))
print(open("/proc/self/statm").read().split()[0])
"""
# For what is computed, and for the stack and the heap of each thread.
_BASE, _PER_THREAD = 256 << 20, 128 << 20
# What libraries take differs from start to start, by a thread's heap: what one message asks for must do for the next.
_STEP = 64 << 20


def require_addresses() -> None:
    """Raise PipelineError if there is a limit, and it leaves too little beside the libraries. Linux only."""
    limit = resource.getrlimit(resource.RLIMIT_AS)[0]
    if limit == resource.RLIM_INFINITY or not sys.platform.startswith("linux"):
        return
    # Arrow's own pool reserves a gibibyte where the limit just allows it, and leaves too little to the others.
    os.environ.setdefault("ARROW_DEFAULT_MEMORY_POOL", "system")
    done = subprocess.run([sys.executable, "-c", _LOAD], capture_output=True, text=True, check=False)
    found = f"out of memory: this process may use {limit >> 20:,} MiB of addresses (`ulimit -v {limit >> 10}`)"
    advice = "raise the limit, or take it away with `ulimit -v unlimited` where you may"
    if done.returncode:
        raise PipelineError(f"{found}, too little even to load PyTorch and Arrow; {advice}")
    taken = int(done.stdout) * resource.getpagesize()
    needed = taken + _BASE + _PER_THREAD * (os.cpu_count() or 1)
    if limit < needed:
        enough = (needed // _STEP + 2) * _STEP
        raise PipelineError(
            f"{found}, of which PyTorch and Arrow take {taken >> 20:,}; expected {enough >> 20:,} or more; {advice}"
        )
