"""Former path of a tool; names the current one."""

import sys

sys.exit("error: tools/tabulate_sizes.py is now tools/research/tabulate_sizes.py")
