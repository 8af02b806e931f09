"""What holds for all tests."""

from __future__ import annotations

import signal

# A job in the background of a script has Ctrl-C ignored, and so would the commands that tests start.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
