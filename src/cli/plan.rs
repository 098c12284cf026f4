//! `hob plan` and `hob reload --dry-run`: what a reload would do.

use super::flags::Args;
use super::offline::ask_for;
use super::render::{Paint, colours, masked, wrapped};
use super::service::finish;
use super::{Failure, config, exit, life, meant, print_painted};
use crate::sys::terminal;
use serde_json::{Value, json};

/// What is told of the files, in whose daemon nothing runs.
const AS_IF_UP: &str = "this is how the config differs from the one in effect last, as if that were up";

pub(crate) fn plan(args: &Args) -> Result<u8, Failure> {
    meant::is_its_config(args)?;
    let mut source = ask_for(args, |_| AS_IF_UP.to_owned())?;
    source.take_time();
    let result = source.call("daemon.plan", &json!({}))?;
    // A hob that runs has an environment of its own, by which doctor looks.
    if !args.has("json")
        && source.is_files()
        && let Ok(config) = life::actual(args).and_then(|paths| config::read(paths.config, true))
    {
        config.warn(args);
    }
    let text = told(&masked(&result), Paint { on: colours() }, terminal::columns());
    if args.has("quiet") && !args.has("json") {
        // What would be done is what was asked for; that it is nothing goes without saying.
        print_painted(&text)?;
        return Ok(exit::OK);
    }
    finish(args, &result, |_| if text.is_empty() { "nothing would change\n".to_owned() } else { text })
}

/// Width of the column of actions.
const ACTION: usize = 9;

fn told(r: &Value, paint: Paint, columns: Option<usize>) -> String {
    let text = |v: &Value| v.as_str().unwrap_or("?").to_owned();
    let list = |v: &Value| v.as_array().into_iter().flatten().map(text).collect::<Vec<_>>();
    let mut out = String::new();
    let mut line = |action: &str, subject: &str, why: &str| {
        let colour = match action {
            "stop" | "remove" => "31",
            "restart" | "wait" => "33",
            "start" | "add" => "32",
            _ => "36",
        };
        let rest = wrapped(&format!("{subject}: {why}"), ACTION, ACTION, columns);
        out.push_str(&format!("{}{}\n", paint.colour(colour, &format!("{action:ACTION$}")), rest.trim_start()));
    };
    let daemon = list(&r["daemon"]);
    if !daemon.is_empty() {
        line("update", "hob itself", &format!("{} changed; without a restart", daemon.join(", ")));
    }
    for c in r["changes"].as_array().into_iter().flatten() {
        line(&text(&c["action"]), &text(&c["name"]), &text(&c["why"]));
    }
    let order: Vec<String> = r["order"]
        .as_array()
        .into_iter()
        .flatten()
        .map(|a| format!("{} {}", text(&a["action"]), text(&a["name"])))
        .collect();
    // A single act has no order, and neither have changes that are each done by one act.
    let restarts = r["changes"].as_array().into_iter().flatten().any(|c| c["action"] == "restart");
    if restarts && order.len() > 2 {
        out.push_str(&format!("{}\n", wrapped(&format!("In this order: {}", order.join(", ")), 0, 2, columns)));
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plan_is_told_line_by_line_with_the_order_of_its_restarts() {
        let r = json!({
            "daemon": ["daemon.log.level"],
            "changes": [
                {"action": "update", "name": "db", "why": "stop_timeout changed; without a restart"},
                {"action": "restart", "name": "worker", "why": "it requires web"},
                {"action": "restart", "name": "web", "why": "command, env.PORT changed"},
            ],
            "order": [{"action": "stop", "name": "worker"}, {"action": "stop", "name": "web"},
                {"action": "start", "name": "web"}, {"action": "start", "name": "worker"}],
        });
        let text = told(&r, Paint { on: false }, None);
        assert_eq!(
            text,
            "update   hob itself: daemon.log.level changed; without a restart\n\
             update   db: stop_timeout changed; without a restart\n\
             restart  worker: it requires web\n\
             restart  web: command, env.PORT changed\n\
             In this order: stop worker, stop web, start web, start worker\n"
        );
        assert_eq!(told(&json!({"changes": []}), Paint { on: false }, None), "");
    }
}
