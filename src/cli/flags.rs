//! The command line's one definition: every command and flag stands in a const table that parses, helps and completes.

use super::topics::{self, Topic};
use lexopt::{Arg, Parser};
use std::ffi::OsString;
use std::path::PathBuf;

/// A flag of a command, or one that every command takes.
#[derive(Debug)]
pub struct Flag {
    pub long: &'static str,
    pub short: Option<char>,
    /// The name of its value in help, or `None` for a switch.
    pub value: Option<&'static str>,
    pub doc: &'static str,
}

/// What a positional argument names, so that completions can offer it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operand {
    Service,
    Method,
    File,
    Text,
    Signal,
    /// One of these words, and nothing else.
    OneOf(&'static [&'static str]),
    Job,
    Task,
    Group,
    /// Whatever has a story: a service, a job or a task.
    Anything,
}

impl Flag {
    /// The only values it takes, where its value is written as `a|b`.
    pub(super) fn choices(&self) -> Vec<&'static str> {
        self.value.filter(|v| v.contains('|')).map(|v| v.split('|').collect()).unwrap_or_default()
    }
}

/// One command. `name` has one word, or two for a noun and its verb.
#[derive(Clone, Copy, Debug)]
pub struct Command {
    pub name: &'static str,
    /// The operands as help shows them.
    pub operands: &'static str,
    pub operand: Operand,
    /// Least and greatest number of operands.
    pub count: (usize, usize),
    /// Whether words after `--` are taken as a command of the user's.
    pub takes_command: bool,
    pub summary: &'static str,
    pub details: &'static str,
    pub flags: &'static [Flag],
    pub run: fn(&Args) -> Result<u8, super::Failure>,
    pub hidden: bool,
}

/// Flags that stand before or after any command.
pub(super) const GLOBAL: &[Flag] = &[
    Flag { long: "home", short: None, value: Some("DIR"), doc: "Keep everything under DIR (or HOB_HOME)" },
    Flag { long: "config", short: None, value: Some("FILE"), doc: "Config file (or HOB_CONFIG)" },
    Flag {
        long: "socket",
        short: None,
        value: Some("PATH"),
        doc: "Control socket, @NAME for an abstract one (or HOB_SOCKET)",
    },
    Flag { long: "json", short: None, value: None, doc: "Print the result as JSON" },
    Flag { long: "quiet", short: Some('q'), value: None, doc: "Print errors only" },
    Flag { long: "help", short: Some('h'), value: None, doc: "Show help" },
    Flag { long: "version", short: Some('V'), value: None, doc: "Show the version" },
];

/// What the user typed, checked against the table.
#[derive(Debug)]
pub struct Args {
    pub command: &'static Command,
    given: Vec<(&'static str, Option<OsString>)>,
    pub operands: Vec<String>,
    /// The words after `--`, byte for byte.
    pub rest: Vec<OsString>,
}

/// What parsing leads to.
#[derive(Debug)]
pub(super) enum Parsed {
    Run(Args),
    /// Help for a command, or for all.
    Help(Option<&'static Command>),
    /// Help for all verbs of a noun.
    HelpNoun(String),
    Topic(&'static Topic),
    Version,
}

impl Args {
    /// Of a command without words.
    pub(super) fn of_words(command: &'static Command) -> Args {
        Args { command, given: Vec::new(), operands: Vec::new(), rest: Vec::new() }
    }

    pub(super) fn give(&mut self, long: &'static str, value: &str) {
        self.given.push((long, Some(value.into())));
    }

    #[must_use]
    pub fn has(&self, long: &str) -> bool {
        self.given.iter().any(|(name, _)| *name == long)
    }

    /// The last value given for a flag.
    #[must_use]
    pub fn value(&self, long: &str) -> Option<&OsString> {
        self.given.iter().rev().find(|(name, _)| *name == long).and_then(|(_, v)| v.as_ref())
    }

    /// All values given for a flag, in their order.
    pub fn values<'a>(&'a self, long: &'a str) -> impl Iterator<Item = &'a OsString> {
        self.given.iter().filter(move |(name, _)| *name == long).filter_map(|(_, v)| v.as_ref())
    }

    #[must_use]
    pub fn path(&self, long: &str) -> Option<PathBuf> {
        self.value(long).map(PathBuf::from)
    }

    /// A flag's value as text.
    ///
    /// # Errors
    /// When it is not UTF-8.
    pub fn text(&self, long: &str) -> Result<Option<&str>, String> {
        self.value(long).map(|v| v.to_str().ok_or_else(|| format!("--{long}: not valid UTF-8"))).transpose()
    }

    /// Every value given for a flag, as text.
    ///
    /// # Errors
    /// When one is not UTF-8.
    pub fn texts(&self, long: &str) -> Result<Vec<&str>, String> {
        let values = self.given.iter().filter(|(name, _)| *name == long).filter_map(|(_, v)| v.as_ref());
        values.map(|v| v.to_str().ok_or_else(|| format!("--{long}: not valid UTF-8"))).collect()
    }

    /// A flag's value as a number that counts something.
    ///
    /// # Errors
    /// When it is not a whole number from 0 on.
    pub fn number(&self, long: &str) -> Result<Option<usize>, String> {
        Ok(self.within(long, 0, i64::MAX)?.and_then(|n| usize::try_from(n).ok()))
    }

    /// A flag's value as a whole number of a range.
    ///
    /// # Errors
    /// When it is none, or outside of the range; the range is said.
    pub fn within(&self, long: &str, least: i64, most: i64) -> Result<Option<i64>, String> {
        let Some(text) = self.text(long)? else { return Ok(None) };
        let range = if most == i64::MAX { format!("from {least}") } else { format!("from {least} to {most}") };
        match text.parse::<i64>() {
            Ok(n) if (least..=most).contains(&n) => Ok(Some(n)),
            _ => Err(format!("--{long}: '{text}' is no whole number {range}")),
        }
    }

    /// A flag's value as a duration with a unit.
    ///
    /// # Errors
    /// When it is not one.
    pub fn duration(&self, long: &str) -> Result<Option<core::time::Duration>, String> {
        let Some(text) = self.text(long)? else { return Ok(None) };
        crate::base::units::parse_duration(text).map(Some).map_err(|e| format!("--{long}: {e}"))
    }
}

/// Parses argv without the program's name.
///
/// # Errors
/// A sentence that says what is wrong and, where one is near, what was probably meant.
pub(super) fn parse(argv: Vec<OsString>, commands: &'static [Command]) -> Result<Parsed, String> {
    let mut parser = Parser::from_args(argv);
    let mut found: Option<&'static Command> = None;
    let mut noun: Option<String> = None;
    let mut args = (Vec::new(), Vec::new(), Vec::new());
    let (given, operands, rest) = (&mut args.0, &mut args.1, &mut args.2);
    loop {
        // `--` ends the flags; what follows is looked at here and never by the flag parser.
        if let Some(mut raw) = parser.try_raw_args()
            && raw.peek().is_some_and(|w| w == "--")
        {
            raw.next();
            rest.extend(raw);
            if let Some(c) = found.filter(|c| c.takes_command && rest.is_empty()) {
                return Err(format!("'{} --' needs a command after --; usage: {}", c.name, usage(c)));
            }
            break;
        }
        let Some(arg) = parser.next().map_err(|e| e.to_string())? else { break };
        match arg {
            // `hob help why` is what many type for `hob why --help`.
            Arg::Value(word) if found.is_none() && noun.is_none() && word == "help" => given.push(("help", None)),
            Arg::Value(word) if found.is_none() && noun.is_none() && word == "version" => return Ok(Parsed::Version),
            Arg::Value(word) if found.is_none() && topic(&word, given).is_some() => {
                return Ok(topic(&word, given).map_or(Parsed::Help(None), Parsed::Topic));
            }
            Arg::Value(word) if found.is_none() => {
                let word = word.into_string().map_err(|_| "a command's name must be UTF-8".to_owned())?;
                let name = noun.take().map_or_else(|| word.clone(), |n| format!("{n} {word}"));
                if let Some(c) = commands.iter().find(|c| c.name == name) {
                    found = Some(c);
                } else if !name.contains(' ') && commands.iter().any(|c| is_verb_of(c.name, &name)) {
                    noun = Some(name);
                } else {
                    return Err(super::elsewhere::unknown_command(&name, commands));
                }
            }
            Arg::Value(word) => {
                let word = word.into_string().map_err(|w| format!("{}: not valid UTF-8", w.display()))?;
                match found.filter(|_| operands.is_empty()).and_then(|f| verb(f, &word, given, commands)) {
                    Some(c) => found = Some(c),
                    None => operands.push(word),
                }
            }
            flag @ (Arg::Long(_) | Arg::Short(_)) => {
                let (f, joined) = (find_flag(&flag, found)?, matches!(flag, Arg::Short(_)));
                given.push((f.long, flag_value(f, joined, &mut parser)?));
            }
        }
    }
    let asked = |long: &str| args.0.iter().any(|(n, _): &(&str, _)| *n == long);
    if asked("version") {
        return Ok(Parsed::Version);
    }
    let command = match (found, noun) {
        (found, None) if asked("help") || found.is_none() => return Ok(Parsed::Help(found)),
        (Some(command), _) => command,
        (None, noun) => {
            let noun = noun.unwrap_or_default();
            if asked("help") {
                return Ok(Parsed::HelpNoun(noun));
            }
            let verbs: Vec<_> = verbs_of(&noun, commands).filter_map(|c| c.name.split(' ').nth(1)).collect();
            return Err(format!("'{noun}' needs a verb: {}; 'hob {noun} --help' explains them", verbs.join(", ")));
        }
    };
    let args = Args { command, given: args.0, operands: args.1, rest: args.2 };
    check_operands(&args, commands)?;
    Ok(Parsed::Run(args))
}

/// The value of a flag that takes one, checked where it is one of few. `joined`: what follows it in its word is the
/// next flag, as in -ft.
fn flag_value(flag: &Flag, joined: bool, parser: &mut Parser) -> Result<Option<OsString>, String> {
    let value = match flag.value {
        Some(name) => Some(parser.value().map_err(|_| format!("--{} needs a value: --{0} {name}", flag.long))?),
        None if !joined && parser.optional_value().is_some() => {
            return Err(format!("--{} takes no value; write --{0} alone", flag.long));
        }
        None => None,
    };
    if value.as_ref().is_some_and(|v| v.is_empty()) {
        return Err(format!("--{} is empty; was a variable not set?", flag.long));
    }
    check_choice(flag, value.as_ref())?;
    Ok(value)
}

/// What `hob help WORD` is about, if that is no command.
fn topic(word: &OsString, given: &[(&'static str, Option<OsString>)]) -> Option<&'static Topic> {
    let asked = given.iter().any(|(n, _)| *n == "help");
    topics::find(word.to_str()?).filter(|_| asked)
}

fn check_choice(flag: &Flag, value: Option<&OsString>) -> Result<(), String> {
    let (choices, text) = (flag.choices(), value.map(|v| v.to_string_lossy()).unwrap_or_default());
    if choices.is_empty() || choices.iter().any(|c| *c == text) {
        return Ok(());
    }
    let none = match choices.as_slice() {
        [one, other] => format!("neither '{one}' nor '{other}'"),
        all => format!("none of {}", all.join(", ")),
    };
    Err(format!("--{}: '{text}' is {none}{}", flag.long, meant(&choices, &text)))
}

/// `bash, zsh or fish`.
fn either(words: &[&'static str]) -> String {
    match words.split_last() {
        Some((last, rest)) if !rest.is_empty() => format!("{} or {last}", rest.join(", ")),
        _ => words.concat(),
    }
}

/// Which of them was probably meant, as the end of a sentence.
fn meant(words: &[&'static str], given: &str) -> String {
    let near = crate::base::near::nearest(given, words.iter().copied());
    near.map_or_else(String::new, |near| format!("; did you mean '{near}'?"))
}

fn check_operands(args: &Args, commands: &[Command]) -> Result<(), String> {
    let (c, n) = (args.command, args.operands.len());
    if n < c.count.0 || (n == 0 && c.takes_command && c.count.0 > 0 && args.rest.is_empty()) {
        return Err(format!("'{}' needs {}; usage: {}", c.name, c.operands, usage(c)));
    }
    if n > c.count.1 {
        let extra = args.operands.get(c.count.1).map_or("", String::as_str);
        let of_a_service = format!("service {}", c.name);
        let hint = if c.takes_command {
            " (the command to run stands after --)".to_owned()
        } else if commands.iter().any(|c| c.name == of_a_service) {
            format!("; of a service it is 'hob {of_a_service} {extra}'")
        } else {
            String::new()
        };
        return Err(format!("'{}' does not take '{extra}'{hint}; usage: {}", c.name, usage(c)));
    }
    if !args.rest.is_empty() && !c.takes_command {
        return Err(format!("'{}' takes nothing after --", c.name));
    }
    if args.rest.first().is_some_and(|word| word.is_empty()) {
        return Err(format!("'{} --': an empty command; was a variable not set?", c.name));
    }
    if args.operands.iter().any(String::is_empty) {
        return Err(format!("'{}': an empty name; was a variable not set?", c.name));
    }
    match c.operand {
        Operand::OneOf(words) => match args.operands.iter().find(|o| !words.contains(&o.as_str())) {
            Some(other) => Err(format!("'{}' takes {}, not '{other}'{}", c.name, either(words), meant(words, other))),
            None => Ok(()),
        },
        Operand::Service
        | Operand::Method
        | Operand::File
        | Operand::Text
        | Operand::Signal
        | Operand::Job
        | Operand::Task
        | Operand::Group
        | Operand::Anything => Ok(()),
    }
}

fn usage(c: &Command) -> String {
    let flags = if c.flags.is_empty() { "" } else { " [FLAGS]" };
    format!("hob {}{flags} {}", c.name, c.operands).trim_end().to_owned()
}

pub(super) fn verbs_of<'c>(noun: &'c str, commands: &'c [Command]) -> impl Iterator<Item = &'c Command> {
    commands.iter().filter(move |c| is_verb_of(c.name, noun))
}

/// The longer command that a word makes of one that was given already, unless flags have settled that it is not meant.
fn verb(
    found: &Command,
    word: &str,
    given: &[(&'static str, Option<OsString>)],
    commands: &'static [Command],
) -> Option<&'static Command> {
    let open = given.iter().all(|(n, _)| GLOBAL.iter().any(|f| f.long == *n));
    commands.iter().find(|c| open && is_verb_of(c.name, found.name) && c.name.ends_with(&format!(" {word}")))
}

pub(super) fn is_verb_of(name: &str, noun: &str) -> bool {
    name.strip_prefix(noun).is_some_and(|rest| rest.starts_with(' '))
}

fn find_flag(flag: &Arg<'_>, command: Option<&'static Command>) -> Result<&'static Flag, String> {
    let own = command.map_or(&[][..], |c| c.flags);
    let mut all = own.iter().chain(GLOBAL);
    let (hit, shown) = match flag {
        Arg::Long(long) => (all.find(|f| f.long == *long), format!("--{long}")),
        Arg::Short(short) => (all.find(|f| f.short == Some(*short)), format!("-{short}")),
        Arg::Value(_) => (None, String::new()),
    };
    hit.ok_or_else(|| {
        let near = crate::base::near::nearest(shown.trim_start_matches('-'), own.iter().chain(GLOBAL).map(|f| f.long));
        let near = near.map_or(String::new(), |n| format!("; did you mean --{n}?"));
        let of = command.map_or_else(|| "before the command".to_owned(), |c| format!("of 'hob {}'", c.name));
        format!("{shown} is not a flag {of}{near}")
    })
}

/// The text of `hob --help`.
#[must_use]
pub(super) fn help_all(commands: &[Command]) -> String {
    let mut t = String::from(
        "hob keeps services running, works through tasks, does things at their time, and says why.\n\
         To begin: 'hob demo' shows it live, 'hob start' starts it and makes a config with examples, and\n\
         'hob config path' tells where that is; 'hob reload' makes what you change in it effective.\n\n\
         Usage: hob [FLAGS] COMMAND [ARGS]\n\nCommands:\n",
    );
    // A noun that is no command itself has its verbs on one line.
    let noun_of = |c: &Command| {
        let noun = c.name.split_once(' ')?.0;
        commands.iter().all(|c| c.name != noun).then_some(noun)
    };
    let shown = || commands.iter().filter(|c| !c.hidden);
    for c in shown().filter(|c| noun_of(c).is_none()) {
        let left = if c.operands.is_empty() { c.name.to_owned() } else { format!("{} {}", c.name, c.operands) };
        row(&mut t, &left, c.summary);
    }
    t.push_str("\nCommands with a verb ('hob task --help' tells of those of task):\n");
    let nouns: std::collections::BTreeSet<&str> = shown().filter_map(noun_of).collect();
    for noun in nouns {
        let verbs: Vec<_> = verbs_of(noun, commands).filter_map(|c| c.name.split(' ').nth(1)).collect();
        let verbs = super::render::wrapped(&verbs.join(", "), NOUN, NOUN, Some(HELP_WIDTH));
        t.push_str(&format!("  {noun:<10}{}\n", verbs.trim_start()));
    }
    t.push_str("\nFlags of every command:\n");
    flag_rows(&mut t, GLOBAL);
    t.push_str("\nMore to read:\n");
    for (term, text) in topics::list() {
        row(&mut t, &term, &text);
    }
    t.push_str("\n'hob COMMAND --help' tells more, 'hob man' everything.\n");
    t
}

/// The text of `hob NOUN --help`.
#[must_use]
pub(super) fn help_noun(noun: &str, commands: &[Command]) -> String {
    let mut t = format!("Usage: hob {noun} VERB [ARGS]\n\nVerbs:\n");
    for c in verbs_of(noun, commands).filter(|c| !c.hidden) {
        row(&mut t, &format!("{} {}", c.name, c.operands), c.summary);
    }
    t.push_str(&format!("\n'hob {noun} VERB --help' tells more.\n"));
    t
}

/// The text of `hob COMMAND --help`.
#[must_use]
pub(super) fn help_one(c: &Command) -> String {
    let mut t = format!("{}.\n\nUsage: {}\n", c.summary, usage(c));
    if !c.details.is_empty() {
        t.push('\n');
        t.push_str(c.details);
        t.push('\n');
    }
    if !c.flags.is_empty() {
        t.push_str("\nFlags:\n");
        flag_rows(&mut t, c.flags);
    }
    t.push_str("\nFlags of every command:\n");
    flag_rows(&mut t, GLOBAL);
    t
}

fn flag_rows(t: &mut String, flags: &[Flag]) {
    for f in flags {
        let short = f.short.map_or_else(|| "    ".to_owned(), |s| format!("-{s}, "));
        let value = f.value.map_or_else(String::new, |v| format!(" {v}"));
        row(t, &format!("{short}--{}{value}", f.long), f.doc);
    }
}

/// Where the verbs of a noun stand.
const NOUN: usize = 12;

/// Columns of a help text at most.
const HELP_WIDTH: usize = 120;

/// A line of a list: a term, and beside it what it means.
pub(super) fn row(t: &mut String, left: &str, right: &str) {
    const WIDTH: usize = 34;
    t.push_str("  ");
    t.push_str(left);
    let used = left.chars().count();
    if used + 2 > WIDTH {
        t.push('\n');
        t.extend(core::iter::repeat_n(' ', WIDTH + 2));
    } else {
        t.extend(core::iter::repeat_n(' ', WIDTH - used));
    }
    t.push_str(super::render::wrapped(right, WIDTH + 2, WIDTH + 2, Some(HELP_WIDTH)).trim_start());
    t.push('\n');
}

#[cfg(test)]
mod tests {
    use super::super::commands::COMMANDS;
    use super::*;

    fn words(line: &str) -> Vec<OsString> {
        line.split(' ').filter(|w| !w.is_empty()).map(|w| if w == "''" { OsString::new() } else { w.into() }).collect()
    }

    fn run(line: &str) -> Args {
        match parse(words(line), COMMANDS) {
            Ok(Parsed::Run(a)) => a,
            other => panic!("{line}: {other:?}"),
        }
    }

    #[test]
    fn flags_stand_anywhere_and_double_dash_ends_them() {
        let a = run("--home /x status --json web");
        assert_eq!(a.command.name, "status");
        assert!(a.has("json") && a.path("home") == Some("/x".into()));
        assert_eq!(a.operands, ["web"]);
        let a = run("run --home=/x -- sh -c --json");
        assert!(!a.has("json"));
        assert_eq!(a.rest, ["sh", "-c", "--json"]);
        assert_eq!(run("service list").command.name, "service list");
    }

    #[test]
    fn short_flags_can_be_joined_and_the_last_may_have_a_value() {
        let a = run("logs -ft web");
        assert!(a.has("follow") && a.has("timestamps") && a.operands == ["web"]);
        for line in ["logs -ftn 20 web", "logs -ftn20 web", "logs -ftn=20 web"] {
            let a = run(line);
            assert!(a.has("follow") && a.has("timestamps") && a.operands == ["web"], "{line}");
            assert_eq!(a.number("lines"), Ok(Some(20)), "{line}");
        }
        assert!(matches!(parse(words("status -qh"), COMMANDS), Ok(Parsed::Help(Some(c))) if c.name == "status"));
        assert_eq!(parse(words("logs -fy web"), COMMANDS).err().as_deref(), Some("-y is not a flag of 'hob logs'"));
    }

    #[test]
    fn numbers_out_of_range_are_told_with_the_range() {
        for (line, flag, want) in [
            ("logs -n -5", "lines", "--lines: '-5' is no whole number from 0"),
            ("logs -n 99999999999999999999", "lines", "'99999999999999999999' is no whole number from 0"),
            ("logs -n x", "lines", "'x' is no whole number from 0"),
        ] {
            let e = run(line).number(flag).unwrap_err();
            assert!(e.contains(want), "{line}: {e}");
        }
        let e = run("add -p 99999999999999 true").within("priority", -10, 10).unwrap_err();
        assert_eq!(e, "--priority: '99999999999999' is no whole number from -10 to 10");
        assert_eq!(run("add -p -7 true").within("priority", -10, 10), Ok(Some(-7)));
    }

    #[test]
    fn mistakes_say_what_was_meant() {
        for (line, want) in [
            ("statsu", "did you mean 'hob status'"),
            ("status --jsno", "did you mean --json"),
            ("service", "needs a verb"),
            ("service lits", "did you mean 'hob service list'"),
            ("service xyzzy", "'hob service --help' lists them"),
            ("servics", "did you mean 'hob service"),
            ("xyzzy", "is not a command; 'hob --help'"),
            ("why", "needs NAME"),
            ("ping web", "does not take 'web'"),
            ("reload web", "of a service it is 'hob service reload web'"),
            ("run -- ''", "an empty command; was a variable not set?"),
            ("stop ''", "an empty name"),
            ("logs -n", "needs a value"),
            ("logs -f=web", "-f"),
            ("logs --follow=web", "takes no value; write --follow alone"),
            ("--home '' status", "--home is empty; was a variable not set?"),
            ("add --after '' true", "--after is empty; was a variable not set?"),
            ("status -- sh", "takes nothing after --"),
        ] {
            match parse(words(line), COMMANDS) {
                Err(e) => assert!(e.contains(want), "{line}: {e}"),
                other => panic!("{line}: {other:?}"),
            }
        }
    }

    #[test]
    fn the_table_is_well_formed() {
        for (i, c) in COMMANDS.iter().enumerate() {
            assert!(COMMANDS.iter().skip(i + 1).all(|d| d.name != c.name), "{} stands twice", c.name);
            assert!(c.hidden || (!c.summary.is_empty() && !c.summary.ends_with('.')), "{}", c.name);
            let mut longs: Vec<_> = c.flags.iter().chain(GLOBAL).map(|f| f.long).collect();
            longs.sort_unstable();
            assert!(longs.windows(2).all(|w| w[0] != w[1]), "{}: a flag stands twice", c.name);
            let mut shorts: Vec<_> = c.flags.iter().chain(GLOBAL).filter_map(|f| f.short).collect();
            shorts.sort_unstable();
            assert!(shorts.windows(2).all(|w| w[0] != w[1]), "{}: a short flag stands twice", c.name);
            assert!(help_one(c).lines().all(|l| l.chars().count() <= 120), "{}: a help line is too long", c.name);
        }
    }
}
