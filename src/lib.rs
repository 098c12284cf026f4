//! hob: one small Unix program that keeps services running and can always say why. This page is the map of its code.
//!
//! # What runs
//! - The **keeper** ([`keeper`]): the parent process, PID 1 in a container. It holds what must survive the daemon (the
//!   run table, pipes and sockets of services, the control listener, the lock), reaps orphans, and starts the next
//!   daemon.
//! - The **daemon** ([`daemon`]): its child, which decides and acts. One reactor thread, and a small pool for what may
//!   block.
//! - The **command line** ([`cli`]) and the **client library** ([`client`]): they speak JSON-RPC over one Unix socket.
//!
//! A crash, a kill -9 and an upgrade of the daemon are one path: the keeper starts the next one and hands it
//! everything. In an upgrade the keeper then becomes the new program too.
//!
//! # Rooms
//! Imports only point down this list. Each room's first line says what it is for and what it may touch.
//! - [`cli`]: flags (one table drives parsing, help, manual and completions), one file a noun, rendering; `task` (add,
//!   look, change, groups), `schedule` (jobs, and expressions of cron without a daemon), `story` (why, of a service, a
//!   task or a job)
//! - [`client`]: blocking library: connect, call, typed calls, subscribe, logs of services and output of tasks, which
//!   follow over deaths of the daemon, ensure_running; what has no call of its own, such as tasks and schedules, by
//!   method and JSON
//! - [`keeper`]: uses `sys` and `base` alone: `mod` (the loop), `worker` (the daemon at hand), `crash` and `watch`
//!   (when it is at fault, when it hangs), `reap` (ends of children), `outer` and `parent` (the service manager or
//!   program it belongs to), `means` (what it makes of its process), `words` (what it says), `teller` (who hears
//!   that), `pidfile`, `renew` and `manifest` (becoming another program), `end`
//! - [`daemon`]: `start` (coming up, ending), `mod` (the loop), `exec` (the one match over `Effect`), `gear` (what
//!   the parts share), and the parts: `conn` (clients), `child` (processes, and the sockets held for them), `capture`
//!   (output to files), `logs` (files to clients), `journal`, `events` (the ring file), `link` (the keeper), `pool`
//!   (threads), `source` (tokens), `door` (who may speak, and the channels of jobs), `closer` (closes what may block,
//!   in threads), `unheard` (what services say of themselves, and what of it is left for the next turn), `wall`
//!   (whether the clock was set), `question` (calls answered without a round), `fair` (what clients may take of a
//!   turn), `measure` (what running jobs cost, for all who ask at once), `ownlog`, `told` (events as its lines),
//!   `doctor` (what is wrong around hob), `offline` (a core of what files hold, which answers the command line while no
//!   daemon runs), `lifecycle` (what one daemon leaves to the next: marks, safe mode, upgrades; files on mounts that do
//!   not answer; folders of hobs that were run for one command and killed)
//! - [`sys`]: the only unsafe code and the only `cfg` on the operating system; one folder a platform, the same names in
//!   each
//! - [`core`]: all control state and every decision, pure: `state` (`Core`, `step`, the one match over `Input`),
//!   `request` (the one match over `Request`), `service` (the state machine; its first page is the essay on it), `run`
//!   (records, why), `view` (state to replies), `event`, `keys`, `record` (state to journal and back),
//!   `task` (the queue; its first page is the essay on it), `schedule` (time that is kept; likewise),
//!   `safe` (safe mode), `freeze`, `upgrade`, `newer` (whether there is another hob), `owner` (who asks, whose
//!   something is), `inhibit` (who delays a shutdown), `restore` (what a managed hob ran), `outer` (a line for the
//!   service manager), `doctor` (services in trouble), `members` (names in requests), `plan` (what a reload would do),
//!   `wait` (requests that wait for an end state), `life` (shutdown, and what comes up at the start), `due`
//!   (deadlines), `fuzz` (an entry for fuzzers)
//! - [`config`]: text to a checked spec, or every mistake in it with line and column; `schema` (the same table of keys
//!   for editors), `programs` (groups, agents, runners), `cron` (expressions, time zones and when they fire),
//!   `schedule` (jobs)
//! - [`protocol`]: `frame` (bytes to messages), `rpc` (messages), `methods` (the one table of methods)
//! - [`base`]: time, ids, units, limits (every limit by name), timers, a small sorted map, the words between keeper
//!   and daemon (`control`), lines of hob's own log (`log`), findings of the doctor, levels of access, paths, signals,
//!   and small work on texts, JSON and hashes (`text`, `near`, `json`, `hash`, `gather`)
//!
//! # Invariants
//! - Under `base`, `protocol`, `config` and `core` there is no clock, file, environment, process, socket, thread,
//!   randomness or hash-ordered map: time and text come in as values. `tests/tidy` enforces it, with layers and sizes.
//! - `core.step(now, input, &mut out)` never fails and never blocks. An input that no longer fits is ignored and
//!   traced.
//! - A round's records are written to the journal before any of its effects runs, and its events to the ring before
//!   anybody is told. A reply that promises durability waits for the sync as well.
//! - Bytes of output never enter the core, and never the daemon's memory on their way to the file.
//! - Nothing that matters leaves the kernel before it is on record: an end is in the run table before it is reaped, a
//!   notification is journalled before it is received, a pipe is with the keeper before a child is cloned with it.
//! - Closing always deregisters first: the keeper's duplicate keeps a closed descriptor alive in the selector.
//! - No signal goes to a bare pid that may have been recycled.
//! - With nothing due, keeper and daemon sleep without a timeout: there is no tick.
//!
//! # The life of one request
//! `conn::ready` reads, `protocol` decodes, [`core::Core::step`] decides (a handler sets marks, `settle` propagates
//! them and emits), the round's records are written, `exec` runs the effects in order, `conn::reply` queues, and the
//! end of the turn writes once for each connection. Other triggers take the same road: an end of a child, a deadline, a
//! message of the keeper. A question that changes nothing takes a shorter one, if nothing is due or waits before it:
//! [`core::Core::answer`] looks at the state, and the reply is queued as it is read.
#![deny(unsafe_code)]

pub mod base;
pub mod cli;
pub mod client;
pub mod config;
pub mod core;
pub mod daemon;
pub mod keeper;
pub mod protocol;
pub mod sys;
