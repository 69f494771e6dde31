"""Checkpoints: results of calls on disk, and how a program that runs again finds them.

::

    before a run:  identifier ─► digests, declared, module_code ─► identity ─► recall ─► kept
    after a call:  records ─► writer ─► journal ─► folder: local_folder, remote_folder
    for people:    history, why, upkeep, stale

`checkpoint` holds what one session keeps, `opening` says who may read and write.
"""
