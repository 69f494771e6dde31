"""Engines on the nodes of an existing cluster: what all of them share.

::

    driver ─► workers ─► remote_node ─► line, or the carrier ═► node ─► local ─► worker
                 └─ nodes: moves large values, as shipping and whereabouts say      │
                 ◄─ logs, mirrors: what calls print and make ◄──────────────────────┘

A `carrier` is what a foreign engine does for us. `dask_parts` and `ray_parts` are our parts in its
processes.
"""
