"""Becomes the command it is given, which the kernel ends when the process that started it ends.

A program of its own: what runs between fork and exec runs among the remains of our threads, and gRPC's, finding their
files closed, end the child every few hundred starts.
"""

import ctypes
import os
import signal
import sys

_PR_SET_PDEATHSIG = 1

if sys.platform == "linux":
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
os.execvpe(sys.argv[1], sys.argv[1:], os.environ)  # noqa: S606 the stack's own commands
