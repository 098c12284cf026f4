//! Paths and names of control groups, and real ones where the file system can be written.

use super::*;
use mio::unix::SourceFd;
use mio::{Events, Interest, Poll, Token};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::AtomicU32;
use std::time::{Duration, Instant};

const HYBRID: &str = "\
25 20 0:21 / /sys/fs/cgroup rw,relatime shared:2 - tmpfs tmpfs rw,mode=755
26 25 0:22 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory
35 25 0:31 / /sys/fs/cgroup/unified rw,relatime shared:9 master:1 - cgroup2 cgroup2 rw
";

#[test]
fn the_folder_is_found_in_unified_hybrid_and_partial_mounts() {
    let text = "9:name=systemd:/a\n4:memory:/b\n0::/user.slice/x\n";
    assert_eq!(own_path(text), Some("/user.slice/x"));
    assert_eq!(own_path("4:memory:/b\n"), None);
    assert_eq!(visible(HYBRID, "/"), [PathBuf::from("/sys/fs/cgroup/unified")]);
    assert_eq!(visible(HYBRID, "/user.slice/x"), [PathBuf::from("/sys/fs/cgroup/unified/user.slice/x")]);
    let bound = "30 1 0:26 /docker/ab /mnt/c\\040g ro - cgroup2 cgroup rw";
    assert_eq!(visible(bound, "/docker/ab/c"), [PathBuf::from("/mnt/c g/c")]);
    assert!(visible(bound, "/docker/abc").is_empty());
    assert!(visible(HYBRID, "/../other").is_empty());
    assert!(visible("", "/").is_empty());
}

#[test]
fn no_service_is_named_like_a_file_of_the_kernel() {
    for name in ["web", "cgroup.procs", "_x", "__", "a/b", "a%2fb", "web@1", "_a.b"] {
        let folder = folder_name(name);
        assert_eq!(service_name(&folder), name);
        assert!(!folder.contains('/') && (!folder.contains('.') || folder.starts_with('_')));
    }
}

struct Lab {
    groups: Groups,
    group: Group,
    jobs: Vec<Child>,
}

static HOMES: AtomicU32 = AtomicU32::new(1);

impl Lab {
    fn new(service: &str) -> Option<Lab> {
        let own = std::process::id();
        let groups = Groups::probe(own, own << 8 | HOMES.fetch_add(1, Relaxed));
        match groups.and_then(|g| g.tried().map(|()| g.clone()).map_err(|e| e.why)) {
            Ok(groups) => Some(Lab { group: groups.open(service).unwrap(), groups, jobs: Vec::new() }),
            Err(why) => {
                eprintln!("SKIPPED: no control groups here: {why}");
                None
            }
        }
    }

    /// Runs a script inside the group. It prints `up` when all that it starts has been started.
    fn run(&mut self, script: &str) {
        let script = format!("echo $$ > $GROUP/cgroup.procs; {script}");
        let mut command = Command::new("/bin/sh");
        command.args(["-c", &script]).env("GROUP", &*self.group.path).stdin(Stdio::null());
        self.jobs.push(command.spawn().unwrap());
    }

    /// Waits until the shells have made way for so many that are named `sleep`.
    fn wait_for(&self, count: usize) {
        wait_until(|| {
            let names: Vec<String> = self.group.members().into_iter().map(|m| m.name).collect();
            names.len() == count && names.iter().all(|n| n == "sleep")
        });
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        self.group.kill();
        for job in &mut self.jobs {
            let _ = job.wait();
        }
        let end = Instant::now() + Duration::from_secs(30);
        while self.groups.base.exists() && Instant::now() < end {
            self.groups.remove_empty();
        }
        assert!(!self.groups.base.exists() || std::thread::panicking(), "a control group was left behind");
    }
}

fn wait_until(mut condition: impl FnMut() -> bool) {
    let end = Instant::now() + Duration::from_secs(30);
    while !condition() {
        assert!(Instant::now() < end, "waited for 30 s");
        std::thread::sleep(Duration::from_millis(5));
    }
}

const FUGITIVES: &str = r#"
    trap "" TERM
    (setsid env -i /bin/sleep 2001 &)
    (setsid sh -c '(setsid env -i /bin/sleep 2002 &)' &)
    mkdir $GROUP/own/ $GROUP/own/deep
    (sh -c 'echo $$ > $GROUP/own/deep/cgroup.procs; exec sleep 2003' &)
    exec sleep 2004
"#;

#[test]
fn nothing_gets_away_from_its_group() {
    let Some(mut lab) = Lab::new("web") else { return };
    assert!(!lab.group.populated().unwrap());
    lab.run(FUGITIVES);
    lab.wait_for(4);
    assert!(lab.group.populated().unwrap());
    assert_eq!(lab.group.signal(libc::SIGTERM), 4);
    assert_eq!(lab.group.pids().len(), 4, "all of them ignore TERM");
    let main = lab.jobs[0].id();
    assert_eq!(lab.groups.holds("web", main), Some(true));
    assert_eq!(lab.groups.holds("we", main), Some(false));
    assert_eq!(lab.groups.holds("web", std::process::id()), Some(false));
    assert_eq!(lab.group.remove().unwrap_err().raw_os_error(), Some(libc::EBUSY));
    lab.group.kill();
    wait_until(|| !lab.group.populated().unwrap());
    assert!(lab.group.pids().is_empty());
    assert_eq!(lab.groups.holds("web", main), None, "a zombie is gone");
    assert!(lab.group.exists());
    lab.group.remove().unwrap();
    assert!(!lab.group.path.exists() && !lab.group.exists());
}

#[test]
fn a_storm_of_forks_is_killed_and_the_group_can_be_used_again() {
    let Some(mut lab) = Lab::new("storm") else { return };
    lab.run("trap '' TERM; while :; do (setsid sh -c ': ; :' &); done");
    wait_until(|| lab.group.pids().len() > 1);
    wait_until(|| {
        lab.group.kill();
        !lab.group.populated().unwrap()
    });
    trial(&lab.group.path).unwrap();
    lab.run("exec sleep 2031");
    lab.wait_for(1);
    lab.group.freeze(true).unwrap();
    lab.group.kill();
    wait_until(|| !lab.group.populated().unwrap());
}

#[test]
fn becoming_empty_wakes_the_selector_once() {
    let Some(mut lab) = Lab::new("watched") else { return };
    lab.run("sleep 2011 & exec sleep 2012");
    lab.wait_for(2);
    let mut poll = Poll::new().unwrap();
    let watch = lab.group.watch().unwrap();
    let mut source = SourceFd(&watch.as_raw_fd());
    poll.registry().register(&mut source, Token(7), Interest::PRIORITY).unwrap();
    let mut events = Events::with_capacity(4);
    let mut ready = |limit| match poll.poll(&mut events, Some(limit)) {
        // A start in another thread blocks signals, so that SIGCHLD may interrupt this one.
        Err(e) if e.kind() == io::ErrorKind::Interrupted => Vec::new(),
        result => result.map(|()| events.iter().map(mio::event::Event::token).collect()).unwrap(),
    };
    assert!(ready(Duration::ZERO).is_empty(), "nothing has changed since it was opened");
    lab.group.kill();
    wait_until(|| ready(Duration::from_secs(1)) == [Token(7)]);
    wait_until(|| !lab.group.populated().unwrap());
}

#[test]
fn a_later_keeper_finds_the_group_and_its_run_by_name() {
    let Some(mut lab) = Lab::new("a/b.c") else { return };
    lab.group.mark(RunId(42)).unwrap();
    lab.run("exec env -i /bin/sleep 2021");
    lab.wait_for(1);
    let home = lab.groups.base.file_name().unwrap().to_str().unwrap().strip_prefix("hob-").unwrap().to_owned();
    let later = Groups::probe(std::process::id(), u32::from_str_radix(&home, 16).unwrap()).unwrap();
    let found = later.list();
    assert_eq!(found.len(), 1);
    assert_eq!((found[0].service(), found[0].marked()), ("a/b.c", Some(RunId(42))));
    assert_eq!(found[0].pids(), [lab.jobs[0].id()]);
    later.remove_empty();
    assert!(lab.group.populated().unwrap(), "one in use stays");
}

#[test]
fn a_folder_that_cannot_be_used_says_why() {
    let dir = std::env::temp_dir().join(format!("hob-test-cgroup-{}", std::process::id()));
    std::fs::create_dir_all(&dir).unwrap();
    let why = try_base(&dir, "/", 1).unwrap_err();
    assert!(why.contains("is not delegated to hob"), "{why}");
    std::fs::remove_dir_all(&dir).unwrap();
    assert!(Groups::probe(u32::MAX, 1).unwrap_err().contains("cannot be read"));
}

#[test]
fn the_folder_below_the_base_names_the_service() {
    let below = |path| folder_below(path, "/hob-00000001").map(service_name);
    assert_eq!(folder_below("/user.slice/hob-00000001/web", "/user.slice/hob-00000001"), Some("web"));
    assert_eq!(below("/user.slice/hob-00000001/web"), None, "somebody else has made a folder of that name");
    assert_eq!(folder_below("/user.slice/x/hob-00000001/web", "/user.slice/hob-00000001"), None);
    assert_eq!(below("/hob-00000001/_web%2f.health/deeper").as_deref(), Some("web/.health"));
    assert_eq!(below("/hob-00000001/web (deleted)").as_deref(), Some("web"));
    assert_eq!(below("/hob-00000001/outer/hob-00000001/inner").as_deref(), Some("outer"));
    assert_eq!((below("/hob-00000001"), below("/hob-000000010/web"), below("/")), (None, None, None));
}

#[test]
fn what_is_lacking_for_long_does_not_pass_and_another_time_is_another_matter() {
    let begin = Instant::now();
    let mut shortage = Shortage::default();
    let tries = [(0, true), (3, true), (9, true), (10, false), (40, false), (99, false), (159, true), (168, true)];
    for (secs, passes) in tries {
        assert_eq!(shortage.passes(begin + Duration::from_secs(secs)), passes, "after {secs} s");
    }
}
