"""Former path of a tool; names the current one."""

import sys

sys.exit("error: tools/compare_searches.py is now tools/research/compare_searches.py")
