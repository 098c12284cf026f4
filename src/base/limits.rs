//! Every limit of hob, by name. A limit is tested where it is enforced.

use core::time::Duration;

/// Largest frame or message a client may send; checked before memory is reserved. The length field has 24 bits.
pub const FRAME_MAX: usize = 16 * 1024 * 1024 - 1;
/// Largest message on HOB_FD and on other bounded sockets.
pub const MESSAGE_MAX: usize = 64 * 1024;
/// A deadline that is seen this much late means that the machine stood still, so that nobody could do anything.
pub const FROZEN: Duration = Duration::from_secs(1);
/// Of the quiet time before such a deadline so much at most is taken for a part of it.
pub const FROZEN_BEFORE_MAX: Duration = Duration::from_secs(30);
/// Numbers of events are below this, so that every reader of JSON can hold them.
pub const EVENT_SEQ_END: u64 = 1 << 53;
/// Requests in one JSON-RPC batch.
pub const BATCH_MAX: usize = 1000;
/// Nesting depth of JSON that is accepted (serde_json's own limit).
pub const JSON_DEPTH_MAX: usize = 128;
/// Open client connections altogether, and of one job or one uid other than root and hob's own.
pub const CONNECTIONS_MAX: usize = 4096;
pub const CONNECTIONS_PER_USER_MAX: usize = 256;
/// Of all connections: those that only root and hob's own user may use, and of these the ones for root alone.
pub const CONNECTIONS_KEPT: usize = 64;
pub const CONNECTIONS_KEPT_FOR_ROOT: usize = 16;
/// Channels to jobs (HOB_FD) that are open at once.
pub const CHANNELS_MAX: usize = 2048;
/// Requests of one connection that wait for their reply.
pub const REQUESTS_IN_FLIGHT_MAX: usize = 1024;
/// The same of all connections of one user or job, their subscriptions, their log streams, and the bytes in memory that
/// they have sent without an end of the message or have not read. Root and hob's own user have no such limits, unless
/// it is a job of theirs.
pub const REQUESTS_PER_USER_MAX: usize = 4096;
pub const SUBSCRIPTIONS_PER_USER_MAX: usize = 2048;
pub const STREAMS_PER_USER_MAX: usize = 2048;
pub const BYTES_PER_USER_MAX: usize = 64 * 1024 * 1024;
/// Rows in an answer about the tasks of a selection; of the rest there are counts.
pub const TASK_ROWS_MAX: usize = 1000;
/// Tasks that the requests of one user may wait for at once, in blocks of 64 neighbours.
pub const TASK_BLOCKS_WAITED_MAX: usize = 1 << 18;
/// Requests in one batch on HOB_FD, so that the replies fit into one message.
pub const BATCH_MESSAGE_MAX: usize = 64;
/// Unsent bytes of one connection at which its subscriptions are lost (`lagged`), and at which it is closed; the latter
/// also of replies that wait for the rest of their batch.
pub const UNSENT_LAGGED: usize = 1024 * 1024;
pub const UNSENT_MAX: usize = 32 * 1024 * 1024;
/// Bytes of unfinished messages, unfinished batches and unsent replies of all connections together.
pub const BUFFERED_MAX: usize = 128 * 1024 * 1024;
/// How long a connection with more unsent than `UNSENT_LAGGED` may take nothing of it before it is closed.
pub const LAGGING_MAX: Duration = Duration::from_secs(60);
/// Subscriptions and streams of one connection.
pub const STREAMS_PER_CONNECTION_MAX: usize = 1024;
/// Inhibitors of one connection and altogether, and bytes of what one says of itself.
pub const INHIBITORS_PER_CONNECTION_MAX: usize = 16;
pub const INHIBITORS_MAX: usize = 1024;
pub const INHIBITOR_TEXT_MAX: usize = 256;
/// Slots in the run table: runs that exist at once.
pub const RUN_SLOTS: usize = 16_384;
/// Services in one config, and the length of a service's name in bytes.
pub const SERVICES_MAX: usize = 10_000;
pub const NAME_MAX: usize = 64;
/// Sockets that one service listens on.
pub const LISTEN_MAX: usize = 32;
/// Instances of one service.
pub const INSTANCES_MAX: usize = 1000;
/// Bytes of all instances of a config together, and needs that come of needing all instances of services.
pub const EXPANDED_BYTES_MAX: usize = 64 * 1024 * 1024;
pub const EXPANDED_NEEDS_MAX: usize = 100_000;
/// Bytes of the config of a transient service, and transient services that have ended and are kept to tell of it.
pub const TRANSIENT_CONFIG_MAX: usize = 64 * 1024;
pub const TRANSIENT_ENDED_MAX: usize = 100;
/// Size of a config file.
pub const CONFIG_MAX: usize = 4 * 1024 * 1024;
/// Nesting depth of a config, so that reading one fits on the stack of any thread.
pub const CONFIG_DEPTH_MAX: usize = 32;
/// Run records kept for each name.
pub const HISTORY_PER_NAME: usize = 10;
/// Events kept in the ring.
pub const EVENTS_KEPT: usize = 1000;
/// Patterns of kinds, and names, that one subscription or query may give.
pub const EVENT_FILTERS_MAX: usize = 256;
/// Bytes taken from one pipe in one turn.
pub const CAPTURE_TURN: usize = 1024 * 1024;
/// A line longer than this may be cut at a rotation.
pub const LINE_MAX: usize = 64 * 1024;
/// A longer line, or one that is unfinished for so long, is taken as it is where lines are processed, and continued.
pub const LINE_HELD_MAX: usize = 8 * 1024;
pub const LINE_HELD: Duration = Duration::from_secs(1);
/// Secrets of one service, and bytes of a value: a shorter one cannot be masked, a longer one is masked up to here.
pub const SECRETS_MAX: usize = 64;
pub const SECRET_MIN: usize = 2;
pub const SECRET_MAX: usize = 4096;
/// Free space that logs leave on their file system, or this part of it where it is small.
pub const LOG_DISK_FREE_MIN: u64 = 32 * 1024 * 1024;
pub const LOG_DISK_FREE_PART: u64 = 32;
/// Last output lines kept in a failed run's record, and bytes of each.
pub const LAST_LINES: usize = 5;
pub const LAST_LINE_BYTES: usize = 200;
/// Bytes that are kept of the reason why something could not be started.
pub const START_ERROR_BYTES: usize = 512;
/// Rounds of inputs and effects in one turn of the loop, after which clients are looked at again.
pub const ROUNDS_PER_TURN: usize = 16;
/// Space the journal keeps allocated ahead; with less, new work is refused.
pub const JOURNAL_RESERVE: u64 = 1024 * 1024;
/// Size of the journal since its snapshot at which a new snapshot is begun, at the least.
pub const JOURNAL_SNAPSHOT_MIN: u64 = 4 * 1024 * 1024;
/// Entities written in one turn while a snapshot is made.
pub const SNAPSHOT_SLICE: usize = 256;
/// A stored reply of a request key: size, age, number, and the age before which none is dropped.
pub const KEPT_REPLY_BYTES: usize = 4096;
pub const KEPT_REPLY_AGE: Duration = Duration::from_secs(3600);
pub const KEPT_REPLIES_MAX: usize = 10_000;
/// Of these, the ones that only callers with admin access may use.
pub const KEPT_REPLIES_RESERVE: usize = 1000;
pub const KEPT_REPLY_MIN_AGE: Duration = Duration::from_secs(60);
/// A request key's length in bytes.
pub const REQUEST_KEY_MAX: usize = 128;
/// Tasks that exist at once, and those of one submission.
pub const TASKS_MAX: usize = 1_000_000;
pub const TASK_ARRAY_MAX: usize = 100_000;
/// Slots of one group.
pub const GROUP_PARALLEL_MAX: u32 = 10_000;
/// What the weights of its running tasks may add up to.
pub const GROUP_WEIGHT_MAX: u32 = u32::MAX;
/// Retries of one task.
pub const TASK_RETRIES_MAX: i64 = 1_000;
/// Tasks that one task may follow, and its labels.
pub const TASK_AFTER_MAX: usize = 1_000;
/// The same of all tasks of one submission together.
pub const TASK_EDGES_MAX: usize = 200_000;
/// Numbers and ranges that one request names.
pub const TASK_IDS_MAX: usize = 10_000;
pub const TASK_LABELS_MAX: usize = 64;
/// A dedupe key of a task, in bytes.
pub const TASK_KEY_MAX: usize = 128;
/// Tasks of one page of a list.
pub const TASK_PAGE_MAX: usize = 10_000;
/// Tasks of a group that are claimed ahead of those that run, at most.
pub const CLAIMS_AHEAD_MAX: usize = 64;
/// Groups of tasks that exist at once.
pub const GROUPS_MAX: usize = 1_000;
