//! Tests of what only the inside of the config sees of jobs: that the table, its examples and its defaults agree.

use super::keys::JOB;
use super::*;
use crate::config::{Platform, defaults_text, parse, to_json};

const LINUX: Platform = Platform::linux();

fn with_job(members: &str) -> String {
    format!("{{\"services\": {{\"NAME\": {{\"command\": \"x\"}}}}, \"schedule\": {{\"jobs\": [{{{members}}}]}}}}")
}

#[test]
fn every_example_is_a_value_of_its_key_and_reads_back() {
    let zones =
        |name: &str| (name == "Europe/Berlin").then(|| (name.to_owned(), b"CET-1CEST,M3.5.0,M10.5.0/3".to_vec()));
    let platform = Platform { zones, ..LINUX };
    let example = |name: &str| JOB.iter().find(|k| k.name == name).map_or("", |k| k.example);
    for key in JOB {
        let mut members = vec![format!("\"{}\": {}", key.name, key.example)];
        for needed in ["id", "action", "cron"] {
            let time = ["every", "at"].contains(&key.name) && needed == "cron";
            if needed != key.name && !time {
                members.push(format!("\"{needed}\": {}", example(needed)));
            }
        }
        let text = with_job(&members.join(", "));
        let config = parse(&text, "f", &platform).unwrap_or_else(|e| panic!("{text}: {e:?}"));
        let again = parse(&to_json(&config), "f", &platform);
        assert_eq!(again.as_ref(), Ok(&config), "{}", to_json(&config));
        let plain = JobSpec::default();
        assert_ne!(key.field.json(&config.schedule[0]), "", "{}", key.name);
        if !["missed", "limit", "stagger"].contains(&key.name) {
            assert_ne!(
                key.field.json(&config.schedule[0]),
                key.field.json(&plain),
                "the example of {} tells",
                key.name
            );
        }
    }
}

#[test]
fn the_defaults_are_shown_as_they_are() {
    let shown = parse(&defaults_text(), "f", &Platform { zones: |_| None, ..LINUX }).unwrap();
    let job = &shown.schedule[0];
    let plain =
        JobSpec { id: job.id.clone(), cron: job.cron.clone(), action: job.action.clone(), ..JobSpec::default() };
    assert_eq!(**job, plain);
}

#[test]
fn actions_read_back_to_themselves() {
    for action in [
        r#"{"start": ["NAME", "NAME"]}"#,
        r#"{"stop": "NAME"}"#,
        r#"{"restart": "NAME"}"#,
        r#"{"reload": "NAME"}"#,
        r#"{"signal": "HUP", "service": "NAME"}"#,
        r#"{"signal": 42, "service": "NAME"}"#,
        r#"{"method": "service.stop", "params": {"all": true, "timeout": 1.5}}"#,
        r#"{"method": "daemon.reload"}"#,
    ] {
        let text = with_job(&format!("\"id\": \"a\", \"every\": \"1h\", \"action\": {action}"));
        let config = parse(&text, "f", &LINUX).unwrap_or_else(|e| panic!("{text}: {e:?}"));
        assert_eq!(parse(&to_json(&config), "f", &LINUX).as_ref(), Ok(&config), "{}", to_json(&config));
        assert!(!config.schedule[0].action.as_ref().unwrap().text().is_empty());
    }
}

#[test]
fn a_task_of_a_job_has_no_key() {
    let refused = |action: &str| {
        let text = with_job(&format!("\"id\": \"a\", \"every\": \"1h\", \"action\": {action}"));
        parse(&text, "f", &LINUX).map(|_| ()).unwrap_err().iter().map(ToString::to_string).collect::<Vec<_>>()
    };
    let path = "schedule.jobs[0].action";
    for (action, at) in [
        (r#"{"task": {"command": "x", "key": "nightly"}}"#, "task.key"),
        (r#"{"task": {"tasks": [{"command": "x"}, {"command": "y", "key": "k"}]}}"#, "task"),
        (r#"{"method": "task.submit", "params": {"command": "x", "key": "k"}}"#, "params"),
    ] {
        let told = refused(action);
        assert_eq!(told.len(), 1, "{told:?}");
        assert!(told[0].contains(&format!("{path}.{at}")) && told[0].contains("\"overlap\""), "{told:?}");
    }
    let plain = with_job(r#""id": "a", "every": "1h", "action": {"task": {"command": "x", "key": null}}"#);
    assert!(parse(&plain, "f", &LINUX).is_ok(), "no key at all");
}
