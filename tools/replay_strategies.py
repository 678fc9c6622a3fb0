"""Former path of a tool; names the current one."""

import sys

sys.exit("error: tools/replay_strategies.py is now tools/research/replay_strategies.py")
