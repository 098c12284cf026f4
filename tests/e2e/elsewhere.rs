//! A hob that was started with other variables than those of who looks for it: a session has a run folder of its own,
//! and cron, su and sudo know nothing of that.

use crate::support::*;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Output, Stdio};

/// A command line of an ordinary user whose home this is, with or without a run folder of the session.
fn user(home: &Home, session: bool, args: &[&str]) -> Command {
    let mut c = home.bare_command(args);
    for name in ["XDG_CONFIG_HOME", "XDG_STATE_HOME", "XDG_RUNTIME_DIR"] {
        c.env_remove(name);
    }
    c.env("HOME", &home.dir).stdin(Stdio::null());
    if session {
        c.env("XDG_RUNTIME_DIR", home.path("session"));
    }
    c
}

fn said(out: &Output) -> String {
    String::from_utf8_lossy(&[&out.stdout[..], &out.stderr[..]].concat()).into_owned()
}

/// Its hob is not under `--home`, so that dropping the home does not end it.
struct End<'a>(&'a dyn Fn(bool, &[&str]) -> Command);

impl Drop for End<'_> {
    fn drop(&mut self) {
        for session in [false, true] {
            let _ = self.0(session, &["stop", "--force"]).output();
        }
    }
}

#[test]
fn a_hob_of_a_session_is_found_without_its_variables() {
    let home = Home::new("{}");
    // Root keeps its files elsewhere, so that this needs another user.
    if Path::new("/proc/self").metadata().is_ok_and(|m| std::os::unix::fs::MetadataExt::uid(&m) == 0) {
        let Some(by) = other_user() else { return skip("root alone, and no setpriv to become another user") };
        return as_other(&home, &by);
    }
    story(&home, &|session, args| user(&home, session, args));
}

/// The words that run a command as the user 65534.
fn other_user() -> Option<Vec<String>> {
    let words = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"].map(str::to_owned).to_vec();
    let ok = Command::new(&words[0]).args(&words[1..]).arg("true").output().is_ok_and(|o| o.status.success());
    ok.then_some(words)
}

fn as_other(home: &Home, by: &[String]) {
    // The binary under test may lie where that user cannot go.
    let hob = home.path("hob");
    copy_hob(&hob);
    let own = Command::new("chown").arg("-R").arg("65534:65534").arg(&home.dir).status().unwrap();
    assert!(own.success());
    fs::set_permissions(&home.dir, fs::Permissions::from_mode(0o755)).unwrap();
    story(home, &|session, args| {
        let plain = user(home, session, args);
        let mut c = Command::new(&by[0]);
        c.args(&by[1..]).arg(&hob).args(plain.get_args()).stdin(Stdio::null());
        for (name, value) in plain.get_envs() {
            match value {
                Some(value) => c.env(name, value),
                None => c.env_remove(name),
            };
        }
        c
    });
}

fn story(home: &Home, command: &dyn Fn(bool, &[&str]) -> Command) {
    let run = |session: bool, args: &[&str]| command(session, args).output().unwrap();
    let _end = End(command);
    fs::create_dir_all(home.path("session")).unwrap();
    fs::set_permissions(home.path("session"), fs::Permissions::from_mode(0o777)).unwrap();
    fs::create_dir_all(home.path(".config/hob")).unwrap();
    fs::write(home.path(".config/hob/hob.json"), r#"{ "services": { "s": { "command": "exec sleep 1000" } } }"#)
        .unwrap();
    let _ = Command::new("chown").arg("-R").arg("--reference").arg(&home.dir).arg(home.path(".config")).status();
    let out = run(true, &["start"]);
    assert!(out.status.success(), "{}", said(&out));
    assert!(exists(&home.path("session/hob/hob.sock")) && exists(&home.path("session/hob/hob.lock")));
    let stray = home.path(".local/state/hob/run");
    assert!(!exists(&stray), "one set of folders, whoever starts it");
    for session in [true, false] {
        let status = run(session, &["status"]);
        assert!(status.status.success() && said(&status).contains("running"), "{session}: {}", said(&status));
        let doctor = said(&run(session, &["doctor"]));
        assert!(doctor.contains("hob answers at") && !doctor.contains("hob stop"), "{session}: {doctor}");
        let start = run(session, &["start"]);
        assert!(start.status.success() && said(&start).contains("hob already runs, pid "), "{}", said(&start));
    }
    assert!(!exists(&stray), "looking makes no folders");
    // A socket that was named is not replaced by another, and nobody is told to stop what is well.
    let wrong = home.path("wrong.sock").display().to_string();
    for line in [&["--socket", &wrong, "status"][..], &["--socket", &wrong, "start"]] {
        let out = run(false, line);
        let said = said(&out);
        assert!(!out.status.success() && said.contains(" listens at ") && !said.contains("hob stop"), "{said}");
        assert!(said.contains("use --socket ") && said.contains("session/hob/hob.sock"), "{said}");
    }
    let out = run(false, &["restart"]);
    assert!(out.status.success(), "{}", said(&out));
    assert!(said(&run(false, &["status"])).contains("running"));
    let out = run(false, &["stop"]);
    assert!(out.status.success() && said(&out).contains("hob has stopped"), "{}", said(&out));
    assert_eq!(run(true, &["status"]).status.code(), Some(3));
    assert_eq!(said(&run(false, &["stop", "--force"])), "hob is not running\n");
}
