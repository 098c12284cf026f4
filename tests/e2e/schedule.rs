//! Jobs: what an expression means without a daemon, runs through a daemon that is killed, and what a person can do.

use crate::support::*;
use serde_json::Value;

fn next(home: &Home, args: &[&str]) -> Value {
    let mut all = vec!["schedule", "next", "--json"];
    all.extend(args);
    serde_json::from_str(&home.ok(&all)).unwrap()
}

/// Times are of UTC, so that no database of zones is needed.
#[test]
fn an_expression_is_told_without_a_daemon() {
    let home = Home::new("{}");
    let first = next(&home, &["30 2 * * *", "-n", "2", "--tz", "UTC", "--from", "2026-03-28T02:30:00"]);
    assert_eq!(first, serde_json::json!({ "next": ["2026-03-28T02:30:00+00:00", "2026-03-29T02:30:00+00:00"] }));
    let from = next(&home, &["0 0 29 2 *", "-n1", "--tz=UTC", "--from", "2026-03-28T02:30:00+05:30"]);
    assert_eq!(from["next"][0], "2028-02-29T00:00:00+00:00");
    assert_eq!(next(&home, &["@hourly", "-n", "20"])["next"].as_array().unwrap().len(), 20);
    let text = home.ok(&["schedule", "next", "*/15 9 * * mon", "--tz", "UTC", "--from", "2026-11-28"]);
    assert!(text.starts_with("# minute 0,15,30,45; hour 9; on mon; UTC; follows the clock"), "{text}");
    assert!(text.contains("\n2026-11-30T09:00:00+00:00\n2026-11-30T09:15:00+00:00\n"), "{text}");
    let past_all = home.ok(&["schedule", "next", "0 0 1 1 *", "--tz", "UTC", "--from", "9999-12-31T00:00:00"]);
    assert_eq!(past_all, "it fires no more from then on\n");
    assert!(home.ok(&["schedule", "next", "@reboot"]).contains("once in each boot"));
}

#[test]
fn mistakes_of_the_command_line_are_told_apart() {
    let home = Home::new("{}");
    for (args, part) in [
        (&["0 25 * * *"][..], "column 3: \"25\" is no hour: 0 to 23"),
        (&["* * * *"], "only 4 fields"),
        (&["0 0 30 2 *"], "'0 0 30 2 *' never fires: there is no such day"),
        (&["0 0 31 4 *", "--json"], "'0 0 31 4 *' never fires"),
        (&["@never"], "there is no word"),
        (&["* * * * *", "--tz", "Mars/Base"], "no time zone 'Mars/Base'"),
        (&["* * * * *", "--tz", "../../etc/passwd"], "'../../etc/passwd' is no name"),
        (&["* * * * *", "--from", "yesterday"], "'yesterday' is no time"),
        (&["* * * * *", "--from", "2026-02-30"], "is no time"),
        (&["* * * * *", "-n", "many"], "is no whole number from 0"),
        (&["* * * * *", "-n", "100000"], "10000 times are the most"),
    ] {
        let (code, text) = home.fails(&[&["schedule", "next"], args].concat());
        assert!(code == 2 && text.contains(part), "{args:?}: {code} {text}");
    }
    let (code, text) = home.fails(&["schedule", "next", "nightly"]);
    assert!(code == 3 && text.contains("names a job"), "{code} {text}");
    let (code, text) = home.fails(&["schedule", "list"]);
    assert!(code == 3 && text.contains("not running"), "{code} {text}");
    let out = home.hob(&["schedule", "check", "@daily", "61 * * * *", "0 0 30 2 *"]);
    let text = String::from_utf8(out.stdout).unwrap();
    assert_eq!(out.status.code(), Some(1));
    assert!(text.contains("'@daily': good") && text.contains("column 1: \"61\" is no minute"), "{text}");
    assert!(text.contains("'0 0 30 2 *' never fires"), "{text}");
    // As in a config, that alone is a mistake.
    let out = home.hob(&["schedule", "check", "@daily", "0 0 30 2 *", "--json"]);
    let report: Value = serde_json::from_slice(&out.stdout).unwrap();
    assert_eq!(
        (out.status.code(), &report["ok"], &report["expressions"][1]["ok"]),
        (Some(1), &false.into(), &false.into())
    );
}

#[test]
fn a_zone_of_the_system_is_heeded() {
    let Ok(berlin) = std::fs::read("/usr/share/zoneinfo/Europe/Berlin") else {
        return skip("there is no time zone database here");
    };
    assert!(berlin.starts_with(b"TZif"));
    let home = Home::new("{}");
    let args = ["30 2 * * *", "-n", "3", "--tz", "Europe/Berlin", "--from", "2026-03-28T00:00:00"];
    let want = ["2026-03-28T02:30:00+01:00", "2026-03-29T03:00:00+02:00", "2026-03-30T02:30:00+02:00"];
    assert_eq!(next(&home, &args), serde_json::json!({ "next": want }));
}

const JOBS: &str = r#"{ "services": { "web": { "command": "exec sleep 1000" } }, "schedule": { "jobs": [
    { "id": "second", "cron": "* * * * * *", "tz": "UTC", "action": { "signal": "SIGCONT", "service": "web" } },
    { "id": "yearly", "cron": "0 0 1 1 *", "tz": "UTC", "action": { "restart": "web" }, "missed": "once" },
    { "id": "wrong", "every": "1h", "action": { "method": "service.stop", "params": { "names": ["nobody"] } } }
] } }"#;

fn job(home: &Home, id: &str) -> Value {
    home.call("schedule.get", &format!("{{\"id\": \"{id}\"}}"))
}

fn runs(home: &Home, id: &str) -> u64 {
    job(home, id)["runs"].as_u64().unwrap()
}

#[test]
fn jobs_run_by_the_clock_and_no_second_is_done_twice_by_daemons_that_die() {
    let home = Home::running(JOBS);
    home.wait_state("web", "running");
    wait("it runs each second", || runs(&home, "second") >= 2);
    for _ in 0..2 {
        let before = runs(&home, "second");
        kill("KILL", home.pids().0);
        wait("it goes on", || runs(&home, "second") > before);
    }
    let events = home.call("event.history", r#"{"kinds": ["schedule.fired"], "names": ["second"], "limit": 1000}"#);
    let dues: Vec<&str> = events["events"].as_array().unwrap().iter().map(|e| e["due"].as_str().unwrap()).collect();
    assert!(dues.len() >= 4 && dues.windows(2).all(|w| w[0] < w[1]), "{dues:?}");
    let last = &job(&home, "second")["history"][0];
    assert_eq!(last["cause"], "by the clock");
}

#[test]
fn a_person_runs_pauses_and_asks_why() {
    let home = Home::running(JOBS);
    home.wait_state("web", "running");
    let pid = home.pid("web");
    assert_eq!(home.ok(&["schedule", "run", "yearly"]), "yearly: run 1 begun\n");
    wait("it was restarted", || home.state("web") == "running" && home.pid("web") != pid);
    wait("its run is over", || job(&home, "yearly")["last_result"] == "done");
    assert!(home.ok(&["why", "web"]).contains("by the job yearly"));
    assert!(home.ok(&["why", "yearly"]).contains("run 1, begun by "));
    home.ok(&["schedule", "run", "wrong"]);
    wait("it has failed", || job(&home, "wrong")["last_result"] == "failed");
    let (list, why) = (home.ok(&["schedule", "list"]), home.ok(&["why", "wrong"]));
    assert!(list.contains("failed: there is no service \"nobody\""), "{list}");
    assert!(why.contains("its last run failed: there is no service \"nobody\""), "{why}");
    assert!(home.ok(&["schedule", "history", "wrong"]).contains("failed"));
    assert!(home.ok(&["schedule", "pause", "second"]).contains("second: paused"));
    let before = runs(&home, "second");
    kill("KILL", home.pids().0);
    wait("another daemon answers", || home.hob(&["ping"]).status.success());
    assert_eq!((job(&home, "second")["state"].as_str(), runs(&home, "second")), (Some("paused"), before));
    assert!(home.ok(&["schedule", "resume", "--all"]).contains("second: goes by the clock, next "));
    wait("it goes on", || runs(&home, "second") > before);
    assert!(home.ok(&["schedule", "next", "yearly", "-n", "2"]).contains("-01-01T00:00:00+00:00\n"));
    let (code, text) = home.fails(&["schedule", "run", "yerly"]);
    assert!(code == 4 && text.contains("did you mean \"yearly\"?"), "{code} {text}");
    assert_eq!(home.fails(&["schedule", "pause"]).0, 2);
}

#[test]
fn a_reload_takes_jobs_or_says_why_not() {
    let home = Home::running(JOBS);
    home.write_config(&JOBS.replace("\"restart\": \"web\"", "\"restart\": \"wbe\""));
    let (_, text) = home.fails(&["reload"]);
    assert!(
        text.contains("schedule.jobs[1].action.restart: there is no service \"wbe\"; did you mean 'web'?"),
        "{text}"
    );
    assert_eq!(home.hob(&["schedule", "check"]).status.code(), Some(1));
    home.write_config(
        r#"{ "services": { "web": { "command": "exec sleep 1000" } }, "schedule": { "jobs": [
        { "id": "new", "at": "2199-01-01T00:00:00Z", "action": { "stop": "web" } } ] } }"#,
    );
    let check = home.ok(&["schedule", "check"]);
    let plan = home.ok(&["plan"]);
    assert!(plan.contains("add      schedule/new: new in the config\n"), "{plan}");
    assert!(plan.contains("remove   schedule/yearly: not in the config any more\n"), "{plan}");
    assert!(check.contains("good, 1 job\nnew: next 2199-01-01"), "{check}");
    home.ok(&["reload"]);
    let list = home.call("schedule.list", "{}");
    let ids: Vec<&str> = list["jobs"].as_array().unwrap().iter().map(|j| j["id"].as_str().unwrap()).collect();
    assert_eq!(ids, ["new"]);
    assert_eq!(home.call("daemon.config", "{}")["schedule"]["jobs"][0]["action"]["stop"][0], "web");
}

#[test]
fn an_examination_by_the_clock_fails_where_something_does_not_work() {
    let home = Home::running(
        r#"{ "services": { "web": { "command": "exec sleep 1000" } },
             "schedule": { "jobs": [
               { "id": "look", "cron": "0 0 1 1 *", "action": { "method": "daemon.doctor" } }] } }"#,
    );
    home.wait_state("web", "running");
    home.ok(&["schedule", "run", "look"]);
    wait("all was well", || job(&home, "look")["last_result"] == "done");
    home.ok(&["service", "run", "broken", "--set", "restart=never", "--", "false"]);
    home.wait_state("broken", "failed");
    home.ok(&["schedule", "run", "look"]);
    wait("it found something", || job(&home, "look")["last_result"] == "failed");
    assert_eq!(job(&home, "look")["last_message"], "services: broken has failed: exit code 1");
    assert!(home.ok(&["logs"]).contains("services: broken has failed"), "hob's own log tells");
}
