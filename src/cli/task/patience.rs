//! While `hob add` waits for its task: says on a terminal what that waits for itself, and at Ctrl-C that it goes on.

use super::look::awaited;
use crate::cli::flags::Args;
use crate::cli::{Failure, complain, connect, progress};
use core::time::Duration;
use serde_json::{Value, json};
use signal_hook::consts::SIGINT;
use std::io::ErrorKind;
use std::time::Instant;

/// How long a task may take to begin before that is worth a word, and how often it is looked at then.
const EVERY: Duration = Duration::from_secs(1);

/// From here on until the command ends; the thread is not waited for.
pub(super) fn begin(args: &Args, id: u64) -> Result<(), Failure> {
    let mut poll = mio::Poll::new()?;
    let mut signals = signal_hook_mio::v1_0::Signals::new([SIGINT])?;
    poll.registry().register(&mut signals, mio::Token(0), mio::Interest::READABLE)?;
    let mut client = if progress::wanted(args) { Some(connect(args)?) } else { None };
    if let Some(client) = &mut client {
        client.set_timeout(Some(EVERY));
    }
    let mut said = String::new();
    let mut next = Instant::now() + EVERY;
    let loud = !args.has("quiet");
    std::thread::spawn(move || {
        let mut events = mio::Events::with_capacity(8);
        loop {
            let limit = client.is_some().then(|| next.saturating_duration_since(Instant::now()));
            match poll.poll(&mut events, limit) {
                Err(e) if e.kind() != ErrorKind::Interrupted => return,
                _ => {}
            }
            if signals.pending().next().is_some() {
                if loud {
                    complain(&format!("task {id} goes on"), Some(&format!("hob task cancel {id} ends it")));
                }
                // As if it had never been caught, so that a shell sees what happened.
                let _ = signal_hook::low_level::emulate_default_handler(SIGINT);
            }
            let Some(asked) = client.as_mut().filter(|_| Instant::now() >= next) else { continue };
            next = Instant::now() + EVERY;
            let task: Value = asked.call_once("task.get", &json!({ "id": id })).unwrap_or_default();
            match task["state"].as_str() {
                Some("held" | "queued" | "paused") => {
                    let text = awaited(&task);
                    if text != said {
                        complain(&text, None);
                        said = text;
                    }
                }
                // Its own words tell the rest.
                _ => client = None,
            }
        }
    });
    Ok(())
}
