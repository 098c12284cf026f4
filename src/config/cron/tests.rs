//! Tests of expressions: what is taken, what is refused and how that is said, and single days that matter. The
//! comparison with a slow reference is in tests/cron.rs.

use super::*;
use crate::base::time::Wall;

/// A zone of tests/zones.txt, which holds zone files of the public domain in hexadecimal.
fn zone(name: &str) -> Zone {
    let text = include_str!("../../../tests/zones.txt");
    let after = text.split_once(&format!("{name}\n")).unwrap().1;
    let hex: String = after.lines().take_while(|l| l.starts_with(' ')).map(str::trim).collect();
    let byte = |i: usize| u8::from_str_radix(hex.get(i..i + 2).unwrap(), 16).unwrap();
    let content = (0..hex.len()).step_by(2).map(byte).collect();
    Zone::new(&ZoneFile { name: name.to_owned(), content }).unwrap()
}

fn cron(text: &str) -> Cron {
    match parse(text) {
        Ok(Expression::Times(cron)) => cron,
        other => panic!("{text}: {other:?}"),
    }
}

fn times(text: &str, zone: &Zone, from: &str, count: usize) -> Vec<String> {
    let cron = cron(text);
    let mut at = Wall(zone.read(from).unwrap().0 - 1);
    let mut out = Vec::new();
    while out.len() < count
        && let Some(next) = cron.next(zone, at)
    {
        out.push(zone.show(next));
        at = next;
    }
    out
}

#[test]
fn forms_mean_what_cron_means_by_them() {
    for (one, other) in [
        ("@hourly", "0 * * * *"),
        ("@DAILY", "0 0 * * *"),
        ("0 0 * * sun", "0 0 * * 7"),
        ("0 0 * * 0,1,2", "0 0 * * 7-2"),
        ("0 0 * * 5,6,0", "0 0 * * fri-sun"),
        ("0 0 * * 5,6,0,1", "0 0 * * fri-mon"),
        ("0 0 * * 5,6,0", "0 0 * * 5-7"),
        ("0 0 * * 1-7", "0 0 * * 0-6"),
        ("0/20 * * * *", "0,20,40 * * * *"),
        ("*/20 * * * *", "0-59/20 * * * *"),
        ("5/20 1 * * *", "5,25,45 1 * * *"),
        ("0 0 * nov-mar/2 *", "0 0 * 1,3,11 *"),
        ("0 0 1 nov-feb *", "0 0 1 11,12,1,2 *"),
        ("0 0 1 JAN,Feb *", "0 0 1 1-2 *"),
        ("  0\t0  1 * * ", "0 0 1 * *"),
        ("0 0 0 1 * *", "0 0 1 * *"),
        ("0 0 ? * mon", "0 0 * * 1"),
        ("*/60 * * * *", "0-0 * * * *"),
    ] {
        let (mut a, mut b) = (cron(one), cron(other));
        // Who begins with a star is another question.
        (a.wild, b.wild) = (false, false);
        assert_eq!(a, b, "{one} and {other}");
    }
    assert_eq!(parse("@reboot"), Ok(Expression::Reboot));
    let star = cron("0 0 */2 * mon");
    assert!(!star.days.either, "a field that begins with a star narrows the other one");
    assert!(cron("0 0 2 * mon").days.either);
    assert!(cron("*/5 2 * * *").is_wild() && cron("0 */2 * * *").is_wild() && !cron("0/5 2 * * *").is_wild());
}

#[test]
fn mistakes_are_placed_and_say_what_is_allowed() {
    for (text, column, part) in [
        ("", 1, "it is empty; wants minute, hour"),
        ("* * * *", 8, "only 4 fields"),
        ("*", 2, "only 1 field"),
        ("* * * * * * 2026", 13, "7 fields, and there is none for years"),
        ("60 * * * *", 1, "\"60\" is no minute: 0 to 59"),
        ("* 24 * * *", 3, "\"24\" is no hour: 0 to 23"),
        ("* * 0 * *", 5, "\"0\" is no day of the month: 1 to 31, L"),
        ("* * * 13 *", 7, "\"13\" is no month: 1 to 12 or jan to dec"),
        ("* * * mai *", 7, "did you mean mar?"),
        ("* * * * 8", 9, "\"8\" is no weekday: 0 to 7"),
        ("* * * * mond", 9, "did you mean mon?"),
        ("* * * * *  61", 12, "is no weekday"),
        ("61 * * * * *", 1, "is no second"),
        ("1,,2 * * * *", 3, "a minute is missing here"),
        ("1- * * * *", 3, "a minute is missing here"),
        ("*/0 * * * *", 3, "\"0\" is no step: 1 to 60"),
        ("*/61 * * * *", 3, "\"61\" is no step"),
        ("*/x * * * *", 3, "\"x\" is no step"),
        ("*/5/5 * * * *", 3, "\"5/5\" is no step"),
        ("* * 28-3 * *", 5, "28-3 ends before it begins; write 3-28, or 28-31,1-3 to go over the end"),
        ("* * * * 5-1", 9, "5-1 ends before it begins; write 1-5, or 5-6,0-1 to go over the end"),
        ("* * * dec-1 *", 7, "dec-1 ends before it begins; write 1-12, or 12,1 to go over the end"),
        ("* * * * 5-0", 9, "write 0-5, or 5-7 to go over the end"),
        ("* * * * fri-1", 9, "fri-1 ends before it begins"),
        ("* 8,22-5/2 * * *", 5, "22-5 ends before it begins; write 5-22, or 22-23,0-5 to go over the end"),
        ("* * * 11-2 *", 7, "write 2-11, or 11-12,1-2"),
        ("? * * * *", 1, "? stands for any day or weekday alone"),
        ("* * L-31 * *", 7, "L-1 (the last but one) to L-30"),
        ("* * 32W * *", 5, "1W to 31W, or LW"),
        ("* * * * L", 9, "L alone names no weekday"),
        ("* * * * 5#6", 11, "#1 to #5"),
        ("* * * * mon#0", 13, "#1 to #5"),
        ("* * * * 9L", 9, "is no weekday"),
        ("1~30 * * * *", 1, "jitter"),
        ("H * * * *", 1, "jitter"),
        ("-5 * * * *", 1, "a minute is missing here"),
        ("+5 * * * *", 1, "\"+5\" is no minute"),
        ("5.5 * * * *", 1, "is no minute"),
        ("@dayly", 1, "did you mean @daily?"),
        ("@", 1, "@yearly, @annually"),
        ("@daily 5", 8, "nothing follows"),
        ("@every 90s", 1, "write \"every\": \"90s\" instead"),
        ("\u{e4} * * * *", 1, "is no minute"),
        ("* \u{e4}\u{e4} 99 * *", 3, "is no hour"),
        ("99999999999999999999 * * * *", 1, "is no minute"),
    ] {
        let e = parse(text).unwrap_err();
        assert_eq!(e.column, column, "{text}: {e}");
        assert!(e.message.contains(part), "{text}: {e}");
        assert_eq!(e.to_string(), format!("column {column}: {}", e.message));
    }
    let long = "1,".repeat(600) + "1 * * * *";
    assert!(parse(&long).unwrap_err().message.contains("1000 are the most"));
}

#[test]
fn what_never_fires_is_known_at_once() {
    let utc = Zone::utc();
    for text in [
        "0 0 30 2 *",
        "0 0 31 4,6,9,11 *",
        "0 0 30 feb ?",
        "0 0 31W 2 *",
        "0 0 L-30 4 *",
        "* * * 30 2 *",
        "0 0 */31 2 mon#5",
    ] {
        assert!(cron(text).never_fires(), "{text}");
        assert_eq!(cron(text).next(&utc, Wall(0)), None);
        assert_eq!(cron(text).previous(&utc, Wall(0)), None);
    }
    for text in ["0 0 29 2 *", "0 0 30 2 mon", "0 0 L-27 2 *", "0 0 */28 2 mon#5"] {
        assert!(!cron(text).never_fires(), "{text}");
    }
}

#[test]
fn rare_days_are_found_over_decades() {
    let utc = Zone::utc();
    // A step from a star narrows: the 29th of February that is a Sunday.
    assert_eq!(
        times("0 0 29-29 2 */7", &utc, "2001-01-01", 2),
        ["2004-02-29T00:00:00+00:00", "2032-02-29T00:00:00+00:00"]
    );
    assert_eq!(times("0 0 29 2 *", &utc, "2097-01-01", 1), ["2104-02-29T00:00:00+00:00"]);
    // Without the star it is the 29th, or any Monday.
    assert_eq!(
        times("0 0 29 2 mon", &utc, "2024-02-27", 2),
        ["2024-02-29T00:00:00+00:00", "2025-02-03T00:00:00+00:00"]
    );
    assert_eq!(times("0 0 1 1 *", &utc, "9998-06-01", 3), ["9999-01-01T00:00:00+00:00"]);
}

#[test]
fn last_nearest_and_nth_days_are_those_of_the_calendar() {
    let utc = Zone::utc();
    let day = |text: &str, from: &str, count| -> Vec<String> {
        let short = |t: String| t.split_once('T').unwrap().0.to_owned();
        times(text, &utc, from, count).into_iter().map(short).collect()
    };
    assert_eq!(day("0 0 L * *", "2024-01-31", 3), ["2024-01-31", "2024-02-29", "2024-03-31"]);
    assert_eq!(day("0 0 L-3 * *", "2023-02-01", 2), ["2023-02-25", "2023-03-28"]);
    // The 31st of May 2026 is a Sunday, the 28th of February a Saturday.
    assert_eq!(day("0 0 LW 2,5 *", "2026-01-01", 2), ["2026-02-27", "2026-05-29"]);
    // The 15th of November 2026 is a Sunday, of August a Saturday, the 1st of August a Saturday.
    assert_eq!(day("0 0 15W 8,11 *", "2026-01-01", 2), ["2026-08-14", "2026-11-16"]);
    assert_eq!(day("0 0 1W 8 *", "2026-01-01", 1), ["2026-08-03"]);
    assert_eq!(day("0 0 31W 5 *", "2026-01-01", 1), ["2026-05-29"]);
    assert_eq!(day("0 0 * * 5L", "2026-11-01", 2), ["2026-11-27", "2026-12-25"]);
    assert_eq!(day("0 0 * * mon#2", "2026-11-01", 2), ["2026-11-09", "2026-12-14"]);
    assert_eq!(day("0 0 * * sun#5", "2026-01-01", 2), ["2026-03-29", "2026-05-31"]);
}

#[test]
fn changes_of_the_clocks_follow_the_rule_of_cronie() {
    let berlin = zone("Europe/Berlin");
    let spring = times("30 2 * * *", &berlin, "2026-03-28T00:00:00", 3);
    assert_eq!(spring, ["2026-03-28T02:30:00+01:00", "2026-03-29T03:00:00+02:00", "2026-03-30T02:30:00+02:00"]);
    let autumn = times("30 2 * * *", &berlin, "2026-10-25", 2);
    assert_eq!(autumn, ["2026-10-25T02:30:00+02:00", "2026-10-26T02:30:00+01:00"]);
    let wild = times("30 * * * *", &berlin, "2026-10-25T01:30", 4);
    assert_eq!(wild[1..3], ["2026-10-25T02:30:00+02:00", "2026-10-25T02:30:00+01:00"]);
    let wild = times("*/30 2 * * *", &berlin, "2026-03-29", 1);
    assert_eq!(wild, ["2026-03-30T02:00:00+02:00"]);
    // Two times that are skipped are one at the change, and so is the one that lies there anyway.
    let both = times("0,30 2,3 29 3 *", &berlin, "2026-03-29", 3);
    assert_eq!(both, ["2026-03-29T03:00:00+02:00", "2026-03-29T03:30:00+02:00", "2027-03-29T02:00:00+02:00"]);
    // A whole day was skipped.
    let apia = zone("Pacific/Apia");
    let skipped = times("0 12 * * *", &apia, "2011-12-29T12:00", 3);
    assert_eq!(skipped, ["2011-12-29T12:00:00-10:00", "2011-12-31T00:00:00+14:00", "2011-12-31T12:00:00+14:00"]);
    // Half an hour, and a gap at midnight.
    let howe = zone("Australia/Lord_Howe");
    assert_eq!(times("15 2 4 10 *", &howe, "2026-10-04", 1), ["2026-10-04T02:30:00+11:00"]);
    let paulo = zone("America/Sao_Paulo");
    assert_eq!(times("0 0 * * *", &paulo, "2018-11-04T00:00", 1), ["2018-11-04T01:00:00-02:00"]);
}

#[test]
fn times_are_read_in_their_zone() {
    let berlin = zone("Europe/Berlin");
    for (text, want) in [
        ("2026-03-29T02:30", "2026-03-29T03:00:00+02:00"),
        ("2026-10-25 02:30", "2026-10-25T02:30:00+02:00"),
        ("2026-10-25T02:30:00+01:00", "2026-10-25T02:30:00+01:00"),
        ("2026-07-01", "2026-07-01T00:00:00+02:00"),
    ] {
        assert_eq!(berlin.show(berlin.read(text).unwrap()), want, "{text}");
    }
    for text in ["", "0000-01-01", "2026-02-30", "2026-01-01T00:00x", "tomorrow"] {
        assert_eq!(berlin.read(text), None, "{text}");
    }
    let rule = ZoneFile { name: "local".to_owned(), content: b"CET-1CEST,M3.5.0,M10.5.0/3\n".to_vec() };
    let rule = Zone::new(&rule).unwrap();
    assert_eq!(rule.show(Wall(1_782_864_000_000)), "2026-07-01T02:00:00+02:00");
    let damaged = ZoneFile { name: "x".to_owned(), content: b"TZif2".to_vec() };
    assert!(Zone::new(&damaged).unwrap_err().contains("damaged"));
    for name in ["", "/etc/passwd", "../x", "a//b", "Europe/Berlin/", "Mars Base"] {
        assert!(Zone::name_error(name).is_some(), "{name}");
    }
    assert_eq!(Zone::name_error("America/Argentina/Buenos_Aires").or(Zone::name_error("Etc/GMT+5")), None);
}

#[test]
fn an_expression_is_told_in_words() {
    for (text, want) in [
        ("30 2 * * *", "minute 30; hour 2; every day"),
        ("*/30 9-17 * * mon-fri", "minute 0,30; hour 9-17; on mon,tue,wed,thu,fri"),
        ("10 0 0 1,L jan *", "second 10; minute 0; hour 0; day 1,the last; in jan"),
        ("0 0 13 * 5", "minute 0; hour 0; day 13, or on fri"),
        ("0 0 */2 * mon#1", "minute 0; hour 0; day 1,3,5,7,9,11,13,15,17,19,21,23,25,27,29,31 if it is mon number 1"),
    ] {
        assert_eq!(cron(text).words(), want, "{text}");
    }
}
