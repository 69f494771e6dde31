"""What decides and acts in the program: one engine for the workers of one machine and of nodes.

::

    session ─► engine ─► loop ──events───► scheduler ─► reactor ─► consequences ─► placement
                          │ ◄──commands──      └─ core, queues, estimates: what it knows
                          ├► dispatch ─► workers: the port to `local` and `cluster`
                          ├► store: where large values are
                          └► records, nested, deaths, observing: what comes back, and is told

The scheduler and all below it are pure. `simulation` plays them with workers that are not real.
"""
