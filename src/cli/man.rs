//! `hob man`: the manual in roff, made of the tables that also parse: commands and flags, keys of the config, topics.

use super::commands::COMMANDS;
use super::flags::{Args, Command, Flag, GLOBAL};
use super::{Failure, exit, print, print_json, topics};
use crate::base::text::capital;
use crate::base::units::{DURATION_FORMS, SIZE_FORMS};
use crate::config::{self, KeyInfo};
use core::fmt::Write as _;
use serde_json::json;
use std::io::{IsTerminal, Write};
use std::process::{Command as Program, Stdio};

/// The pages that can be asked for; the first is the one that is shown without a word.
pub(super) const PAGES: &[&str] = &["hob", "config"];

pub(crate) fn man(args: &Args) -> Result<u8, Failure> {
    let name = args.operands.first().map_or(PAGES[0], String::as_str);
    let page = if name == PAGES[0] { hob() } else { hob_json() };
    if args.has("json") {
        print_json(json!({ "page": name, "roff": page }))?;
        return Ok(exit::OK);
    }
    if !std::io::stdout().is_terminal() || !shown(&page) {
        print(&page)?;
    }
    Ok(exit::OK)
}

/// Hands a page to the program man; whether that has shown it.
fn shown(page: &str) -> bool {
    let Ok(mut man) = Program::new("man").args(["-l", "-"]).stdin(Stdio::piped()).spawn() else { return false };
    // Whoever leaves the pager early closes the pipe.
    let _ = man.stdin.take().map(|mut stdin| stdin.write_all(page.as_bytes()));
    man.wait().is_ok_and(|status| status.success())
}

/// A page in the macros of man(7), in lines of less than 80 columns.
struct Page {
    text: String,
}

/// Columns of a line of source at most.
const WIDTH: usize = 78;
/// When what the pages say was last changed, as their foot shows it.
const DATE: &str = "2026-11-28";

impl Page {
    fn new(title: &str, section: u8, name: &str, summary: &str) -> Page {
        let version = concat!("hob ", env!("CARGO_PKG_VERSION"));
        let mut text = String::from(".\\\" Printed by 'hob man'.\n");
        let _ = writeln!(text, ".TH {title} {section} {DATE} \"{version}\" \"hob manual\"");
        let mut page = Page { text };
        page.section("NAME");
        let _ = writeln!(page.text, "{} \\- {}", escaped(name), escaped(summary));
        page
    }

    fn section(&mut self, heading: &str) {
        let _ = writeln!(self.text, ".SH {heading}");
    }

    /// Filled text. An empty line begins a paragraph, and lines that belong together by their form stay as they are.
    fn paragraph(&mut self, text: &str) {
        for (i, block) in text.split("\n\n").enumerate() {
            if i > 0 {
                self.text.push_str(".PP\n");
            }
            self.filled(block);
        }
    }

    fn filled(&mut self, text: &str) {
        let mut line = String::new();
        for word in text.split_whitespace() {
            let word = escaped(word);
            if !line.is_empty() && line.len() + 1 + word.len() > WIDTH {
                self.line(&line);
                line.clear();
            }
            if !line.is_empty() {
                line.push(' ');
            }
            line.push_str(&word);
        }
        if !line.is_empty() {
            self.line(&line);
        }
    }

    /// A line of text, which must not look like a request.
    fn line(&mut self, line: &str) {
        if line.starts_with(['.', '\'']) {
            self.text.push_str("\\&");
        }
        self.text.push_str(line);
        self.text.push('\n');
    }

    /// Text that keeps its lines.
    fn verbatim(&mut self, text: &str) {
        self.text.push_str(".RS 4\n.nf\n");
        for line in text.lines() {
            self.line(&escaped(line));
        }
        self.text.push_str(".fi\n.RE\n");
    }

    /// A term in bold, and what it means.
    fn term(&mut self, bold: &str, rest: &str, text: &str) {
        self.text.push_str(".TP\n");
        match rest.is_empty() {
            true => {
                let _ = writeln!(self.text, ".B {}", quoted(bold));
            }
            false => {
                let _ = writeln!(self.text, ".BI {} {}", quoted(&format!("{bold} ")), quoted(rest));
            }
        }
        self.paragraph(text);
    }

    fn flags(&mut self, flags: &[Flag]) {
        for f in flags {
            let short = f.short.map_or_else(String::new, |s| format!("-{s}, "));
            self.term(&format!("{short}--{}", f.long), f.value.unwrap_or(""), &sentence(f.doc));
        }
    }

    fn command(&mut self, c: &Command) {
        self.term(&format!("hob {}", c.name), c.operands, &sentence(c.summary));
        if !c.details.is_empty() {
            self.text.push_str(".IP\n");
            // Lines that stand in columns are a list, and those that are indented at the end are examples.
            let is_kept = |line: &&str| line.contains(":  ") || line.starts_with("  ");
            let prose: Vec<&str> = c.details.lines().take_while(|line| !is_kept(line)).collect();
            if !prose.is_empty() {
                self.paragraph(&prose.join("\n"));
            }
            if prose.len() < c.details.lines().count() {
                self.text.push_str(".nf\n");
                c.details.lines().skip(prose.len()).for_each(|l| self.line(&escaped(l)));
                self.text.push_str(".fi\n");
            }
        }
        if !c.flags.is_empty() {
            self.text.push_str(".RS\n");
            self.flags(c.flags);
            self.text.push_str(".RE\n");
        }
    }
}

fn sentence(text: &str) -> String {
    if text.ends_with('.') { text.to_owned() } else { format!("{text}.") }
}

/// Text as roff shows it: a hyphen is a hyphen that can be copied, a backslash is none of roff's.
fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '\\' => out.push_str("\\e"),
            '-' => out.push_str("\\-"),
            '^' => out.push_str("\\(ha"),
            '~' => out.push_str("\\(ti"),
            '`' => out.push_str("\\(ga"),
            '\'' => out.push_str("\\(aq"),
            c => out.push(c),
        }
    }
    out
}

/// An argument of a macro.
fn quoted(text: &str) -> String {
    format!("\"{}\"", escaped(text).replace('"', "\\(dq"))
}

/// hob(1).
fn hob() -> String {
    let mut p = Page::new("HOB", 1, "hob", "keep services running, work through tasks, and say why");
    p.section("SYNOPSIS");
    p.text.push_str(".B hob\n.RI [ FLAGS ]\n.I COMMAND\n.RI [ ARGS ]\n");
    p.section("DESCRIPTION");
    p.paragraph(
        "hob starts the services of its config, keeps them running, keeps their output, and can always say why one \
         is up, down or waiting. It is daemon and command line in one program: a small keeper process that holds what \
         has to survive, a daemon that decides, and commands that talk to it over a Unix socket.\n\n\
         Beside services, which should be up, it works through tasks, each a command that runs once, as many at a time \
         as their group has slots; and by the jobs of its config it starts services or queues tasks at their time.\n\n\
         A stop ends the whole tree of a service's processes, and says so only when nothing is left of it. A daemon \
         that dies, by kill -9 too, is replaced at once; no service and no line of output is lost by it.",
    );
    p.section("COMMANDS");
    COMMANDS.iter().filter(|c| !c.hidden).for_each(|c| p.command(c));
    p.section("OPTIONS");
    p.paragraph("Every command takes these, before or after its name.");
    p.flags(GLOBAL);
    for topic in topics::TOPICS {
        p.section(topic.heading);
        p.paragraph(topic.intro);
        for (term, text) in (topic.entries)() {
            p.term(&term, "", &sentence(&text));
        }
    }
    p.section("EXAMPLES");
    for (line, what) in [
        ("hob start", "Start hob in the background; the first time it makes a config with examples."),
        ("hob config check && hob reload", "Check the config, then make its changes effective."),
        ("hob why web", "Tell why the service web is up, down or waiting."),
        ("hob logs \\-f web worker", "Follow the output of two services."),
        ("hob add \\-\\- make \\-j4", "Queue a command; it runs in this folder when its turn comes."),
        ("hob schedule next \\(aq30 2 * * *\\(aq", "Tell when an expression of cron fires."),
        ("hob run \\-\\- ./server \\-\\-port 80", "Run one command as the entry point of a container."),
    ] {
        let _ = writeln!(p.text, ".TP\n.B {line}");
        p.paragraph(what);
    }
    p.section("SEE ALSO");
    p.text.push_str(".BR hob.json (5),\nshown by\n.BR \"hob man config\" .\n");
    p.text
}

/// hob.json(5).
/// The parts of a config: heading, where its keys stand, and what is said first.
const PARTS: [(&str, &str, &str); 6] = [
    (
        "KEYS OF A SERVICE",
        "services.NAME.",
        "Under services each service has a name of its own, and these keys. Where it is not said otherwise, a change \
         takes effect without a restart of the service.",
    ),
    ("KEYS OF THE DAEMON", "daemon.", "These stand under daemon."),
    ("KEYS OF A GROUP", "groups.NAME.", "Under groups each group of tasks has a name, and these keys."),
    ("KEYS OF AN AGENT", "agents.NAME.", "Under agents each program that takes a prompt has a name, and these keys."),
    ("KEYS OF A RUNNER", "runners.NAME.", "Under runners each engine for tasks has a name, and these keys."),
    ("KEYS OF A JOB", "schedule.jobs[].", "Under schedule, jobs is a list of objects with these keys."),
];

fn hob_json() -> String {
    let mut p = Page::new("HOB.JSON", 5, "hob.json", "the config of hob");
    p.section("DESCRIPTION");
    p.paragraph(
        "The config is one JSON object; comments (// and /* */) and trailing commas are allowed. 'hob config path' \
         says where it is, 'hob config check' tells every mistake in it, and 'hob reload' makes changes effective: \
         only what changed is touched, and a file with mistakes changes nothing.",
    );
    p.section("EXAMPLE");
    p.verbatim(
        "{\n  \"services\": {\n    \"db\": {\n      \"command\": [\"postgres\", \"-D\", \"/srv/db\"],\n      \
         \"ready\": {\"port\": 5432}\n    },\n    \"web\": {\n      \"command\": \"./web --port 8080\",\n      \
         \"cwd\": \"/srv/web\",\n      \"requires\": [\"db\"]\n    }\n  }\n}",
    );
    p.section("VALUES");
    p.term("durations", "", &format!("A number with a unit, as in {DURATION_FORMS}."));
    p.term("sizes", "", &format!("Bytes, as in {SIZE_FORMS}."));
    p.term("names", "", "Letters, digits and any of -_.@: but neither a dot nor a hyphen at the beginning.");
    let keys = config::keys();
    for (heading, prefix, intro) in PARTS {
        p.section(heading);
        p.paragraph(intro);
        keys.iter().filter_map(|k| Some((k.path.strip_prefix(prefix)?, k))).for_each(|(name, k)| p.key(name, k));
    }
    p.section("EDITORS");
    p.paragraph(
        "An editor that knows JSON Schema completes and checks the file: \"$schema\" names the schema, which hob \
         writes beside the config that it makes on its first start, and keeps up to date. 'hob config schema' prints \
         it.",
    );
    p.section("SEE ALSO");
    p.text.push_str(".BR hob (1)\n");
    p.text
}

impl Page {
    fn key(&mut self, name: &str, k: &KeyInfo) {
        let mut text = sentence(k.doc);
        let _ = write!(text, "\n\nIt wants {}", k.wants);
        match k.default.as_deref() {
            None => text.push_str("; it has no default."),
            Some("null") => text.push_str("; it is unset by default."),
            Some(default) => {
                let _ = write!(text, "; default: {default}.");
            }
        }
        if k.default.as_deref() != Some(k.example) {
            let _ = write!(text, " Example: {}", k.example);
        }
        if !k.live {
            text.push_str("\n\nA change restarts the service.");
        }
        self.text.push_str(".TP\n");
        let _ = writeln!(self.text, ".B {}", quoted(name));
        let blocks: Vec<&str> = text.split("\n\n").collect();
        for (i, block) in blocks.iter().enumerate() {
            if i > 0 {
                self.text.push_str(".br\n");
            }
            let block = if i == 0 { capital(block) } else { (*block).to_owned() };
            self.filled(&block);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_are_sound_roff() {
        for page in [hob(), hob_json()] {
            let mut nested = 0_i32;
            for line in page.lines() {
                assert!(line.len() <= 160 && line.trim_end() == line && !line.is_empty() && line.is_ascii(), "{line}");
                let request = line.strip_prefix('.').map(|l| l.split(' ').next().unwrap_or(""));
                match request {
                    None => assert!(!line.starts_with('\''), "{line}"),
                    Some("RS" | "nf") => nested += 1,
                    Some("RE" | "fi") => nested -= 1,
                    Some("\\\"" | "TH" | "SH" | "SS" | "PP" | "TP" | "IP" | "B" | "I" | "BI" | "BR" | "RI" | "br") => {}
                    Some(other) => panic!("{other}: {line}"),
                }
                // Each quoted argument ends on its line, and a backslash begins an escape that is known.
                assert!(request.is_none() || line.matches('"').count() % 2 == 0 || line.starts_with(".\\\""), "{line}");
                for escape in line.split('\\').skip(1) {
                    assert!(escape.starts_with(['e', '-', '&', '(', '"']), "{line}");
                }
            }
            assert_eq!(nested, 0);
        }
    }

    #[test]
    fn pages_name_all_that_is_in_the_tables() {
        let (one, five) = (hob(), hob_json());
        for c in COMMANDS.iter().filter(|c| !c.hidden) {
            assert!(one.contains(&escaped(&format!("\"hob {}", c.name))), "{}", c.name);
            for f in c.flags.iter().chain(GLOBAL) {
                assert!(one.contains(&escaped(&format!("--{}", f.long))), "{}", f.long);
            }
        }
        for k in config::keys() {
            let name = PARTS.iter().find_map(|(_, prefix, _)| k.path.strip_prefix(prefix)).unwrap();
            assert!(five.contains(&format!(".B {}\n", quoted(name))), "{name}");
        }
        for topic in topics::TOPICS {
            assert!(one.contains(&format!(".SH {}\n", topic.heading)));
        }
    }
}
