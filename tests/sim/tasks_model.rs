//! Tasks as a person may expect them to be: a second, simpler account of them, which follows what the core says it did
//! only where the rules allow it. What is lost with records of the journal is undone here too; what processes really
//! did is not.

use crate::disk::Disk;
use crate::os::Os;
use hob::base::ids::{ReqId, RunId, TaskId};
use hob::config::{AgentPrompt, Config, GroupSpec};
use hob::core::record::Entity;
use hob::core::{End, Input, Start, Stdin, TableRun};
use hob::protocol::methods::task::{After, TaskState};
use std::collections::{BTreeMap, BTreeSet, VecDeque};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    Held,
    Queued,
    Running(RunId),
    Over(TaskState),
}

/// Why hob ends an attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Why {
    Client,
    Timeout,
    Shutdown,
}

#[derive(Clone, Debug)]
pub struct Job {
    /// No two tasks share it, while an id may be given again when a submission that nobody was told of is lost.
    pub uid: u64,
    pub owner: String,
    pub words: Vec<String>,
    /// The agent that gets the words as its prompt.
    pub agent: Option<String>,
    pub runner: Option<String>,
    pub group: String,
    pub priority: i32,
    pub weight: u32,
    pub retries: u32,
    /// Milliseconds; no time limit is 0.
    pub backoff: u64,
    pub timeout: u64,
    pub repeatable: bool,
    pub after: Vec<After>,
    pub not_before: i64,
    /// Its key and that of its request, each with what they stand for, and of how many tasks of a list.
    pub own: Option<(String, String, u32)>,
    pub request: Option<(String, u64, u32)>,
    pub phase: Phase,
    pub paused: bool,
    pub fails: u32,
    pub attempts: u32,
    /// Why hob ends it, and whether that is certain: otherwise it may have ended by itself before.
    pub stop: Option<(Why, bool)>,
    /// When its start was ordered, and before when it is not tried again.
    pub begun: u64,
    pub again: u64,
    /// The same by the wall clock, which is what is on record.
    pub again_wall: i64,
    /// How often its program may have been started by now.
    pub grants: u32,
    /// Its time has come once, whatever the clock says since.
    pub ripe: bool,
    /// A person has said that it is to run once more, whatever came of those it follows.
    pub retried: bool,
    /// Those it follows that were over once.
    pub cleared: BTreeSet<TaskId>,
    /// How its last attempt ended.
    pub exit: Option<End>,
}

impl Job {
    pub fn is_over(&self) -> bool {
        matches!(self.phase, Phase::Over(_))
    }

    pub fn state(&self) -> TaskState {
        match self.phase {
            Phase::Held => TaskState::Held,
            Phase::Queued => TaskState::Queued,
            Phase::Running(_) if self.paused => TaskState::Paused,
            Phase::Running(_) => TaskState::Running,
            Phase::Over(state) => state,
        }
    }

    /// The better one comes first.
    pub fn rank(&self, id: TaskId) -> (i32, TaskId) {
        (-self.priority, id)
    }
}

/// What persons changed of a group.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Change {
    pub parallel: Option<u32>,
    pub weight_limit: Option<u32>,
    pub paused: Option<bool>,
}

/// A run of a task, whatever the journal remembers of it.
#[derive(Clone, Debug)]
pub struct Run {
    pub uid: u64,
    pub id: TaskId,
    pub group: String,
    pub weight: u32,
    /// When `Started` is delivered.
    pub told_at: u64,
}

#[derive(Debug)]
enum Undo {
    Job(TaskId, Option<Box<Job>>),
    Group(String, Change),
}

/// What the rules are held against.
#[derive(Clone, Copy, Debug)]
pub struct Scene<'a> {
    pub os: &'a Os,
    pub disk: &'a Disk,
    pub now: u64,
    pub wall: i64,
    pub stopping: bool,
    /// The shutdown is not put off any more: what runs is being stopped.
    pub stops: bool,
    pub journal_full: bool,
    /// Something is due at this very moment, so there is another step now.
    pub busy: bool,
    /// The entities that the round has written.
    pub touched: &'a BTreeSet<String>,
}

/// The input of a round, as far as it matters here.
#[derive(Debug)]
pub enum Told {
    Boot(Box<Booted>),
    Config(Box<Config>),
    Request(ReqId),
    Synced(u64),
    WallSet(i64),
    Other,
}

#[derive(Debug)]
pub struct Booted {
    pub table: Vec<TableRun>,
    pub entities: Vec<Entity>,
    pub keeper: String,
    pub config: Config,
    /// The config could not be read.
    pub blind: bool,
    /// Records are missing.
    pub gap: bool,
}

impl Told {
    /// `looks`: requests that only look at the config.
    pub fn of(input: &Input, looks: &BTreeSet<ReqId>) -> Told {
        match input {
            Input::Boot(boot) => Told::Boot(Box::new(Booted {
                table: boot.table.clone(),
                entities: boot.entities.clone(),
                keeper: boot.keeper_key.clone(),
                config: boot.config.clone(),
                blind: boot.config_error.is_some(),
                gap: boot.gap,
            })),
            Input::ConfigRead { req: Some(req), .. } if looks.contains(req) => Told::Other,
            Input::ConfigRead { result: Ok(config), .. } => Told::Config(config.clone()),
            Input::Request { req, .. } => Told::Request(*req),
            Input::Synced { ticket } => Told::Synced(*ticket),
            Input::WallSet { by } => Told::WallSet(*by),
            _ => Told::Other,
        }
    }
}

#[derive(Debug, Default)]
pub struct Tasks {
    pub jobs: BTreeMap<TaskId, Job>,
    pub changes: BTreeMap<String, Change>,
    /// Tasks that were removed, as they were: their keys count for an hour, which a clock that is set may cut short.
    pub removed: BTreeMap<TaskId, Job>,
    pub config: Config,
    /// The config could not be read, so that nobody knows how many may run, and by which programs.
    pub blind: bool,
    undo: VecDeque<(usize, Undo)>,
    /// Where the records of the present round end.
    pub end: usize,
    pub step: u64,
    last_uid: u64,
    /// How often the program of a task really was started.
    pub spawns: BTreeMap<u64, u32>,
    pub runs: BTreeMap<RunId, Run>,
    /// Starts that were ordered and have neither made a process nor failed.
    pub pending: BTreeSet<RunId>,
    /// Since which step a task has been waiting for nothing but a slot.
    pub since: BTreeMap<TaskId, u64>,
    /// Where the claims of each ticket end, and up to where the core was told that they are on disk.
    pub tickets: BTreeMap<u64, usize>,
    pub told_synced: usize,
    /// Claims of starts that were not ordered yet: the run, and where the round of the claim ends.
    pub claims: BTreeMap<TaskId, (RunId, usize)>,
    /// Claims that the present round gives back, maybe after it has ordered other starts, and where theirs end.
    pub given_back: BTreeMap<TaskId, usize>,
    /// Tasks whose end nobody can know, of which the core has to say so in this round.
    pub unknown: BTreeSet<TaskId>,
    /// Tasks that follow one which did not succeed, so that they have to be cancelled in this round.
    pub doomed: BTreeSet<TaskId>,
    pub entities: BTreeSet<String>,
}

impl Tasks {
    pub fn new_uid(&mut self) -> u64 {
        self.last_uid += 1;
        self.last_uid
    }

    /// A task about to be changed by the present round.
    pub fn edit(&mut self, id: TaskId) -> Option<&mut Job> {
        let job = self.jobs.get_mut(&id)?;
        self.undo.push_back((self.end, Undo::Job(id, Some(Box::new(job.clone())))));
        Some(job)
    }

    pub fn insert(&mut self, id: TaskId, job: Job) {
        self.undo.push_back((self.end, Undo::Job(id, None)));
        self.jobs.insert(id, job);
    }

    pub fn remove(&mut self, id: TaskId) {
        if let Some(job) = self.jobs.remove(&id) {
            self.removed.insert(id, job.clone());
            self.undo.push_back((self.end, Undo::Job(id, Some(Box::new(job)))));
        }
        self.since.remove(&id);
    }

    pub fn change(&self, group: &str) -> Change {
        self.changes.get(group).copied().unwrap_or_default()
    }

    pub fn set_change(&mut self, group: &str, change: Change) {
        let before = self.change(group);
        self.undo.push_back((self.end, Undo::Group(group.to_owned(), before)));
        self.changes.insert(group.to_owned(), change);
    }

    /// Records after this position are lost, and what they said with them.
    pub fn lost(&mut self, survives: usize) {
        while self.undo.back().is_some_and(|(end, _)| *end > survives) {
            match self.undo.pop_back() {
                Some((_, Undo::Job(id, Some(job)))) => {
                    self.jobs.insert(id, *job);
                }
                Some((_, Undo::Job(id, None))) => {
                    self.jobs.remove(&id);
                }
                Some((_, Undo::Group(name, change))) => {
                    self.changes.insert(name, change);
                }
                None => {}
            }
        }
        // Those that may run twice may have done so already, as far as the journal knows.
        for job in self.jobs.values_mut().filter(|j| j.repeatable) {
            job.grants = job.grants.max(self.spawns.get(&job.uid).copied().unwrap_or(0) + 1);
        }
        self.pending.clear();
        self.since.clear();
        self.tickets.clear();
        self.claims.clear();
        self.told_synced = 0;
    }

    /// What is on disk cannot be undone any more.
    pub fn synced(&mut self, upto: usize) {
        while self.undo.front().is_some_and(|(end, _)| *end <= upto) {
            self.undo.pop_front();
        }
    }

    /// A group as the config and persons have it.
    pub fn group(&self, name: &str) -> GroupSpec {
        let spec = self.config.groups.get(name).cloned().unwrap_or_default();
        let change = self.change(name);
        GroupSpec {
            parallel: change.parallel.unwrap_or(spec.parallel),
            paused: change.paused.unwrap_or(spec.paused),
            weight_limit: change.weight_limit.unwrap_or(spec.weight_limit),
            ..spec
        }
    }

    /// Whether a group certainly exists.
    pub fn knows_group(&self, name: &str) -> bool {
        ["default", "agents"].contains(&name)
            || self.config.groups.contains_key(name)
            || self.change(name) != Change::default()
            || self.jobs.values().any(|j| j.group == name)
    }

    /// Whether the config has the programs that a task needs.
    pub fn has_programs(&self, job: &Job) -> bool {
        job.agent.as_ref().is_none_or(|name| self.config.agents.contains_key(name))
            && job.runner.as_ref().is_none_or(|name| self.config.runners.contains_key(name))
    }

    /// Holds what is to be executed for a task against what it is by the present config.
    pub fn is_run_as(&self, job: &Job, start: &Start) -> Result<(), String> {
        let mut words = job.words.clone();
        let mut stdin = None;
        if let Some(agent) = job.agent.as_ref().and_then(|name| self.config.agents.get(name)) {
            words.clone_from(&agent.command);
            let bytes = job.words[0].as_bytes();
            match agent.prompt {
                AgentPrompt::Argument => words.push(job.words[0].clone()),
                AgentPrompt::Stdin => stdin = Some(Stdin::Bytes(bytes.into())),
                AgentPrompt::File => stdin = Some(Stdin::PromptFile(bytes.into())),
            }
            for (name, value) in &agent.env {
                let has = match name.strip_suffix("_env") {
                    Some(name) => start.spec.env_from.get(name) == Some(value) && !start.spec.env.contains_key(name),
                    None => start.spec.env.get(name) == Some(value),
                };
                if !has {
                    return Err(format!("agents: {name} of its environment is missing: {:?}", start.spec));
                }
            }
        }
        if let Some(runner) = job.runner.as_ref().and_then(|name| self.config.runners.get(name)) {
            if runner.quote {
                // No word of these tasks has a quote in it.
                words = words.into_iter().map(|word| format!("'{word}'")).collect();
            }
            words.splice(0..0, runner.prefix.iter().cloned());
        }
        if start.spec.command != words || start.stdin != stdin {
            let (is, reads) = (&start.spec.command, &start.stdin);
            return Err(format!("programs: {is:?} is run instead of {words:?}, and reads {reads:?}, not {stdin:?}"));
        }
        Ok(())
    }

    /// Runs of a group that have a living process or are about to, and the sum of their weights.
    pub fn taken(&self, group: &str, os: &Os) -> (u32, u64) {
        let alive: BTreeSet<RunId> = os.procs.values().map(|p| p.run).collect();
        let taken = alive.union(&self.pending).filter_map(|run| self.runs.get(run)).filter(|r| r.group == group);
        taken.fold((0, 0), |(n, weight), r| (n + 1, weight + u64::from(r.weight)))
    }

    /// A task begins to follow others: those that are over are so for good, even if they are tried again.
    pub fn follow(&mut self, id: TaskId) {
        let over = |a: &After| self.jobs.get(&a.id).is_none_or(Job::is_over);
        let cleared = self.jobs.get(&id).into_iter().flat_map(|j| &j.after).filter(|a| over(a)).map(|a| a.id).collect();
        if let Some(job) = self.edit(id) {
            job.cleared = cleared;
        }
    }

    /// Whether what a task follows is over, as it wants it.
    pub fn follows(&self, job: &Job) -> Result<(), String> {
        for a in &job.after {
            let Some(other) = self.jobs.get(&a.id) else { continue };
            match other.phase {
                Phase::Over(TaskState::Succeeded) => {}
                // Whoever had begun when it failed is not held back by that.
                Phase::Over(_) if a.any || job.retried || job.cleared.contains(&a.id) => {}
                phase => return Err(format!("task {} is {phase:?}", a.id)),
            }
        }
        Ok(())
    }

    /// Whether a task waits for nothing but a slot.
    pub fn is_runnable(&self, job: &Job, now: u64, wall: i64) -> bool {
        let group = self.group(&job.group);
        job.phase == Phase::Queued
            && !self.blind
            && !group.paused
            && group.parallel > 0
            && job.not_before <= wall
            && job.again <= now
            && self.follows(job).is_ok()
    }

    /// At the end of a round: who waits for a slot since when.
    pub fn note_runnable(&mut self, now: u64, wall: i64) {
        let ready: BTreeSet<TaskId> =
            self.jobs.iter().filter(|(_, j)| self.is_runnable(j, now, wall)).map(|(id, _)| *id).collect();
        self.since.retain(|id, _| ready.contains(id));
        for job in self.jobs.values_mut() {
            job.ripe |= job.not_before <= wall;
        }
        for id in ready {
            self.since.entry(id).or_insert(self.step);
        }
    }

    pub fn will_tell_started(&mut self, run: RunId, at: u64) {
        if let Some(run) = self.runs.get_mut(&run) {
            run.told_at = at;
        }
    }

    pub fn started_told(&self, run: RunId) -> u64 {
        self.runs.get(&run).map_or(0, |r| r.told_at)
    }

    pub fn has_run(&self, run: RunId) -> bool {
        self.runs.contains_key(&run)
    }

    /// The program of a task is about to be executed.
    pub fn spawned(&mut self, run: RunId, os: &Os) -> Result<(), String> {
        self.pending.remove(&run);
        let Some(facts) = self.runs.get(&run).cloned() else { return Err(format!("task twice: run {run} is unknown")) };
        let Some(job) = self.jobs.get(&facts.id).filter(|j| j.uid == facts.uid) else {
            return Err(format!("task twice: run {run} belongs to task {}, which does not exist", facts.id));
        };
        let before = self.spawns.entry(facts.uid).or_default();
        if *before >= job.grants {
            return Err(format!("task twice: task {} is started {} times", facts.id, *before + 1));
        }
        *before += 1;
        let other = os.procs.values().find(|p| self.runs.get(&p.run).is_some_and(|r| r.uid == facts.uid));
        match other {
            Some(p) => Err(format!("task twice: task {} starts while process {} of run {}", facts.id, p.pid, p.run)),
            None => Ok(()),
        }
    }
}
