"""What a script of this folder imports first when it is started by its path.

Its modules are then those of this clone, whichever clone pip installed last. Ctrl-C among the
imports, which take a second, ends it without a traceback; `cli.entry` listens to it again.
"""

import signal
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
signal.signal(signal.SIGINT, signal.SIG_DFL)
