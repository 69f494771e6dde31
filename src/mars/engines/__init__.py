"""Engines: where calls run.

::

    kinds, start ─► inline: in the calling thread
                 ├► one_machine ─► driver ─► local ─► worker: in processes of this machine
                 └► dask, ray ─► cluster ─► driver ─► node ─► local ─► worker: on other machines

Arrows show who starts whom; the way of a call is in `mars`.
`mars.engine` is the contract that they fulfil. `driver` decides and acts in the program, `local`
starts processes and talks to them, `worker` runs in these, and `wire` is what crosses between them.
"""
