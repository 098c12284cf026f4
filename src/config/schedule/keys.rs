//! The table of a job's keys. Touches nothing.

use super::{JobSpec, Missed, Overlap, Verb};
use crate::config::keys::{Field, Key, Slot, at, from, live, zero_or_from};

const LIMIT_MAX: u32 = 1_000;

pub(in crate::config) const JOB: &[Key<JobSpec>] = &[
    live("id", Field::Id(at!(id)), "its name, which no other job has", r#""nightly""#),
    live(
        "cron",
        Field::Cron(at!(cron)),
        "when, as five fields of cron, six with seconds first, or a word such as @daily; each job has one of cron, \
         every and at",
        r#""30 2 * * mon-fri""#,
    ),
    live(
        "every",
        Field::OptSpan(at!(every), from(1_000)),
        "when, by a fixed distance, the first time so long after hob has first seen the job",
        r#""90s""#,
    ),
    live(
        "at",
        Field::Moment(at!(at)),
        "when, once: a date and a time, in tz unless it has an offset of its own",
        r#""2027-01-01T00:00:00""#,
    ),
    live(
        "action",
        Field::Action(at!(action)),
        "what to do: submit a task, start, stop, restart or reload services, send a signal to one, or call any method \
         of the protocol",
        r#"{"start": "NAME"}"#,
    ),
    live(
        "tz",
        Field::Zone(at!(tz)),
        "time zone of cron and at, by its name in the system's time zone database; unset: local time",
        r#""Europe/Berlin""#,
    ),
    live(
        "overlap",
        Field::Overlap(at!(overlap)),
        "when it is due while its last run goes on: leave it out, let it wait, run both, or give up the one that runs",
        r#""queue""#,
    ),
    live(
        "missed",
        Field::Missed(at!(missed)),
        "what to make up for when its time passed while hob was down or the machine slept: nothing, one run, or all; \
         a time that is noticed up to a minute late was not missed, and runs in each case",
        r#""once""#,
    ),
    live(
        "limit",
        Field::Count(at!(limit), 1, LIMIT_MAX),
        "runs that may be made up for or wait, at most; what is older is left out",
        "10",
    ),
    live(
        "stagger",
        Field::Span(at!(stagger), zero_or_from("none", 1)),
        "pause between two runs that are made up for",
        r#""1s""#,
    ),
    live(
        "jitter",
        Field::Span(at!(jitter), zero_or_from("none", 1)),
        "each host begins later by a part of this that is always the same for a host and a job",
        r#""5m""#,
    ),
    live(
        "timeout",
        Field::OptSpan(at!(timeout), from(1)),
        "how long a run may take; then hob waits for it no longer and counts it as failed; unset: as long as it takes",
        r#""10m""#,
    ),
    live("paused", Field::Flag(at!(paused)), "it waits until a person resumes it", "true"),
];

pub(in crate::config) const OVERLAPS: &[(&str, Overlap)] =
    &[("skip", Overlap::Skip), ("queue", Overlap::Queue), ("allow", Overlap::Allow), ("restart", Overlap::Restart)];
pub(in crate::config) const MISSED: &[(&str, Missed)] =
    &[("skip", Missed::Skip), ("once", Missed::Once), ("all", Missed::All)];
pub(in crate::config) const VERBS: &[(&str, Verb)] =
    &[("start", Verb::Start), ("stop", Verb::Stop), ("restart", Verb::Restart), ("reload", Verb::Reload)];
