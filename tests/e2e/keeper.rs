//! What hob owes to whoever started it and is no client: its standard error and its descriptors are theirs, its pid
//! file is for their scripts.

use crate::support::*;
use std::fs::File;
use std::io::Write as _;
use std::process::Stdio;

#[test]
fn a_reader_of_standard_error_that_does_not_read_holds_nobody_up() {
    let home = Home::new("{}");
    let (read, write) = hob::sys::pipe::output().unwrap();
    let room = hob::sys::pipe::set_capacity(&read, 4096).unwrap();
    File::from(write.try_clone().unwrap()).write_all(&vec![b'x'; room]).unwrap();
    let mut hob = home.command(&["run"]);
    let mut hob = hob.stdin(Stdio::null()).stdout(Stdio::null()).stderr(write).spawn().unwrap();
    wait("hob answers", || home.hob(&["ping"]).status.success());
    for _ in 0..3 {
        let (daemon, _) = home.pids();
        kill("KILL", daemon);
        wait("the next daemon answers", || home.hob(&["ping"]).status.success() && home.pids().0 != daemon);
    }
    assert!(home.read("logs/hob.log").contains("ended by SIGKILL"));
    kill("TERM", hob.id());
    wait("hob ends", || hob.try_wait().unwrap().is_some());
    assert_eq!(hob.wait().unwrap().code(), Some(0));
}
