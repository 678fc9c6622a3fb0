"""Former path of a tool; names the current one."""

import sys

sys.exit("error: tools/benchmark_evaluation.py is now tools/benchmarks/benchmark_evaluation.py")
