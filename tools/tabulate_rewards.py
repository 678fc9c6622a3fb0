"""Former path of a tool; names the current one."""

import sys

sys.exit("error: tools/tabulate_rewards.py is now tools/research/tabulate_rewards.py")
