"""Former path of a tool; names the current one."""

import sys

sys.exit("error: tools/simulate_search.py is now tools/research/simulate_search.py")
