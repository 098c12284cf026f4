//! Tests of what only the inside of the config sees: that the table of keys, its texts and its defaults agree.

use super::keys::{DAEMON, Field, Key, SERVICE};
use super::programs::GROUP;
use super::*;

const LINUX: Platform = Platform::linux();

#[test]
fn default_texts_parse_and_mean_the_defaults() {
    let first = parse(DEFAULT, "hob.json", &LINUX).unwrap();
    let [job] = &first.schedule[..] else { panic!("{:?}", first.schedule) };
    assert_eq!((&*job.id, job.action.as_ref().unwrap().text()), ("health-check", "call daemon.doctor".to_owned()));
    assert_eq!(Config { schedule: Vec::new(), ..first }, Config::default());
    let shown = parse(&defaults_text(), "hob.json", &LINUX).unwrap();
    assert_eq!(shown.daemon, DaemonSpec::default());
    let argv = shown.services["NAME"].command.clone();
    assert!(!argv.is_empty());
    assert_eq!(*shown.services["NAME"], ServiceSpec { command: argv, ..ServiceSpec::default() });
}

/// A service whose needs of any example exist.
fn service(member: &str) -> ServiceSpec {
    let others = ["db", "cache", "metrics", "network"].map(|name| format!("\"{name}\": {{\"command\": \"x\"}}"));
    let text = format!("{{\"services\": {{\"web\": {{{member}}}, {}}}}}", others.join(","));
    let config = parse(&text, "f", &LINUX).unwrap_or_else(|e| panic!("{member}: {e:?}"));
    // Its instances would read the same.
    let found = config.services.get("web").or_else(|| config.services.get("web@blue"));
    ServiceSpec::clone(found.unwrap())
}

/// All keys that hold a value, with the objects they are in.
fn leaves<S>(keys: &'static [Key<S>], open: &str, out: &mut Vec<(String, &'static str, bool)>) {
    for key in keys {
        match &key.field {
            Field::Group(inner) => leaves(inner, &format!("{open}\"{}\": {{", key.name), out),
            _ => {
                let close = "}".repeat(open.matches('{').count());
                out.push((format!("{open}\"{}\": {}{close}", key.name, key.example), key.name, key.live));
            }
        }
    }
}

#[test]
fn every_example_is_a_value_of_its_key() {
    let (mut daemon, mut of_service) = (Vec::new(), Vec::new());
    leaves(DAEMON, "", &mut daemon);
    leaves(SERVICE, "", &mut of_service);
    for (member, ..) in daemon {
        let text = format!("{{\"daemon\": {{{member}}}}}");
        assert!(parse(&text, "f", &LINUX).is_ok(), "{text}");
    }
    for (member, name, _) in of_service {
        let beside = match name {
            "command" => "",
            "on_demand" => r#""command": "x", "listen": "unix:/s", "#,
            _ => r#""command": "x", "#,
        };
        service(&format!("{beside}{member}"));
    }
}

#[test]
fn the_table_knows_every_field_and_documents_it() {
    // Spelt out in full, so that a field that is added to a spec does not compile until it is here.
    let ServiceSpec {
        command: _,
        cwd: _,
        env: _,
        nice: _,
        autostart: _,
        restart: _,
        requires: _,
        wants: _,
        after: _,
        log: _,
        settings: _,
    } = ServiceSpec::default();
    let Settings {
        env_from: _,
        clean_env: _,
        env_file: _,
        secrets: _,
        user: _,
        group: _,
        umask: _,
        limits: Limits { ionice: _, oom_score: _, cpus: _, rlimits: _ },
        min_delay: _,
        max_delay: _,
        reset_after: _,
        max_restarts: _,
        hob_fd: _,
        access: _,
        window: _,
        ready: _,
        ready_timeout: _,
        health: _,
        watchdog: _,
        oneshot: _,
        stop_signal: _,
        stop_command: _,
        stop_timeout: _,
        reload_signal: _,
        reload_command: _,
        leave_children: _,
        on_daemon_death: _,
        listen: _,
        on_demand: _,
    } = Settings::default();
    let GroupSpec { parallel: _, paused: _, weight_limit: _, nice: _, limits: _ } = GroupSpec::default();
    let DaemonSpec {
        heartbeat: _,
        shutdown_timeout: _,
        shutdown_grace: _,
        nice: _,
        update_command: _,
        update_every: _,
        log: _,
        access: _,
    } = DaemonSpec::default();
    assert_eq!((SERVICE.len(), GROUP.len(), DAEMON.len()), (41, 8, 8));
    for info in keys() {
        let doc = info.doc;
        assert!(doc.len() > 10 && !doc.ends_with('.') && doc.starts_with(char::is_lowercase), "{}: {doc}", info.path);
        assert_eq!(info.default.is_none(), {
            let needed = [
                "services.NAME.command",
                "agents.NAME.command",
                "runners.NAME.prefix",
                "schedule.jobs[].id",
                "schedule.jobs[].cron",
                "schedule.jobs[].action",
            ];
            needed.contains(&info.path.as_str())
        });
    }
    assert!(defaults_text().lines().all(|l| l.chars().count() <= 200));
}

#[test]
fn sockets_survive_the_way_to_json_and_back() {
    let listen = r#"["tcp:[fe80::1%2]:80", "udp:0.0.0.0:53", "unix:@a", "unix-datagram:d", "unix-seqpacket:/s",
        {"tcp": "[::]:81", "ipv6_only": true, "name": "h ttp", "backlog": 5},
        {"unix": "/u", "type": "datagram", "mode": "660", "user": "www", "group": 0}]"#;
    let spec = service(&format!(r#""command": "x", "on_demand": true, "listen": {listen}"#));
    assert_eq!(spec.listen.len(), 7);
    assert_eq!(spec.listen[0].at.to_string(), "tcp:[fe80::1%2]:80");
    let json = service_json(&spec);
    assert_eq!(service(json.strip_prefix('{').and_then(|j| j.strip_suffix('}')).unwrap()), spec);
}

#[test]
fn changes_are_told_apart_by_whether_the_service_must_restart() {
    let old = service(r#""command": "x""#);
    assert_eq!(changed(&old, &old.clone()), []);
    for (member, key, live) in [
        (r#""cwd": "/""#, "cwd", false),
        (r#""env": {"A": ""}"#, "env.A", false),
        (r#""env_file": "/e""#, "env_file", false),
        (r#""secrets": ["A"]"#, "secrets", false),
        (r#""user": "u""#, "user", false),
        (r#""group": "g""#, "group", false),
        (r#""umask": "000""#, "umask", false),
        (r#""nice": 0"#, "nice", false),
        (r#""ionice": "idle""#, "ionice", false),
        (r#""oom_score": 0"#, "oom_score", false),
        (r#""cpus": "0""#, "cpus", false),
        (r#""rlimits": {"core": 0}"#, "rlimits", false),
        (r#""ready": "notify""#, "ready", false),
        (r#""autostart": false"#, "autostart", true),
        (r#""restart": "never""#, "restart", true),
        (r#""min_delay": "1s""#, "min_delay", true),
        (r#""max_delay": "1s""#, "max_delay", true),
        (r#""reset_after": "1s""#, "reset_after", true),
        (r#""max_restarts": 1"#, "max_restarts", true),
        (r#""window": "1s""#, "window", true),
        (r#""ready_timeout": "1s""#, "ready_timeout", true),
        (r#""health": {"tcp": 1}"#, "health", true),
        (r#""watchdog": "1s""#, "watchdog", false),
        (r#""oneshot": true"#, "oneshot", false),
        (r#""requires": ["db"]"#, "requires", true),
        (r#""wants": ["db"]"#, "wants", true),
        (r#""after": ["db"]"#, "after", true),
        (r#""stop_signal": 9"#, "stop_signal", true),
        (r#""stop_timeout": "1s""#, "stop_timeout", true),
        (r#""stop_command": "x""#, "stop_command", true),
        (r#""reload_signal": "HUP""#, "reload_signal", true),
        (r#""reload_command": "x""#, "reload_command", true),
        (r#""leave_children": true"#, "leave_children", true),
        (r#""on_daemon_death": "stop""#, "on_daemon_death", false),
        (r#""listen": "unix:/s""#, "listen", false),
        (r#""log": {"max_files": 2}"#, "log.max_files", true),
        (r#""log": {"timestamps": true}"#, "log.timestamps", true),
        (r#""log": {"rate": "1MB/s"}"#, "log.rate", true),
        (r#""log": {"streams": "split"}"#, "log.streams", true),
        (r#""log": {"max_age": "1d"}"#, "log.max_age", true),
        (r#""log": {"compress": true}"#, "log.compress", true),
    ] {
        let new = service(&format!(r#""command": "x", {member}"#));
        let want = [Changed { path: key.to_owned(), live }];
        assert_eq!(changed(&old, &new), want);
        assert_eq!(changed(&new, &old), want);
    }
    let paths = |old: &str, new: &str| {
        let all = changed(&service(old), &service(new)).into_iter().map(|c| c.path);
        all.collect::<Vec<_>>().join(" ")
    };
    assert_eq!(paths(r#""command": "x""#, r#""command": "y", "restart": "never""#), "command restart");
    let old = r#""command": "x", "env": {"A": "1", "B": "2", "C": "3"}, "log": {"max_files": 2}"#;
    let new = r#""command": "x", "env": {"B": "2", "C": "4", "D-E": "5"}, "log": {"max_files": 3, "compress": true}"#;
    assert_eq!(paths(old, new), r#"env.A env.C env."D-E" log.max_files log.compress"#);
    let at_once = r#""command": "x", "listen": "unix:/s""#;
    assert_eq!(paths(at_once, r#""command": "x", "listen": "unix:/s", "on_demand": true"#), "on_demand");
}
