//! What hob says of itself and of its services: manual, completions, schema, the typed client, stories, progress.

use crate::support::*;
use hob::client::{Client, State};
use hob::protocol::rpc::Code;
use serde_json::Value;
use std::io::{Read, Write};
use std::process::{Command, Output, Stdio};
use std::sync::{Arc, Mutex};

const CONFIG: &str = r#"{ "services": {
    "up": { "command": "echo hello; exec sleep 1000" },
    "broken": { "command": "echo no luck; exit 9", "max_restarts": 1, "min_delay": "10ms", "ready": "notify" },
    "db:1": { "command": "exec sleep 1000", "requires": ["up"], "autostart": false }
} }"#;

fn settled() -> Home {
    let home = Home::running(CONFIG);
    home.wait_state("up", "running");
    home.wait_state("broken", "failed");
    home
}

fn is_there(program: &str) -> bool {
    let found = Command::new("sh").args(["-c", &format!("command -v {program}")]).stdout(Stdio::null()).status();
    found.is_ok_and(|s| s.success())
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// What a program answers to this on its standard input.
fn fed(mut program: Command, input: &str) -> Output {
    let mut child =
        program.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("a program");
    let mut stdin = child.stdin.take().unwrap();
    let input = input.to_owned();
    let feeder = std::thread::spawn(move || stdin.write_all(input.as_bytes()));
    let out = child.wait_with_output().unwrap();
    feeder.join().unwrap().unwrap();
    out
}

#[test]
fn manual_pages_please_the_programs_that_show_them() {
    let home = Home::new("{}");
    let pages = [home.ok(&["man"]), home.ok(&["man", "config"])];
    assert!(pages[0].contains(".TH HOB 1 ") && pages[1].contains(".TH HOB.JSON 5 "));
    assert_eq!(home.ok(&["man", "hob"]), pages[0]);
    let json: Value = serde_json::from_str(&home.ok(&["man", "--json"])).unwrap();
    assert_eq!(json["roff"], *pages[0]);
    for (program, args) in [("mandoc", &["-Tlint", "-Wstyle"][..]), ("groff", &["-man", "-ww", "-Tutf8"])] {
        if !is_there(program) {
            skip(&format!("manual pages: there is no {program} here"));
            continue;
        }
        for page in &pages {
            let mut c = Command::new(program);
            c.args(args);
            let out = fed(c, page);
            let said = if program == "mandoc" { text(&out.stdout) } else { String::new() } + &text(&out.stderr);
            // That a page names another which is not installed here is no mistake in it.
            let said: Vec<&str> = said.lines().filter(|l| !l.contains("referenced manual not found")).collect();
            assert!(out.status.success() || program == "mandoc", "{program}: {said:?}");
            assert!(said.is_empty(), "{program}: {said:?}");
        }
    }
}

/// What a shell offers for a line with the cursor at its end: the whole last words, in their order.
type Offers = fn(&Home, &str) -> Vec<String>;

/// A folder with a program `hob` in it, first in PATH.
fn path(home: &Home) -> String {
    let bin = home.path("bin");
    if !exists(&bin) {
        std::fs::create_dir(&bin).unwrap();
        std::os::unix::fs::symlink(HOB, bin.join("hob")).unwrap();
    }
    format!("{}:{}", bin.display(), std::env::var("PATH").unwrap_or_default())
}

fn said_by(home: &Home, shell: &str, args: &[&str], script: &str, line: &str) -> Vec<String> {
    let mut c = Command::new(shell);
    c.args(args).args(["-c", script]).env("PATH", path(home)).env("HOB_HOME", &home.dir).env("LINE", line);
    c.env("HOME", &home.dir).env("XDG_CONFIG_HOME", home.path("xdg")).env("XDG_DATA_HOME", home.path("xdg"));
    let out = c.stdin(Stdio::null()).output().unwrap();
    assert!(out.status.success() && out.stderr.is_empty(), "{shell}: {line}: {}", text(&out.stderr));
    text(&out.stdout).lines().filter(|l| !l.is_empty()).map(str::to_owned).collect()
}

/// Bash splits a line at `=` and `:` as readline does, and replaces what follows the last of them.
fn in_bash(home: &Home, line: &str) -> Vec<String> {
    let script = r#"source <(hob completions bash) && complete -p hob >/dev/null || exit 9
        COMP_LINE=$LINE COMP_POINT=${#LINE} spread=${LINE//=/ = } spread=${spread//:/ : }
        read -ra COMP_WORDS <<<"$spread"; case $LINE in *[\ :=]) COMP_WORDS+=('') ;; esac
        COMP_CWORD=$((${#COMP_WORDS[@]} - 1)); COMPREPLY=(); _hob
        last=${LINE##* } part=${COMP_WORDS[COMP_CWORD]}
        for w in "${COMPREPLY[@]}"; do printf '%s\n' "${last%"$part"}$w"; done"#;
    said_by(home, "bash", &["--norc"], script, line)
}

/// Zsh with its completion system's own functions; only the last step, the menu, is replaced by a list.
fn in_zsh(home: &Home, line: &str) -> Vec<String> {
    let script = r#"autoload -Uz compinit && compinit -u -D && source <(hob completions zsh) || exit 9
        [[ $_comps[hob] == _hob ]] || exit 8
        _describe() { local w; for w in "${(@P)argv[-1]}"; do w=${w//\\:/@@} w=${w%%:*}; print -r -- ${w//@@/:}; done }
        _files() { print -rl -- ${words[CURRENT]}*(N) } ; compset() { words[CURRENT]=${words[CURRENT]#--*=} }
        _command_names() { print -rl -- ${(k)commands[(I)${words[CURRENT]}*]} }
        words=(${(z)LINE}); [[ $LINE == *' ' ]] && words+=(''); CURRENT=$#words; _hob || true"#;
    said_by(home, "zsh", &["-f"], script, line)
}

fn in_fish(home: &Home, line: &str) -> Vec<String> {
    let script = "hob completions fish | source; complete -C \"$LINE\"";
    let lines = said_by(home, "fish", &["--no-config"], script, line);
    let words = lines.into_iter().map(|l| l.split('\t').next().unwrap_or("").to_owned());
    words.collect()
}

#[test]
fn completions_work_in_the_shells_themselves() {
    let home = settled();
    let shells: [(&str, Offers); 3] = [("bash", in_bash), ("zsh", in_zsh), ("fish", in_fish)];
    for (shell, offers) in shells {
        if !is_there(shell) {
            skip(&format!("completions: there is no {shell} here"));
            continue;
        }
        for (line, want) in [
            ("hob sta", &["start", "status"][..]),
            ("hob service re", &["reload", "remove", "reset", "restart"]),
            ("hob why ", &["broken", "db:1", "up"]),
            ("hob why db:", &["db:1"]),
            ("hob why up ", &[]),
            ("hob stop up d", &["db:1"]),
            ("hob logs -n 5 b", &["broken"]),
            ("hob logs --stream=o", &["--stream=out"]),
            ("hob logs --stream ", &["err", "out"]),
            ("hob status --js", &["--json"]),
            ("hob events --kind service.rea", &["service.ready"]),
            ("hob service signal HU", &["HUP"]),
            ("hob call daemon.wh", &["daemon.why"]),
            ("hob completions z", &["zsh"]),
            ("hob help exit", &["exit-codes"]),
        ] {
            let mut got = offers(&home, line);
            got.sort();
            assert_eq!(got, want, "{shell}: {line}");
        }
        let file = home.path("hob.json");
        let begun = file.display().to_string().replace(".json", ".j");
        assert_eq!(offers(&home, &format!("hob --config {begun}")), [file.display().to_string()], "{shell}");
        assert!(offers(&home, "hob run -- hobx").is_empty() && !offers(&home, "hob run -- ca").is_empty(), "{shell}");
    }
    // Another hob is asked where the line names one, and nobody where none runs.
    let other = Home::new("{}");
    let line = format!("hob --home {} why ", other.dir.display());
    assert!(!is_there("bash") || in_bash(&home, &line).is_empty());
}

#[test]
fn the_schema_lies_beside_the_config_that_hob_makes_and_stays_that_of_the_program() {
    let mut home = Home::new("");
    std::fs::remove_file(home.path("hob.json")).unwrap();
    home.start(&[]);
    let schema = home.ok(&["config", "schema"]);
    assert!(home.read("hob.json").contains(r#""$schema": "./hob.schema.json""#));
    assert_eq!(home.read("hob.schema.json"), schema);
    let json: Value = serde_json::from_str(&schema).unwrap();
    assert_eq!(json["$schema"], "https://json-schema.org/draft/2020-12/schema");
    home.ok(&["config", "check"]);
    // One of another version is written anew; where there is none, none is made.
    std::fs::write(home.path("hob.schema.json"), "{}").unwrap();
    home.ok(&["stop"]);
    home.wait_end();
    home.start(&[]);
    wait("the schema of this program", || home.read("hob.schema.json") == schema);
    std::fs::remove_file(home.path("hob.schema.json")).unwrap();
    home.ok(&["stop"]);
    home.wait_end();
    home.start(&[]);
    assert!(!exists(&home.path("hob.schema.json")));
    if is_there("python3")
        && Command::new("python3")
            .args(["-c", "import jsonschema"])
            .stderr(Stdio::null())
            .status()
            .is_ok_and(|s| s.success())
    {
        let mut c = Command::new("python3");
        c.args([
            "-c",
            "import json,sys,jsonschema; jsonschema.Draft202012Validator.check_schema(json.load(sys.stdin))",
        ]);
        let out = fed(c, &schema);
        assert!(out.status.success(), "{}", text(&out.stderr));
    } else {
        skip("the schema of the schema: there is no python3 with jsonschema here");
    }
}

#[test]
fn the_client_library_has_names_for_all_of_it() {
    let home = settled();
    let mut hob = Client::connect(home.path("run/hob.sock")).unwrap();
    let services = hob.services().unwrap();
    let states: Vec<_> = services.iter().map(|s| (s.name.as_str(), s.state)).collect();
    assert_eq!(states, [("broken", State::Failed), ("db:1", State::Stopped), ("up", State::Running)]);
    let started = hob.start("db:1").unwrap();
    assert!(started.result == "started" && started.pid.is_some() && started.state == State::Running, "{started:?}");
    assert_eq!(hob.start("db:1").unwrap().result, "already_running");
    let detail = hob.service("db:1").unwrap();
    assert_eq!((detail.requires.as_slice(), detail.service.pid), (&["up".to_owned()][..], started.pid));
    let again = hob.restart("db:1").unwrap();
    assert!(again.result == "restarted" && again.pid != started.pid, "{again:?}");
    hob.signal("db:1", "CONT").unwrap();
    assert_eq!(hob.stop("db:1").unwrap().state, State::Stopped);
    hob.reset("db:1").unwrap();
    let history = hob.history("broken", 10).unwrap();
    assert_eq!((history.runs.len(), history.running.is_none()), (2, true));
    assert!(history.runs.iter().all(|r| r.failed && r.exit_code == Some(9) && r.signal.is_none()));
    assert_eq!(hob.history("up", 10).unwrap().running.unwrap().pid, hob.service("up").unwrap().service.pid);
    let why = hob.why("broken").unwrap();
    assert!(why.state == State::Failed && why.todo.contains(&"hob logs broken -n 100".to_owned()), "{why:?}");
    let health = hob.health().unwrap();
    assert!(!health.is_ok() && health.services.failed == 1 && health.services.total == 3, "{health:?}");
    let status = hob.status().unwrap();
    assert_eq!((status.counts.running, status.services.len(), status.keeper_pid), (1, 3, home.keeper()));
    let events = hob.events(&["service.failed"], &[], 10).unwrap();
    let last = events.events.last().unwrap();
    assert!(last.name == "broken" && last.fields["error"].as_str().is_some_and(|e| e.contains("exit code 9")));
    assert!(hob.reload().unwrap().unchanged.contains(&"up".to_owned()));
    let config: Value = hob.config().unwrap();
    assert_eq!(config["services"]["broken"]["max_restarts"], 1);
    let error = hob.why("nobody").unwrap_err();
    assert!(error.code() == Some(Code::NotFound) && error.hint().is_some() && error.message().contains("nobody"));
    let error = hob.start("broken").unwrap_err();
    assert_eq!((error.code(), error.hint()), (Some(Code::Unavailable), Some("hob why broken")));
    assert!(hob.shutdown().unwrap().stopping);
    let gone = Client::connect(home.path("run/nothing.sock")).unwrap_err();
    assert!(gone.is_not_running() && gone.code().is_none());
}

#[test]
fn history_tells_how_runs_ended_and_what_they_said() {
    let home = settled();
    let history = home.ok(&["service", "history", "broken"]);
    for want in ["RUN  STARTED", "exit code 9", "by autostart", "restart 1", "\nLast output of run 2\n  | no luck\n"] {
        assert!(history.contains(want), "{want}: {history}");
    }
    let now = home.ok(&["service", "history", "up"]);
    assert!(now.lines().last().unwrap().contains("runs") && now.contains("by autostart"), "{now}");
    kill("KILL", home.pid("up"));
    wait("it has run again", || home.ok(&["service", "history", "up"]).contains("killed by SIGKILL"));
    assert_eq!(home.ok(&["service", "history", "db:1"]), "db:1 has never run\n");
    // What programs get is the result of the protocol as it is.
    let json = home.ok(&["service", "history", "broken", "--json"]);
    assert_eq!(serde_json::from_str::<Value>(&json).unwrap(), home.call("service.history", r#"{"name": "broken"}"#));
}

#[test]
fn a_story_goes_on_over_a_daemon_killed_in_the_middle_of_it() {
    let home = Home::running(
        r#"{ "services": {
            "a": { "command": "exit 1", "min_delay": "1h", "max_delay": "5h" },
            "b": { "command": "exec sleep 1000", "requires": ["a", "c"] },
            "c": { "command": "exec sleep 1000" }
        } }"#,
    );
    home.wait_state("a", "backoff");
    home.ok(&["stop", "c"]);
    let check = || {
        let why = home.ok(&["why", "a"]);
        assert!(why.contains("restart 2 in ") && why.contains(", then 2 h, 4 h\n"), "{why}");
        let why = home.ok(&["why", "b"]);
        assert!(
            why.contains("b waits for a, which is down until its next try, and for c, which a person stopped"),
            "{why}"
        );
        assert!(why.contains("it starts once a is ready and c is ready; a is started again in "), "{why}");
        assert!(
            why.contains("nothing starts c by itself") && why.contains("start c  # which a person stopped"),
            "{why}"
        );
    };
    check();
    let (daemon, _) = home.pids();
    kill("KILL", daemon);
    wait("another daemon answers", || home.hob(&["ping"]).status.success() && home.pids().0 != daemon);
    check();
}

#[test]
fn topics_are_help_and_versions_are_told() {
    let home = Home::new("{}");
    let help = home.ok(&["--help"]);
    for topic in ["files", "environment", "signals", "exit-codes"] {
        assert!(help.contains(&format!("  help {topic} ")), "{help}");
        assert!(home.ok(&["help", topic]).lines().count() > 4, "{topic}");
    }
    assert!(home.ok(&["help", "exit-codes"]).contains("Not found (-32004)"));
    assert_eq!(home.ok(&["version"]), home.ok(&["--version"]));
}

#[test]
fn a_reader_that_leaves_is_no_failure_and_a_full_disk_is_one() {
    let home = Home::new("{}");
    for args in [&["--help"][..], &["man"], &["config", "schema"], &["help", "files"], &["completions", "zsh"]] {
        let mut c = home.command(args);
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        let out = c.stdin(Stdio::null()).stdout(writer).stderr(Stdio::piped()).output().unwrap();
        assert!(out.status.success() && out.stderr.is_empty(), "{args:?}: {}", text(&out.stderr));
        let full = std::fs::OpenOptions::new().write(true).open("/dev/full").unwrap();
        let out = home.command(args).stdin(Stdio::null()).stdout(full).output().unwrap();
        assert_eq!(out.status.code(), Some(1), "{args:?}");
        assert!(text(&out.stderr).contains("No space left"), "{args:?}: {}", text(&out.stderr));
    }
}

/// A command of this home with a terminal, and all that it shows there so far.
fn on_a_terminal(home: &Home, line: &str) -> (std::process::Child, Arc<Mutex<String>>) {
    let mut c = Command::new("script");
    c.args(["-qec", &format!("hob {line}"), "/dev/null"]).env("PATH", path(home)).env("HOB_HOME", &home.dir);
    c.env("TERM", "xterm").env_remove("NO_COLOR");
    let mut child = c.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let (mut out, shown) = (child.stdout.take().unwrap(), Arc::new(Mutex::new(String::new())));
    let copy = Arc::clone(&shown);
    std::thread::spawn(move || {
        let mut buf = [0; 1024];
        while let Ok(n @ 1..) = out.read(&mut buf) {
            copy.lock().unwrap().push_str(&text(&buf[..n]));
        }
    });
    (child, shown)
}

#[test]
fn a_terminal_sees_colours_and_for_whom_a_command_waits() {
    if !is_there("script") {
        return skip("terminals: there is no program 'script' here");
    }
    let home = Home::running(
        r#"{ "services": { "web": {
            "command": "trap 'touch asked' TERM; while [ ! -e asked ] || [ ! -e go ]; do sleep 0.05; done"
        } } }"#,
    );
    home.wait_state("web", "running");
    let (mut child, shown) = on_a_terminal(&home, "status");
    child.wait().unwrap();
    wait("colours", || shown.lock().unwrap().contains("\u{1b}[32mrunning\u{1b}[0m"));
    assert!(!home.ok(&["status"]).contains('\u{1b}'));
    let (mut child, shown) = on_a_terminal(&home, "stop web --timeout 60s");
    let seen = || shown.lock().unwrap().clone();
    wait("it says for whom it waits", || seen().contains("web is stopping (") || seen().contains("web still has "));
    assert!(!seen().contains("web: stopped"), "{}", seen());
    std::fs::write(home.path("go"), "").unwrap();
    assert!(child.wait().unwrap().success());
    wait("the line is gone and the result is there", || seen().contains("\r\u{1b}[Kweb: stopped"));
}
