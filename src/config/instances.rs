//! One service of the config that stands for several: `web` with instances becomes `web@1`, `web@2`, and a need of
//! `web` becomes one of each. What reads a config after this sees plain services. Touches nothing.

use super::error::{Pos, Report, quote};
use super::graph::NeedAt;
use super::read::{Bad, Cx, name_error};
use super::spec::{Need, ServiceSpec};
use super::tree::{Member, Node, Value};
use super::values::integer;
use crate::base::gather::Gather as _;
use crate::base::limits::{EXPANDED_BYTES_MAX, EXPANDED_NEEDS_MAX, INSTANCES_MAX, NAME_MAX};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// The key that makes several of one.
pub(super) const KEY: &str = "instances";

/// A name of the form `GROUP@INSTANCE` in its two parts.
#[must_use]
pub fn instance(name: &str) -> Option<(&str, &str)> {
    name.split_once('@').filter(|(group, instance)| !group.is_empty() && !instance.is_empty())
}

/// Those of sorted names that belong to a group, in their order.
fn members<'m>(all: &'m BTreeSet<String>, group: &str) -> impl Iterator<Item = &'m String> {
    let prefix = format!("{group}@");
    let from = all.range(prefix.clone()..);
    from.take_while(move |name| name.starts_with(&prefix)).filter(|name| instance(name).is_some())
}

pub(super) fn wants() -> String {
    format!("a whole number from 1 to {INSTANCES_MAX}, or a list of names")
}

/// The names that the instances of a service have behind the `@`; `None` for an ordinary service. After a mistake,
/// which is reported, there is one, so that the rest is read as well.
pub(super) fn of(member: &Member, taken: &BTreeMap<&str, Pos>, cx: &mut Cx<'_, '_>) -> Option<Vec<String>> {
    let Value::Object(members) = &member.node.value else { return None };
    let node = &members.iter().find(|m| m.key == KEY).filter(|m| m.node.value != Value::Null)?.node;
    if member.key.contains('@') {
        cx.report.add(member.pos, "a service with instances has no '@' in its name: it stands before the instance");
    }
    let found = cx.in_key(KEY, |cx| {
        let names = match &node.value {
            Value::List(items) => listed(items, node, cx),
            _ => counted(node, cx),
        }?;
        fits(&member.key, &names, node, taken, cx)?;
        Ok::<_, Bad>(names)
    });
    Some(found.unwrap_or_else(|_| vec!["1".to_owned()]))
}

fn counted(node: &Node, cx: &mut Cx<'_, '_>) -> Result<Vec<String>, Bad> {
    if matches!(&node.value, Value::Number(n) if n == "0") {
        let message = "0 instances are no service; write \"autostart\": false to keep one down, or take it out";
        return Err(cx.say(node.pos, message));
    }
    match integer(node, 1, INSTANCES_MAX) {
        Ok(count) => Ok((1..=count).map(|i| i.to_string()).collect()),
        Err(Bad::Said) => Err(Bad::Said),
        Err(Bad::Kind(meant)) => {
            let one = |name: &String| instance_error(name).is_none().then(|| format!("[{}]", quote(name)));
            let meant = meant.or_else(|| if let Value::Text(name) = &node.value { one(name) } else { None });
            Err(cx.kind(node, &wants(), "3", meant))
        }
    }
}

fn listed(items: &[Node], node: &Node, cx: &mut Cx<'_, '_>) -> Result<Vec<String>, Bad> {
    if items.is_empty() {
        return Err(cx.say(node.pos, "an empty list of instances is no service; name one at least"));
    }
    if items.len() > INSTANCES_MAX {
        return Err(cx.say(node.pos, format!("{} instances; {INSTANCES_MAX} is the most", items.len())));
    }
    let (mut names, mut wrong) = (BTreeSet::new(), false);
    let mut all = Vec::new();
    for (i, item) in items.iter().enumerate() {
        let read = cx.in_index(i, |cx| match &item.value {
            Value::Text(name) => match instance_error(name) {
                Some(message) => Err(cx.say(item.pos, message)),
                None if !names.insert(name.as_str()) => {
                    Err(cx.say(item.pos, format!("{} is in this list twice", quote(name))))
                }
                None => Ok(name.clone()),
            },
            Value::Number(n) => Err(cx.kind(item, "the name of an instance", "", Some(quote(n)))),
            _ => Err(cx.kind(item, "the name of an instance", r#""blue""#, None)),
        });
        wrong |= read.is_err();
        all.extend(read.ok());
    }
    if wrong { Err(Bad::Said) } else { Ok(all) }
}

/// Why a text cannot stand behind the `@`.
fn instance_error(name: &str) -> Option<String> {
    if name.is_empty() {
        return Some("an instance needs a name".to_owned());
    }
    if name.contains('@') {
        return Some("the name of an instance has no '@' in it".to_owned());
    }
    name_error(name)
}

/// Whether the whole names are short enough and free.
fn fits(
    group: &str,
    names: &[String],
    node: &Node,
    taken: &BTreeMap<&str, Pos>,
    cx: &mut Cx<'_, '_>,
) -> Result<(), Bad> {
    for name in names {
        let whole = format!("{group}@{name}");
        if whole.len() > NAME_MAX {
            let message = format!("{whole} is a name of {} characters; {NAME_MAX} is the most", whole.len());
            return Err(cx.say(node.pos, message));
        }
        if let Some(at) = taken.get(whole.as_str()) {
            let message = format!("{} is a service of its own as well, at {}:{}", quote(&whole), at.line, at.column);
            return Err(cx.say(node.pos, message));
        }
    }
    Ok(())
}

/// What the instances of all services come to, so that a small file cannot fill the memory.
#[derive(Debug, Default)]
pub(super) struct Room {
    bytes: usize,
}

impl Room {
    /// Whether so many copies of a service may be made; reported if not.
    pub(super) fn admit(&mut self, member: &Member, copies: usize, cx: &mut Cx<'_, '_>) -> bool {
        self.bytes = self.bytes.saturating_add(weight(&member.node).saturating_mul(copies));
        let fits = self.bytes <= EXPANDED_BYTES_MAX;
        if !fits {
            let message =
                format!("all instances up to here come to {} bytes; {EXPANDED_BYTES_MAX} is the most", self.bytes);
            cx.report.add(member.pos, message);
        }
        fits
    }
}

/// About how many bytes a value takes.
fn weight(node: &Node) -> usize {
    const EACH: usize = 32;
    EACH + match &node.value {
        Value::Null | Value::Bool(_) => 0,
        Value::Number(text) | Value::Text(text) => text.len(),
        Value::List(items) => items.iter().map(weight).sum(),
        Value::Object(members) => members.iter().map(|m| m.key.len() + weight(&m.node)).sum(),
    }
}

/// The member as one instance reads it: in every text `%i` is the instance and `%%` a percent sign.
pub(super) fn copy(member: &Member, instance: &str, cx: &mut Cx<'_, '_>) -> Member {
    Member { key: member.key.clone(), pos: member.pos, node: filled(&member.node, instance, cx) }
}

fn filled(node: &Node, instance: &str, cx: &mut Cx<'_, '_>) -> Node {
    let value = match &node.value {
        Value::Text(text) if text.contains('%') => Value::Text(fill(text, instance, node.pos, cx)),
        Value::List(items) => {
            let all = items.iter().enumerate();
            Value::List(all.map(|(i, item)| cx.in_index(i, |cx| filled(item, instance, cx))).collect())
        }
        Value::Object(members) => {
            let one = |m: &Member| {
                let node =
                    if m.key == KEY { m.node.clone() } else { cx.in_key(&m.key, |cx| filled(&m.node, instance, cx)) };
                Member { key: m.key.clone(), pos: m.pos, node }
            };
            Value::Object(members.iter().map(one).collect())
        }
        other @ (Value::Null | Value::Bool(_) | Value::Number(_) | Value::Text(_)) => other.clone(),
    };
    Node { pos: node.pos, value }
}

fn fill(text: &str, instance: &str, pos: Pos, cx: &mut Cx<'_, '_>) -> String {
    let (mut out, mut meant, mut odd) = (String::new(), String::new(), None);
    let mut chars = text.chars().peekable();
    while let Some(c) = chars.next() {
        meant.push(c);
        if c != '%' {
            out.push(c);
            continue;
        }
        match chars.peek() {
            Some('i') => out.push_str(instance),
            Some('%') => out.push('%'),
            other => {
                odd = odd.or(Some(other.map_or("%".to_owned(), |c| format!("%{c}"))));
                meant.push('%');
                continue;
            }
        }
        meant.extend(chars.next());
    }
    if let Some(odd) = odd {
        let odd = quote(&odd);
        let message = format!("{odd} means nothing: with instances, %i is the instance and %% a percent sign");
        let meant = (meant.len() <= SUGGESTED_MAX).then(|| quote(&meant));
        cx.report.suggest(pos, message, meant);
    }
    out
}

/// Bytes of a text that is suggested whole.
const SUGGESTED_MAX: usize = 60;

/// Turns needs of a group into needs of each of its members. A service of the very name is meant itself.
pub(super) fn spread(
    services: &mut BTreeMap<String, Arc<ServiceSpec>>,
    needs: &mut Vec<NeedAt>,
    report: &mut Report<'_>,
) {
    let names: BTreeSet<String> = services.keys().cloned().gather();
    if names.iter().all(|name| instance(name).is_none()) {
        return;
    }
    let is_group = |name: &str| !names.contains(name) && members(&names, name).next().is_some();
    let (mut all, mut added) = (Vec::with_capacity(needs.len()), 0);
    let mut seen: BTreeSet<(String, String, String)> = BTreeSet::new();
    for need in core::mem::take(needs) {
        let list = need.path.rsplit_once('[').map_or("", |(list, _)| list).to_owned();
        let whole: Vec<String> =
            if is_group(&need.to) { members(&names, &need.to).cloned().collect() } else { vec![need.to.clone()] };
        added += whole.len() - 1;
        if added > EXPANDED_NEEDS_MAX {
            let message = format!("needs of all instances of services come to more than {EXPANDED_NEEDS_MAX}");
            report.add_at(need.path, need.pos, message, None);
            return;
        }
        for to in whole {
            if !seen.insert((need.from.clone(), list.clone(), to.clone())) {
                let group = instance(&to).map_or("", |(group, _)| group);
                let message = format!("{} is in this list already, as one of {}", quote(&to), quote(group));
                report.add_at(need.path.clone(), need.pos, message, None);
                break;
            }
            all.push(NeedAt { to, ..need.clone() });
        }
    }
    *needs = all;
    for spec in services.values_mut() {
        let lists = [&spec.requires, &spec.wants, &spec.after];
        if lists.into_iter().flatten().any(|need| is_group(&need.name)) {
            let spec = Arc::make_mut(spec);
            for list in [&mut spec.requires, &mut spec.wants, &mut spec.after] {
                *list = list.iter().flat_map(|need| each(need, &names, &is_group)).collect();
            }
        }
    }
}

fn each(need: &Need, names: &BTreeSet<String>, is_group: &impl Fn(&str) -> bool) -> Vec<Need> {
    if !is_group(&need.name) {
        return vec![need.clone()];
    }
    members(names, &need.name).map(|name| Need { name: name.clone(), condition: need.condition }).collect()
}
