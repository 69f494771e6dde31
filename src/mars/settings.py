"""Every tunable of the library: its unit, its default, and the reason for the default.

These are constants, not options. What a user may change is an argument of `new_session`, `spawn` or
`execute`, or stands in `mars.config`. Nothing here is read from the environment. What a format or a
protocol fixes stands with that format. Read by all other modules. The list is long, and stays in
one place: whoever tunes the library reads it from top to bottom.
"""

from __future__ import annotations

from typing import Final

KIB: Final = 1024
MIB: Final = 1024 * KIB

# -- giving out calls -------------------------------------------------------------------------

BATCH_S: Final = 0.03
"""How much predicted work a worker is given at once, in seconds. A message costs both sides about
0.2 ms where cores are few, as it wakes a process. So 30 ms keep that cost under 1 %. With more,
work could be divided anew only later."""

EVEN_S: Final = 0.002
"""If everything that is ready takes each idle worker less than this, in seconds, it is divided
evenly among them at once. A wrong prediction then costs no more than this. Calls that others depend
on are divided like this up to `BATCH_S`, because it is worth more that neighbours are made in one
place."""

ALONE_S: Final = 0.0003
"""If everything that is ready takes less than this together, in seconds, one worker gets all of it.
To wake another worker takes as long."""

FOLLOW_S: Final = 0.002
"""Up to this much predicted work in a queue, in seconds, calls follow their inputs into that queue.
That holds even if another worker has nothing to do and could take some of them soon."""

LOOK_AT: Final = 8
"""How many workers the scheduler looks at after an event, beyond those that the event concerns.
With a limit, the work per event does not grow with the number of workers."""

FEW_INPUTS: Final = 8
"""Up to this many inputs of a call are searched as a list. For more, a set is made: that takes
longer to make than a short list takes to search."""

STALE_TIMERS: Final = 64
"""At least this many timers may be out of date before the scheduler sorts them out. To look through
them more often would cost more than the memory that they take."""

BATCH_TASKS: Final = 512
"""The most tasks in one message, whatever their predicted time, so that no message is very
large."""

TASK_FLOOR_S: Final = 4e-6
"""The least time that a call is predicted to take, in seconds. Calls that do nothing would
otherwise be predicted to cost nothing, and one worker would get all of them."""

PREFETCH_BELOW_S: Final = 0.05
"""Calls that are predicted to take longer than this, in seconds, are not sent ahead. Without
sending ahead, the gap between two calls is about 0.1 ms, which is 0.2 % of 50 ms. A call that waits
in a worker cannot start elsewhere."""

FAR_PREFETCH_BELOW_S: Final = 0.5
"""Calls that may run twice are sent ahead to workers on nodes up to this predicted time, in
seconds. There the gap between two calls is about 2 ms."""

BLOCK_S: Final = 0.1
"""Predicted work in one block of `mars.remote.map`, in seconds. A block costs both sides about 0.4
ms: with blocks half as long, items of 1 ms took 0.5 % more time. The results of a block come
together."""

BLOCK_ITEMS: Final = 16_384
"""The most items in one block, whatever their predicted time, so that no block is very large."""

ATTEMPTS_KEPT: Final = 1_000_000
"""Rows of the table of attempts that an engine keeps: attempts that have ended, the newest of them.
Each takes about 140 bytes, and with inputs 10 more and 4 for each. Older ones are summed up by
function."""

RUNS_KEPT: Final = 65_536
"""Runs whose begin and end an engine keeps for its table of attempts, the newest of them. Each
takes about 200 bytes."""

PROCESSOR_ASKED_AFTER_S: Final = 0.001
"""From which time on, in seconds, a worker asks how much processor time a call has used. To ask
takes 0.5 us, twice for each call, which is too much for the shortest calls. Those are taken to have
been on a processor all the time."""

FUNCTIONS_KEPT: Final = 512
"""How many functions a worker keeps. Each takes about 2 KB, and a program that makes a closure for
each call would need more and more memory. A function that is needed again is sent again: 0.1 ms."""

RESULTS_KEPT: Final = 1024
"""How many results a worker keeps for calls that are queued behind them. That is twice the number
of calls in one message, so that a queue hardly ever lacks one."""

FEW_ITEMS: Final = 100
"""In blocks of up to this many items, a worker asks native libraries after each item how many
threads they use now. In larger blocks items are short, and asking would cost too much."""

ROWS_AT_ONCE: Final = 4096
"""How many rows of arguments of a map are looked at together. To look at many at once is faster
than at one by one, and the limit keeps memory small."""

ROW_DEPTH: Final = 4
"""How deep tuples in tuples are looked into to see whether an argument can change. Deeper ones are
rare, and are taken for arguments that can change."""

GPU_IDLE_S: Final = 300.0
"""A worker with GPUs that has had nothing to do for this long, in seconds, ends. Its libraries keep
memory of the GPUs until then, and to load them again takes some seconds."""

GPU_LOOK_S: Final = 1.0
"""How often a worker with GPUs asks NVIDIA's driver what its call does with them, in seconds. To
ask takes about 1 ms, and that driver itself counts over up to a second."""

REPORT_S: Final = 0.008
"""A worker reports finished calls at the latest after this time, in seconds, if it can. Each report
wakes the program's engine."""

AWAITED_REPORT_S: Final = 0.0001
"""A worker reports a call whose result other calls need at the latest after this time, in seconds.
Those calls may run in another worker, which is idle meanwhile."""

SOON_REPORT_S: Final = 0.001
"""A worker reports a call whose result is needed by calls that cannot begin yet for another reason
at the latest after this time, in seconds. Nobody is idle because of it."""

AWAKE_S: Final = 0.0003
"""How long a worker that has run small calls looks for the next one without sleeping, in seconds.
At each look it yields its core. A round trip takes 130 us instead of 250, as no core has to be
woken."""

AWAKE_PAUSE_MS: Final = 1
"""How long a worker that found no message while it was awake waits until it counts as pausing, in
milliseconds. A message that is on its way comes within this time."""

LOOK_S: Final = 0.05
"""How often a worker looks at what calls did to its process, in seconds, if it can. A look takes 20
to 200 us."""

THREADS_ASKED_AFTER_S: Final = 0.001
"""After calls that took longer than this, in seconds, a worker asks native libraries how many
threads they use now. To ask them takes some microseconds, which matters for shorter calls only."""

OVERDUE_S: Final = 0.01
"""A worker that is silent for this long beyond its prediction, in seconds, is asked for its
finished results. If another worker is idle, it also gives up calls that it has not started."""

INLINE_BYTES: Final = 64 * KIB
"""Results up to this size, in bytes, travel in the message. Larger ones go to an arena, which saves
copies but costs a few system calls."""

FUNCTION_BYTES: Final = MIB
"""Functions whose pickle has up to this size, in bytes, travel in messages to each worker. Larger
ones are stored once, and each worker reads them there."""

BUFFER_BYTES: Final = 64 * KIB
"""Buffers of pickled values from this size on, in bytes, are kept apart and never copied into a
pickle. For smaller ones a copy is faster than the bookkeeping."""

OUTBOX_BYTES: Final = 256 * KIB
"""Shared memory in which a worker keeps finished results until it reports them, in bytes: room for
some thousand small results."""

RECEIVE_BYTES: Final = 64 * KIB
"""How much is read from a socket at once, in bytes. For larger buffers malloc would ask the system
for fresh pages each time."""

# -- functions as they travel -----------------------------------------------------------------

REACH_ITEMS: Final = 1_000_000
"""All items of containers, classes and modules that a function refers to are looked at at each
`spawn`, up to this many. A look takes 20 ns for each; to pickle it takes fifty times as long."""

STATES_READ: Final = 64
"""How many descriptions of modules a worker keeps in the form in which it has read them. Calls in a
row have the same descriptions."""

PICKLE_DEPTH: Final = 20
"""How deep functions are written inside each other. Each takes some levels of the C stack, which
must not be used up. Deeper ones are written one after the other."""

PICKLE_LEVELS: Final = 500_000
"""How deep a value may be nested that is pickled, in levels: a node of a linked list has two. Each
level takes ~400 bytes while it is written, and a `__reduce__` that never ends has to end."""

DIAGNOSE_VISITS: Final = 2_000
"""How often a part of a value is pickled, at the most, to find out which part does not pickle. To
find one among a million items takes 40."""

DIAGNOSE_DEPTH: Final = 40
"""The most steps in the path to a part that does not pickle. A longer path tells nobody
anything."""

# -- objects ----------------------------------------------------------------------------------

ARENA_BYTES: Final = 64 * MIB
"""Size of an arena that holds several objects, in bytes. A larger object has an arena of its
own."""

LARGE_PAGE_BYTES: Final = 32 * KIB
"""How much is written to an arena at once, in bytes. Where pages of files in memory may be large,
they become that large. Linux keeps free pieces up to this size ready for each core. Larger pages
are written up to a fifth faster, but a virtual machine has often lent its large pieces back to its
host. Then it takes 20 times as long to touch one."""

HUGE_PAGE_BYTES: Final = 2 * MIB
"""The largest piece of a file that Linux itself puts together, in bytes. It may fill holes for that
(`khugepaged`), so what is given back reaches as far as that into free space beside it."""

DISK_ARENA_BYTES: Final = 256 * MIB
"""Size of an arena on disk, in bytes. It is larger than an arena in memory, because each arena
costs a descriptor, and objects that do not fit in memory are many. Only what is written takes
disk."""

OBJECT_MEMORY_SHARE: Final = 0.4
"""The part of the memory that this process may use that objects may take. Beyond it they go to
disk. The rest is for calls and for the program."""

UNKNOWN_MEMORY_BYTES: Final = 4 * 1024 * MIB
"""The memory that a process is thought to be allowed, in bytes, if the system does not tell: what a
small machine has."""

LEDGER_BYTES: Final = 64 * KIB
"""Shared memory in which each process counts, in 8 bytes, what its arenas take. There is room for
8,000 processes at a time, which is more than a machine has."""

CALL_MEMORY_SHARE: Final = 0.9
"""The part of the memory that this process may use that objects and running calls may take
together. The rest is for what cannot be predicted."""

MIRRORS_IN_MEMORY_SHARE: Final = 0.9
"""The part of the budget for objects up to which copies of values from nodes stay in memory. Beyond
it, such a copy is a file on disk, so that values of the program have room."""

ROOM_WAIT_S: Final = 0.5
"""How long a result waits for memory or disk that is just being given back, in seconds."""

FAR_ROOM_WAIT_S: Final = 5.0
"""How long a value that can be read on its node waits for room on the program's host, in seconds.
Nobody waits for it meanwhile."""

SPARE_DESCRIPTORS: Final = 64
"""How many descriptors are left to the program. The soft limit is raised for that if the system
allows it. Otherwise no further worker is started, and no value is kept that needs a descriptor."""

TRY_AGAIN_S: Final = 2.0
"""How long a node, or the program, tries again what the system refuses for now, in seconds, such as
room for a value that is under way. After that the node ends, and says why."""

TRY_AGAIN_EVERY_S: Final = 0.02
"""The pause between two attempts at something that the system refuses for now, in seconds. A system
call takes far less, so trying costs little."""

PEAK_FLOOR_BYTES: Final = 64 * MIB
"""Calls that need less memory than this, in bytes, are started without a look at memory."""

PEAK_AFTER_S: Final = 0.02
"""The memory of calls that are shorter than this, in seconds, is not looked at. A look takes 15
us."""

IDLE_ARENA_BYTES: Final = 512 * MIB
"""How much memory of freed objects each process keeps to write to again, in bytes. Pages that were
used before take 5 GB/s, fresh ones 2 GB/s."""

IDLE_ARENA_S: Final = 10.0
"""Memory of freed objects goes back to the system if nothing more was freed for so long, in
seconds. To write 512 MiB to fresh pages takes 0.15 s longer, which is 1.5 % of this time."""

HEAP_KEPT_BYTES: Final = 128 * MIB
"""How many bytes that calls have freed each worker keeps for further calls, until it has ended none
for `IDLE_ARENA_S`. To make, scale and sum chunks of 32 MB takes 22 ms each with fresh pages, and
17 ms with these."""

MAPPED_CACHE_BYTES: Final = 2048 * MIB
"""How many bytes of mapped inputs a worker keeps for its next calls, at the most. To map an input
again costs time, but addresses cost nothing."""

MOUNT_S: Final = 1.0
"""How long the child that makes a file system with large pages may take, in seconds. It takes 3 ms;
after this time, pages are small."""

# -- results of futures -------------------------------------------------------------------------

DELIVERY_IDLE_S: Final = 0.2
"""How long the thread that delivers results of futures stays if it has nothing to do, in seconds.
To start one takes 0.1 ms."""

DELIVERY_STALL_S: Final = 0.1
"""If a callback or the unpickling of a result takes longer than this, in seconds, a second thread
goes on with what waits behind it. With less, callbacks would often not run in order."""

DELIVERY_WAITING: Final = 2
"""How many threads wait for results to deliver. One is for the next result, and one goes on beside
it if that takes long."""

CANCEL_WAIT_S: Final = 1.0
"""How long a program that got a Ctrl-C waits until its run has ended, in seconds. From then on what
the run wanted says that it was cancelled."""

FUTURE_CANCEL_WAIT_S: Final = 5.0
"""How long `cancel` of a future waits until its run has ended, in seconds. That is time enough for
the end of a call that ignores the first signal, and of its process."""

LAST_LINES_S: Final = 1.0
"""How long an engine that closes waits until its last lines are shown, in seconds. To show a line
takes less than a millisecond if stderr takes it."""

# -- workers ----------------------------------------------------------------------------------

BLOCKED_WORKERS: Final = 64
"""How many worker processes may wait for nested calls at once. Beyond it, nested calls run inside
the worker that asks, unless they need a process of their own."""

BLOCKED_WORKERS_AT_MOST: Final = 512
"""How many worker processes may wait for nested calls that need a process of their own. Such calls
have `timeout`, `memory`, other `cpus` or `expect_worker`, or are maps. Beyond it they are refused.
A process takes about 10 MB."""

DEATH_RETRIES: Final = 3
"""How many further attempts a call has after its worker died. Ray and Dask have as many."""

RETRY_WHEN_FAIL: Final = 3
"""How many further attempts ``retry_when_fail=True`` means, which is a hint of the original."""

BACKOFF_S: Final = (0.0, 0.1, 1.0)
"""The pause before the first, the second, and each later further attempt, in seconds. What failed
by chance is tried again at once; what is overloaded gets time."""

INTERRUPT_GRACE_S: Final = 2.0
"""The time between SIGINT and SIGKILL for a call that is past its timeout, in seconds, in which it
may clean up."""

CANCEL_GRACE_S: Final = 0.5
"""The time between SIGINT and SIGKILL for a call that was cancelled, in seconds. Somebody waits for
it, so it is short."""

MOST_THREADS: Final = 1000
"""The most calls with ``threads=`` that run at a time in one process. Each of them takes seven
descriptors, three there and four in the program; systems give a process from 4,096 on."""

THREADS_AT_ONCE: Final = 32
"""Threads for calls that are started at a time in one process; others follow as these are ready.
More would fill the sockets through which their descriptors go."""

THREAD_DESCRIPTORS: Final = 512
"""Descriptors that a process of threads keeps free for further threads, of which up to 253 come in
one message of the system."""

ALONE_CORES: Final = 0.125
"""The least part of a core that a call with ``threads=`` takes once it runs in a process to itself:
so eight of them share a core, and a crash among hundreds does not start hundreds of processes."""

THREADS_LEFT: Final = 50
"""Threads that did not end when they had to, after which their process gets no further calls. Each
of them keeps what its call holds; a process costs 10 MB."""

OTHERS_PRINTED_BYTES: Final = 65_536
"""Bytes that C code and child processes printed while calls ran in threads, of which the log of
each of these calls gets the last so many."""

STARTS_WITHOUT_RESULT: Final = 6
"""How many worker processes of a node may end before any call has finished there. Then the node is
closed. If all nodes are closed, the engine gives up."""

START_FAILURES_QUOTED: Final = 8
"""How many workers that did not start an error quotes, at the most, so that it stays readable."""

CLOSED_S: Final = 30.0
"""How long a node is closed if workers do not start there, in seconds. Then another worker is
tried, because what was in the way may be gone."""

START_PAUSE_S: Final = 1.0
"""The pause after a worker that did not start while others run, in seconds, until another one is
tried."""

STOP_S: Final = 2.0
"""How long workers and zygote may take to end by themselves when an engine closes, in seconds. Exit
handlers, and threads that calls have left, take part of it."""

KILLED_S: Final = 10.0
"""How long the end of a process that was killed is waited for, in seconds. It takes milliseconds; a
process that waits for a disk takes longer."""

STACK_ANSWER_S: Final = 2.0
"""How long a worker may take to write its stack, in seconds. It takes 1 ms; a worker that needs
longer does not answer."""

STACK_SETTLED_S: Final = 0.3
"""A worker's stack whose end is not recognized counts as whole if it has not grown for so long, in
seconds."""

# -- logs and errors --------------------------------------------------------------------------

LOG_LIMIT_AT_LEAST: Final = 256 * KIB
"""The least that ``log_limit`` can be, in bytes. Half of a log is kept at each end, and an error
looks at the last `DEATH_LOG_BYTES` of a log."""

LOG_LOOK_S: Final = 1.0
"""How often logs of running calls are cut to ``log_limit``, in seconds. A look takes 2 us per
worker. What a call prints between two looks comes on top of the limit."""

LOG_LINE_BYTES: Final = 4 * KIB
"""Where a log is cut, the beginning of a line is looked for within this many bytes. Lines that are
longer are cut in the middle."""

LOG_TAIL_LINES: Final = 20
"""How many last lines of a call's log its error carries: about what fits on a screen."""

LOG_TAIL_BYTES: Final = 8 * KIB
"""From how many last bytes of a log the last lines are taken. The error of a call is one message,
so it must stay small."""

DEATH_LOG_BYTES: Final = 32 * KIB
"""How many bytes are read from the end of a log for `WorkerDied`. The stack of a crash in C can be
long."""

CRASH_LINES_BEFORE: Final = 8
"""How many lines before the headline of a crash an error shows. They often say what the call did
last."""

ERROR_MESSAGE_CHARS: Final = MIB
"""The longest text in an error that travels, in characters. Some people put their data frame into a
message."""

ERROR_PICKLE_BYTES: Final = 8 * MIB
"""The largest pickle of one exception, in bytes, so that one with data in it does not fill the
program's memory."""

ERROR_FRAMES_HEAD: Final = 16
"""How many first frames are kept of a long traceback: where it came from."""

ERROR_FRAMES_TAIL: Final = 48
"""How many last frames are kept of a long traceback: what it died of."""

ERROR_CHAIN_LENGTH: Final = 64
"""How many exceptions are kept of one chain or group, counted over all its branches. A chain can be
as long as a loop that catches and raises."""

# -- checkpoints ------------------------------------------------------------------------------

CHECKPOINT_WINDOW_S: Final = 0.02
"""How long results that come soon after others are gathered, in seconds, before they are written at
once. To wake the writing thread costs the program about 100 us. What is gathered is lost if the
program is killed."""

CHECKPOINT_REMOTE_WINDOW_S: Final = 1.0
"""How long results for a checkpoint at an URL are gathered, in seconds. There each write is a
request to a server and makes an object, so few and large writes are better."""

CHECKPOINT_SYNC_S: Final = 1.0
"""What was written is on the disk itself at the latest after this time, in seconds. A sync takes 5
to 20 ms."""

CHECKPOINT_INLINE_BYTES: Final = 256 * KIB
"""Results up to this size, in bytes, stand in the journal. Larger ones are files: to open one takes
30 us."""

CHECKPOINT_REMOTE_INLINE_BYTES: Final = 16 * KIB
"""Results up to this size, in bytes, stand in the journal of a checkpoint at an URL. Larger ones
are objects of their own: whoever opens the checkpoint has to fetch the journal, but not these
objects."""

CHECKPOINT_MERGE_SEGMENTS: Final = 32
"""If the journal at an URL has at least this many objects, whoever opens it to write makes one
object of them. Each object costs a request when the checkpoint is opened."""

CHECKPOINT_LOOKS: Final = 3
"""How often a reader tries to read a journal at an URL while somebody else changes it. One change
is likely, and more in a row are not."""

CHECKPOINT_FILE_CLOCK_S: Final = 2.0
"""A file counts as changed after a result if it is newer by so many seconds. Clocks of file servers
are off by a bit, and FAT keeps times to 2 s."""

CHECKPOINT_FILES_NAMED: Final = 3
"""Files that one notice about changed files names. With more it is no line any more."""

CHECKPOINT_CHECK_BYTES: Final = 4 * KIB
"""Results up to this size, in bytes, are checked when a journal is opened. Larger ones are checked
when they are read, so that opening stays fast."""

CHECKPOINT_ARGUMENT_BYTES: Final = 256 * MIB
"""Parts of arguments beyond this size, in bytes, are not kept. Only ``mars replay`` would need
them."""

CHECKPOINT_SOURCE_LINES: Final = 2000
"""Source text of functions up to this many lines is kept, to show where they changed. Longer text
is hardly ever written by a person."""

CHECKPOINT_FUNCTIONS: Final = 4096
"""For how many functions a program remembers what they amount to. Each takes a few KB, and a
program that makes a closure for each call would need more and more memory."""

CHECKPOINT_LOG_BYTES: Final = 16 * MIB
"""How many last bytes of a log are kept. The error of a call stands at the end of its log."""

CHECKPOINT_PENDING_BYTES: Final = 64 * MIB
"""How many bytes of small results may wait for the disk. Beyond it the engine takes no further
results for a while."""

CHECKPOINT_PENDING: Final = 20_000
"""How many records may wait for the disk. Beyond it the engine takes no further results for a
while."""

CHECKPOINT_LARGE_COST: Final = MIB
"""For how many bytes a large result that waits for the disk counts. It is in the engine's store,
which has a budget of its own."""

CHECKPOINT_PRESSURE_S: Final = 0.2
"""How long the engine waits for the disk at a time, in seconds, so that a Ctrl-C is noticed."""

CHECKPOINT_LOCK_S: Final = 60.0
"""Where a folder cannot be locked, a writer counts as ended this long after its last sign of life,
in seconds. It gives three signs in this time, so two of them may fail."""

# -- calls on nodes of a cluster --------------------------------------------------------------

CLOCK_S: Final = 10.0
"""How often a node that has something to say is asked for its clock, in seconds. In that time a bad
clock goes wrong by 1 ms."""

CLOCK_DRIFT: Final = 1e-4
"""By how much two clocks may go apart, in seconds per second. A bad crystal goes wrong by as much,
and so does a clock that is being set."""

LOG_SHIP_S: Final = 0.1
"""A node sends what its workers print at the latest after this time, in seconds. If a node is lost,
that much of a log can be missing."""

LOG_CHUNK_BYTES: Final = MIB
"""How much of a log a node sends at once, in bytes, so that other messages do not wait for long."""

LOG_BLOCK_BYTES: Final = MIB // 4
"""How much of the file that the workers of a node share the log of one worker takes at once, in
bytes. It takes no disk until something is printed."""

LOG_LEFT_BYTES: Final = 16 * MIB
"""Up to this many bytes of a worker's log that were sent stay on its node. Then that disk is given
back; to do so more often would cost more."""

SHIP_BYTES: Final = 4 * MIB
"""How much of a large value is sent at once, in bytes, so that small messages do not wait behind it
for long."""

RAY_SHIP_BYTES: Final = 16 * MIB
"""How much of a large value is sent at once by way of Ray, in bytes. Ray takes about 2 ms for each
batch."""

EARLY_BYTES: Final = 4 * MIB
"""Calls on a node may read values from this size on, in bytes, before these have come to the
program. Smaller ones come quickly enough."""

LATER_S: Final = 0.1
"""A value that only feeds other calls leaves its node after this time, in seconds. A value that was
read and dropped until then need not travel."""

SPARED_S: Final = 5.0
"""If another node already copies a value, its copy to the program is delayed by this time, in
seconds, unless somebody asks for it. Two nodes have the value then, and their cores have other
things to do."""

JOIN_LOOK_S: Final = 2.0
"""How often a cluster that does not say so by itself is asked for nodes that have come, in
seconds."""

NODES_START_S: Final = 60.0
"""How long the nodes of a cluster may take to say what they are, in seconds. A node has to start a
process and import the library first."""

NODES_SILENT_S: Final = 3.0
"""How long nodes of a cluster that do not answer are waited for once others have answered, in
seconds."""

NODES_SILENT_TIMES: Final = 3.0
"""Silent nodes are waited for at least this many times as long as the first node took. On a busy
machine that is longer than `NODES_SILENT_S`."""

REFUSED_NODES_KEPT: Final = 64
"""For how many nodes that were refused the reason is remembered, and told. A large cluster may
refuse hundreds for one reason."""

PACKAGES_S: Final = 2.0
"""How long a run waits for nodes to say whether they have the packages that its functions need, in
seconds. A node looks in a few milliseconds, and a node that does not answer must not hold up
others."""

CONNECT_S: Final = 10.0
"""How long a connection to a cluster may take, in seconds. A loaded scheduler needs several."""

DIRECT_S: Final = 3.0
"""How long a direct line to a node may take to be made, in seconds. After that everything goes by
way of the foreign engine."""

MEET_S: Final = 1.0
"""How long each step of connecting two nodes may take, in seconds. Values that one node needs from
the other wait meanwhile."""

APART_S: Final = 60.0
"""Nodes that could not reach each other try again after this time, in seconds. Until then values
between them go by way of the program."""

LINE_LOST_S: Final = 30
"""How long a line may be cut until its node counts as lost, in whole seconds. Dask waits as
long."""

PEER_LOST_S: Final = 10
"""How long a line between two nodes may be cut until it counts as lost, in whole seconds. That
costs little: values then go by way of the program."""

SHIP_BYTES_PER_S: Final = 250e6
"""How fast a line between machines is thought to be, in bytes per second: 2 Gbit/s. A call is left
to the node that has its large inputs if to send them elsewhere would take longer."""

PART_BYTES: Final = 256 * KIB
"""How much of a large value one step of a line takes, in bytes. That much stays in a core's cache
between two copies."""

RELAY_BYTES: Final = 64 * MIB
"""How many bytes may wait in a relay for a reader that is slow. Beyond it the sender has to wait,
too."""

WORKING_DIR_BYTES: Final = 256 * MIB
"""How much a folder that goes to the nodes, `working_dir=`, may hold, in bytes. Each node gets all
of it."""

WORKING_DIR_NAMED: Final = 5
"""How many of the largest files an error names if `working_dir=` is too large."""

NODE_WAIT_S: Final = 60.0
"""How long calls that no node can run any more wait for a node that can, in seconds. A node that
was lost is often replaced by the cluster."""

NODE_LOST_TOLD_S: Final = 1.0
"""How long after the loss of a node a line tells of it, in seconds, unless a run ends before. If
Dask's scheduler or Ray's head has ended, all nodes are lost within this time. Then it would be
wrong to say that their calls run elsewhere."""

NODES_LOST_NAMED: Final = 8
"""How many lost nodes an error names, at the most. With autoscaling there may be hundreds."""

RAY_UNDER_WAY: Final = 8
"""How many actor calls may be under way to a node of Ray: so much is sent ahead of what it has
taken."""

RAY_POLLS: Final = 2
"""In how many actor calls a node of Ray waits for something to tell. While one brings an answer,
the other waits."""

RAY_POLL_S: Final = 10.0
"""How long a node of Ray waits for something to tell, in seconds, before it answers with nothing.
Each answer costs a few milliseconds."""

RAY_ANSWER_S: Final = 3.0
"""How long a server of Ray that has taken our certificate may be silent, in seconds. It speaks
first."""

RAY_REFUSALS: Final = 2
"""How often in a row Ray's host has to refuse a connection until Ray counts as gone. One refusal
may be a restart."""

RAY_COME_BACK_S: Final = 5
"""How long a program outside of Ray may be without a connection to it, in whole seconds, until Ray
takes it for ended and gives its cores to others. With Ray's own 30 s, a program that was killed and
is started again would wait for so long. A connection that is cut for a moment does not break."""

RAY_NOT_LOCKED_S: Final = 60.0
"""A folder of Ray without a lock that is younger than this, in seconds, is not removed. A program
may have just made it, and may lock it next."""

# -- what people see --------------------------------------------------------------------------

LOG_READ_BYTES: Final = MIB
"""How many bytes `fetch_log` reads at once unless ``sizes`` says otherwise. The original reads as
many."""

MARKS_WAIT_S: Final = 0.5
"""How long to wait for a worker that is asked what the items of its block have printed, in seconds.
It answers at once unless compiled code of the call holds the interpreter; then the next look may
find it."""

LOG_FOLLOW_S: Final = 0.05
"""Pause between two looks at a log that somebody follows, when nothing new came, in seconds. People
take a twentieth of a second for at once."""

ECHO_NAMES: Final = 8
"""How many calls the line names that says which calls wrote to stderr. More would not fit on it."""

ECHO_COLOURS: Final = ("36", "33", "35", "32", "34", "31", "96", "93", "95", "92", "94")
"""The colours of the names of calls whose output is shown, as codes of terminals. All of them can
be read on white and on black."""

PROGRESS_LOAD_S: Final = 0.25
"""How long a run has to last, in seconds, until what shows progress is loaded. Most runs end before
anything could be drawn."""

PROGRESS_QUIET_S: Final = 0.5
"""A run that is shorter than this, in seconds, shows no progress unless asked. Nobody can read a
bar that flashes by."""

PROGRESS_REDRAW_S: Final = 0.1
"""How often a terminal is redrawn at the most, in seconds. That is smooth to the eye, and takes
about 0.5 % of a core."""

SHOWN_CALLS: Final = 20
"""Calls that the repr of a tuple and a table in a notebook show, of more. A screen has room for
them."""

SHOWN_CHARACTERS: Final = 120
"""Characters of the line that a repr shows of one call. With more, a list of calls wraps in most
terminals."""

SHOWN_LOG_BYTES: Final = 1024
"""Bytes from the end of a log in which its last line is looked for. Longer lines are cut anyway."""

PROGRESS_REDRAW_HTML_S: Final = 0.25
"""How often a bar in a notebook is redrawn at the most, in seconds. There each update is a message
to a browser, which may be far away."""

PROGRESS_LINE_S: Final = 10.0
"""The longest pause between two plain lines of progress of a short run, in seconds, so that CI sees
a sign of life."""

PROGRESS_LINE_MAX_S: Final = 60.0
"""The longest pause between two plain lines of progress of a long run, in seconds. So an hour does
not take 360 lines of log."""

PROGRESS_LINE_SHARE: Final = 0.1
"""A plain line of progress is also shown whenever this further part of the run has ended."""

PROGRESS_NAMES: Final = 4
"""How many names a line of progress has of what runs, and of what failed. More do not fit."""

TALLY_SHARE: Final = 0.02
"""How much of a core counting the calls of a run may take for those who watch it. A look at 100,000
calls that have not ended takes 10 ms."""

TALLY_FAILURES: Final = 100
"""How many calls that failed are remembered by name for those who watch a run."""

SILENCE_LOOK_S: Final = 1.0
"""How often a thread that waits looks for silent calls, in seconds. A look takes 10 us per call."""

SILENCE_OF_EXPECTED: Final = 2.0
"""A silent call is told of once it has taken this many times as long as others of its function.
That slow models take ten minutes each is no news."""

DOCTOR_ENGINE_S: Final = 30.0
"""How long an engine may take to answer the doctor, in seconds, until it is reported as stuck. A
healthy one takes 0.1 s."""

DOCTOR_ROUND_TRIPS: Final = 20
"""How many calls the doctor times to tell how long a round trip takes: enough for a median."""

LOW_FILES: Final = 1024
"""If a process may open fewer files than this, the doctor says so. Most systems allow as many, so
less is somebody's decision."""

LOW_DISK_BYTES: Final = 1024 * MIB
"""If a disk has less than this free, in bytes, the doctors say so. Large results and logs need
it."""

NODE_ROUND_TRIPS: Final = 10
"""How many calls ``mars doctor`` times on each node of a cluster: enough for a median."""

NODE_SENT_BYTES: Final = 16 * MIB
"""How many bytes the doctor sends to a node to tell how fast the line is. The fixed cost of a
transfer then matters little, and a line of 128 Mbit/s takes a second."""

NODE_SKEW_S: Final = 1.0
"""Clocks of hosts that are further apart than this, in seconds, are told of. Certificates and logs
look wrong then."""

NODE_STACK_S: Final = 60.0
"""How long a node may take to say what its workers do, in seconds. Hundreds of workers take a
few."""

# -- starting and finding clusters ------------------------------------------------------------

KNOCK_S: Final = 5.0
"""How long a cluster may take to say its first word, in seconds. A loaded head takes one."""

HEAD_START_S: Final = 60.0
"""How long the head of a cluster may take to answer, in seconds. Ray with TLS needs 6 to 12."""

NODE_START_S: Final = 60.0
"""How long a node may take until the head knows it, in seconds. It starts as slowly as a head."""

CLUSTER_POLL_S: Final = 0.05
"""How often a cluster that starts is asked whether it is ready, in seconds. It takes seconds to
start."""

PROCESS_POLL_S: Final = 0.02
"""How often processes that were told to end are looked at, in seconds. Most end within a tenth of a
second."""

CLUSTER_SAID_BYTES: Final = 4 * KIB
"""How many last bytes of the output of a cluster's process an error shows."""

DASK_IDLE: Final[dict[str, object]] = {
    "distributed.worker.profile.enabled": False,
    "distributed.admin.tick.interval": "500ms",
    "distributed.admin.system-monitor.interval": "10s",
    "distributed.worker.memory.monitor-interval": "500ms",
}
"""Settings for processes of Dask that we start: what they do while they have nothing to do. As Dask
has it, a node looks 50 times a second whether it is awake, 10 times how much memory it has, and 100
times what its threads do. That takes 4 to 5 % of a core, and with these 0.5 %. Calls do not run in
these processes, and Dask's pages, which show what is found, are off."""

RAY_PROGRAM_START_S: Final = 120
"""How long Ray's client server waits for the process that it starts for a program, in whole
seconds. That takes 2, and on a busy machine more than the 30 that Ray would wait."""

RAY_WORKER_PORTS: Final = 1000
"""How many ports a node of Ray has for its processes. Ray starts a process for each waiting call
with others inside, so it needs many more than it has cores."""

RAY_STORE_SHARE: Final = 0.3
"""The part of a node's memory that Ray's object store gets. Ray itself divides it like this."""

RAY_HEALTH_CHECKS: Final = 5
"""How often Ray's head asks a node in vain before it gives the node up."""

HEAD_LOST_S: Final = 60.0
"""A node on Dask that does not reach its head gives up after this time, in seconds. A head may take
as long to start again."""

CLUSTER_END_S: Final = 5.0
"""How long a cluster's processes may take to end by themselves, in seconds, before SIGKILL."""

CENSUS_AGAIN_S: Final = 0.2
"""How often an engine that does not answer yet is asked for its nodes, in seconds. It takes seconds
to start."""

ENGINE_IMPORT_S: Final = 20.0
"""How long a loaded machine may need to import Dask or Ray, in seconds. This comes on top of the
time that the engine has to answer."""

SSH_AT_ONCE: Final = 16
"""How many hosts are talked to by ssh at the same time. Each takes a process here."""

CREDENTIALS_DAYS: Final = 30.0
"""How long the credentials of a cluster are valid, in days: longer than most jobs run."""

CREDENTIALS_SOON_DAYS: Final = 3.0
"""The doctor says so if credentials are valid for less than this, in days: time enough to act after
a weekend."""

CREDENTIALS_SKEW_S: Final = 3600.0
"""Certificates are valid from this long before they were made, in seconds. Clocks of hosts
differ."""

CLUSTER_PORT: Final = 7103
"""The port on which a cluster listens for hosts that join, unless told otherwise. It is the
original's."""

CLUSTER_WEB_PORT: Final = 7104
"""The port on which a cluster says what it is, unless told otherwise. It is the original's web
port."""

RAY_CLIENT_PORT: Final = 7105
"""The port on which programs connect to a cluster on Ray, unless told otherwise. It follows the
other ports of a cluster."""

WEB_CONNECTIONS: Final = 64
"""How many connections the web port of a cluster serves at once. A further one takes the place of
the oldest of the host that has most, so one host cannot keep others out."""

WEB_CONNECTIONS_OF_A_PEER: Final = 8
"""How many connections one address, or one network of version 6, may have to a web port. A further
one takes the place of the oldest: whoever has something to say has said it long before."""

WEB_VISIT_S: Final = 5.0
"""How long a connection to a web port may take from its beginning to its end, in seconds. A loaded
cluster may take as long for its first word."""

WEB_LOOK_S: Final = 0.5
"""How often the server of a web port looks whether it is to end, in seconds."""

WEB_TRIES: Final = 3
"""How often a web port is asked if it hangs up. A busy one may have had to choose."""

WEB_ANSWER_BYTES: Final = 64 * KIB
"""How many bytes of the answer of a web port are read, at the most. An answer has some hundred."""

ORIGINAL_LOOK_S: Final = 0.5
"""How often the original's commands look whether the processes of their cluster still run, in
seconds. They end when one of these processes has ended."""

DASK_GROUP_TASKS: Final = 256
"""How many tasks of a Dask graph run in one call, at the most, unless they form a chain. A call
costs some tens of microseconds: more tasks would not make it cheaper, but a lost worker would cost
more."""

DASK_GROUPS_PER_WORKER: Final = 4
"""Branches of a Dask graph are joined into one call only while there are so many calls for each
worker. With fewer, workers would be idle at the end."""

DASK_NEIGHBOURS_PER_WORKER: Final = 64
"""Independent tasks of a Dask graph share a call only if there are more of them for each worker.
Then one call is at most this part of the work of a worker, and so is the idle time at the end."""

DASK_LIFT_BYTES: Final = 16 * KIB
"""Data in a Dask graph from this size on, in bytes, are stored once and shared by all tasks.
Smaller ones travel with each call that reads them, which costs less than a stored value."""

DASK_PRIORITIES: Final = 32
"""How many steps the order of Dask becomes as priorities of calls. Each step is a queue of its own
in the scheduler, which looks at all of them. Within a step, calls start in the order of Dask."""

DASK_LOCK_LOOK_S: Final = 0.01
"""How often a process that waits with a time limit for a lock of another process looks at it, in
seconds. Without a limit the system wakes it."""

DASK_SMALL_FRAME_BYTES: Final = 16 * KIB
"""A frame of numbers of at most so many bytes travels between the calls of a Dask graph as these
bytes. Of a larger one the pickle has its buffers apart, so it is not copied at all."""

DASK_SCHEMAS_KEPT: Final = 100
"""Of so many kinds of small frames a worker keeps columns and types. Loading them takes 30 us."""

DASK_HOLDER_LOOK_S: Final = 0.5
"""How often a call on a cluster that waits for a lock looks whether the call that has it still
runs, in seconds. A lock that is given back is passed on at once."""

DASK_STAY_BYTES: Final = 256 * KIB
"""Cheap numpy on arrays of the program, of so many bytes and more, is computed by threads of the
program on one machine. A call for less takes no longer than the threads."""

TENSOR_CHUNK_BYTES: Final = 32 * MIB
"""How large the chunks of a tensor are, in bytes, if a program does not say. Large enough that a
call costs nothing beside the work, and small enough that 2 GiB keep many cores busy. It depends on
no machine, because random numbers belong to their chunks."""

TENSOR_COPY_BYTES: Final = 8 * MIB
"""An array from this size on, in bytes, is put together of its chunks by several threads. To start
threads takes longer than to copy less."""

FRAME_CHUNK_BYTES: Final = 32 * MIB
"""How large the chunks of a frame are, in bytes, if a program does not say."""

MERGE_WHOLE_VALUES: Final = 1_000_000
"""A right frame of a merge that has at most so many values goes to each chunk of the left one as a
whole, which is 8 MB of numbers. That is faster than to shuffle both, and rows keep their order."""

PANDAS_BLOCKS_PER_CORE: Final = 4
"""Into how many blocks for each core the rows, columns or groups of pandas are cut. With more, a
slow block costs less at the end. Each costs a call, and some hundred microseconds in pandas."""

JOBLIB_BATCHES_KEPT: Final = 10_000
"""How many batches a joblib backend remembers, for their logs. Each takes about 1 KB, and a long
loop may have millions of them."""

JOBLIB_SHARED_BYTES: Final = 64 * KIB
"""Buffers in batches of joblib from this size on, in bytes, are stored once for a loop. To send one
with each batch copies it several times: into a pickle, through a socket, and out of the pickle."""

JOBLIB_FUNCTIONS: Final = 8
"""How many sets of functions of one joblib loop travel apart from its batches. A loop has one as a
rule. One that makes a function for each item has no use for a second way."""
# -- clusters on Kubernetes -------------------------------------------------------------------

KUBERNETES_LEASE_S: Final = 300
"""A cluster on Kubernetes ends if its program has not been heard of for this time, in seconds. A
program may hang for minutes, in compiled code or on a laptop that sleeps, and find it again."""

KUBERNETES_LEASES: Final = 5
"""How often the lease of a cluster is renewed within its time. Some of the renewals may fail."""

KUBERNETES_FINISHED_S: Final = 30
"""How long the remains of a cluster that ended by itself can be looked at, in seconds. Then
Kubernetes deletes them."""

KUBERNETES_START_S: Final = 600.0
"""How long a cluster may take to start unless told otherwise, in seconds. An autoscaler needs
minutes for a new node, and a large image one more."""

KUBERNETES_CALL_S: Final = 10.0
"""How long the API server may take for one answer, in seconds."""

KUBERNETES_POLL_S: Final = 0.5
"""How often pods that start or end are looked at, in seconds. They take seconds."""

KUBERNETES_PENDING_S: Final = 5.0
"""Pods that wait for longer than this have their reason told, in seconds."""

KUBERNETES_HOPELESS_S: Final = 12.0
"""How long a fault that may pass, such as an image that was not pulled, is waited out before it is
an error, in seconds. Kubernetes tries twice in that time, and the error comes within 30 seconds."""

KUBERNETES_CRASHES: Final = 2
"""How often a pod may crash as it starts. A worker ends if its scheduler takes a minute to come."""

KUBERNETES_WHY_S: Final = 6.0
"""How long a lost node's pod is asked for its reason, in seconds. The kubelet tells it within two,
and the node's calls wait meanwhile."""

KUBERNETES_GONE_S: Final = 90.0
"""How long pods may take to be gone after they were told to end, in seconds. Their grace is 15;
those of a node that is lost stay until Kubernetes gives it up."""

KUBERNETES_GRACE_S: Final = 15
"""How long a pod that was told to end may take, in whole seconds. Its calls were given up
before."""

KUBERNETES_USER: Final = 10_001
"""The user that pods run as. Any but root, and one that no image or node knows."""

KUBERNETES_HEAD_BYTES: Final = 1024 * MIB
"""Memory of the pod of Dask's scheduler unless told otherwise, in bytes."""

KUBERNETES_RAY_HEAD_BYTES: Final = 2 * 1024 * MIB
"""Memory of the pod of Ray's head unless told otherwise, in bytes. Its processes take 400 MiB, and
those that it starts for a program 200 MiB more."""

KUBERNETES_WORKER_BYTES: Final = 2 * 1024 * MIB
"""Memory of a worker's pod unless told otherwise, in bytes: two GiB for a core."""

KUBERNETES_SPILL_BYTES: Final = 4 * 1024 * MIB
"""Disk of a worker's pod for temporary files and spilled values unless told otherwise, in bytes."""

KUBERNETES_CACHE_SHARE: Final = 0.4
"""The part of a pod's memory that values may take, and so its ``/dev/shm``. The original's."""

KUBERNETES_LOG_LINES: Final = 20
"""How many last lines of the log of a pod that crashed an error shows."""

SLURM_COMMAND_S: Final = 20.0
"""How long a command of Slurm may take, in seconds. A busy controller answers after seconds."""

SLURM_TICK_S: Final = 0.5
"""How often the keeper of a cluster on Slurm looks whether something is due, in seconds."""

SLURM_QUEUE_LOOK_S: Final = 2.0
"""How often Slurm is asked for a job that waits, in seconds, in the first half minute. A wrong
request is found then. Sites ask users not to poll more often than needed."""

SLURM_LONG_LOOK_S: Final = 10.0
"""How often Slurm is asked for a job that runs or has waited for half a minute, in seconds. A
change of its time limit is seen within this time."""

SLURM_QUEUE_NEW_S: Final = 30.0
"""How long a job that waits is new, in seconds: see `SLURM_QUEUE_LOOK_S`."""

SLURM_WARNING_S: Final = 60.0
"""How long before the time limit of a job its calls are told, in seconds. Enough to write a large
state to disk."""

SLURM_STEP_END_S: Final = 12.0
"""How long the nodes of a job may take to leave, in seconds. A node has `CLUSTER_END_S` for its
processes, and the loaded file system of a cluster takes its time."""

SLURM_STEP_AGAIN_S: Final = 30.0
"""How long after a node ended it is started again on its host, in seconds."""

SLURM_STEP_TRIES: Final = 3
"""How often in a row a node is started on a host without joining the cluster."""

SLURM_KEEPER_END_S: Final = 60.0
"""How long the keeper of a cluster on Slurm may take to end all, in seconds: the nodes leave, the
job is cancelled, the head ends. A controller that does not answer takes several times
`SLURM_COMMAND_S`."""

SLURM_SAID_LINES: Final = 20
"""How many last lines of what a host printed an error shows."""

# -- the page -----------------------------------------------------------------------------------

PAGE_BODY_BYTES: Final = 4096
"""The largest body of a request to the page. Its own have none."""

PAGE_HEAD_BYTES: Final = 16 * KIB
"""The largest head of a request to the page: twice what browsers send at the most."""

PAGE_CONNECTIONS: Final = 64
"""Connections to the page at a time. A browser opens six. Each costs the program a descriptor, so a
flood of them must not take what its workers need."""

PAGE_HEAD_S: Final = 10.0
"""How long a connection may take for its first request, in seconds."""

PAGE_STALL_S: Final = 20.0
"""How long a reader may leave what it was sent, in seconds; then the page hangs up."""

PAGE_STREAMS: Final = 24
"""Streams of events at a time: a window has two."""

PAGE_TICK_S: Final = 0.5
"""Between two events of the page, in seconds: people see no more, and each costs about 1 ms."""

PAGE_LATE_S: Final = 5.0
"""How old what the page tells may become while others want the interpreter or the cores, in
seconds: it then tells less often."""

PAGE_SHARE: Final = 0.01
"""The part of the program's processor time in which the page decodes attempts while others want the
interpreter or the cores: benchmark `page_on`, and `make bench-watched`."""

PAGE_FREE_SHARE: Final = 0.05
"""The part of the time that the page decodes attempts while nobody else wants the interpreter, and
that it tells of them. By the clock, so that it tells less often where it waits for others."""

PAGE_STEP_ROWS: Final = 100
"""Attempts that the page decodes at once: about 1 ms."""

PAGE_ROWS: Final = 100_000
"""Attempts that the page keeps decoded, the newest: 1 KB each."""

PAGE_LISTED: Final = 2_000
"""Calls that have not ended, and calls that have failed, that the page lists. The others are
counted."""

PAGE_FLOOD_LISTED: Final = 200
"""As `PAGE_LISTED`, of calls that have not ended, while calls end faster than the page reads of
them. They have ended before anybody has read the list, and each takes 5 us from the program."""

PAGE_LOG_BYTES: Final = 256 * KIB
"""How much of a log the page shows when it is opened, from its end, and sends at once."""

PAGE_GRAPH_CALLS: Final = 40
"""A graph of up to so many calls shows each of them, if no more than `PAGE_GRAPH_BESIDE` are beside
each other: so many boxes fit a screen. Else calls of one function are one box."""

PAGE_GRAPH_BESIDE: Final = 12
"""See `PAGE_GRAPH_CALLS`. A screen has room for about ten boxes above each other."""

PAGE_GRAPH_MOST: Final = 400
"""The most boxes of a graph, also for who asks for each call: a browser lays them out in 0.1 s."""

PAGE_OBJECTS: Final = 200
"""Stored values that the page lists, the largest. The others are added up."""

USAGE_EVERY_S: Final = 0.4
"""How often nodes are asked at most what their workers use, in seconds: a page tells as often."""

USAGE_ANSWER_S: Final = 0.5
"""How long somebody who looks for the first time waits for nodes to tell that, in seconds."""

PAGE_REPORT_ROWS: Final = 20_000
"""Attempts that the page adds up for its report while calls run, without being asked to. They take
half a second of the program."""

PAGE_SCAN_S: Final = 2.0
"""How old the list of calls that the program holds may be, in seconds. To make it takes 60 ms for a
program of a million objects."""

DESK_AFTER_S: Final = 0.2
"""How long after its first session a program can be found by ``mars top`` and the like, in seconds.
Nobody asks a program that is over sooner, and its first result does not wait for the folder."""

DESK_ADVANCE_S: Final = 1.0
"""How long attempts are read before a command is answered, in seconds, most often once: enough for
100 000 of them."""

DESK_CLIENTS: Final = 16
"""Commands that a program answers at a time. Each costs a thread and a descriptor."""

DESK_HEAD_BYTES: Final = 4096
"""The longest question of a command: a path, and the key of a call."""

DESK_STALL_S: Final = 20.0
"""How long a command may take to ask, or to read what it asked for, in seconds."""

EVENTS_EVERY_S: Final = 0.25
"""How often ``mars.options.on_event`` is told of attempts that have ended, in seconds. A run that
ends is told at once."""

EVENTS_IDLE_S: Final = 5.0
"""How long the thread that tells of events waits for the next run before it ends, in seconds: a
loop of short runs does not start a thread for each."""

EVENTS_STEP_ROWS: Final = 2_000
"""Attempts that are decoded at once for them: about 16 ms."""

EVENTS_WAIT_S: Final = 10.0
"""How long `execute` waits for a hook of the program that is still at its run, in seconds."""

EVENTS_WARNINGS: Final = 50
"""Attempts of one run that went wrong, and that are logged; nobody reads more lines."""
