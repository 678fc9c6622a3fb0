"""Former path of a tool; names the current one."""

import sys

sys.exit("error: tools/measure_fidelity.py is now tools/research/measure_fidelity.py")
