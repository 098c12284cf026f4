//! Peers, each set up for its least restart delay and without log capture where it can do without.

use crate::lab::{Folder, Running};
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

/// One supervisor: how its configuration is written, how it is started in the foreground and asked for its state.
pub(crate) struct Peer {
    pub(crate) name: &'static str,
    programs: &'static [&'static str],
    /// Restarts at once, not with a delay or a loop of a second.
    pub(crate) quick: bool,
    prepare: fn(&Folder, usize, &[String]),
    start: fn(&Folder) -> Vec<String>,
    pub(crate) status: fn(&Folder) -> Vec<String>,
    /// What exists once it answers, below its folder.
    pub(crate) socket: Option<&'static str>,
}

pub(crate) const ALL: [Peer; 5] = [
    Peer {
        name: "dinit",
        programs: &["dinit", "dinitctl"],
        quick: true,
        prepare: dinit,
        start: |f| words("dinit --user -q -d {}/d -p {}/s", f),
        status: |f| words("dinitctl --user -p {}/s list", f),
        socket: Some("s"),
    },
    Peer {
        name: "s6",
        programs: &["s6-svscan", "s6-supervise", "s6-svstat"],
        quick: false,
        prepare: scripts,
        start: |f| words("s6-svscan -t0 -c1100 {}", f),
        status: |f| words("s6-svstat {}/s0", f),
        socket: None,
    },
    Peer {
        name: "runit",
        programs: &["runsvdir", "runsv", "sv"],
        quick: false,
        prepare: scripts,
        start: |f| words("runsvdir -P {}", f),
        status: |f| words("sv status {}/s0", f),
        socket: None,
    },
    Peer {
        name: "supervisord",
        programs: &["supervisord", "supervisorctl"],
        quick: false,
        prepare: supervisord,
        start: |f| words("supervisord -n -c {}/c.ini", f),
        status: |f| words("supervisorctl -c {}/c.ini status", f),
        socket: Some("s"),
    },
    Peer {
        name: "pueue",
        programs: &["pueued", "pueue"],
        quick: false,
        prepare: pueue,
        start: |f| words("pueued -c {}/c.yml", f),
        status: |f| words("pueue -c {}/c.yml status", f),
        socket: Some("s"),
    },
];

impl Peer {
    pub(crate) fn installed(&self) -> bool {
        self.programs.iter().all(|p| find(p).is_some())
    }

    /// Whether it supervises services; pueue runs tasks.
    pub(crate) fn supervises(&self) -> bool {
        self.name != "pueue"
    }

    /// Started with so many services that run this command.
    pub(crate) fn with(&self, count: usize, argv: &[String]) -> (Running, Folder) {
        let dir = Folder::new();
        (self.prepare)(&dir, count, argv);
        (Running::start(&(self.start)(&dir)), dir)
    }
}

/// The path of a program.
pub(crate) fn find(program: &str) -> Option<String> {
    let path = std::env::var("PATH").unwrap_or_default();
    let found = path.split(':').map(|d| format!("{d}/{program}")).find(|f| Path::new(f).is_file());
    found.or_else(|| ["/usr/sbin", "/sbin"].iter().map(|d| format!("{d}/{program}")).find(|f| Path::new(f).is_file()))
}

fn words(line: &str, f: &Folder) -> Vec<String> {
    let mut words: Vec<String> = line.replace("{}", f.0.to_str().unwrap()).split(' ').map(str::to_owned).collect();
    words[0] = find(&words[0]).unwrap();
    words
}

fn dinit(f: &Folder, count: usize, argv: &[String]) {
    fs::create_dir(f.0.join("d")).unwrap();
    let command = argv.join(" ");
    let mut boot = "type = internal\n".to_owned();
    for i in 0..count {
        let text = format!(
            "type = process\ncommand = {command}\nrestart = true\nrestart-delay = 0\nrestart-limit-count = 0\n\
             smooth-recovery = true\n"
        );
        fs::write(f.0.join(format!("d/s{i}")), text).unwrap();
        boot.push_str(&format!("waits-for = s{i}\n"));
    }
    fs::write(f.0.join("d/boot"), boot).unwrap();
}

fn scripts(f: &Folder, count: usize, argv: &[String]) {
    for i in 0..count {
        let dir = f.0.join(format!("s{i}"));
        fs::create_dir(&dir).unwrap();
        let run = dir.join("run");
        fs::write(&run, format!("#!/bin/sh\nexec {}\n", argv.join(" "))).unwrap();
        fs::set_permissions(&run, fs::Permissions::from_mode(0o755)).unwrap();
    }
}

fn supervisord(f: &Folder, count: usize, argv: &[String]) {
    let d = f.0.display();
    let mut text = format!(
        "[unix_http_server]\nfile={d}/s\n[supervisord]\nlogfile={d}/log\npidfile={d}/pid\nchildlogdir={d}\n\
         nodaemon=true\nsilent=true\n[rpcinterface:supervisor]\n\
         supervisor.rpcinterface_factory = supervisor.rpcinterface:make_main_rpcinterface\n\
         [supervisorctl]\nserverurl=unix://{d}/s\n"
    );
    for i in 0..count {
        text.push_str(&format!(
            "[program:s{i}]\ncommand={}\nautorestart=true\nstartsecs=0\nstartretries=1000000\nstdout_logfile=NONE\n\
             stderr_logfile=NONE\n",
            argv.join(" ")
        ));
    }
    fs::write(f.0.join("c.ini"), text).unwrap();
}

fn pueue(f: &Folder, _: usize, _: &[String]) {
    let d = f.0.display();
    let shared =
        format!("pueue_directory: {d}\n  runtime_directory: {d}\n  use_unix_socket: true\n  unix_socket_path: {d}/s");
    fs::write(f.0.join("c.yml"), format!("shared:\n  {shared}\nclient: {{}}\ndaemon: {{}}\n")).unwrap();
}
