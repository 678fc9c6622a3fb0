"""Former path of a tool; names the current one."""

import sys

sys.exit("error: tools/measure_sharing.py is now tools/research/rank_supernet.py")
