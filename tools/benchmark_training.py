"""Former path of a tool; names the current one."""

import sys

sys.exit("error: tools/benchmark_training.py is now tools/benchmarks/benchmark_training.py")
