//! hob under a service manager: what it says by sd_notify, and the control socket that it is passed. With a manager
//! that this test plays, and with a real systemd where one is given.

use crate::support::*;
use std::fs;
use std::os::fd::OwnedFd;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::{UnixDatagram, UnixListener};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

const CONFIG: &str = r#"{ "services": {
    "web": { "command": "env | grep -E '^(NOTIFY|WATCHDOG|LISTEN)_' ; echo end; exec sleep 1000" } } }"#;

/// A service manager that only listens.
struct Manager {
    socket: UnixDatagram,
    name: String,
}

impl Manager {
    fn at_path(home: &Home) -> Manager {
        let path = home.path("notify");
        Manager { socket: UnixDatagram::bind(&path).unwrap(), name: path.display().to_string() }.ready()
    }

    fn at_name(home: &Home) -> Manager {
        let name = format!("hob-test{}", home.dir.display());
        let socket = UnixDatagram::from(hob::sys::notify::bind_abstract(&name).unwrap());
        socket.set_nonblocking(false).unwrap();
        Manager { socket, name: format!("@{name}") }.ready()
    }

    fn ready(self) -> Manager {
        self.socket.set_read_timeout(Some(LIMIT)).unwrap();
        self
    }

    fn next(&self) -> String {
        let mut buf = [0; 1024];
        let n = self.socket.recv(&mut buf).expect("a word of hob");
        String::from_utf8(buf[..n].to_vec()).unwrap()
    }

    /// The next word that begins like this; what comes before it.
    #[track_caller]
    fn until(&self, start: &str) -> (String, Vec<String>) {
        let mut before = Vec::new();
        loop {
            let word = self.next();
            if word.starts_with(start) {
                return (word, before);
            }
            before.push(word);
            assert!(before.len() < 1000, "{start} does not come: {:?}", &before[..20]);
        }
    }
}

/// Starts hob through a shell, which can say its own pid before it becomes hob.
fn start(home: &Home, vars: &str, stdin: Option<OwnedFd>) -> Child {
    let hob = home.command(&["run"]);
    let passed = stdin.is_some();
    let mut c = Command::new("sh");
    let fds = if passed { "3<&0 0</dev/null" } else { "" };
    c.arg("-c").arg(format!("export {vars}; exec \"$@\" {fds}")).arg("sh").arg(hob.get_program()).args(hob.get_args());
    for (name, value) in hob.get_envs() {
        if value.is_none() {
            c.env_remove(name);
        }
    }
    c.stdin(stdin.map_or_else(Stdio::null, Stdio::from)).stdout(Stdio::null());
    c.stderr(fs::File::create(home.path("stderr")).unwrap()).spawn().unwrap()
}

fn end(home: &Home, mut child: Child) {
    home.ok(&["stop"]);
    assert!(child.wait().unwrap().success());
}

#[test]
fn readiness_reload_status_and_the_end_are_told_and_jobs_hear_nothing_of_it() {
    for by_path in [true, false] {
        let home = Home::new(CONFIG);
        let manager = if by_path { Manager::at_path(&home) } else { Manager::at_name(&home) };
        let vars =
            format!("NOTIFY_SOCKET='{}' WATCHDOG_PID=1 WATCHDOG_USEC=1000 LISTEN_FDS=0 LISTEN_PID=$$", manager.name);
        let child = start(&home, &vars, None);
        let (_, before) = manager.until("READY=1");
        assert!(before.iter().all(|w| w.starts_with("WATCHDOG=1\nEXTEND_TIMEOUT_USEC=")), "{before:?}");
        assert_eq!(manager.until("STATUS=").0, "STATUS=1 of 1 services run");
        wait("the job has said all", || home.log("web").ends_with("end\n"));
        assert_eq!(home.log("web"), "end\n", "nothing of the manager's reaches a job");
        home.ok(&["reload"]);
        let (word, before) = manager.until("RELOADING=1\nMONOTONIC_USEC=");
        assert!(word.rsplit('=').next().unwrap().parse::<u64>().unwrap() > 0, "{word}");
        assert!(!before.contains(&"READY=1".to_owned()), "{before:?}");
        manager.until("READY=1");
        kill("HUP", child.id());
        manager.until("RELOADING=1");
        manager.until("READY=1");
        home.write_config("{ nonsense");
        home.fails(&["reload"]);
        manager.until("RELOADING=1");
        manager.until("READY=1");
        home.ok(&["stop", "web"]);
        let status = "STATUS=the config has ";
        let said = manager.until(status).0;
        assert!(said.ends_with(" and is not in effect, an older one is; 0 of 0 services run"), "{said}");
        end(&home, child);
        let (word, _) = manager.until("STOPPING=1\nEXTEND_TIMEOUT_USEC=");
        let micros: u64 = word.rsplit('=').next().unwrap().parse().unwrap();
        assert!((20_000_000..60_000_000).contains(&micros), "the time that a shutdown may take: {micros}");
    }
}

#[test]
fn a_config_with_mistakes_is_told_in_the_status() {
    let home = Home::new(r#"{ "services": { "web": 1 }, "servics": 2 }"#);
    let manager = Manager::at_path(&home);
    let child = start(&home, &format!("NOTIFY_SOCKET='{}'", manager.name), None);
    let status =
        "STATUS=the config has 2 mistakes and is not in effect, no service is started by it; 0 of 0 services run";
    assert_eq!(manager.until("STATUS=").0, status);
    home.write_config(CONFIG);
    home.ok(&["reload"]);
    wait("it is mended", || manager.until("STATUS=").0 == "STATUS=1 of 1 services run");
    home.write_config("{");
    assert!(!home.hob(&["reload"]).status.success());
    let status = "STATUS=the config has 1 mistake and is not in effect, an older one is; 1 of 1 services run";
    assert_eq!(manager.until("STATUS=the config").0, status);
    end(&home, child);
}

#[test]
fn the_watchdog_hears_of_a_daemon_that_answers_and_of_no_other() {
    let home = Home::new(r#"{ "daemon": { "heartbeat": "0s" } }"#);
    let manager = Manager::at_path(&home);
    let child = start(&home, &format!("NOTIFY_SOCKET='{}' WATCHDOG_PID=$$ WATCHDOG_USEC=200000", manager.name), None);
    manager.until("READY=1");
    for _ in 0..3 {
        manager.until("WATCHDOG=1");
    }
    let (daemon, keeper) = home.pids();
    kill("STOP", daemon);
    // What was said before it stood still is read first; then no word comes any more.
    manager.socket.set_read_timeout(Some(Duration::from_secs(1))).unwrap();
    let mut buf = [0; 64];
    while manager.socket.recv(&mut buf).is_ok() {}
    kill("CONT", daemon);
    manager.socket.set_read_timeout(Some(LIMIT)).unwrap();
    manager.until("WATCHDOG=1");
    kill("KILL", daemon);
    manager.until("WATCHDOG=1");
    assert_ne!(home.pids().0, daemon);
    let other = home.path("other");
    copy_hob(&other);
    home.ok(&["upgrade", "--binary", other.to_str().unwrap()]);
    for _ in 0..3 {
        assert_eq!(manager.until("WATCHDOG=1").0, "WATCHDOG=1", "also by the keeper that has become another program");
    }
    assert_eq!(home.pids().1, keeper);
    home.ok(&["reload"]);
    manager.until("RELOADING=1");
    manager.until("READY=1");
    end(&home, child);
    manager.until("STOPPING=1");
}

#[test]
fn a_watchdog_that_was_meant_for_another_process_is_none() {
    let home = Home::new(r#"{ "daemon": { "heartbeat": "0s" } }"#);
    let manager = Manager::at_path(&home);
    let child = start(&home, &format!("NOTIFY_SOCKET='{}' WATCHDOG_PID=1 WATCHDOG_USEC=50000", manager.name), None);
    manager.until("READY=1");
    home.ok(&["ping"]);
    end(&home, child);
    let (_, before) = manager.until("STOPPING=1");
    assert!(before.iter().all(|w| w != "WATCHDOG=1"), "{before:?}");
}

/// A listening socket as a socket unit makes it.
fn listener(path: &Path) -> (UnixListener, OwnedFd) {
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    let listener = UnixListener::bind(path).unwrap();
    fs::set_permissions(path, fs::Permissions::from_mode(0o660)).unwrap();
    let copy = listener.try_clone().unwrap().into();
    (listener, copy)
}

#[test]
fn a_socket_that_is_passed_is_used_kept_over_deaths_and_left_where_it_was() {
    let home = Home::new(CONFIG);
    let path = home.path("run/hob.sock");
    let (ours, theirs) = listener(&path);
    let before = fs::metadata(&path).unwrap();
    // A client that came before hob did waits and is served.
    let early = home.command(&["ping"]).stdout(Stdio::piped()).spawn().unwrap();
    let child = start(&home, "LISTEN_FDS=1 LISTEN_PID=$$ LISTEN_FDNAMES=hob", Some(theirs));
    assert!(early.wait_with_output().unwrap().status.success());
    home.wait_state("web", "running");
    let pid = home.pid("web");
    wait("the job has said all", || home.log("web").ends_with("end\n"));
    assert_eq!(home.log("web"), "end\n", "no variable of the manager's reaches a job");
    let (daemon, keeper) = home.pids();
    kill("KILL", daemon);
    assert_ne!(home.pids().0, daemon);
    let other = home.path("other");
    copy_hob(&other);
    home.ok(&["upgrade", "--binary", other.to_str().unwrap()]);
    assert_eq!((home.pids().1, home.pid("web")), (keeper, pid));
    assert!(home.ok(&["doctor"]).contains("which was passed to hob"));
    end(&home, child);
    let after = fs::metadata(&path).unwrap();
    let id = |m: &fs::Metadata| {
        use std::os::unix::fs::MetadataExt as _;
        (m.ino(), m.mode())
    };
    assert_eq!(id(&after), id(&before), "neither replaced nor removed, and its mode is the manager's");
    // Whoever holds it can start the next hob with it.
    let child = start(&home, "LISTEN_FDS=1 LISTEN_PID=$$ LISTEN_FDNAMES=hob", Some(ours.into()));
    home.wait_state("web", "running");
    home.ok(&["stop", "--force"]);
    let _ = { child }.wait();
}

#[test]
fn force_leaves_a_socket_that_somebody_listens_on() {
    let home = Home::new(CONFIG);
    let path = home.path("run/hob.sock");
    let (ours, theirs) = listener(&path);
    let mut child = start(&home, "LISTEN_FDS=1 LISTEN_PID=$$", Some(theirs));
    home.wait_state("web", "running");
    home.ok(&["stop", "--force"]);
    child.wait().unwrap();
    assert!(path.exists(), "it is the manager's");
    drop(ours);
}

#[test]
fn a_socket_elsewhere_is_told_and_what_is_no_control_socket_is_refused() {
    let home = Home::new(CONFIG);
    let path = home.path("elsewhere/s");
    let (_ours, theirs) = listener(&path);
    let mut child = start(&home, "LISTEN_FDS=1 LISTEN_PID=$$ LISTEN_FDNAMES=hob.socket", Some(theirs));
    let ping = ["--socket", path.to_str().unwrap(), "ping"];
    wait("it answers there", || home.hob(&ping).status.success());
    assert!(home.read("stderr").contains(&format!("clients find it by --socket {}", path.display())));
    home.ok(&["--socket", path.to_str().unwrap(), "stop"]);
    assert!(child.wait().unwrap().success());
    let refused = |vars: &str, fd: OwnedFd| {
        let mut child = start(&home, vars, Some(fd));
        let code = child.wait().unwrap().code();
        (code, home.read("stderr"))
    };
    let null = || OwnedFd::from(fs::File::open("/dev/null").unwrap());
    for (vars, fd, part) in [
        ("LISTEN_FDS=1 LISTEN_PID=$$ LISTEN_FDNAMES=web", null(), "none has the name hob"),
        ("LISTEN_FDS=1 LISTEN_PID=$$ LISTEN_FDNAMES=hob", null(), "it is not a Unix socket"),
        ("LISTEN_FDS=x LISTEN_PID=$$", null(), "LISTEN_FDS is no number"),
        ("LISTEN_FDS=2 LISTEN_PID=$$ LISTEN_FDNAMES=hob:hob", null(), "several sockets of the name hob"),
        (
            "LISTEN_FDS=1 LISTEN_PID=$$ LISTEN_FDNAMES=hob",
            UnixDatagram::unbound().unwrap().into(),
            "it is not a stream socket",
        ),
    ] {
        let (code, text) = refused(vars, fd);
        assert!(code != Some(0) && text.contains(part), "{vars}: {code:?} {text}");
        assert!(!home.path("run/hob.lock").exists() || home.hob(&["status"]).status.code() == Some(3), "{vars}");
    }
    // What was passed to another process is nobody's business.
    let child = start(&home, "LISTEN_FDS=1 LISTEN_PID=1 LISTEN_FDNAMES=web", Some(null()));
    wait("it answers", || home.hob(&["ping"]).status.success());
    end(&home, child);
}

/// Boots a real systemd from the folder that HOB_TEST_SYSTEMD names; systemd.sh says how such a folder is made.
#[test]
fn a_real_systemd_starts_watches_reloads_and_stops_it() {
    let Some(root) = std::env::var_os("HOB_TEST_SYSTEMD") else {
        return skip("no real systemd: HOB_TEST_SYSTEMD=ROOT names the root folder of one (see tests/e2e/systemd.sh)");
    };
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/e2e/systemd.sh");
    let out = Command::new("bash").arg(script).arg(root).arg(HOB).stdin(Stdio::null()).output().unwrap();
    let text = format!("{}{}", String::from_utf8_lossy(&out.stdout), String::from_utf8_lossy(&out.stderr));
    assert!(out.status.success() && text.contains("all is well"), "{}\n{text}", out.status);
    eprintln!("{text}");
}
