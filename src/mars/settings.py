"""Every tunable of the embedded engine: unit, default, and where the default comes from.

Constants, not options: what a user may change is an argument of `new_session`, `spawn` or
`execute`, or stands in `mars.config`. Nothing here is read from the environment.
"""

from __future__ import annotations

from typing import Final

KIB: Final = 1024
MIB: Final = 1024 * KIB

# -- messages ---------------------------------------------------------------------------------

BATCH_S: Final = 0.03
"""Predicted work given to a worker at once, seconds. A message costs both sides ~0.2 ms where cores
are few, as it wakes a process, so 30 ms keep that under 1 %; more would delay a rebalance."""

EVEN_S: Final = 0.002
"""When all that is ready takes idle workers less than this each, in seconds, it is divided evenly
among them at once; a wrong prediction then costs no more. What others depend on is divided so up to
`BATCH_S`, because it is worth more that neighbours are made in one place."""

ALONE_S: Final = 0.0003
"""When all that is ready takes less than this together, in seconds, one worker gets it: to wake
another one takes as long."""

FOLLOW_S: Final = 0.002
"""Predicted work in a queue, seconds, up to which calls follow their inputs there although another
worker has nothing to do and could take some of them as soon as their inputs are known."""

LOOK_AT: Final = 8
"""Workers that an event makes the scheduler look at beyond those that it concerns, so that its work
does not grow with their number."""

BATCH_TASKS: Final = 512
"""Tasks in one message at the most, whatever their predicted time."""

TASK_FLOOR_S: Final = 4e-6
"""What a call costs a worker at least, seconds, so that no-ops are not predicted as free."""

PREFETCH_BELOW_S: Final = 0.05
"""Calls predicted longer than this, in seconds, are not sent ahead: the gap between two calls
is ~0.1 ms, 0.2 % of 50 ms, and a call that waits in a worker cannot start elsewhere."""

FAR_PREFETCH_BELOW_S: Final = 0.5
"""The same for workers on nodes, where that gap is ~2 ms, and calls that may run twice."""

BLOCK_S: Final = 0.1
"""Predicted work in one block of `mars.remote.map`, seconds. A block costs both sides ~0.4 ms:
half as long ones took 0.5 % more time for items of 1 ms. Its results come and are kept together."""

BLOCK_ITEMS: Final = 16_384
"""Items in one block at the most."""

ATTEMPTS_KEPT: Final = 2_000
"""Attempts that have ended and that an engine keeps for `Engine.observe`, the newest of them. Each
takes about 350 bytes. Whoever looks twice a second misses none up to 4 000 calls a second."""

FUNCTIONS_KEPT: Final = 512
"""Functions that a worker keeps. Each takes it 2 KB or so, and a program that makes a closure for
each call would have it grow without end; one that is needed again is sent again, ~0.1 ms."""

REPORT_S: Final = 0.008
"""A worker reports finished calls at the latest after this time, seconds, when it can."""

AWAITED_REPORT_S: Final = 0.0001
"""The same for a call whose result others need: they may run in another worker, idle now."""

SOON_REPORT_S: Final = 0.001
"""The same when those others also need something that cannot begin yet."""

AWAKE_S: Final = 0.0003
"""A worker that has run small calls looks for the next one without sleeping for so long, seconds,
and yields its core at each look: a round trip takes 130 us where it took 250, as no core has
to be woken for it."""

LOOK_S: Final = 0.05
"""A worker looks at what calls did to its process at the latest after this time, seconds, when
it can. To look takes 20 to 200 us."""

OVERDUE_S: Final = 0.01
"""A worker that is silent this long over its prediction, in seconds, is asked for finished
results, and gives up calls it has not started when another worker is idle."""

INLINE_BYTES: Final = 64 * KIB
"""Results up to this size travel in the message; larger ones go to an arena."""

FUNCTION_BYTES: Final = MIB
"""Functions whose pickle is up to this size travel in messages to each worker, larger ones are
stored once, and read there."""

BUFFER_BYTES: Final = 64 * KIB
"""Buffers of pickled values from this size on are kept apart and never copied into a pickle."""

OUTBOX_BYTES: Final = 256 * KIB
"""Shared memory in which a worker keeps finished results until it reports them."""

RECEIVE_BYTES: Final = 64 * KIB
"""Read from a socket at once: less than what makes malloc ask the system for fresh pages."""

# -- objects ----------------------------------------------------------------------------------

ARENA_BYTES: Final = 64 * MIB
"""Size of an arena that holds several objects; a larger object has an arena of its own."""

LARGE_PAGE_BYTES: Final = 32 * KIB
"""Written to an arena at once; where pages of files in memory may be large, they become that large.
Linux keeps free pieces up to this size at hand for each core. Larger ones are written up to a fifth
faster yet, but a virtual machine has often only lent them to its host, and then it takes 20 times
as long to touch one."""

DISK_ARENA_BYTES: Final = 256 * MIB
"""Size of an arena on disk: larger, because each costs a descriptor and objects that do not fit
in memory are many. Only what is written takes disk."""

OBJECT_MEMORY_SHARE: Final = 0.4
"""Part of the memory that this process may use which objects take until they go to disk."""

LEDGER_BYTES: Final = 64 * KIB
"""Shared memory in which each process counts what its arenas take, in 8 bytes: room for 8,000 at a
time, more than a machine has."""

CALL_MEMORY_SHARE: Final = 0.9
"""Part of the memory that this process may use which is given to objects and running calls."""

ROOM_WAIT_S: Final = 0.5
"""How long a result waits for memory or disk that is being given back, in seconds."""

FAR_ROOM_WAIT_S: Final = 5.0
"""How long a value that is read on its node waits for room on the program's host, in seconds."""

SPARE_DESCRIPTORS: Final = 64
"""So many descriptors are left to the program where the system allows more of them: the soft limit
is raised, and else no further worker is started, nor a value kept that needs one."""

TRY_AGAIN_S: Final = 2.0
"""How long a node, or the program, tries again what the system refuses, such as room for a value
that is under way, seconds. After that the node ends, and says why."""

PEAK_FLOOR_BYTES: Final = 64 * MIB
"""Calls that need less memory than this are started without a look at memory."""

PEAK_AFTER_S: Final = 0.02
"""The memory of calls shorter than this, in seconds, is not looked at: asking takes 15 us."""

IDLE_ARENA_BYTES: Final = 512 * MIB
"""Memory of freed objects that each process keeps to write to again: warm pages take 5 GB/s,
fresh ones 2 GB/s."""

IDLE_ARENA_S: Final = 10.0
"""It goes back to the system when nothing more has been freed there for so long, seconds. To write
512 MiB to fresh pages takes 0.15 s longer, 1.5 % of that time."""

MAPPED_CACHE_BYTES: Final = 2048 * MIB
"""Mapped inputs that a worker keeps for its next calls, at the most."""

# -- results of futures -------------------------------------------------------------------------

DELIVERY_IDLE_S: Final = 0.2
"""How long the thread that delivers results of futures stays when it has nothing to do, seconds: to
start one takes 0.1 ms."""

DELIVERY_STALL_S: Final = 0.1
"""If a callback, or the unpickling of a result, takes longer than this, in seconds, a second thread
goes on with what waits behind it. Shorter, and callbacks would often not run in order."""

# -- workers ----------------------------------------------------------------------------------

BLOCKED_WORKERS: Final = 64
"""Worker processes that may wait for nested calls at once; past it, nested calls run inside
the worker that asks, unless they need a process of their own."""

BLOCKED_WORKERS_AT_MOST: Final = 512
"""The same for nested calls with `timeout`, `memory`, other `cpus` or `expect_worker`, which only a
process of their own can keep, and for maps; past it, they are refused. A process takes ~10 MB."""

DEATH_RETRIES: Final = 3
"""Further attempts after a worker's death under a call, as Ray and Dask have it."""

RETRY_WHEN_FAIL: Final = 3
"""Further attempts that ``retry_when_fail=True`` means."""

BACKOFF_S: Final = (0.0, 0.1, 1.0)
"""Pause before the first, second, and every later further attempt, seconds."""

INTERRUPT_GRACE_S: Final = 2.0
"""Between SIGINT and SIGKILL for a call past its timeout, seconds."""

CANCEL_GRACE_S: Final = 0.5
"""Between SIGINT and SIGKILL for a cancelled call, seconds."""

STARTS_WITHOUT_RESULT: Final = 6
"""Worker processes of a node that may end before any call has finished there until it is closed; if
all are, the engine gives up."""

CLOSED_S: Final = 30.0
"""How long a node is closed on which workers do not start, seconds; then another one is tried."""

START_PAUSE_S: Final = 1.0
"""Until another process is tried after one that did not start while others run, seconds."""

STOP_S: Final = 2.0
"""Time for workers and zygote to end by themselves when an engine closes, seconds. Exit handlers
and threads that calls have left take part of it."""

# -- logs -------------------------------------------------------------------------------------

LOG_LIMIT_AT_LEAST: Final = 256 * KIB
"""The least that ``log_limit`` can be: half of it is kept at each end, and an error looks at the
last `DEATH_LOG_BYTES` of a log."""

LOG_LOOK_S: Final = 1.0
"""Logs of running calls are held to that limit once in this many seconds. A look takes 2 us per
worker; what a call prints meanwhile comes on top of the limit."""

# -- checkpoints ------------------------------------------------------------------------------

CHECKPOINT_WINDOW_S: Final = 0.02
"""Results that come soon after others are gathered for this long, in seconds, and then written at
once: a wake-up of the writing thread costs the program about 100 us. What is gathered is lost with
the program."""

CHECKPOINT_SYNC_S: Final = 1.0
"""What was written is on the disk itself at the latest after this time, seconds. A sync takes
5 to 20 ms."""

CHECKPOINT_INLINE_BYTES: Final = 256 * KIB
"""Results up to this size stand in the journal, larger ones are files: opening one takes 30 us."""

CHECKPOINT_CHECK_BYTES: Final = 4 * KIB
"""Results up to this size are checked when a journal is opened, larger ones when they are read."""

CHECKPOINT_ARGUMENT_BYTES: Final = 256 * MIB
"""Parts of arguments beyond this size are not kept for ``mars replay``."""

CHECKPOINT_LOG_BYTES: Final = 16 * MIB
"""Of a longer log the last bytes are kept."""

CHECKPOINT_PENDING_BYTES: Final = 64 * MIB
"""Small results that wait for the disk; beyond it the engine takes no further ones for a while."""

CHECKPOINT_PENDING: Final = 20_000
"""Records that wait for the disk, likewise."""

CHECKPOINT_LARGE_COST: Final = MIB
"""What a result in the engine's store counts for among them: it has a budget of its own."""

CHECKPOINT_PRESSURE_S: Final = 0.2
"""How long the engine waits for the disk before it looks for a Ctrl-C, seconds."""

CHECKPOINT_LOCK_S: Final = 60.0
"""Where there are no locks, who writes gives a sign of life three times in this many seconds."""

# -- clusters ---------------------------------------------------------------------------------

CLOCK_S: Final = 10.0
"""A node that has something to say is asked for its clock once in this many seconds."""

LOG_SHIP_S: Final = 0.1
"""A node sends what its workers print at the latest after this time, seconds: that much of a log
can be missing when a node is lost."""

LOG_CHUNK_BYTES: Final = MIB
"""What a node sends of a log at once, at the most."""

LOG_BLOCK_BYTES: Final = MIB // 4
"""What the log of a worker takes at once, at the driver, of the file that the workers of its node
share. It is a hole there until something is printed."""

LOG_LEFT_BYTES: Final = 16 * MIB
"""What was sent of a worker's log takes about this much disk on its node until it is given back."""

SHIP_BYTES: Final = 4 * MIB
"""Of a large value at once, so that small messages do not wait behind it for long."""

EARLY_BYTES: Final = 4 * MIB
"""Calls on a node may read values from this size on before they have come to the driver."""

LATER_S: Final = 0.1
"""A value that only feeds other calls leaves its node after this time, seconds: what was read and
dropped until then need not travel."""

RAY_SHIP_BYTES: Final = 16 * MIB
"""The same with Ray, which takes some 2 ms for each batch."""

JOIN_LOOK_S: Final = 2.0
"""How often a cluster that does not say so is asked for nodes that have come, seconds."""

NODES_START_S: Final = 60.0
"""Time for the nodes of a cluster to say what they are, seconds."""

NODES_SILENT_S: Final = 3.0
"""How long the nodes of a cluster that do not answer are waited for while others have, seconds."""

NODES_SILENT_TIMES: Final = 3.0
"""Or so many times as long as the first one took, if that is longer, as on a busy machine."""

PACKAGES_S: Final = 2.0
"""How long a run waits for nodes to say whether they have the packages that its functions need,
seconds: a node looks in a few milliseconds, and one that does not answer shall hold up nobody."""

CONNECT_S: Final = 10.0
"""Time for a connection to a cluster, seconds."""

DIRECT_S: Final = 3.0
"""Time for a line to a node, seconds, until all goes by way of the foreign engine."""

MEET_S: Final = 1.0
"""The same between two nodes, each step of it: until then what one needs of the other waits."""

APART_S: Final = 60.0
"""Nodes that could not reach each other try again after this time, seconds; until then the driver
passes on what one needs of the other."""

SPARED_S: Final = 5.0
"""A value that another node fetches where it was made goes to the driver so long after it was made,
seconds, if nobody asks: then two nodes have it, and their cores have something else to do."""

LINE_LOST_S: Final = 30
"""How long a line may be cut, whole seconds, until the node is lost; Dask waits as long."""

PEER_LOST_S: Final = 10
"""The same of a line between two nodes, which costs no more than a way round by the driver."""

SHIP_BYTES_PER_S: Final = 250e6
"""What a line takes between machines. A call is left to the node that has its large inputs for as
long as they would be on their way to another one."""

PART_BYTES: Final = 256 * KIB
"""Of a large value in one step of a line: what stays in a core's cache between two copies."""

RELAY_BYTES: Final = 64 * MIB
"""What may wait in a relay for one that reads slowly, until who sends has to wait, too."""

WORKING_DIR_BYTES: Final = 256 * MIB
"""What a folder that goes to the nodes, `working_dir=`, may hold: each of them gets all of it."""

NODE_WAIT_S: Final = 60.0
"""How long calls that no node can run any more wait for one that can, seconds: a node that was
lost is often replaced by the cluster."""

# -- what people see --------------------------------------------------------------------------

LOG_READ_BYTES: Final = MIB
"""`fetch_log` reads this much at once unless ``sizes`` says otherwise, as the original does."""

SILENCE_LOOK_S: Final = 1.0
"""A thread that waits looks for silent calls this often, seconds: it takes 10 us per call."""

SILENCE_OF_EXPECTED: Final = 2.0
"""A silent call is told of when it has taken this many times as long as others of its function:
slow models are no news, ten minutes each."""

LOG_TAIL_LINES: Final = 20
"""Last lines of a call's log that its error carries."""

LOG_TAIL_BYTES: Final = 8 * KIB
"""What these lines are taken from, at the most: the error of a call is one message."""

DEATH_LOG_BYTES: Final = 32 * KIB
"""What is read from the end of a log for `WorkerDied`: the stack of a crash in C can be long."""

# -- clusters ---------------------------------------------------------------------------------

KNOCK_S: Final = 5.0
"""How long a cluster may take to say its first word, seconds: a loaded head takes one."""

HEAD_START_S: Final = 60.0
"""How long the head of a cluster may take to answer, seconds: Ray with TLS needs 6 to 12."""

NODE_START_S: Final = 60.0
"""How long a node may take to be known to the head, seconds."""

RAY_PROGRAM_START_S: Final = 120
"""How long Ray's client server waits for the process that it starts for a program, whole seconds.
That takes 2, on a busy machine more than the 30 that Ray would wait."""

HEAD_LOST_S: Final = 60.0
"""A node on Dask that does not reach its head gives up after this time, seconds."""

CLUSTER_END_S: Final = 5.0
"""How long a cluster's processes may take to end by themselves, seconds, before SIGKILL."""

CREDENTIALS_DAYS: Final = 30.0
"""How long the credentials of a cluster are valid, days: longer than most jobs run."""

CLUSTER_PORT: Final = 7103
"""Where a cluster listens for hosts that join, unless told otherwise: the original's port."""

CLUSTER_WEB_PORT: Final = 7104
"""Where it says what it is, unless told otherwise: the original's web port."""

RAY_CLIENT_PORT: Final = 7105
"""Where programs connect to a cluster on Ray, unless told otherwise."""
