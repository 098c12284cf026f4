//! Submitting and editing: what a client asks for becomes a task, or an error that says what is wrong with it. Pure.

use super::{BACKOFF, Claim, Frame, Key, Keys, Rare, TIMEOUT, Task, Work, group, name_of, record};
use crate::base::hash::{FNV, fnv};
use crate::base::ids::{RunId, TaskId};
use crate::base::json::Obj;
use crate::base::limits::{TASK_EDGES_MAX, TASK_KEY_MAX, TASKS_MAX};
use crate::base::near::nearest;
use crate::base::time::{Mono, Wall};
use crate::config::{Access, AgentPrompt, AgentSpec, LogSpec, ServiceSpec};
use crate::core::request::Asked;
use crate::core::schedule::is_own;
use crate::core::{Core, Out, Owner, Peer};
use crate::protocol::methods::task::{TaskEdit, TaskSpec, TaskState, Work as Asks};
use crate::protocol::rpc::{Code, RpcError};
use core::time::Duration;
use std::sync::Arc;

/// What a claim on the same name is told.
enum Known {
    No,
    Yes(TaskId, u32),
    Other(TaskId, u32),
}

fn invalid(text: impl Into<String>) -> RpcError {
    RpcError::new(Code::InvalidParams, text)
}

/// Of names that only have to be told apart from most others; who is meant is compared.
fn hash(owner: &Owner, kind: u8, text: &str) -> u64 {
    fnv(fnv(fnv(FNV, owner.to_string().as_bytes()), &[kind]), text.as_bytes())
}

const OWN: u8 = b'k';
const REQUEST: u8 = b'r';

/// By which the keys of a task are found.
pub(super) fn hashes(owner: &Owner, keys: &Keys) -> impl Iterator<Item = u64> + use<> {
    let of = |kind, key: &Option<Key>| key.as_ref().map(|key| hash(owner, kind, &key.text));
    [of(OWN, &keys.own), of(REQUEST, &keys.request)].into_iter().flatten()
}

/// The tasks of a submission: so many from this one on.
struct Submitted {
    first: TaskId,
    count: u32,
    /// They exist, or existed, under the dedupe key.
    known: bool,
}

/// The dedupe key of a submission. A list has one for all its tasks, which each of them names.
fn key_of(specs: &[TaskSpec], many: bool) -> Result<Option<Key>, RpcError> {
    let of_first = specs.first().and_then(|spec| spec.key.as_deref());
    if let Some(n) = specs.iter().position(|spec| spec.key.as_deref() != of_first) {
        let named = |key: Option<&str>| key.map_or("no key".to_owned(), |key| format!("key {key:?}"));
        let other = specs.get(n).and_then(|spec| spec.key.as_deref());
        let text = format!("task {} of the list has {}, and task 1 {}", n + 1, named(other), named(of_first));
        return Err(
            invalid(text).hint("give all tasks of a list the same key, which is then that of the list, or none")
        );
    }
    let Some(text) = of_first else { return Ok(None) };
    if text.len() > TASK_KEY_MAX {
        return Err(invalid(format!("key has {} bytes; {TASK_KEY_MAX} is the most", text.len())));
    }
    Ok(Some(match specs {
        [one] if !many => Key::new(text, spec_hash(one), 0),
        _ => {
            let all = specs.iter().fold(fnv(FNV, b"list"), |all, spec| fnv(all, &spec_hash(spec).to_le_bytes()));
            Key::new(text, all, u32::try_from(specs.len()).unwrap_or(u32::MAX))
        }
    }))
}

impl Core {
    pub(in crate::core) fn submit(&mut self, asked: &Asked, specs: Vec<TaskSpec>, many: bool, out: &mut Out) {
        let answer = self.try_submit(asked, specs, many, out);
        if let (Ok(made), true) = (&answer, is_own(asked.req)) {
            let ids = (made.first.0..made.first.0.saturating_add(made.count.into())).map(TaskId).collect();
            return self.run_submitted(asked.req, ids);
        }
        self.reply(asked.req, answer.map(|made| self.submitted_json(&made, many)), true, out);
    }

    /// The reply to a submission: one id, or those of a list.
    fn submitted_json(&self, made: &Submitted, many: bool) -> String {
        let Submitted { first, count, known } = *made;
        let mut o = Obj::new();
        if many {
            let ids: Vec<String> = (first.0..first.0.saturating_add(count.into())).map(|id| id.to_string()).collect();
            o.raw("ids", &format!("[{}]", ids.join(",")));
        } else {
            o.u64("id", first.0);
        }
        if known {
            o.bool("known", true);
            if many {
                let end = TaskId(first.0.saturating_add(count.into()));
                let there = self.tasks.all.range(first..end).count();
                o.u64("removed", u64::from(count).saturating_sub(there as u64));
            } else {
                o.str("state", self.tasks.get(first).map_or("removed", |t| t.state.name()));
            }
        }
        o.finish()
    }

    fn try_submit(
        &mut self,
        asked: &Asked,
        specs: Vec<TaskSpec>,
        many: bool,
        out: &mut Out,
    ) -> Result<Submitted, RpcError> {
        let owner = asked.peer.owner();
        if let Some(key) = &asked.key {
            match self.known_key(&owner, REQUEST, key, asked.params_hash) {
                Known::No => {}
                Known::Yes(first, count) => return Ok(Submitted { first, count: count.max(1), known: false }),
                Known::Other(id, _) => {
                    let text = format!("request_key {key:?} was used for another request, which made task {id}");
                    return Err(RpcError::new(Code::Conflict, text).hint("use a new key for each new request"));
                }
            }
        }
        let own = key_of(&specs, many)?;
        if let Some(key) = &own
            && let Some(known) = self.same_key(&owner, key)?
        {
            return Ok(known);
        }
        if self.tasks.len() + specs.len() > TASKS_MAX {
            let error =
                RpcError::new(Code::Busy, format!("there are {} tasks; {TASKS_MAX} is the most", self.tasks.len()));
            return Err(error.hint("`hob task clean` removes those that are over"));
        }
        let edges = specs.iter().map(|s| s.after.len()).sum::<usize>();
        if edges > TASK_EDGES_MAX {
            let text = format!("`after` of all these tasks has {edges} entries; {TASK_EDGES_MAX} is the most");
            return Err(invalid(text).hint("let many follow one, and that one the many before it"));
        }
        let count = u32::try_from(specs.len()).unwrap_or(u32::MAX);
        let first = TaskId(self.tasks.next.max(1));
        self.note_clocks();
        let mut made: Vec<Task> = Vec::with_capacity(specs.len());
        for (n, spec) in (0..).zip(specs) {
            let task = self.make(TaskId(first.0 + n), &asked.peer, spec).map_err(|e| match many {
                true => RpcError { message: format!("task {} of the list: {}", n + 1, e.message), ..e },
                false => e,
            })?;
            made.push(task);
        }
        let request = asked.key.as_ref().map(|key| Key::new(key, asked.params_hash, if many { count } else { 0 }));
        if let Some(task) = made.first_mut()
            && (own.is_some() || request.is_some())
        {
            task.keys = Some(Box::new(Keys { own, request }));
        }
        for task in made {
            self.take_in(task, true);
        }
        // After what stays, so that it leaves no holes between that.
        let made = self.tasks.after(TaskId(first.0 - 1)).take(count as usize);
        out.records.extend(made.map(record::task));
        let group = self.tasks.get(first).map(|t| Arc::clone(&t.frame.group));
        let mut fields = Obj::new();
        fields.u64("id", first.0).u64("count", count.into()).opt_str("group", group.as_deref());
        fields.str("by", &asked.client().text());
        self.events.emit(self.now, "task.queued", Some(&name_of(first)), fields.members(), out);
        Ok(Submitted { first, count, known: false })
    }

    /// A task becomes one of those that exist. `new`: it was not loaded, so those it follows are counted.
    pub(super) fn take_in(&mut self, task: Task, new: bool) {
        let (id, owner) = (task.id, &task.frame.owner);
        if let Some(keys) = task.keys.as_deref() {
            self.tasks.by_key.extend(hashes(owner, keys).map(|hash| (hash, id)));
        }
        self.tasks.insert(task);
        if new {
            self.follow_others(id);
            self.enqueue(id);
        }
    }

    /// A task is removed: its keys stay, as long as they count. Those of a list are the last's that exists.
    pub(super) fn bury_keys(&mut self, task: &Task, out: &mut Out) {
        let Some(keys) = task.keys.as_deref() else { return };
        let owner = &task.frame.owner;
        if let Some(heir) = self.heir(task.id, keys) {
            self.forget_keys(task.id, owner, keys);
            return self.hand_over(keys.clone(), task.id, heir, out);
        }
        match self.tasks.gone.bury(self.now, task.id, owner, keys.clone(), task.submitted) {
            Some(record) => out.records.push(record),
            None => self.forget_keys(task.id, owner, keys),
        }
        for (id, gone, record) in self.tasks.gone.expire(self.now) {
            self.forget_keys(id, &gone.owner, &gone.keys);
            out.records.push(record);
        }
    }

    /// Who carries the keys of a list when this one is removed. The last, so that removing all of them one after the
    /// other hands them over once.
    fn heir(&self, carrier: TaskId, keys: &Keys) -> Option<TaskId> {
        let key = keys.own.as_ref().or(keys.request.as_ref())?;
        let first = key.first(carrier);
        let list = first..TaskId(first.0.saturating_add(key.many.into()));
        self.tasks.all.range(list).next_back().map(|(id, _)| *id)
    }

    fn hand_over(&mut self, keys: Keys, from: TaskId, heir: TaskId, out: &mut Out) {
        let Some(task) = self.tasks.get_mut(heir) else { return };
        let inherit = |key: Key| {
            let before = u32::try_from(heir.0 - key.first(from).0).unwrap_or(u32::MAX);
            Key { before, ..key }
        };
        let keys = Keys { own: keys.own.map(inherit), request: keys.request.map(inherit) };
        let known: Vec<u64> = hashes(&task.frame.owner, &keys).collect();
        task.keys = Some(Box::new(keys));
        out.records.push(record::task(task));
        self.tasks.by_key.extend(known.into_iter().map(|hash| (hash, heir)));
    }

    fn forget_keys(&mut self, id: TaskId, owner: &Owner, keys: &Keys) {
        for hash in hashes(owner, keys) {
            self.tasks.by_key.remove(&(hash, id));
        }
    }

    fn known_key(&self, owner: &Owner, kind: u8, text: &str, params: u64) -> Known {
        let hash = hash(owner, kind, text);
        let range = (hash, TaskId(0))..=(hash, TaskId(u64::MAX));
        for (_, id) in self.tasks.by_key.range(range) {
            let (of, keys) = match (self.tasks.get(*id), self.tasks.gone.get(*id, self.now)) {
                (Some(task), _) => (&task.frame.owner, task.keys.as_deref()),
                (None, Some(gone)) => (&gone.owner, Some(&gone.keys)),
                (None, None) => continue,
            };
            let keys = keys.filter(|_| of == owner);
            let key = keys.and_then(|k| if kind == OWN { k.own.as_ref() } else { k.request.as_ref() });
            if let Some(key) = key.filter(|k| *k.text == *text) {
                let first = key.first(*id);
                return if key.hash == params { Known::Yes(first, key.many) } else { Known::Other(first, key.many) };
            }
        }
        Known::No
    }

    /// The tasks that exist already under a dedupe key.
    fn same_key(&self, owner: &Owner, key: &Key) -> Result<Option<Submitted>, RpcError> {
        match self.known_key(owner, OWN, &key.text, key.hash) {
            Known::No => Ok(None),
            Known::Yes(first, count) => Ok(Some(Submitted { first, count: count.max(1), known: true })),
            Known::Other(first, count) => {
                let of = match count {
                    0 => format!("task {first}, which is another one"),
                    1 => format!("a list of task {first} alone, which is another one"),
                    n => format!("a list of {n} tasks from {first} on, which are others"),
                };
                let error = RpcError::new(Code::Conflict, format!("key {:?} belongs to {of}", key.text));
                Err(error
                    .hint("use another key; one belongs to its task for as long as that exists, and an hour at least"))
            }
        }
    }

    fn make(&mut self, id: TaskId, peer: &Peer, spec: TaskSpec) -> Result<Task, RpcError> {
        let (owner, user) = (peer.owner(), self.user_of(peer)?);
        let (work, agent) = match spec.work {
            Asks::Command(words) => (Work::command(&words), None),
            Asks::Agent { name, prompt } => {
                let name = self.agent_named(name)?;
                let agent = self.programs.agents.get(&name).cloned();
                check_prompt(&name, agent.as_ref(), &prompt)?;
                (Work::Agent { name: name.into(), prompt: prompt.into() }, agent)
            }
        };
        let named =
            spec.group.or_else(|| agent.as_ref().map(|a| a.group.clone().unwrap_or_else(|| group::AGENTS.to_owned())));
        let (group, _) = self.tasks.group(named.as_deref().unwrap_or(group::DEFAULT))?;
        let group = Arc::clone(group);
        if let Some(runner) = &spec.runner {
            self.runner_named(runner)?;
        }
        if let Some(agent) = agent.as_ref().filter(|_| user.is_some()) {
            no_secrets(agent)?;
        }
        if agent.as_ref().is_some_and(|a| a.prompt == AgentPrompt::Stdin) && spec.stdin.is_some() {
            return Err(invalid("the agent reads its prompt from its standard input, so there can be no other stdin"));
        }
        self.check_after(&spec.after)?;
        let timeout = spec.timeout.or_else(|| agent.as_ref().and_then(|a| a.timeout)).unwrap_or(TIMEOUT);
        let frame = self.tasks.share(Frame {
            owner,
            group,
            cwd: spec.cwd.map(Into::into),
            env: spec.env.into(),
            umask: spec.umask,
            labels: spec.labels.into(),
            max_output: spec.max_output,
            runner: spec.runner.map(Into::into),
            repeatable: spec.repeatable,
            hob_fd: spec.hob_fd,
            user,
        });
        let rare = Rare {
            weight: spec.weight,
            retries: spec.retries,
            backoff: spec.backoff.unwrap_or(BACKOFF),
            timeout,
            not_before: self.not_before(spec.delay, spec.at),
            after: spec.after,
            stdin: spec.stdin.map(Into::into),
            ..Rare::ordinary()
        };
        Ok(Task {
            id,
            frame,
            work,
            state: if spec.hold { TaskState::Held } else { TaskState::Queued },
            priority: spec.priority,
            attempts: 0,
            submitted: self.now.wall,
            claim: Claim::None,
            last: RunId(0),
            live: None,
            outcome: None,
            rare: rare.kept(),
        })
    }

    /// As whom the tasks of a client run: an admin's as hob itself, those of others as who they are. So nobody gets the
    /// rights of hob's user by being allowed to operate it.
    fn user_of(&self, peer: &Peer) -> Result<Option<u32>, RpcError> {
        match (peer.access, self.facts.uid) {
            (Access::Admin, _) => Ok(None),
            (Access::Read | Access::Operate, own) if own == peer.uid => Ok(None),
            (Access::Read | Access::Operate, 0) => Ok(Some(peer.uid)),
            (Access::Read | Access::Operate, own) => {
                let uid = peer.uid;
                let text = format!("a task of uid {uid} runs as that user, and hob, which is uid {own}, cannot be it");
                let hint = "whom `daemon.access` in the config makes an admin may queue tasks that run as hob itself";
                Err(RpcError::new(Code::PermissionDenied, text).hint(hint))
            }
        }
    }

    fn not_before(&self, delay: Option<Duration>, at: Option<Wall>) -> Wall {
        let later =
            |d: Duration| Wall(self.now.wall.0.saturating_add(i64::try_from(d.as_millis()).unwrap_or(i64::MAX)));
        at.or(delay.map(later)).unwrap_or(Wall(0))
    }

    /// An agent by name, or the one that is meant where none is named.
    fn agent_named(&self, name: Option<String>) -> Result<String, RpcError> {
        let agents = &self.programs.agents;
        let name = match name {
            Some(name) => name,
            None if agents.contains_key(group::DEFAULT) => group::DEFAULT.to_owned(),
            None if agents.len() == 1 => agents.keys().next().cloned().unwrap_or_default(),
            None if agents.is_empty() => {
                let error = RpcError::new(Code::NotFound, "there is no agent to give the prompt to");
                return Err(
                    error.hint(r#"add one to the config: "agents": {"default": {"command": ["claude", "-p"]}}"#)
                );
            }
            None => {
                let known = agents.keys().cloned().collect::<Vec<_>>().join(", ");
                return Err(invalid("which agent is to get the prompt?").hint(format!("agents are {known}")));
            }
        };
        if agents.contains_key(&name) {
            return Ok(name);
        }
        Err(missing("agent", &name, agents.keys().map(String::as_str)))
    }

    fn runner_named(&self, name: &str) -> Result<(), RpcError> {
        if self.programs.runners.contains_key(name) {
            return Ok(());
        }
        Err(missing("runner", name, self.programs.runners.keys().map(String::as_str)))
    }

    pub(super) fn edit_task(
        &mut self,
        id: TaskId,
        peer: &Peer,
        edit: TaskEdit,
        out: &mut Out,
    ) -> Result<String, RpcError> {
        let task = self.tasks.get(id).ok_or_else(|| super::calls::unknown(id))?;
        if peer.access != Access::Admin && self.user_of(peer).ok() != Some(task.frame.user) {
            let text = format!("task {id} runs as another user, so only that one and admins may change what it does");
            return Err(RpcError::new(Code::PermissionDenied, text).hint("submit one of your own"));
        }
        if !matches!(task.state, TaskState::Held | TaskState::Queued) || task.live.is_some() {
            let state = super::calls::said_of(task.state);
            let text = format!("task {id} {state}: only one that has not begun can be edited");
            return Err(RpcError::new(Code::Conflict, text).hint("submit another one"));
        }
        let (mut new, retried) = (task.clone(), task.again_at.0 > 0);
        let mut frame = Frame::clone(&new.frame);
        match (&mut new.work, edit.command, edit.prompt) {
            (_, None, None) => {}
            (work @ Work::Command(_), Some(words), None) => *work = Work::command(&words),
            (Work::Agent { name, prompt }, None, Some(text)) => {
                check_prompt(name, self.programs.agents.get(&**name), &text)?;
                *prompt = text.into();
            }
            (Work::Command(_), _, Some(_)) => return Err(invalid(format!("task {id} has a command and no prompt"))),
            (Work::Agent { .. }, Some(_), _) => return Err(invalid(format!("task {id} has a prompt and no command"))),
        }
        if let Some(name) = edit.group {
            frame.group = Arc::clone(self.tasks.group(&name)?.0);
        }
        if let Some(cwd) = edit.cwd {
            frame.cwd = Some(cwd.into());
        }
        if let Some(labels) = edit.labels {
            frame.labels = labels.into();
        }
        if let Some(after) = edit.after {
            self.check_after(&after)?;
            self.check_cycle(id, &after)?;
            new.after = after;
        }
        if edit.delay.is_some() || edit.at.is_some() {
            new.not_before = self.not_before(edit.delay, edit.at);
            // It is a person's word against that of a retry.
            (new.again_at, new.again) = (Wall(0), Mono(0));
        }
        new.priority = edit.priority.unwrap_or(new.priority);
        new.timeout = edit.timeout.unwrap_or(new.timeout);
        new.retries = edit.retries.unwrap_or(new.retries);
        new.weight = edit.weight.unwrap_or(new.weight);
        new.frame = self.tasks.share(frame);
        let claimed = self.unqueue(id);
        new.claim = Claim::None;
        new.blocked = 0;
        new.last = self.tasks.get(id).map_or(new.last, |t| t.last);
        out.records.push(record::task(&new));
        self.replace(id, new);
        self.follow_others(id);
        if claimed || retried {
            self.save_attempt(id, out);
        }
        self.emit_task("task.edited", id, "", out);
        self.enqueue(id);
        self.task_json(id)
    }

    /// An edited task takes the place of what it was; whom it follows is noted anew.
    fn replace(&mut self, id: TaskId, new: Task) {
        let (queued, group) = (u64::from(new.state == TaskState::Queued), Arc::clone(&new.frame.group));
        let Some(task) = self.tasks.get_mut(id) else { return };
        let old = core::mem::replace(task, new);
        self.tasks.unfollow(id, &old.after);
        self.tasks.group_for(&old.frame.group).queued -= queued;
        self.tasks.group_for(&group).queued += queued;
    }

    /// What a task is run with, by the config as it is now.
    pub(super) fn process_of(&self, task: &Task) -> Result<ServiceSpec, String> {
        let group = self.tasks.groups.get(&task.frame.group).map_or(&group::UNSAID, group::Group::said);
        let mut spec = ServiceSpec { nice: group.nice, ..ServiceSpec::default() };
        spec.limits = group.limits.clone();
        let words = match &task.work {
            Work::Command(words) => words.split('\0').map(str::to_owned).collect(),
            Work::Agent { name, prompt } => {
                let agent = self.programs.agents.get(&**name);
                let agent = agent.ok_or_else(|| format!("there is no agent {name:?} in the config any more"))?;
                for (name, value) in &agent.env {
                    match name.strip_suffix("_env") {
                        Some(name) => spec.env_from.insert(name.to_owned(), value.clone()),
                        None => spec.env.insert(name.clone(), value.clone()),
                    };
                }
                spec.secrets = spec.env_from.keys().cloned().collect();
                let mut words = agent.command.clone();
                if agent.prompt == AgentPrompt::Argument {
                    words.push(prompt.to_string());
                }
                words
            }
        };
        spec.command = match task.frame.runner.as_deref() {
            Some(name) => {
                let runner = self.programs.runners.get(name);
                let runner = runner.ok_or_else(|| format!("there is no runner {name:?} in the config any more"))?;
                let quoted = |word: String| if runner.quote { in_quotes(&word) } else { word };
                runner.prefix.iter().cloned().chain(words.into_iter().map(quoted)).collect()
            }
            None => words,
        };
        spec.env.extend(task.frame.env.iter().cloned());
        spec.hob_fd = task.frame.hob_fd;
        spec.user = task.frame.user.map(|uid| uid.to_string());
        spec.clean_env = task.frame.user.is_some();
        spec.cwd = Some(task.frame.cwd.as_deref().unwrap_or(".").to_owned());
        spec.umask = task.frame.umask;
        spec.log = log_of(task);
        Ok(spec)
    }

    /// What capture has to know of a task that was started by an earlier daemon.
    pub(super) fn captured(&self, task: &Task) -> ServiceSpec {
        let mut spec = ServiceSpec { log: log_of(task), ..ServiceSpec::default() };
        if let Work::Agent { name, .. } = &task.work {
            // Of an agent that the config does not name any more all that was learnt stays a secret.
            let of = |a: &AgentSpec| a.env.iter().any(|(name, _)| name.ends_with("_env"));
            if self.programs.agents.get(&**name).is_none_or(of) {
                spec.secrets.push(name.to_string());
            }
        }
        spec
    }

    /// What a task reads.
    pub(super) fn input_of(&self, task: &Task) -> Option<crate::core::Stdin> {
        use crate::core::Stdin;
        let agent = match &task.work {
            Work::Command(_) => None,
            Work::Agent { name, prompt } => self.programs.agents.get(&**name).map(|a| (a.prompt, prompt)),
        };
        match agent {
            Some((AgentPrompt::Stdin, prompt)) => Some(Stdin::Bytes(prompt.as_bytes().into())),
            Some((AgentPrompt::File, prompt)) => Some(Stdin::PromptFile(prompt.as_bytes().into())),
            Some((AgentPrompt::Argument, _)) | None => task.stdin.as_deref().map(|bytes| Stdin::Bytes(bytes.into())),
        }
    }
}

/// Of three files the first is the head; the other two take turns at the tail.
fn log_of(task: &Task) -> LogSpec {
    let most = task.frame.max_output.unwrap_or(super::MAX_OUTPUT);
    LogSpec { max_size: (most / 3).max(1), max_files: 3, keep_head: true, ..LogSpec::DEFAULT }
}

/// A word that is nothing else to any shell: neither a keyword, nor an assignment.
fn in_quotes(word: &str) -> String {
    format!("'{}'", word.replace('\'', r"'\''"))
}

fn missing<'a>(what: &str, name: &str, known: impl Iterator<Item = &'a str>) -> RpcError {
    let error = RpcError::new(Code::NotFound, format!("there is no {what} {name:?} in the config"));
    match nearest(name, known) {
        Some(near) => error.hint(format!("did you mean {near:?}?")),
        None => error.hint("`hob config show` shows those that there are"),
    }
}

fn check_prompt(name: &str, agent: Option<&AgentSpec>, prompt: &str) -> Result<(), RpcError> {
    if agent.is_some_and(|a| a.prompt == AgentPrompt::Argument) && prompt.contains('\0') {
        let error = invalid("the prompt has a zero byte in it, which no argument of a program can have");
        return Err(error.hint(format!("agents.{name}.prompt in the config can be \"stdin\" or \"file\"")));
    }
    Ok(())
}

/// Who runs an agent's program as himself could read what it is given.
fn no_secrets(agent: &AgentSpec) -> Result<(), RpcError> {
    match agent.env.keys().find(|name| name.ends_with("_env")) {
        Some(name) => {
            let text =
                format!("this agent is given a secret of hob's own user ({name}), which other users may not see");
            Err(RpcError::new(Code::PermissionDenied, text).hint("an admin may use it: `daemon.access` in the config"))
        }
        None => Ok(()),
    }
}

/// The hash of what a task is; it goes into the journal with its key, so it must not change between versions.
fn spec_hash(spec: &TaskSpec) -> u64 {
    let text = match &spec.work {
        Asks::Command(words) => words.join("\0"),
        Asks::Agent { name, prompt } => format!("{}\u{1}{prompt}", name.as_deref().unwrap_or_default()),
    };
    let place = [spec.cwd.as_deref(), spec.group.as_deref(), spec.runner.as_deref()].map(Option::unwrap_or_default);
    hash(&Owner::User(0), OWN, &format!("{text}\u{2}{}", place.join("\u{2}")))
}
