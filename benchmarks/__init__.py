"""Ours and the peers, side by side.

One question per file in `cases`, one adapter per file in `peers`.

python -m benchmarks --quick                      everything, small
python -m benchmarks --cases chain,pi --rounds 5  some cases, as in the published table
python -m benchmarks --tiny --peers mars          does every case still work?

A run in pieces, on one page: give each piece the same --json FILE.

__main__   what to run, from the command line
  runner   interleaved rounds; each peer in a process of its own, with a time limit
    measure    that process: one peer, some cases and parameters -> a JSON object each
      case       what a case is, how it is cut to a time budget; cases/*.py
      peer       what a peer can be asked; peers/*.py
      workload   what the tasks do, imported by every peer's workers
      memory     resident memory of this process and all below it
  machine  what the machine is, and how busy others keep it
  report   JSON lines -> the results page
    figures    medians, ratios, targets, growth: pure
"""
