//! Config files with every kind of mistake: hob answers, says all that is wrong and where, and reads nothing that never
//! ends.

use crate::support::*;
use std::fs;
use std::process::Command;

const SLEEP: &str = r#""command": "exec sleep 1000""#;

/// What `hob config check` says of a file of these bytes.
fn said_of(home: &Home, bytes: &[u8]) -> (bool, String) {
    fs::write(home.path("hob.json"), bytes).unwrap();
    let out = home.hob(&["config", "check"]);
    (out.status.success(), String::from_utf8_lossy(&[out.stdout, out.stderr].concat()).into_owned())
}

#[test]
fn what_no_editor_shows_is_read_or_named() {
    let home = Home::new("{}");
    let good = format!("{{ \"services\": {{ \"s\": {{ {SLEEP} }} }} }}");
    let with_bom = format!("\u{feff}{good}");
    let dos = good.replace("{ ", "{\r\n");
    for text in [&with_bom, &dos] {
        assert!(said_of(&home, text.as_bytes()).0, "{text:?}");
    }
    for (bytes, say) in [
        (&b"{ \"a\0\": 1 }"[..], "hob.json:1:5:"),
        (b"{\n\0}", "hob.json:2:1:"),
        (b"\0\0\0\0", "hob.json:1:1:"),
        (b"{\n  \"\xff\": 1 }", "hob.json:2:4: the byte 0xff is not UTF-8"),
        (b"\xff\xfe{\0}\0", "hob.json:1:1: the byte 0xff is not UTF-8"),
        (b"", "the file is empty"),
    ] {
        let (well, said) = said_of(&home, bytes);
        assert!(!well && said.contains(say), "{bytes:?}: {said}");
    }
    let (well, said) = said_of(&home, "[".repeat(1_000_000).as_bytes());
    assert!(!well && said.contains("nested deeper than 32 levels") && said.len() < 2000, "{} bytes", said.len());
}

#[test]
fn names_that_are_no_names_are_all_told_at_once() {
    let home = Home::new("{}");
    let long = "n".repeat(300);
    let names =
        ["a/b", "..", ".hidden", "-x", "", "a b", "caf\u{e9}", "tab\\t", "nul\\u0000", "a\\u001bb", "*", long.as_str()];
    let services: Vec<String> = names.iter().map(|n| format!("\"{n}\": {{ {SLEEP} }}")).collect();
    let (well, said) = said_of(&home, format!("{{ \"services\": {{\n{}\n}} }}", services.join(",\n")).as_bytes());
    assert!(!well);
    for line in 2..2 + names.len() {
        let place = format!("hob.json:{line}:1:");
        assert!(said.contains(&place), "line {line} of {names:?}: {said}");
    }
    for fine in ["a.b-c_d:e@f", "A1", "web@1", &"n".repeat(64)] {
        let (well, said) = said_of(&home, format!("{{ \"services\": {{ \"{fine}\": {{ {SLEEP} }} }} }}").as_bytes());
        assert!(well, "{said}");
    }
}

#[test]
fn what_is_no_file_or_has_no_end_is_refused_and_hob_answers() {
    type Make = fn(&Home);
    let make: [(&str, Make, &str); 5] = [
        ("a FIFO", |h| assert!(Command::new("mkfifo").arg(h.path("hob.json")).status().unwrap().success()), "regular"),
        ("a folder", |h| fs::create_dir(h.path("hob.json")).unwrap(), "folder"),
        ("a device", |h| std::os::unix::fs::symlink("/dev/zero", h.path("hob.json")).unwrap(), "regular"),
        ("a link in a ring", |h| std::os::unix::fs::symlink("hob.json", h.path("hob.json")).unwrap(), "links"),
        (
            "100 MB",
            |h| fs::File::create(h.path("hob.json")).unwrap().set_len(100_000_000).unwrap(),
            "100000000 bytes; 4194304 is the most",
        ),
    ];
    for (what, make, say) in make {
        let mut home = Home::new("{}");
        fs::remove_file(home.path("hob.json")).unwrap();
        make(&home);
        let out = home.hob(&["config", "check"]);
        let said = String::from_utf8_lossy(&out.stderr).into_owned();
        assert!(!out.status.success() && said.contains(say), "{what}: {said}");
        home.start(&[]);
        let status = home.ok(&["status"]);
        assert!(status.contains("not in effect") && status.contains(say), "{what}: {status}");
        let _ = fs::remove_file(home.path("hob.json")).or_else(|_| fs::remove_dir(home.path("hob.json")));
        home.write_config(&format!("{{ \"services\": {{ \"s\": {{ {SLEEP} }} }} }}"));
        home.ok(&["reload"]);
        home.wait_state("s", "running");
    }
}

#[test]
fn a_reload_of_what_cannot_be_read_changes_nothing() {
    let home = Home::running(&format!("{{ \"services\": {{ \"s\": {{ {SLEEP} }} }} }}"));
    home.wait_state("s", "running");
    let pid = home.pid("s");
    fs::remove_file(home.path("hob.json")).unwrap();
    assert!(Command::new("mkfifo").arg(home.path("hob.json")).status().unwrap().success());
    let (_, said) = home.fails(&["reload"]);
    assert!(said.contains("not a regular file"), "{said}");
    kill("HUP", home.keeper());
    wait("the signal's reload is told", || home.ok(&["status"]).contains("not in effect"));
    assert_eq!((home.state("s").as_str(), home.pid("s")), ("running", pid));
}
