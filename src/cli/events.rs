//! `hob events`: what happened, and what happens.

use super::flags::Args;
use super::offline::{Source, ask};
use super::render::{Paint, colours, masked};
use super::{Failure, connect_to_follow, exit, no_more, print_json, print_painted, users, when};
use crate::client::Event;
use serde_json::{Value, json};

pub(crate) fn events(args: &Args) -> Result<u8, Failure> {
    let kinds: Vec<&str> = args.text("kind")?.into_iter().flat_map(|k| k.split(',')).collect();
    let from = args.number("from")?;
    let lines = args.number("lines")?.unwrap_or(50);
    let mut source = if args.has("follow") { Source::from(connect_to_follow(args)?) } else { ask(args)? };
    let mut query = json!({ "kinds": kinds, "names": args.operands, "limit": lines });
    if let Some(from) = from {
        query["from"] = json!(from);
    }
    if args.has("follow") {
        super::end_with_reader();
    }
    let past = source.call("event.history", &query)?;
    if args.has("json") && !args.has("follow") {
        print_json(&past)?;
        return Ok(exit::OK);
    }
    for event in past["events"].as_array().into_iter().flatten() {
        show(args, event)?;
    }
    let (true, Source::Daemon(client)) = (args.has("follow"), source) else {
        if lines > 0 && past["events"].as_array().is_some_and(Vec::is_empty) {
            super::note(args, &none(&kinds, &args.operands, from, past["next"].as_u64()));
        }
        return Ok(exit::OK);
    };
    let next = past["next"].as_u64();
    for item in client.subscribe(&kinds, &args.operands, next)? {
        match item.map_err(|e| no_more(args, e))? {
            Event::Event(event) => show(args, &event)?,
            Event::Lagged { resume_from } => {
                super::note(args, &format!("fell behind; going on at event {resume_from}"))
            }
            Event::Reset { next } => super::note(args, &format!("events were lost before event {next}")),
        }
    }
    Ok(exit::OK)
}

/// Why nothing is shown.
fn none(kinds: &[&str], names: &[String], from: Option<usize>, next: Option<u64>) -> String {
    if let (Some(from), Some(next)) = (from, next.and_then(|n| usize::try_from(n).ok()))
        && from >= next
    {
        return format!("hob: there is no event {from} yet; the last one is {}", next.saturating_sub(1));
    }
    let of = |what: &str, all: String| if all.is_empty() { String::new() } else { format!(" of {what} {all}") };
    let (kinds, names) = (of("kind", kinds.join(" or ")), of("the name", names.join(" or ")));
    format!("hob: no event{kinds}{names} is among those that hob remembers; 'hob events' shows them all")
}

fn show(args: &Args, event: &Value) -> Result<(), Failure> {
    if args.has("json") {
        return print_json(event);
    }
    print_painted(&format!("{}\n", line(&masked(event), Paint { on: colours() })))
}

/// One event as a line for people.
pub(crate) fn line(event: &Value, paint: Paint) -> String {
    let text = |k: &str| event[k].as_str().unwrap_or("");
    let kind = text("kind");
    let colour = match kind.rsplit('.').next().unwrap_or("") {
        "ready" | "started" | "finished" => "32",
        "failed" | "exited" | "flapping" => "31",
        _ => "33",
    };
    // The longest kinds of services are this wide; names stand in a column beside them.
    const KIND: usize = 16;
    let mut out = format!(
        "{}  {}  {}",
        paint.colour("2", &when::moment(text("time"))),
        paint.colour(colour, &format!("{kind:KIND$}")),
        paint.colour("1", if text("name").is_empty() { "hob" } else { text("name") })
    );
    for (key, value) in event.as_object().into_iter().flatten() {
        if let Some(value) = field(value).filter(|_| !matches!(key.as_str(), "seq" | "time" | "kind" | "name")) {
            out.push_str(&format!("  {}{value}", paint.colour("2", &format!("{key}="))));
        }
    }
    out
}

/// A field's value, or nothing where it says nothing.
fn field(value: &Value) -> Option<String> {
    match value {
        Value::Null => None,
        Value::String(s) if s.is_empty() => None,
        Value::String(s) if s.contains(' ') => Some(format!("\"{}\"", users::named(&when::moments(s)))),
        Value::String(s) => Some(when::moments(s)),
        Value::Array(a) if a.is_empty() => None,
        Value::Array(a) => Some(a.iter().filter_map(field).collect::<Vec<_>>().join(",")),
        other => Some(other.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn that_nothing_is_shown_has_a_reason() {
        assert!(none(&["foo"], &["web".to_owned()], None, Some(9)).contains("no event of kind foo of the name web is"));
        assert_eq!(none(&[], &[], Some(12), Some(9)), "hob: there is no event 12 yet; the last one is 8");
    }

    #[test]
    fn a_line_names_what_there_is_and_nothing_else() {
        let event = json!({
            "seq": 7, "time": "2001-02-03T04:05:06.789Z", "kind": "daemon.reloaded",
            "added": ["web", "db"], "removed": [], "error": null, "cause": "by a person",
        });
        let text = line(&event, Paint { on: false });
        assert!(text.starts_with("2001-02-0") && !text.contains('T'), "{text}");
        assert!(text.ends_with("  daemon.reloaded   hob  added=web,db  cause=\"by a person\""), "{text}");
    }
}
