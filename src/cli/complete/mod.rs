//! Completions: one small script a shell, which hands the words typed so far to hob and offers what it answers. So the
//! table of commands is the only one, and a shell that was started before an upgrade knows the new commands.

mod scripts;

use super::commands::COMMANDS;
use super::flags::{Args, Command, Flag, GLOBAL, Operand, is_verb_of};
use super::{Failure, exit, paths, print, topics};
use crate::base::gather::Gather as _;
use crate::client::Client;
use crate::protocol::methods::METHODS;
use crate::protocol::methods::task::TaskState;
use core::time::Duration;
use serde_json::{Value, json};
use std::collections::BTreeSet;

pub(super) use scripts::SHELLS;

/// A shell waits for its words no longer than that.
const PATIENCE: Duration = Duration::from_secs(1);

/// Tasks that are offered at most, and letters of what is said of one.
const TASKS: usize = 100;
const DOC_MAX: usize = 60;

/// What the shell is to complete by itself, in place of words; no service has a name like these.
const FILES: &str = "/files";
const FOLDERS: &str = "/folders";
const PROGRAMS: &str = "/programs";

pub(crate) fn completions(args: &Args) -> Result<u8, Failure> {
    let shell = args.operands.first().map_or("", String::as_str);
    let script = scripts::of(shell);
    let text = if args.has("json") { format!("{}\n", json!({ "shell": shell, "script": script })) } else { script };
    print(&text)?;
    Ok(exit::OK)
}

/// A word to offer, and what it means.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Word {
    text: String,
    doc: String,
}

fn word(text: impl Into<String>, doc: &str) -> Word {
    Word { text: text.into(), doc: doc.to_owned() }
}

/// `hob complete -- WORD...`: what the last of the words may become, one a line, with a tab before its meaning.
pub(crate) fn words(args: &Args) -> Result<u8, Failure> {
    let given: Vec<String> = args.rest.iter().map(|w| w.to_string_lossy().into_owned()).collect();
    let Some((last, before)) = given.split_last() else { return Ok(exit::OK) };
    let typed = Typed::read(before);
    let list: Vec<Word> = offered(&typed, last, &mut |what| Live::connect(args, &typed).map(|mut l| l.ask(what)));
    let line = |w: &Word| match w.doc.is_empty() {
        true => format!("{}\n", w.text),
        false => format!("{}\t{}\n", w.text, w.doc.replace(['\t', '\n'], " ")),
    };
    print(&list.iter().map(line).collect::<String>())?;
    Ok(exit::OK)
}

/// What stands before the word that is completed.
#[derive(Debug, Default)]
struct Typed {
    command: Option<&'static Command>,
    /// The first word of commands with two, while the second is missing.
    noun: Option<String>,
    help: bool,
    operands: Vec<String>,
    flags: Vec<(&'static Flag, Option<String>)>,
    /// A flag whose value comes next.
    open: Option<&'static Flag>,
    /// After `--`.
    rest: bool,
}

impl Typed {
    /// Reads words as the parser does, and passes over what it would refuse.
    fn read(words: &[String]) -> Typed {
        let mut t = Typed::default();
        for w in words {
            if let Some(flag) = t.open.take() {
                t.flags.push((flag, Some(w.clone())));
            } else if t.rest {
                t.operands.push(w.clone());
            } else if w == "--" {
                t.rest = true;
            } else if let Some(long) = w.strip_prefix("--") {
                let (name, value) = long.split_once('=').map_or((long, None), |(n, v)| (n, Some(v.to_owned())));
                if let Some(flag) = t.known().find(|f| f.long == name) {
                    t.flag(flag, value);
                }
            } else if let Some(shorts) = w.strip_prefix('-').filter(|s| !s.is_empty()) {
                t.shorts(shorts);
            } else {
                t.plain(w);
            }
        }
        t
    }

    fn known(&self) -> impl Iterator<Item = &'static Flag> + use<> {
        self.command.map_or(&[][..], |c| c.flags).iter().chain(GLOBAL)
    }

    fn flag(&mut self, flag: &'static Flag, value: Option<String>) {
        match (flag.value, value) {
            (Some(_), None) => self.open = Some(flag),
            (_, value) => self.flags.push((flag, value)),
        }
    }

    /// `-fn5` is `-f -n 5`.
    fn shorts(&mut self, shorts: &str) {
        for (at, c) in shorts.char_indices() {
            let Some(flag) = self.known().find(|f| f.short == Some(c)) else { continue };
            let rest = shorts.get(at + c.len_utf8()..).unwrap_or_default();
            self.flag(flag, Some(rest.to_owned()).filter(|r| flag.value.is_some() && !r.is_empty()));
            if flag.value.is_some() {
                return;
            }
        }
    }

    fn plain(&mut self, w: &str) {
        if self.command.is_none() && self.noun.is_none() && w == "help" {
            self.help = true;
            return;
        }
        let name = self.noun.as_deref().or(self.command.map(|c| c.name)).filter(|_| self.operands.is_empty());
        let longer = name.map(|n| format!("{n} {w}"));
        let find = |name: &str| COMMANDS.iter().find(|c| c.name == name);
        match longer.as_deref().and_then(find).or_else(|| find(w).filter(|_| name.is_none())) {
            Some(c) => (self.command, self.noun) = (Some(c), None),
            None if self.command.is_some() => self.operands.push(w.to_owned()),
            None => self.noun = Some(w.to_owned()),
        }
    }

    fn value(&self, long: &str) -> Option<&str> {
        self.flags.iter().rev().find(|(f, _)| f.long == long).and_then(|(_, v)| v.as_deref())
    }
}

/// What only the daemon knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum What {
    Services,
    Jobs,
    EventKinds,
    /// Those in one of these states; in any, where none is named.
    Tasks(&'static [&'static str]),
    Groups,
    Labels,
    Agents,
    Runners,
}

/// A daemon to ask, found by the flags that were typed.
struct Live {
    client: Client,
}

impl Live {
    /// The last tasks.
    fn recent(&mut self, states: &[&str]) -> Vec<Value> {
        let states = Some(states).filter(|states| !states.is_empty());
        let params = json!({ "last": true, "limit": TASKS, "state": states });
        let mut list: Value = self.client.call_once("task.list", &params).unwrap_or_default();
        list["tasks"].as_array_mut().map(core::mem::take).unwrap_or_default()
    }

    fn configured(&mut self, what: &str) -> Vec<Word> {
        let config: Value = self.client.call_once("daemon.config", &json!({})).unwrap_or_default();
        config[what].as_object().into_iter().flatten().map(|(name, _)| word(name.as_str(), "")).collect()
    }

    fn connect(args: &Args, typed: &Typed) -> Option<Live> {
        let mut given = Args::of_words(args.command);
        for long in ["home", "config", "socket"] {
            if let Some(value) = typed.value(long) {
                given.give(long, value);
            }
        }
        let mut client = Client::connect_timeout(&paths(&given).ok()?.socket, PATIENCE).ok()?;
        client.set_timeout(Some(PATIENCE));
        client.set_patience(Duration::ZERO);
        Some(Live { client })
    }

    fn ask(&mut self, what: What) -> Vec<Word> {
        match what {
            What::Services => {
                let list: Value = self.client.call_once("service.list", &json!({})).unwrap_or_default();
                let rows = list["services"].as_array().into_iter().flatten();
                let all = rows.filter_map(|s| Some(word(s["name"].as_str()?, s["state"].as_str()?)));
                with_groups(all.collect())
            }
            What::Jobs => {
                let list: Value = self.client.call_once("schedule.list", &json!({})).unwrap_or_default();
                let rows = list["jobs"].as_array().into_iter().flatten();
                rows.filter_map(|j| Some(word(j["id"].as_str()?, j["state"].as_str()?))).collect()
            }
            What::Tasks(states) => tasks(&self.recent(states)),
            What::Labels => {
                let labels = |t: &Value| t["labels"].as_object().cloned().unwrap_or_default();
                let text = |(name, value): (String, Value)| format!("{name}={}", value.as_str().unwrap_or_default());
                let all: BTreeSet<String> = self.recent(&[]).iter().flat_map(labels).map(text).collect();
                all.into_iter().map(|label| word(label, "")).collect()
            }
            What::Groups => {
                let list: Value = self.client.call_once("group.list", &json!({})).unwrap_or_default();
                let rows = list["groups"].as_array().into_iter().flatten();
                let doc = |g: &Value| format!("{} of {} slots taken", g["running"], g["parallel"]);
                rows.filter_map(|g| Some(word(g["name"].as_str()?, &doc(g)))).collect()
            }
            What::Agents => self.configured("agents"),
            What::Runners => self.configured("runners"),
            What::EventKinds => {
                let all = self.client.events(&[], &[], 1_000).unwrap_or_default().events;
                let kinds: BTreeSet<String> = all.into_iter().map(|e| e.kind).gather();
                let groups: BTreeSet<String> =
                    kinds.iter().filter_map(|k| k.split_once('.')).map(|(group, _)| format!("{group}.*")).gather();
                groups.into_iter().chain(kinds).map(|k| word(k, "")).collect()
            }
        }
    }
}

/// The newest first, with their state and command.
fn tasks(rows: &[Value]) -> Vec<Word> {
    let one = |t: &Value| {
        let doc = format!("{}: {}", t["state"].as_str()?, super::task::command_line(t));
        Some(word(t["id"].as_u64()?.to_string(), &doc.chars().take(DOC_MAX).collect::<String>()))
    };
    rows.iter().rev().filter_map(one).collect()
}

/// All instances of a service are meant by what stands before the `@`.
fn with_groups(names: Vec<Word>) -> Vec<Word> {
    let groups: BTreeSet<String> =
        names.iter().filter_map(|w| crate::config::instance(&w.text)).map(|(group, _)| group.to_owned()).gather();
    groups.into_iter().map(|group| word(&group, "all its instances")).chain(names).collect()
}

/// The words that the last one may become.
fn offered(t: &Typed, last: &str, live: &mut dyn FnMut(What) -> Option<Vec<Word>>) -> Vec<Word> {
    if let Some(flag) = t.open {
        return valued(flag, last, live);
    }
    if t.rest {
        // A user's command: its program, then whatever files it may take.
        return vec![word(if t.operands.is_empty() { PROGRAMS } else { FILES }, "")];
    }
    if let Some((name, value)) = last.strip_prefix("--").and_then(|l| l.split_once('=')) {
        let flag = t.known().find(|f| f.long == name && f.value.is_some());
        let list = flag.map(|f| valued(f, value, live)).unwrap_or_default();
        let whole = |w: Word| if is_order(&w.text) { w } else { word(format!("--{name}={}", w.text), &w.doc) };
        return list.into_iter().map(whole).collect();
    }
    if last.starts_with('-') {
        let unused = |f: &&Flag| f.value.is_some() || t.flags.iter().all(|(g, _)| g.long != f.long);
        let short = |f: &Flag| f.short.filter(|_| last == "-").map(|s| word(format!("-{s}"), f.doc));
        let flags = t.known().filter(unused);
        return begun(
            flags.flat_map(|f| [Some(word(format!("--{}", f.long), f.doc)), short(f)]).flatten().collect(),
            last,
        );
    }
    begun(plain(t, live), last)
}

fn is_order(text: &str) -> bool {
    [FILES, FOLDERS, PROGRAMS].contains(&text)
}

/// Those that begin with what was typed.
fn begun(list: Vec<Word>, typed: &str) -> Vec<Word> {
    list.into_iter().filter(|w| w.text.starts_with(typed) || is_order(&w.text)).collect()
}

/// The values that begin with what was typed; of a list its last part.
fn valued(flag: &Flag, typed: &str, live: &mut dyn FnMut(What) -> Option<Vec<Word>>) -> Vec<Word> {
    let list = matches!(flag.value, Some("IDS" | "STATES"));
    let (before, part) = typed.rsplit_once(',').filter(|_| list).map_or(("", typed), |(b, p)| (b, p));
    let all = begun(values(flag, live), part).into_iter();
    let whole = |w: Word| if before.is_empty() { w } else { word(format!("{before},{}", w.text), &w.doc) };
    all.map(whole).collect()
}

fn values(flag: &Flag, live: &mut dyn FnMut(What) -> Option<Vec<Word>>) -> Vec<Word> {
    match flag.value {
        Some("DIR") => vec![word(FOLDERS, "")],
        Some("FILE" | "PATH") => vec![word(FILES, "")],
        Some("GLOB") => live(What::EventKinds).unwrap_or_default(),
        Some("GROUP") => live(What::Groups).unwrap_or_default(),
        Some("AGENT") => live(What::Agents).unwrap_or_default(),
        Some("RUNNER") => live(What::Runners).unwrap_or_default(),
        Some("NAME=VALUE" | "NAME[=VALUE]") if flag.long == "label" => live(What::Labels).unwrap_or_default(),
        Some("IDS") => live(What::Tasks(OPEN)).unwrap_or_default(),
        Some("STATES") => TaskState::ALL.map(|s| word(s.name(), "")).into(),
        Some("TIME") => ["10s", "30s", "1m", "10m", "1h", "1d"].map(|t| word(t, "")).into(),
        _ => flag.choices().into_iter().map(|c| word(c, "")).collect(),
    }
}

/// What may stand where no flag does: a command, a verb, an operand.
fn plain(t: &Typed, live: &mut dyn FnMut(What) -> Option<Vec<Word>>) -> Vec<Word> {
    let visible = || COMMANDS.iter().filter(|c| !c.hidden);
    let verbs = |noun: &str| -> Vec<Word> {
        let own = visible().filter(|c| is_verb_of(c.name, noun));
        own.filter_map(|c| Some(word(c.name.split_once(' ')?.1, c.summary))).collect()
    };
    if let Some(noun) = &t.noun {
        return verbs(noun);
    }
    let Some(command) = t.command else {
        let mut list: Vec<Word> = Vec::new();
        for c in visible() {
            let (first, two) = c.name.split_once(' ').map_or((c.name, false), |(noun, _)| (noun, true));
            if list.iter().all(|w| w.text != first) {
                let doc = if two {
                    format!("{}...", verbs(first).iter().map(|w| &*w.text).collect::<Vec<_>>().join(", "))
                } else {
                    c.summary.to_owned()
                };
                list.push(word(first, &doc));
            }
        }
        if t.help {
            list.extend(topics::TOPICS.iter().map(|topic| word(topic.name, topic.summary)));
        } else {
            list.push(word("help", "Show help"));
        }
        return list;
    };
    let mut list = if t.operands.is_empty() { verbs(command.name) } else { Vec::new() };
    if !t.help && t.operands.len() < command.count.1 {
        list.extend(operands(command, t, live));
    }
    list
}

/// Tasks that are not over.
const OPEN: &[&str] = &["held", "queued", "running", "paused"];
const OVER: &[&str] = &["succeeded", "failed", "cancelled", "timed_out", "lost"];

/// The states of the tasks that a command can do something to.
fn fit(command: &str) -> &'static [&'static str] {
    match command {
        "task cancel" | "task wait" => OPEN,
        "task retry" | "task clean" => OVER,
        "task hold" => &["queued"],
        "task release" => &["held"],
        "task edit" | "task prioritize" => &["held", "queued"],
        "task remove" => &["held", "queued", "succeeded", "failed", "cancelled", "timed_out", "lost"],
        "task pause" => &["running"],
        "task resume" => &["paused"],
        _ => &[],
    }
}

fn operands(c: &Command, t: &Typed, live: &mut dyn FnMut(What) -> Option<Vec<Word>>) -> Vec<Word> {
    let mut services = || {
        let all = live(What::Services).unwrap_or_default();
        all.into_iter().filter(|w| !t.operands.contains(&w.text)).collect()
    };
    match c.operand {
        Operand::Service => services(),
        Operand::Method if t.operands.is_empty() => METHODS.iter().map(|m| word(m.name, m.doc)).collect(),
        Operand::Signal if t.operands.is_empty() => {
            crate::sys::signals::platform().signals.iter().map(|(name, _)| word(*name, "")).collect()
        }
        Operand::Signal => services(),
        Operand::Job => live(What::Jobs).unwrap_or_default(),
        Operand::Group => live(What::Groups).unwrap_or_default(),
        Operand::Task => {
            let all = live(What::Tasks(fit(c.name))).unwrap_or_default();
            all.into_iter().filter(|w| !t.operands.contains(&w.text)).collect()
        }
        Operand::Anything => {
            let kinds = [What::Services, What::Jobs, What::Tasks(&[])];
            kinds.into_iter().filter_map(live).flatten().collect()
        }
        Operand::OneOf(all) => all.iter().map(|w| word(*w, "")).collect(),
        Operand::File => vec![word(FILES, "")],
        Operand::Method | Operand::Text => Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is offered for a line whose last word may be empty, with two services of which nobody has to run.
    fn offers(line: &str) -> Vec<String> {
        let words: Vec<String> = line.split(' ').skip(1).map(str::to_owned).collect();
        let (last, before) = words.split_last().unwrap();
        let mut live = |what| {
            Some(match what {
                What::Services => vec![word("db", "running"), word("web", "failed")],
                What::Jobs => vec![word("nightly", "waiting")],
                What::Tasks(states) => {
                    let all = [word("12", "running: make"), word("9", "queued: y"), word("7", "failed: x")];
                    let is_meant = |w: &Word| states.is_empty() || states.iter().any(|s| w.doc.starts_with(s));
                    all.into_iter().filter(is_meant).collect()
                }
                What::Groups => vec![word("agents", ""), word("build", "")],
                What::Labels => vec![word("kind=test", "")],
                What::Agents => vec![word("claude", "")],
                What::Runners => vec![word("srun", "")],
                What::EventKinds => vec![word("service.*", ""), word("service.ready", "")],
            })
        };
        offered(&Typed::read(before), last, &mut live).into_iter().map(|w| w.text).collect()
    }

    #[test]
    fn words_fit_what_was_typed() {
        for (line, want) in [
            ("hob st", &["start", "stop", "status"][..]),
            ("hob --home /x --quiet sto", &["stop"]),
            ("hob service re", &["restart", "remove", "reload", "reset"]),
            ("hob why ", &["db", "web", "nightly", "12", "9", "7"]),
            ("hob why 1", &["12"]),
            ("hob task output ", &["12", "9", "7"]),
            ("hob task cancel ", &["12", "9"]),
            ("hob task prioritize ", &["9"]),
            ("hob task edit ", &["9"]),
            ("hob task remove ", &["9", "7"]),
            ("hob task pause ", &["12"]),
            ("hob task retry ", &["7"]),
            ("hob task retry 7 ", &[]),
            ("hob task release ", &[]),
            ("hob task list -g b", &["build"]),
            ("hob task list --state fa", &["failed"]),
            ("hob task list --state=failed,l", &["--state=failed,lost"]),
            ("hob task clean -l k", &["kind=test"]),
            ("hob group pause ", &["agents", "build"]),
            ("hob add --group=a", &["--group=agents"]),
            ("hob add --agent ", &["claude"]),
            ("hob add --runner s", &["srun"]),
            ("hob add --label ", &["kind=test"]),
            ("hob add --after ", &["12", "9"]),
            ("hob add --after 3,", &["3,12", "3,9"]),
            ("hob add -- ma", &["/programs"]),
            ("hob why db ", &[]),
            ("hob stop db ", &["web"]),
            ("hob stop --no-wait w", &["web"]),
            ("hob logs -n ", &[]),
            ("hob logs -n 5 d", &["db"]),
            ("hob logs -fn5 d", &["db"]),
            ("hob logs --lines=5 d", &["db"]),
            ("hob logs r", &["rotate"]),
            ("hob logs rotate d", &["db"]),
            ("hob schedule run n", &["nightly"]),
            ("hob logs db rotate ", &["web"]),
            ("hob logs --stream ", &["out", "err"]),
            ("hob logs --stream=o", &["--stream=out"]),
            ("hob events --kind service.r", &["service.ready"]),
            ("hob start --timeout 3", &["30s"]),
            ("hob status --js", &["--json"]),
            ("hob --home ", &["/folders"]),
            ("hob --config=x", &["/files"]),
            ("hob upgrade --binary ", &["/files"]),
            ("hob run -- ", &["/programs"]),
            ("hob run -- cat ", &["/files"]),
            ("hob config show --def", &["--defaults"]),
            ("hob config show --defaults --def", &[]),
            ("hob call rpc.", &["rpc.discover"]),
            ("hob service signal HU", &["HUP"]),
            ("hob service signal HUP d", &["db"]),
            ("hob completions ", &["bash", "zsh", "fish"]),
            ("hob help st", &["start", "stop", "status"]),
            ("hob help ex", &["exit-codes"]),
            ("hob help service hi", &["history"]),
            ("hob bogus ", &[]),
            ("hob ping ", &[]),
        ] {
            assert_eq!(offers(line), want, "{line}");
        }
        assert_eq!(offers("hob logs -"), {
            let flags = COMMANDS.iter().find(|c| c.name == "logs").unwrap().flags.iter().chain(GLOBAL);
            let both = |f: &Flag| [Some(format!("--{}", f.long)), f.short.map(|s| format!("-{s}"))];
            flags.flat_map(both).flatten().collect::<Vec<_>>()
        });
    }

    #[test]
    fn every_command_and_flag_can_be_completed() {
        for c in COMMANDS.iter().filter(|c| !c.hidden) {
            let name = c.name;
            let begun: String = name.chars().take(name.chars().count() - 1).collect();
            let last = name.rsplit(' ').next().unwrap();
            assert!(offers(&format!("hob {begun}")).iter().any(|w| w == last), "{name}");
            for f in c.flags.iter().chain(GLOBAL) {
                let whole = format!("--{}", f.long);
                assert!(offers(&format!("hob {name} {whole}")).contains(&whole), "{name} {whole}");
            }
        }
    }
}
