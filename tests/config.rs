//! Configs and everything that is said about them: texts with their exact errors, round trips, and large ones.
//!
//! The cases in tests/config/*.txt stand between lines of dashes: the text, then the errors, each after `! `. With
//! HOB_REWRITE=1 the errors are written anew, to be judged in the diff.

// The helpers of a test may panic: that is how a test fails.
#![allow(clippy::unwrap_used)]

#[path = "config/schema.rs"]
mod schema;

use hob::config::{self, Config, Platform, Ready, parse, parse_bytes, to_json};
use std::fmt::Write as _;
use std::path::Path;

/// Runs every case of a file; `wrap` makes a config of a case's text.
fn check(file: &str, wrap: impl Fn(&str) -> String) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/config").join(file);
    let cases = std::fs::read_to_string(&path).unwrap();
    let (mut actual, mut count) = (String::new(), 0);
    for case in cases.split("----\n") {
        let text: Vec<&str> = case.lines().filter(|l| !l.starts_with("! ")).collect();
        let text = text.join("\n");
        if count > 0 {
            actual.push_str("----\n");
        }
        writeln!(actual, "{text}").unwrap();
        for error in parse(&wrap(&text), "f", &Platform::linux()).err().unwrap_or_default() {
            writeln!(actual, "! {error}").unwrap();
        }
        count += 1;
    }
    if std::env::var_os("HOB_REWRITE").is_some() {
        std::fs::write(&path, &actual).unwrap();
    }
    for (number, (want, got)) in cases.lines().zip(actual.lines()).enumerate() {
        assert_eq!(got, want, "{}:{}", path.display(), number + 1);
    }
    assert_eq!(cases.len(), actual.len(), "{} has lines without a match at its end", path.display());
}

#[test]
fn syntax_errors_are_all_found_and_exactly_placed() {
    check("syntax.txt", str::to_owned);
}

#[test]
fn wrong_members_of_a_service_say_where_what_and_what_else() {
    check("service.txt", |members| {
        format!("{{\"services\": {{\"db\": {{\"command\": \"x\"}}, \"web\": {{\"command\": \"x\",\n{members}\n}}}}}}")
    });
}

#[test]
fn wrong_configs_say_where_what_and_what_else() {
    check("whole.txt", str::to_owned);
}

#[test]
fn wrong_instances_say_where_what_and_what_else() {
    check("instances.txt", |services| format!("{{\"services\": {{\n{services}\n}}}}"));
}

#[test]
fn instances_are_services_with_names_of_their_own() {
    let text = r#"{"services": {
        "web": {"instances": 2, "command": ["web", "--port", "80%i", "100%%"], "cwd": "/srv/%i", "env": {"N": "%i"},
                "ready": {"port": "80%i"}, "health": {"http": "http://localhost:80%i/%i"}, "requires": ["db@%i"]},
        "db": {"instances": ["2", "1"], "command": "date +%%F; exec db %i", "cpus": "%i"},
        "one": {"command": "date +%F %i", "requires": [{"name": "web", "condition": "started"}, "solo"],
                "after": ["x"]},
        "x@a": {"command": ["x"]}, "x@b": {"command": ["x", "%"]}, "x": {"command": ["x"]},
        "solo": {"command": "s", "instances": null},
    }}"#;
    let config = parse(text, "f", &Platform::linux()).unwrap_or_else(|e| panic!("{e:#?}"));
    let names: Vec<&str> = config.services.keys().map(String::as_str).collect();
    assert_eq!(names, ["db@1", "db@2", "one", "solo", "web@1", "web@2", "x", "x@a", "x@b"]);
    let web = &config.services["web@2"];
    assert_eq!(web.command, ["web", "--port", "802", "100%"]);
    assert_eq!((web.cwd.as_deref(), web.env["N"].as_str(), &web.ready), (Some("/srv/2"), "2", &Ready::Port(802)));
    assert!(to_json(&config).contains(r#""health":{"http":"http://localhost:802/2","#));
    assert_eq!(web.requires[0].name, "db@2");
    assert_eq!(config.services["db@1"].command[2], "date +%F; exec db 1");
    let one = &config.services["one"];
    assert_eq!(one.command[2], "date +%F %i", "an ordinary service is as it is written");
    let needs: Vec<String> = one.requires.iter().map(|n| format!("{} {:?}", n.name, n.condition)).collect();
    assert_eq!(needs, ["web@1 Started", "web@2 Started", "solo Ready"]);
    assert_eq!(one.after[0].name, "x", "a service of the very name is meant itself");
    assert_eq!(parse(&to_json(&config), "f", &Platform::linux()), Ok(config), "written out they are plain services");
    let count = |text: &str| parse(text, "f", &Platform::linux()).unwrap().services;
    let (three, listed) = (r#"{"services":{"a":{"command":"x","instances":3}}}"#, r#""instances":["1","2","3"]"#);
    assert_eq!(count(three), count(&three.replace("\"instances\":3", listed)));
}

#[test]
fn instances_cannot_fill_the_memory() {
    let long = "x".repeat(100_000);
    let text = format!(r#"{{"services": {{"a": {{"command": ["{long}"], "instances": 1000}}}}}}"#);
    let all = errors(text.as_bytes());
    assert_eq!(all.len(), 1, "{all:?}");
    assert!(all[0].starts_with("f:1:15: services.a: all instances up to here come to 100"), "{all:?}");
    let one = |name: &str, more: &str| format!(r#""{name}": {{"command": "x", "instances": 1000{more}}}"#);
    let needs: Vec<String> = (0..9).map(|i| one(&format!("s{i}"), r#", "after": ["base"]"#)).collect();
    let text = format!(r#"{{"services": {{{}, {}}}}}"#, one("base", ""), needs.join(","));
    let all = errors(text.as_bytes());
    assert!(all.iter().any(|e| e.ends_with("needs of all instances of services come to more than 100000")), "{all:?}");
    let many: Vec<String> = (0..11).map(|i| one(&format!("s{i}"), "")).collect();
    let all = errors(format!(r#"{{"services": {{{}}}}}"#, many.join(",")).as_bytes());
    assert_eq!(all.len(), 1, "{all:?}");
    assert!(
        all[0].ends_with("services.s10: with its instances there are 11000 services; 10000 is the most"),
        "{all:?}"
    );
}

#[test]
fn the_limits_of_groups_are_those_of_services() {
    let of_service = |member: &str| format!("{{\"services\": {{\"web\": {{\"command\": \"x\",\n{member}\n}}}}}}");
    let of_group = |member: &str| format!("{{\"groups\": {{\"web\": {{\"parallel\": 1,\n{member}\n}}}}}}");
    for member in [
        r#""nice": 20"#,
        r#""nice": -21, "ionice": "besteffort""#,
        r#""nice": "5", "ionice": "best-effort:8", "oom_score": 1001, "cpus": "3-1""#,
        r#""ionice": "idle:3", "oom_score": "5", "cpus": 5"#,
        r#""cpus": "9999", "rlimits": []"#,
        r#""rlimits": {"nofiles": 1, "RLIMIT_CORE": 0, "nproc": "many", "core": {"soft": 5, "hard": 4}}"#,
        r#""ulimits": {}, "oom_score_adj": 5, "cpuset": "0", "niec": 5"#,
    ] {
        let of_services = errors(of_service(member).as_bytes());
        assert!(!of_services.is_empty());
        let wanted: Vec<String> = of_services.iter().map(|e| e.replace(": services.web", ": groups.web")).collect();
        assert_eq!(errors(of_group(member).as_bytes()), wanted, "{member}");
    }
    for member in [
        r#""nice": -20, "ionice": "best-effort:7", "oom_score": -1000, "cpus": "7,1,2,3-4""#,
        r#""nice": null, "ionice": "idle", "rlimits": {"nofile": 4096, "core": {"soft": 0, "hard": "unlimited"}}"#,
    ] {
        let read = |text: &str| parse(text, "f", &Platform::linux()).unwrap();
        let (service, config) = (read(&of_service(member)), read(&of_group(member)));
        let (service, group) = (&service.services["web"], &config.groups["web"]);
        assert_eq!((group.nice, &group.limits), (service.nice, &service.limits));
        assert_eq!(read(&to_json(&config)), config);
    }
    assert_eq!(parse(&of_group(""), "f", &Platform::linux()).unwrap().groups["web"].nice, Some(10));
}

fn errors(bytes: &[u8]) -> Vec<String> {
    let errors = parse_bytes(bytes, "f", &Platform::linux()).unwrap_err();
    errors.iter().map(ToString::to_string).collect()
}

#[test]
fn characters_that_no_editor_shows_are_named() {
    for (text, want) in [
        ("", "f:1:1: the file is empty; the smallest config is {}"),
        ("{\"a\": \"\tx\"}", "f:1:8: a: a control character in text is written as an escape; did you mean '\\t'?"),
        (
            "{\"a\": \"\u{1}\"}",
            "f:1:8: a: a control character in text is written as an escape; did you mean '\\u0001'?",
        ),
        ("{\"a\": \0}", "f:1:7: a: a value is missing before this character U+0000"),
        ("\u{feff}[}", "f:1:2: ']' is wanted for the list at 1:1, found '}'"),
        ("{}\r\n\r\n  x", "f:3:3: the config has ended before this 'x'"),
    ] {
        assert_eq!(errors(text.as_bytes()), [want], "{text:?}");
    }
    assert_eq!(errors(b"{\n\"\xc3\xa9\xff\": 1}"), ["f:2:3: the byte 0xff is not UTF-8"]);
    assert_eq!(errors(b"\xe2\x82"), ["f:1:1: the byte 0xe2 is not UTF-8"]);
}

#[test]
fn nonsense_is_bounded() {
    let deep = errors("[".repeat(100_000).as_bytes());
    assert_eq!(deep, ["f:1:33: [0][0][0][0][0][0][0][0][0][0][0][0]...: nested deeper than 32 levels"]);
    assert_eq!(errors("[?,".repeat(100).as_bytes()).len(), 20);
    let huge = vec![b' '; hob::base::limits::CONFIG_MAX + 1];
    assert_eq!(errors(&huge), ["f:1:1: 4194305 bytes; 4194304 is the most"]);
    let keys: Vec<String> = (0..1000).map(|i| format!("\"nothing{i}\": 1")).collect();
    let many = errors(format!("{{{}}}", keys.join(",\n")).as_bytes());
    assert_eq!(many.len(), 201);
    assert_eq!(many.last().unwrap(), "f:200:1: 800 more errors are not shown");
}

/// Every service of a long row needs the next one; in a ring the last needs the first.
fn row(length: usize, ring: bool) -> String {
    let mut text = String::from("{\"services\": {\n");
    for i in 0..length {
        let next = if i + 1 < length { i + 1 } else { 0 };
        let needs = if i + 1 < length || ring { format!("\"s{next}\"") } else { String::new() };
        writeln!(text, "\"s{i}\": {{\"command\": [\"x\"], \"requires\": [{needs}]}},").unwrap();
    }
    text + "}}"
}

#[test]
fn ten_thousand_services_in_a_row_are_a_config_and_in_a_ring_an_error() {
    let long = parse(&row(10_000, false), "f", &Platform::linux()).unwrap();
    assert_eq!(long.services.len(), 10_000);
    let ring = errors(row(10_000, true).as_bytes());
    assert_eq!(ring.len(), 1);
    assert!(
        ring[0].starts_with("f:10001:42: services.s9999.requires[0]: these wait for each other: s0 -> s1 -> s2 -> ")
    );
    assert!(ring[0].ends_with(" -> s49 -> (9950 more) -> s0"), "{}", ring[0]);
    assert_eq!(errors(row(10_001, false).as_bytes()), ["f:1:14: services: 10001 services; 10000 is the most"]);
}

/// A config in which no key has its default.
const RICH: &str = r#"{
  "daemon": {
    "heartbeat": "0s", "shutdown_timeout": "1m30s", "shutdown_grace": "0s", "nice": -5,
    "update_command": ["hob-newest", "-q"], "update_every": "7d",
    "log": {"level": "trace", "format": "json", "max_size": "1MiB", "max_files": 2},
    "access": [{"user": "alice", "level": "read"}, {"group": 100, "level": "admin"}],
  },
  "services": {
    "a.b": {"command": ["x", "", "é\n\u0001\ud83d\ude00"]},
    "web": {
      "command": "exec x", "cwd": "/srv/a b", "env": {"A": "1", "B": ""}, "env_file": "/e", "user": "www", "group": 33,
      "umask": "027", "nice": 19,
      "rlimits": {"nofile": 1024, "core": "unlimited", "as": {"soft": "1GiB", "hard": "unlimited"}},
      "autostart": false, "restart": "always", "min_delay": "0", "max_delay": "1.5s", "reset_after": "1h30m",
      "max_restarts": 3, "window": "2d", "ready": {"log": "^ready \\d+$"}, "ready_timeout": "100ms",
      "health": {"http": "http://localhost/up?x=1", "every": "1m", "timeout": "500ms", "retries": 7},
      "requires": ["a.b", {"name": "c", "condition": "started"}], "wants": [{"name": "c", "condition": "ready"}],
      "after": ["c"], "stop_signal": "sigint", "stop_timeout": "1ms", "leave_children": true,
      "hob_fd": true, "access": "admin",
      "log": {"max_size": "4.096kB", "max_files": 1, "max_age": "30d", "compress": true, "timestamps": true,
              "rate": "1500kB/s", "streams": "split"},
      "secrets": ["B2", "TOKEN"],
    },
    "c": {"command": ["c"], "ready": {"port": 1}, "stop_signal": "USR1", "health": {"tcp": "[::1]:80"}},
    "d": {"command": ["d"], "ready": "notify", "restart": "never", "stop_signal": 40, "health": {"command": "true"},
          "requires": [{"name": "c", "condition": "healthy"}]},
    "e": {"command": ["e"], "ready": {"fd": 3}, "health": {"unix": "@e"}},
    "f": {"command": ["f"], "ready": {"socket": "/run/f"}, "health": {"tcp": 9}},
    "g": {"command": ["g"], "ready": {"command": ["x", "y"]}, "watchdog": "1m30s",
          "requires": [{"name": "h", "condition": "succeeded"}], "after": [{"name": "d", "condition": "finished"}]},
    "h": {"command": ["h"], "oneshot": true, "ionice": "realtime", "oom_score": 7, "cpus": "5,0-1,2"},
    "i": {"command": ["i"], "ionice": "idle", "stop_command": "x", "reload_signal": "USR1"},
    "j": {"command": ["j"], "access": "none", "on_daemon_death": "stop", "reload_command": ["x", "y"]},
  },
}"#;

#[test]
fn the_effective_config_reads_back_to_itself() {
    let text = RICH;
    for platform in [Platform::linux(), Platform::bsd()] {
        let config = parse(text, "f", &platform).unwrap();
        let json = to_json(&config);
        assert!(!json.contains('\n'));
        assert!(serde_json::from_str::<serde_json::Value>(&json).is_ok(), "plain JSON without comments: {json}");
        assert_eq!(parse(&json, "f", &platform), Ok(config));
    }
    let config = parse(text, "f", &Platform::linux()).unwrap();
    assert_eq!(config.services["web"].ready, Ready::Log("^ready \\d+$".into()));
    assert_eq!(config.services["web"].command, ["/bin/sh", "-c", "exec x"]);
    assert_eq!(config.services["a.b"].command[2], "é\n\u{1}\u{1f600}");
    let json = to_json(&config);
    for part in [
        r#""shutdown_timeout":"90s""#,
        r#""update_command":["hob-newest","-q"],"update_every":"7d""#,
        r#""access":[{"user":"alice","level":"read"},{"group":"100","level":"admin"}]"#,
        r#""rlimits":{"as":{"soft":1073741824,"hard":"unlimited"},"core":"unlimited","nofile":1024}"#,
        r#""requires":["a.b",{"name":"c","condition":"started"}],"wants":["c"]"#,
        r#""stop_signal":"SIGINT","stop_command":null,"stop_timeout":"1ms""#,
        r#""stop_signal":10,"#,
        r#""umask":"027""#,
        r#""health":{"http":"http://localhost:80/up?x=1","every":"1m","timeout":"500ms","retries":7}"#,
        r#""health":{"tcp":"localhost:9","every":"10s","timeout":"2s","retries":3}"#,
        r#""ready":{"fd":3}"#,
        r#""ionice":"realtime:4","oom_score":7,"cpus":"0-2,5""#,
        r#""max_size":"4KiB""#,
        r#""window":"2d""#,
        r#""rate":"1500kB/s""#,
        r#""secrets":["B2","TOKEN"]"#,
    ] {
        assert!(json.contains(part), "{part} in {json}");
    }
    let unset: Vec<String> = to_json(&Config::default()).split(',').map(str::to_owned).collect();
    let unset: Vec<&String> = unset.iter().filter(|member| member.contains("null")).collect();
    assert_eq!(unset, [r#""update_command":null"#]);
}

#[test]
fn what_the_first_start_writes_is_right_with_its_comments_taken_off() {
    let text: String = config::DEFAULT
        .lines()
        .filter(|l| {
            !l.trim_start().starts_with("// ")
                || l.contains("// \"")
                || l.contains("// {")
                || l.trim_start().starts_with("//   ")
                || l.contains("// },")
        })
        .map(|l| l.replacen("// ", "", 1) + "\n")
        .collect();
    let text = text.split_once('{').unwrap().1;
    let config = parse(&format!("{{{text}"), "f", &Platform::linux()).unwrap_or_else(|e| panic!("{e:#?}\n{text}"));
    assert_eq!(config.services.keys().collect::<Vec<_>>(), ["app", "db", "web"]);
    let jobs: Vec<&str> = config.schedule.iter().map(|j| &*j.id).collect();
    assert_eq!(jobs, ["health-check", "nightly", "report", "tidy"]);
    assert_eq!(config.daemon.access.len(), 1);
    let shown = config::DaemonSpec { access: Vec::new(), ..config.daemon.clone() };
    assert_eq!(shown, config::DaemonSpec::default(), "the values shown are the defaults");
    let (app, default) = (&config.services["app"], config::ServiceSpec::default());
    assert_eq!((app.restart, app.min_delay, app.max_delay), (default.restart, default.min_delay, default.max_delay));
    assert_eq!((app.ready_timeout, app.stop_timeout), (default.ready_timeout, default.stop_timeout));
    assert_eq!(
        (app.stop_signal, &app.log, app.max_restarts),
        (default.stop_signal, &default.log, default.max_restarts)
    );
}

#[test]
fn the_table_of_signals_is_the_one_of_this_system() {
    let platform = Platform::of(std::env::consts::OS);
    for (name, number) in [
        ("HUP", libc::SIGHUP),
        ("INT", libc::SIGINT),
        ("QUIT", libc::SIGQUIT),
        ("ILL", libc::SIGILL),
        ("TRAP", libc::SIGTRAP),
        ("ABRT", libc::SIGABRT),
        ("BUS", libc::SIGBUS),
        ("FPE", libc::SIGFPE),
        ("KILL", libc::SIGKILL),
        ("USR1", libc::SIGUSR1),
        ("SEGV", libc::SIGSEGV),
        ("USR2", libc::SIGUSR2),
        ("PIPE", libc::SIGPIPE),
        ("ALRM", libc::SIGALRM),
        ("TERM", libc::SIGTERM),
        ("CHLD", libc::SIGCHLD),
        ("CONT", libc::SIGCONT),
        ("STOP", libc::SIGSTOP),
        ("TSTP", libc::SIGTSTP),
        ("TTIN", libc::SIGTTIN),
        ("TTOU", libc::SIGTTOU),
        ("URG", libc::SIGURG),
        ("XCPU", libc::SIGXCPU),
        ("XFSZ", libc::SIGXFSZ),
        ("VTALRM", libc::SIGVTALRM),
        ("PROF", libc::SIGPROF),
        ("WINCH", libc::SIGWINCH),
        ("IO", libc::SIGIO),
        ("SYS", libc::SIGSYS),
    ] {
        assert_eq!(platform.signal(name), Some(number), "{name}");
    }
    // Beside these: STKFLT, PWR, those of real time, RTMAX and three names of old.
    assert_eq!(platform.signals.len(), 29 + 2 + 31 + 1 + 3);
}
