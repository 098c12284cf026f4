//! What hob weighs and how fast it comes and comes back.

use crate::floor;
use crate::lab::{Folder, HOB, Hob, Running, Times, ask, kill, pause, pss, row, switches, until};
use crate::peers;
use std::fs;
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

const PING: &str = r#"{"jsonrpc":"2.0","id":1,"method":"ping"}"#;

fn sleep() -> [String; 2] {
    ["/bin/sleep".to_owned(), "100000".to_owned()]
}

pub(crate) fn size() {
    let of = |path: &str| fs::metadata(path).unwrap().len() / 1024;
    println!("  hob {:>6} KiB as built here; README says how the static program is built", of(&HOB));
    for program in ["dinit", "pueued"] {
        if let Some(path) = peers::find(program) {
            println!("  {program} {:>6} KiB", of(&path));
        }
    }
}

/// From the start of the program to the answer to a ping; a peer has only to accept.
pub(crate) fn start() {
    const STARTS: usize = 25;
    let answered = |running: &Running, ready: &mut dyn FnMut() -> Option<()>| {
        until("the first answer", ready);
        running.since.elapsed()
    };
    let mut times = vec![Vec::new()];
    let listed: Vec<_> =
        peers::ALL.iter().filter(|p| p.installed() && p.socket.is_some() && p.name != "supervisord").collect();
    times.resize(1 + listed.len(), Vec::new());
    for _ in 0..STARTS {
        let hob = Hob::with(0, &[]);
        let socket = hob.socket();
        times[0].push(answered(&hob.running, &mut || ask(&socket, PING).map(drop)));
        for (peer, times) in listed.iter().zip(times.iter_mut().skip(1)) {
            let (running, dir) = peer.with(0, &[]);
            let socket = dir.0.join(peer.socket.unwrap());
            times.push(answered(&running, &mut || UnixStream::connect(&socket).ok().map(drop)));
        }
    }
    let floor = Times::of((0..STARTS).map(|_| crate::lab::time(&["/bin/true".to_owned()])).collect());
    let times: Vec<Times> = times.into_iter().map(Times::of).collect();
    for (name, t) in std::iter::once("hob").chain(listed.iter().map(|p| p.name)).zip(&times) {
        row(name, t, &floor);
    }
    row("/bin/true", &floor, &floor);
}

/// From the SIGKILL of the daemon to the next one's first answer, with 100 services.
pub(crate) fn takeover() {
    let hob = Hob::with(100, &sleep());
    hob.wait_for(100);
    let died = |_| {
        let before = hob.tree();
        let begin = Instant::now();
        kill(before[1]);
        until("the next daemon's answer", || ask(&hob.socket(), PING));
        let took = begin.elapsed();
        pause(Duration::from_millis(100));
        took
    };
    let times = Times::of((0..15).map(died).collect());
    println!("  hob with 100 services: p50 {:.1} ms, min {:.1} ms", times.p50() * 1e3, times.min() * 1e3);
}

pub(crate) fn memory() {
    println!("  KiB (PSS) of keeper and daemon or of a peer's tree, without the services; idle switches in 3 s");
    for count in [1, 10, 100, 1000] {
        let hob = Hob::with(count, &sleep());
        hob.wait_for(count);
        let tree = hob.tree();
        weigh("hob", count, &tree);
        drop(hob);
        let fits = |p: &&peers::Peer| p.installed() && p.supervises() && (count < 1000 || p.name == "dinit");
        for peer in peers::ALL.iter().filter(fits) {
            let (running, _dir) = peer.with(count, &sleep());
            until("services", || (running_services(running.child.id()) >= count).then_some(()));
            weigh(peer.name, count, &running.tree(&["/bin/sleep"]));
        }
    }
}

fn weigh(name: &str, count: usize, tree: &[u32]) {
    // What comes up goes on working for a moment; then nothing is to happen.
    pause(Duration::from_secs(2));
    let (before, threads) = switches(tree);
    pause(Duration::from_secs(3));
    let idle = switches(tree).0 - before;
    let (processes, pss) = (tree.len(), pss(tree));
    println!(
        "  {name:<12} {count:>5} services {pss:>7} KiB  {processes:>4} processes {threads:>4} threads  {idle} switches"
    );
}

/// Processes below this one that run `sleep`.
fn running_services(root: u32) -> usize {
    let all = Running::tree_of(root);
    let sleep = fs::canonicalize("/bin/sleep").unwrap();
    all.iter().filter(|p| fs::read_link(format!("/proc/{p}/exe")).is_ok_and(|e| e == sleep)).count()
}

/// From the start of the program until 1000 services run.
pub(crate) fn cold() {
    const COUNT: usize = 1000;
    let floor = |_| {
        let begin = Instant::now();
        let pids: Vec<u32> = (0..COUNT).map(|_| floor::start(&sleep())).collect();
        let took = begin.elapsed();
        pids.into_iter().for_each(kill);
        floor::reap_all();
        took
    };
    let floor = Times::of((0..3).map(floor).collect());
    let dinit = peers::ALL.iter().find(|p| p.name == "dinit" && p.installed());
    let (mut mine, mut theirs) = (Vec::new(), Vec::new());
    for _ in 0..3 {
        let hob = Hob::with(COUNT, &sleep());
        hob.wait_for(COUNT);
        mine.push(hob.running.since.elapsed());
        if let Some(dinit) = dinit {
            let (running, _dir): (Running, Folder) = dinit.with(COUNT, &sleep());
            until("services", || (running_services(running.child.id()) >= COUNT).then_some(()));
            theirs.push(running.since.elapsed());
        }
    }
    row("hob", &Times::of(mine), &floor);
    if !theirs.is_empty() {
        row("dinit", &Times::of(theirs), &floor);
    }
    row("clone and exec alone", &floor, &floor);
}
