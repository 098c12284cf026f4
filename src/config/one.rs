//! One service by itself, as a request brings it: the same keys and the same checks as in a file. Touches nothing.

use super::error::{ConfigError, Pos, Report};
use super::graph::NeedAt;
use super::read::{self, Cx};
use super::spec::{Config, ServiceSpec};
use super::tree::Member;
use super::{graph, instances, tree};
use crate::base::limits::CONFIG_MAX;
use crate::base::signal::Platform;
use std::collections::BTreeMap;
use std::sync::Arc;

type Specs = BTreeMap<String, Arc<ServiceSpec>>;

/// Reads the config of one service, or of all its instances. `others` are the services there are, which it may need;
/// without them needs are not looked at.
///
/// # Errors
/// Everything that is wrong with it, by `ConfigError::by_path`.
pub fn parse_service(
    name: &str,
    text: &str,
    platform: &Platform,
    others: Option<&dyn Fn() -> Specs>,
) -> Result<Specs, Vec<ConfigError>> {
    let mut report = Report::new("config");
    let start = Pos { line: 1, column: 1 };
    if text.len() > CONFIG_MAX {
        report.add(start, format!("{} bytes; {CONFIG_MAX} is the most", text.len()));
        return Err(report.finish());
    }
    if let Some(message) = read::name_error(name) {
        report.add_at("name".to_owned(), start, message, None);
    }
    report.enter_key("config");
    let Some(root) = tree::parse(text, &mut report) else { return Err(report.finish()) };
    let member = Member { key: name.to_owned(), pos: root.pos, node: root };
    let mut cx = Cx::new(&mut report, platform);
    let mut specs = Specs::new();
    read::entry(&member, &BTreeMap::new(), &mut specs, &mut instances::Room::default(), &mut cx);
    let needs = core::mem::take(&mut cx.needs);
    if let Some(others) = others.filter(|_| !needs.is_empty()) {
        among(others(), &mut specs, needs, &mut report);
    }
    if report.is_clean() { Ok(specs) } else { Err(report.finish()) }
}

/// Checks the needs of new services among those that exist.
fn among(mut all: Specs, new: &mut Specs, mut needs: Vec<NeedAt>, report: &mut Report<'_>) {
    all.extend(new.iter().map(|(name, spec)| (name.clone(), Arc::clone(spec))));
    instances::spread(&mut all, &mut needs, report);
    for (name, spec) in new.iter_mut() {
        spec.clone_from(&all[name]);
    }
    // A need of an old one can only matter as a part of a cycle, or as one of what is replaced.
    for (from, spec) in all.iter().filter(|(name, _)| !new.contains_key(*name)) {
        let lists = [&spec.requires, &spec.wants, &spec.after];
        for need in lists.into_iter().flatten().filter(|need| all.contains_key(&need.name)) {
            let (path, pos) = (format!("services.{from}"), Pos { line: 1, column: 1 });
            let (from, to) = (from.clone(), need.name.clone());
            needs.push(NeedAt { path, pos, from, to, condition: need.condition });
        }
    }
    graph::check(&Config { services: all, ..Config::default() }, &needs, report);
}
