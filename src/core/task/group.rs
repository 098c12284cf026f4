//! Groups of tasks: how many of them run at once, what waits in them, and who says so. Pure.

use super::{Rank, Tasks};
use crate::base::gather::Gather as _;
use crate::base::ids::TaskId;
use crate::base::json::Obj;
use crate::base::limits::{CLAIMS_AHEAD_MAX, GROUPS_MAX, NAME_MAX};
use crate::base::near::nearest;
use crate::base::text::shell_word;
use crate::config::{Config, GroupSpec, limits_brief};
use crate::core::request::Asked;
use crate::core::{Core, Effect, Out};
use crate::protocol::methods::task::{GroupCall, TaskState};
use crate::protocol::rpc::{Code, RpcError};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// The group of tasks that name none, and that of agents; both are always there.
pub const DEFAULT: &str = "default";
pub const AGENTS: &str = "agents";

/// A group of which the config says nothing.
pub(super) static UNSAID: GroupSpec = GroupSpec::DEFAULT;

/// What a person has changed; the rest is as the config says.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Change {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parallel: Option<u32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub weight_limit: Option<u32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub paused: Option<bool>,
}

#[derive(Debug, Default)]
pub struct Group {
    /// What the config says, if it knows the group.
    pub spec: Option<GroupSpec>,
    pub change: Change,
    /// Tasks that could be claimed now.
    pub(super) ready: BTreeSet<Rank>,
    /// Tasks that are claimed and wait for the disk or for a slot.
    pub(super) claimed: BTreeSet<Rank>,
    pub(super) running: u32,
    pub(super) weight: u64,
    /// Tasks that are queued, whatever they wait for.
    pub(super) queued: u64,
}

impl Group {
    /// What the config says, or what holds where it says nothing.
    pub(super) fn said(&self) -> &GroupSpec {
        self.spec.as_ref().unwrap_or(&UNSAID)
    }

    /// Whether it is there for more than the tasks that are in it.
    fn is_named(&self, name: &str) -> bool {
        self.spec.is_some() || self.change != Change::default() || [DEFAULT, AGENTS].contains(&name)
    }

    #[must_use]
    pub fn parallel(&self) -> u32 {
        self.change.parallel.unwrap_or_else(|| self.said().parallel)
    }

    /// Zero: no limit.
    #[must_use]
    pub fn weight_limit(&self) -> u32 {
        self.change.weight_limit.unwrap_or_else(|| self.said().weight_limit)
    }

    #[must_use]
    pub fn paused(&self) -> bool {
        self.change.paused.unwrap_or_else(|| self.said().paused)
    }

    /// Whether one more task of this weight may start. One that is heavier than the limit runs alone.
    pub(super) fn has_room(&self, weight: u32) -> bool {
        let limit = u64::from(self.weight_limit());
        let light = limit == 0 || self.running == 0 || self.weight + u64::from(weight) <= limit;
        self.running < self.parallel() && light
    }

    /// How many tasks may be claimed beyond those that run.
    pub(super) fn ahead(&self) -> usize {
        usize::try_from(self.parallel()).unwrap_or(usize::MAX).clamp(2, CLAIMS_AHEAD_MAX)
    }
}

/// Why a text cannot be the name of a group.
fn name_error(name: &str) -> Option<String> {
    let odd = name.chars().find(|c| !c.is_ascii_alphanumeric() && !"-_.:".contains(*c));
    match odd {
        Some(c) => Some(format!("a group's name has letters, digits and any of -_.: but not {c:?}")),
        None if name.starts_with(['.', '-']) => Some("a group's name does not begin with '.' or '-'".to_owned()),
        None if name.is_empty() || name.len() > NAME_MAX => Some(format!("a group's name has 1 to {NAME_MAX} letters")),
        None => None,
    }
}

impl Tasks {
    /// The groups of a config that was loaded; those that it does not name any more stay while anything needs them.
    pub(in crate::core) fn configure(&mut self, config: &Config) {
        self.blind = false;
        for (name, group) in &mut self.groups {
            group.spec = config.groups.get(&**name).cloned();
        }
        for (name, spec) in &config.groups {
            self.groups.entry(name.as_str().into()).or_default().spec = Some(spec.clone());
        }
        for name in [DEFAULT, AGENTS] {
            self.groups.entry(name.into()).or_default();
        }
        self.forget_groups();
        self.dirty.extend(self.groups.keys().cloned());
    }

    pub(in crate::core) fn configured_groups(&self) -> BTreeMap<String, GroupSpec> {
        self.groups.iter().filter_map(|(name, g)| Some((name.to_string(), g.spec.clone()?))).gather()
    }

    /// Groups that nobody has named and no task is in are gone.
    pub(super) fn forget_groups(&mut self) {
        let left = self.left_groups();
        if left.values().any(|tasks| *tasks == 0) {
            self.groups.retain(|name, _| left.get(name) != Some(&0));
        }
    }

    /// The groups that neither the config nor a person names any more, with how many tasks each has.
    fn left_groups(&self) -> BTreeMap<Arc<str>, u64> {
        let mut left: BTreeMap<Arc<str>, u64> =
            self.groups.iter().filter(|(name, g)| !g.is_named(name)).map(|(name, _)| (Arc::clone(name), 0)).gather();
        if !left.is_empty() {
            for task in self.all.values() {
                if let Some(tasks) = left.get_mut(&task.frame.group) {
                    *tasks += 1;
                }
            }
        }
        left
    }

    /// A group by name.
    pub(super) fn group(&self, name: &str) -> Result<(&Arc<str>, &Group), RpcError> {
        self.groups.get_key_value(name).ok_or_else(|| {
            let error = RpcError::new(Code::NotFound, format!("there is no group {name:?}"));
            match nearest(name, self.groups.keys().map(|n| &**n)) {
                Some(near) => error.hint(format!("did you mean {near:?}?")),
                None => match name_error(name) {
                    Some(why) => error.hint(why),
                    None => error.hint(format!("`hob group set {} --parallel 2` makes it", shell_word(name))),
                },
            }
        })
    }

    /// The group of a task that is on record, whoever made it.
    pub(super) fn group_for(&mut self, name: &Arc<str>) -> &mut Group {
        self.groups.entry(Arc::clone(name)).or_default()
    }
}

impl Group {
    fn view(&self, name: &str) -> Obj {
        let mut o = Obj::new();
        o.str("name", name).u64("parallel", self.parallel().into()).u64("weight_limit", self.weight_limit().into());
        o.bool("paused", self.paused()).u64("running", self.running.into()).u64("weight", self.weight);
        o.u64("queued", self.queued);
        o.bool("configured", self.spec.is_some()).bool("changed", self.change != Change::default());
        if let Some(limits) = self.spec.as_ref().and_then(limits_brief) {
            o.raw("limits", &limits);
        }
        o
    }
}

impl Core {
    pub(in crate::core) fn group_call(&mut self, asked: &Asked, call: GroupCall, out: &mut Out) {
        let durable = call != GroupCall::List && !self.journal_full;
        let answer = match call {
            GroupCall::List => {
                let left = self.tasks.left_groups();
                let view = |(name, g): (&Arc<str>, &Group)| {
                    let mut o = g.view(name);
                    if let Some(tasks) = left.get(name) {
                        o.u64("left_for_tasks", *tasks);
                    }
                    o.finish()
                };
                let all: Vec<String> = self.tasks.groups.iter().map(view).collect();
                Ok(format!("{{\"groups\":[{}]}}", all.join(",")))
            }
            GroupCall::Set { name, remove: true, .. } => {
                self.check_unused(&name).and_then(|()| self.set_group(&name, |c| *c = Change::default(), false, out))
            }
            GroupCall::Set { name, parallel, weight_limit, remove: false } => self.set_group(
                &name,
                |c| {
                    c.parallel = parallel.or(c.parallel);
                    c.weight_limit = weight_limit.or(c.weight_limit);
                },
                true,
                out,
            ),
            GroupCall::Pause { name, running } => {
                let answer = self.set_group(&name, |c| c.paused = Some(true), false, out);
                if answer.is_ok() && running {
                    self.pause_group(&name, true, out);
                }
                answer
            }
            GroupCall::Resume { name, running } => {
                let answer = self.set_group(&name, |c| c.paused = Some(false), false, out);
                if answer.is_ok() && running {
                    self.pause_group(&name, false, out);
                }
                answer
            }
        };
        self.reply(asked.req, answer, durable, out);
    }

    /// A group that only a person's word has made goes with it, and tasks that are left would run as those of any group
    /// do: several at once where it was one after the other.
    fn check_unused(&self, name: &str) -> Result<(), RpcError> {
        let (_, group) = self.tasks.group(name)?;
        let open = |t: &&super::Task| &*t.frame.group == name && !t.state.is_over();
        let count = self.tasks.all.values().map(|t| &**t).filter(open).count();
        if group.spec.is_some() || [DEFAULT, AGENTS].contains(&name) || count == 0 {
            return Ok(());
        }
        let what = if count == 1 { "a task that is not over".to_owned() } else { format!("{count} tasks not over") };
        let error = RpcError::new(Code::Conflict, format!("group {name} has {what}, which its limits are for"));
        let name = shell_word(name);
        Err(error.hint(format!("`hob task wait -g {name}` waits for them, `hob task cancel -g {name}` cancels them")))
    }

    /// Changes what a person says of a group; `make`: one that is not there is made.
    fn set_group(
        &mut self,
        name: &str,
        change: impl FnOnce(&mut Change),
        make: bool,
        out: &mut Out,
    ) -> Result<String, RpcError> {
        if !self.tasks.groups.contains_key(name) {
            if !make {
                self.tasks.group(name)?;
            }
            if let Some(why) = name_error(name) {
                return Err(RpcError::new(Code::InvalidParams, why));
            }
            if self.tasks.groups.len() >= GROUPS_MAX {
                return Err(RpcError::new(Code::Busy, format!("there are {GROUPS_MAX} groups, which is the most")));
            }
        }
        let name: Arc<str> = name.into();
        let group = self.tasks.groups.entry(Arc::clone(&name)).or_default();
        let before = group.change.clone();
        change(&mut group.change);
        if group.paused() == group.said().paused {
            group.change.paused = None;
        }
        let changed = group.change != before;
        if changed {
            out.records.push(super::record::group(&name, &group.change));
        }
        let view = self.tasks.groups[&name].view(&name);
        if changed {
            self.emit_daemon("group.changed", view.members(), out);
        }
        self.tasks.look_at(&name);
        self.tasks.forget_groups();
        Ok(view.finish())
    }

    fn pause_group(&mut self, name: &str, pause: bool, out: &mut Out) {
        let of = |t: &&super::Task| &*t.frame.group == name && t.has_slot();
        let ids: Vec<TaskId> = self.tasks.all.values().map(|t| &**t).filter(of).map(|t| t.id).collect();
        for id in ids {
            self.pause_task(id, pause, out);
        }
    }

    /// Stops the processes of a task, or lets them go on. Whether that changed anything.
    pub(super) fn pause_task(&mut self, id: TaskId, pause: bool, out: &mut Out) -> bool {
        let now = self.now.mono;
        let Some(task) = self.tasks.get_mut(id) else { return false };
        let timeout = task.timeout;
        let Some(live) = task.live.as_mut().filter(|l| l.pid.is_some() && l.end.is_none() && l.stop.is_none()) else {
            return false;
        };
        if live.paused == pause {
            return false;
        }
        live.paused = pause;
        live.moved = true;
        // What it may still run is kept while it is stopped.
        if pause {
            live.left = live.timeout_at.map(|at| at.since(now));
        } else if !timeout.is_zero() {
            live.timeout_at = live.left.take().map(|left| now + left);
        }
        out.effects.push(Effect::Pause { run: live.run, on: pause });
        let (state, kind) =
            if pause { (TaskState::Paused, "task.paused") } else { (TaskState::Running, "task.resumed") };
        self.tasks.set_state(id, state);
        self.save_attempt(id, out);
        self.emit_task(kind, id, "", out);
        self.plan_task(id);
        true
    }
}
