"""How the program's own code travels: modules, functions and classes, and the world they form.

::

    spawn ─► functions ──► reach, watched, modules, states: what it reaches and changed
                   └─────► pickling ─► special, rich ─► class_pieces, stand_ins, exceptions, arrays
                                                  │
    worker ◄───────── arriving, importing ◄───────┘
      └─► definitions: makes classes and functions again
      └─► world: enters the world of the call, a `World` of `spawned`, with its `changes`

`modules` says of each module whether it travels by name or by value. `origin` says whose code
something is. In the program itself `home` and `guests` do what `definitions` and `changes` do in a
worker.
"""
