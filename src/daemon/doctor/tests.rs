//! Tests of an examination on folders made for it.

use super::*;
use crate::sys::file::lock;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

struct Lab {
    dir: PathBuf,
    paths: Paths,
}

impl Lab {
    fn new(name: &str, config: &str) -> Lab {
        let dir = std::env::temp_dir().join(format!("hob-doctor-{name}-{}", std::process::id()));
        let _ = fs::remove_dir_all(&dir);
        for (folder, mode) in [("", 0o700), ("run", 0o711), ("state", 0o700), ("logs", 0o700)] {
            let path = dir.join(folder);
            fs::create_dir_all(&path).unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        }
        fs::write(dir.join("hob.json"), config).unwrap();
        fs::set_permissions(dir.join("hob.json"), fs::Permissions::from_mode(0o600)).unwrap();
        let input = crate::base::paths::PathInput { home: Some(dir.clone()), ..Default::default() };
        Lab { paths: Paths::resolve(&input).unwrap(), dir }
    }

    fn look(&self) -> Vec<Finding> {
        let setup = setup(&self.paths);
        let scene = Scene {
            paths: &self.paths,
            running: false,
            given: false,
            others: None,
            managed: false,
            setup: &setup,
            no_cgroups: None,
            subreaper: true,
        };
        examine(&scene)
    }

    fn mode(&self, file: &str, mode: u32) {
        fs::set_permissions(self.dir.join(file), fs::Permissions::from_mode(mode)).unwrap();
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.dir);
    }
}

#[track_caller]
fn has(found: &[Finding], grade: Grade, part: &str) {
    let hit = found.iter().any(|f| f.grade == grade && f.what.contains(part));
    assert!(hit, "{} {part:?} in {found:#?}", grade.name());
}

#[test]
fn a_home_in_order_has_no_errors() {
    let lab = Lab::new("well", r#"{"services": {"a": {"command": "true"}}}"#);
    let found = lab.look();
    assert!(found.iter().all(|f| f.grade != Grade::Error), "{found:#?}");
    has(&found, Grade::Ok, "and its folders are there");
    has(&found, Grade::Ok, "has no mistakes; 1 service");
    has(&found, Grade::Note, "hob does not run");
    has(&found, Grade::Note, "1 service runs as");
    has(&found, Grade::Ok, "with pidfd");
    let text = report(&found, "{\"os\":\"x\"}");
    let json: serde_json::Value = serde_json::from_str(&text).unwrap();
    assert_eq!(json["findings"].as_array().unwrap().len(), found.len());
    assert_eq!((&json["counts"]["error"], &json["platform"]["os"]), (&0.into(), &"x".into()));
}

#[test]
fn folders_that_are_wrong_are_named_with_the_command_that_mends_them() {
    let lab = Lab::new("folders", "{}");
    lab.mode("state", 0o777);
    lab.mode("logs", 0o755);
    fs::remove_dir(lab.dir.join("run")).unwrap();
    std::os::unix::fs::symlink("/tmp", lab.dir.join("run")).unwrap();
    let found = lab.look();
    has(&found, Grade::Error, "others may write to the state folder");
    has(&found, Grade::Warning, "others may look into the logs folder");
    has(&found, Grade::Error, "run is a link");
    let state = found.iter().find(|f| f.what.contains("the state folder")).unwrap();
    assert_eq!(state.todo.as_deref(), Some(format!("chmod 700 {}", lab.dir.join("state").display()).as_str()));
    fs::remove_file(lab.dir.join("run")).unwrap();
    has(&lab.look(), Grade::Note, "not there yet, and made by the first start: ");
    lab.mode("state", 0o770);
    has(&lab.look(), Grade::Warning, "its group may write to the state folder");
    fs::write(lab.dir.join("run"), "").unwrap();
    has(&lab.look(), Grade::Error, "is to be the run folder and is none");
}

#[test]
fn what_a_dead_hob_left_is_no_error() {
    let lab = Lab::new("left", "{}");
    let dead = lock::Content { pid: 4_000_000, start_ticks: 1, boot_id: "none".into() };
    fs::write(&lab.paths.lock, dead.text()).unwrap();
    fs::write(&lab.paths.pid, "4000000\n").unwrap();
    drop(std::os::unix::net::UnixListener::bind(&lab.paths.socket).unwrap());
    lab.mode("run/hob.sock", 0o600);
    let found = lab.look();
    has(&found, Grade::Note, "pid 4000000, did not end properly");
    has(&found, Grade::Note, "hob.pid is left of a hob");
    has(&found, Grade::Note, "hob.sock is left of a hob");
    assert!(found.iter().all(|f| f.grade < Grade::Warning || f.area == "kernel"), "{found:#?}");
    fs::write(&lab.paths.lock, "garbage").unwrap();
    has(&lab.look(), Grade::Note, "hob.lock was damaged");
}

#[test]
fn a_socket_of_somebody_else_is_seen() {
    let lab = Lab::new("alien", r#"{"daemon": {"access": [{"user": "nobody-of-that-name", "level": "read"}]}}"#);
    let listener = std::os::unix::net::UnixListener::bind(&lab.paths.socket).unwrap();
    lab.mode("run/hob.sock", 0o600);
    let found = lab.look();
    has(&found, Grade::Note, "a service manager listens at");
    has(&found, Grade::Warning, "daemon.access: user 'nobody-of-that-name' is not in /etc/passwd");
    has(&found, Grade::Warning, "has mode 600, and the config lets others in");
    drop(listener);
    fs::remove_file(&lab.paths.socket).unwrap();
    fs::write(&lab.paths.socket, "").unwrap();
    has(&lab.look(), Grade::Error, "hob.sock is there and is not a socket");
}

#[test]
fn a_service_of_another_user_opens_the_socket() {
    let lab = Lab::new("others", r#"{"services": {"s": {"command": "true", "user": "4001"}}}"#);
    let _listener = std::os::unix::net::UnixListener::bind(&lab.paths.socket).unwrap();
    lab.mode("run/hob.sock", 0o666);
    assert!(lab.look().iter().all(|f| !f.what.contains("has mode")), "{:#?}", lab.look());
    lab.mode("run/hob.sock", 0o600);
    has(&lab.look(), Grade::Warning, "has mode 600, and the config lets others in");
}

#[test]
fn the_config_is_held_against_the_machine() {
    let config = r#"{"services": {
        "gone": {"command": ["/nonexistent/program"]},
        "path": {"command": ["no-such-program-anywhere"], "autostart": false},
        "half": {"command": "true", "stop_command": ["/nonexistent/stop"]},
        "who": {"command": "true", "user": "no-such-user"},
        "web": {"command": "true", "ready": {"port": 8080}},
        "web2": {"command": "true", "ready": {"port": 8080}},
        "cwd": {"command": "true", "cwd": "/nonexistent", "stop_command": "true"},
    }, "agents": {"a": {"command": ["/nonexistent/agent"]}, "b": {"command": "true"}},
       "runners": {"r": {"prefix": ["no-such-runner"]}, "s": {"prefix": ["./of/the/task"]}}}"#;
    let lab = Lab::new("config", config);
    lab.mode("hob.json", 0o666);
    let found = lab.look();
    has(&found, Grade::Error, "others may write to");
    has(&found, Grade::Error, "gone: cannot execute /nonexistent/program");
    has(&found, Grade::Warning, "path: cannot execute no-such-program-anywhere: not found in PATH");
    has(&found, Grade::Error, "half, stop_command: cannot execute /nonexistent/stop");
    has(&found, Grade::Error, "user 'no-such-user' is not in /etc/passwd");
    has(&found, Grade::Warning, "port 8080 is that of web and web2");
    has(&found, Grade::Warning, "agents.a: cannot execute /nonexistent/agent");
    has(&found, Grade::Warning, "runners.r: cannot execute no-such-runner: not found in PATH");
    assert!(!found.iter().any(|f| f.what.starts_with("agents.b") || f.what.starts_with("runners.s")), "{found:#?}");
    assert_eq!(found.iter().filter(|f| f.what.starts_with("cwd")).count(), 1, "once, not for each command: {found:#?}");
    fs::write(&lab.paths.config, "{\"services\": {\"a\": {\"comand\": 1}}}").unwrap();
    has(&lab.look(), Grade::Error, "hob.json:1:");
    fs::remove_file(&lab.paths.config).unwrap();
    has(&lab.look(), Grade::Note, "hob.json is not there");
}

#[test]
fn damage_of_the_journal_is_told_and_nothing_is_repaired() {
    let lab = Lab::new("journal", "{}");
    let loaded = super::super::journal::Journal::open(&lab.paths.state).unwrap();
    drop(loaded);
    has(&lab.look(), Grade::Ok, "it can be read whole");
    let file = fs::read_dir(&lab.paths.state)
        .unwrap()
        .flatten()
        .find(|e| e.file_name().to_string_lossy().starts_with("journal-"));
    let file = file.map(|e| e.path()).unwrap_or_else(|| lab.paths.state.join("journal-1.log"));
    fs::write(&file, "0badc0de {\"what\":1}\n00000000 nothing\n").unwrap();
    let before = fs::read(&file).unwrap();
    let found = lab.look();
    assert!(found.iter().any(|f| f.area == "journal" && f.grade == Grade::Warning), "{found:#?}");
    assert_eq!(fs::read(&file).unwrap(), before);
}

#[test]
fn paths_in_commands_can_be_pasted() {
    assert_eq!(quoted(Path::new("/a/b-c.d")), "/a/b-c.d");
    assert_eq!(quoted(Path::new("/a b/it's")), "'/a b/it'\\''s'");
}

#[test]
fn what_was_set_aside_or_belongs_to_a_lost_task_is_a_warning_while_it_is_there() {
    let lab = Lab::new("aside", "{}");
    let state = lab.dir.join("state");
    fs::create_dir(lab.dir.join("logs/tasks")).unwrap();
    let aside = r#"{"v":1,"n":1,"k":"aside/task/000000000003","s":{"v":9}}"#;
    fs::write(state.join("journal-1.log"), format!("{:08x} {aside}\n", crc32fast::hash(aside.as_bytes()))).unwrap();
    has(&lab.look(), Grade::Warning, "1 records mean nothing to this hob");
    fs::remove_file(state.join("journal-1.log")).unwrap();
    fs::write(state.join("journal-bad.log"), "what is this\n").unwrap();
    for name in ["lost-5.log", "lost-5.log.idx", "lost-7.log.1", "8.log"] {
        fs::write(lab.dir.join("logs/tasks").join(name), "").unwrap();
    }
    let found = lab.look();
    has(&found, Grade::Warning, "journal-bad.log has 13 B of it that could not be read");
    has(&found, Grade::Warning, "output of tasks that no record knows: lost-5.log and 1 more");
    assert!(found.iter().all(|f| !f.what.contains("read whole")), "{found:#?}");
    fs::remove_file(state.join("journal-bad.log")).unwrap();
    fs::remove_dir_all(lab.dir.join("logs/tasks")).unwrap();
    has(&lab.look(), Grade::Ok, "it can be read whole");
}
