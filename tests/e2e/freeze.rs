//! A machine that stands still for a while, as a suspended one or a paused container, does not count against what runs.

use crate::support::*;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// Processes that stand still until this is dropped: by the kernel's freezer where this test may use it, else by
/// SIGSTOP.
struct Frozen {
    pids: Vec<u32>,
    group: Option<PathBuf>,
}

impl Frozen {
    fn new(pids: &[u32]) -> Frozen {
        let group = Path::new("/sys/fs/cgroup/freezer").join(format!("hob-e2e-{}", std::process::id()));
        let join = |pid: &u32| fs::write(group.join("cgroup.procs"), pid.to_string());
        let by_freezer = fs::create_dir(&group).is_ok()
            && pids.iter().try_for_each(join).is_ok()
            && fs::write(group.join("freezer.state"), "FROZEN").is_ok();
        let frozen = Frozen { pids: pids.to_vec(), group: by_freezer.then_some(group) };
        match &frozen.group {
            Some(group) => wait("all are frozen", || {
                fs::read_to_string(group.join("freezer.state")).is_ok_and(|s| s.trim() == "FROZEN")
            }),
            None => {
                skip("no freezer here; SIGSTOP has to do");
                pids.iter().for_each(|pid| kill("STOP", *pid));
            }
        }
        frozen
    }
}

impl Drop for Frozen {
    fn drop(&mut self) {
        let Some(group) = &self.group else {
            return self.pids.iter().for_each(|pid| kill("CONT", *pid));
        };
        fs::write(group.join("freezer.state"), "THAWED").unwrap();
        for pid in self.pids.iter().filter(|pid| alive(**pid)) {
            fs::write("/sys/fs/cgroup/freezer/cgroup.procs", pid.to_string()).unwrap();
        }
        let group = group.clone();
        wait("the freezer is empty", || fs::remove_dir(&group).is_ok());
    }
}

/// The time of a freeze has to pass.
fn freeze_for(time: Duration, pids: &[u32]) {
    let frozen = Frozen::new(pids);
    let begin = Instant::now();
    wait("the freeze is over", || begin.elapsed() > time);
    drop(frozen);
}

#[test]
fn a_run_that_ends_with_its_daemon_has_its_time_too() {
    let home = Home::new("{}");
    let (told, went) = (home.path("told"), home.path("went"));
    let slow = format!(
        "trap 'echo x >> {}; sleep 1; echo x >> {}; exit 0' TERM; while :; do sleep 0.02; done",
        told.display(),
        went.display()
    );
    let config = serde_json::json!({ "services": {
        "tied": { "command": slow, "stop_timeout": "3s", "on_daemon_death": "stop", "restart": "never" },
    } });
    home.write_config(&config.to_string());
    let mut home = home;
    home.start(&[]);
    home.wait_state("tied", "running");
    let (daemon, keeper) = home.pids();
    let pid = home.pid("tied");
    kill("KILL", daemon);
    wait("it is told to end", || told.exists());
    let (daemon, _) = home.pids();
    freeze_for(Duration::from_secs(5), &[keeper, daemon, pid]);
    wait("it has ended", || !alive(pid));
    assert_eq!(home.read("went"), "x\n", "it was not killed for the time in which it stood still");
}

#[test]
fn neither_a_stop_nor_becoming_ready_nor_a_shutdown_pays_for_a_freeze() {
    let mut home = Home::new("{}");
    let went = home.path("went");
    // Told to stop, they take a second of their own and say that they were let.
    let slow = format!("trap 'sleep 1; echo x >> {}; exit 0' TERM; while :; do sleep 0.02; done", went.display());
    let ready = home.path("ready");
    let late = format!("until test -e {}; do sleep 0.02; done; echo up; exec sleep 1000", ready.display());
    let config = serde_json::json!({
        "daemon": { "shutdown_timeout": "3s" },
        "services": {
            "slow": { "command": slow, "stop_timeout": "3s" },
            "last": { "command": slow, "stop_timeout": "60s" },
            "late": { "command": late, "ready": { "log": "up" }, "ready_timeout": "3s", "restart": "never" },
        },
    });
    home.write_config(&config.to_string());
    home.start(&[]);
    home.wait_state("slow", "running");
    let all = |names: &[&str]| {
        let (daemon, keeper) = home.pids();
        let mut pids: Vec<u32> = names.iter().map(|n| home.pid(n)).collect();
        pids.extend([daemon, keeper]);
        pids
    };
    home.ok(&["stop", "slow", "--no-wait"]);
    freeze_for(Duration::from_secs(5), &all(&["slow", "late"]));
    fs::write(&ready, "").unwrap();
    home.wait_state("slow", "stopped");
    assert_eq!(home.read("went"), "x\n", "it had its time to stop");
    home.wait_state("late", "running");
    let history = home.call("service.history", r#"{"name": "late"}"#);
    assert_eq!(history["running"]["number"], 1, "it had its time to become ready: {history}");
    let pids = all(&["last", "late"]);
    home.ok(&["stop", "--no-wait"]);
    freeze_for(Duration::from_secs(5), &pids);
    assert!(home.wait_end().success());
    assert_eq!(home.read("went"), "x\nx\n", "the shutdown had its time");
}
