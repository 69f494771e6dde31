"""Ours and the peers, side by side.

One question per file in `cases`, one adapter per file in `peers`.

python -m benchmarks --quick                      everything, small
python -m benchmarks --cases chain,pi --rounds 5  some cases, as in the published table

__main__   what to run, from the command line
  runner   interleaved rounds; every measurement is a process of its own, with a time limit
    measure    that process: one case, one peer, one set of parameters -> one JSON object
      case       what a case is; cases/*.py
      peer       what a peer can be asked; peers/*.py
      workload   what the tasks do, imported by every peer's workers
      memory     resident memory of this process and all below it
  machine  what the machine is, and how busy others keep it
  report   JSON lines -> Markdown
"""
