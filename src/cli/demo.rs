//! `hob demo`: a hob of its own in a temporary folder, real services, and what happens to them told as it happens.

use super::flags::Args;
use super::render::{Paint, colours};
use super::{Failure, exit, print_json, print_painted};
use crate::base::paths::{PathInput, Paths};
use crate::base::units::human_duration;
use crate::client::{Client, Event};
use core::time::Duration;
use serde_json::{Value, json};
use std::io::IsTerminal;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::Instant;

/// Four services that show what can go well and wrong; nothing in it needs more than a shell.
const CONFIG: &str = r#"{
  "services": {
    // Becomes ready late: it says so itself, by a line of its log.
    "database": {
      "command": "echo opening files; sleep 2; echo ready for connections; while :; do sleep 1; echo checkpoint; done",
      "ready": { "log": "ready for connections" }
    },
    // Needs the database, so it waits for it.
    "api": {
      "command": "n=0; while :; do n=$((n+1)); echo request $n; sleep 0.5; done",
      "requires": ["database"]
    },
    // Crashes again and again, and is restarted less and less often.
    "flaky": {
      "command": "sleep 0.4; echo out of luck; exit 3",
      "restart": "always", "min_delay": "500ms", "max_delay": "4s"
    },
    // Says the time.
    "clock": { "command": "while :; do date +%T; sleep 1; done" }
  }
}
"#;

/// How long it goes on when standard output is no terminal.
const UNWATCHED: Duration = Duration::from_secs(15);

/// The demo's own hob: stopped and removed when dropped, whatever happens.
struct Stage {
    dir: PathBuf,
    hob: Child,
    program: PathBuf,
}

impl Drop for Stage {
    fn drop(&mut self) {
        let _ = Command::new(&self.program)
            .arg("--home")
            .arg(&self.dir)
            .args(["stop", "--force", "--quiet"])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status();
        let _ = self.hob.wait();
        let _ = std::fs::remove_dir_all(&self.dir);
    }
}

/// What the demo waits for.
enum News {
    Event(Value),
    /// A client library's failure: the demo's hob is gone for good.
    Lost(String),
}

pub(crate) fn demo(args: &Args) -> Result<u8, Failure> {
    let json = args.has("json");
    // Where nobody can press Ctrl-C it ends by itself.
    let limit = args.duration("for")?.or((!std::io::stdout().is_terminal()).then_some(UNWATCHED));
    let paint = Paint { on: colours() && !args.has("plain") && !json };
    let interrupted = Arc::new(AtomicBool::new(false));
    for signal in [signal_hook::consts::SIGINT, signal_hook::consts::SIGTERM, signal_hook::consts::SIGHUP] {
        signal_hook::flag::register(signal, Arc::clone(&interrupted))?;
    }
    let begin = Instant::now();
    let voice = Voice { begin, paint, json };
    let stage = set_up()?;
    let paths = demo_paths(&stage.dir)?;
    let mut client = wait_for_answer(&paths)?;
    if !json {
        introduce(&stage, paint, limit)?;
    }
    let news = listen(&paths)?;
    let kill_at = limit.map_or(Duration::from_secs(7), |l| l * 6 / 10);
    let mut killed = false;
    while !interrupted.load(Ordering::Relaxed) && limit.is_none_or(|l| begin.elapsed() < l) {
        match news.recv_timeout(Duration::from_millis(100)) {
            Ok(News::Event(event)) => {
                if let Some(line) = narrate(&event, paint) {
                    voice.say(&line)?;
                }
            }
            Ok(News::Lost(why)) => return Err(Failure::new(format!("the demo's hob is gone: {why}"))),
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => break,
        }
        if !killed && begin.elapsed() >= kill_at {
            killed = true;
            kill_daemon(&mut client, &paths, &voice)?;
        }
    }
    voice.say("stopping everything, dependants first")?;
    drop(stage);
    voice.say(
        "all is gone, the folder too. Next: 'hob start', and 'hob config path' shows where to put services of yours",
    )?;
    Ok(exit::OK)
}

fn set_up() -> Result<Stage, Failure> {
    use std::os::unix::fs::DirBuilderExt;
    use std::os::unix::process::CommandExt;
    let dir = std::env::temp_dir().join(format!("hob-demo-{}", std::process::id()));
    // An existing folder of that name is somebody's and is never used.
    std::fs::DirBuilder::new().mode(0o700).create(&dir)?;
    std::fs::write(dir.join("hob.json"), CONFIG)?;
    let program = std::env::current_exe()?;
    let mut command = Command::new(&program);
    for name in ["HOB_HOME", "HOB_CONFIG", "HOB_SOCKET", "HOB_PID", "HOB_LOG"] {
        command.env_remove(name);
    }
    // A group of its own, so that Ctrl-C reaches the demo alone and it can stop its hob in order.
    let errors = std::fs::File::create(dir.join("stderr"))?;
    let hob = command.arg("--home").arg(&dir).arg("run").process_group(0).stdin(Stdio::null()).stdout(Stdio::null());
    let hob = hob.stderr(errors).spawn()?;
    Ok(Stage { dir, hob, program })
}

fn demo_paths(dir: &Path) -> Result<Paths, Failure> {
    Paths::resolve(&PathInput { home: Some(dir.to_owned()), ..PathInput::default() }).map_err(Failure::new)
}

fn wait_for_answer(paths: &Paths) -> Result<Client, Failure> {
    let begin = Instant::now();
    loop {
        match Client::connect(&paths.socket) {
            Ok(client) => return Ok(client),
            Err(e) if begin.elapsed() > Duration::from_secs(20) => {
                return Err(Failure::new(format!("the demo's hob does not answer: {e}"))
                    .hint(std::fs::read_to_string(paths.home.join("stderr")).unwrap_or_default()));
            }
            Err(_) => std::thread::sleep(Duration::from_millis(5)),
        }
    }
}

fn introduce(stage: &Stage, paint: Paint, limit: Option<Duration>) -> Result<(), Failure> {
    let program = stage.program.display();
    let hob = if std::env::var_os("PATH")
        .is_some_and(|p| std::env::split_paths(&p).any(|d| d.join("hob") == stage.program))
    {
        "hob".to_owned()
    } else {
        program.to_string()
    };
    let dir = stage.dir.display();
    let mut text =
        format!("A hob of your own runs in {dir}. Its services: database, api (needs the database), flaky, clock.\n");
    text.push_str("Try in a second terminal:\n");
    for rest in ["status", "why flaky", "logs -f clock api", "stop api", "restart database", "events -f"] {
        text.push_str(&format!("  {}\n", paint.colour("1", &format!("{hob} --home {dir} {rest}"))));
    }
    let by_itself = limit.map_or_else(String::new, |l| format!("It ends by itself after {}; ", human_duration(l)));
    text.push_str(&format!("{by_itself}Ctrl-C ends it and removes everything.\n\n"));
    print_painted(&text)
}

/// Hears events on a connection of its own; the thread ends with the demo.
fn listen(paths: &Paths) -> Result<Receiver<News>, Failure> {
    let client = Client::connect(&paths.socket)?;
    let events = client.subscribe(&["*"], &[], Some(1))?;
    let (sender, receiver) = channel();
    std::thread::spawn(move || {
        for item in events {
            let news = match item {
                Ok(Event::Event(event)) => News::Event(event),
                Ok(_) => continue,
                Err(e) => News::Lost(e.to_string()),
            };
            if sender.send(news).is_err() {
                break;
            }
        }
    });
    Ok(receiver)
}

/// Who tells what happens, and since when.
struct Voice {
    begin: Instant,
    paint: Paint,
    json: bool,
}

impl Voice {
    fn say(&self, line: &str) -> Result<(), Failure> {
        let elapsed = self.begin.elapsed();
        if self.json {
            let ms = u64::try_from(elapsed.as_millis()).unwrap_or(u64::MAX);
            return print_json(json!({ "after_ms": ms, "text": line }));
        }
        print_painted(&format!("{:6.2} s  {line}\n", elapsed.as_secs_f64()))
    }

    fn shout(&self, line: &str) -> Result<(), Failure> {
        self.say(&self.paint.colour("1;35", line))
    }
}

/// Kills the daemon as the kernel would in need, and shows that the services did not notice.
fn kill_daemon(client: &mut Client, paths: &Paths, voice: &Voice) -> Result<(), Failure> {
    let shout = |text: &str| voice.shout(text);
    let before = pids(client)?;
    let daemon = client.call::<Value>("daemon.health", &json!({}))?["pid"].as_u64().unwrap_or(0);
    shout(&format!("now the demo kills hob's own daemon, pid {daemon}, with kill -9 ..."))?;
    let pid = u32::try_from(daemon).map_err(|_| Failure::new("the daemon has no pid"))?;
    let pidfd = crate::sys::wait::pidfd_open(pid)?;
    crate::sys::wait::pidfd_send_signal(pidfd.as_fd(), crate::sys::signals::SIGKILL)?;
    let killed = Instant::now();
    // The call goes to the next daemon: the listening socket never closed.
    let after = pids(client)?;
    let took = killed.elapsed().as_millis();
    let health = client.call::<Value>("daemon.health", &json!({}))?;
    shout(&format!("... and after {took} ms the next one, pid {}, answers", health["pid"]))?;
    let same: Vec<&str> = before.iter().filter(|b| after.contains(b)).map(|(name, _)| name.as_str()).collect();
    shout(&format!("{} run on with the pids they had", same.join(", ")))?;
    let log = std::fs::read_to_string(paths.service_log("api")).unwrap_or_default();
    match count_lines(&log) {
        Ok(count) => shout(&format!("the log of api has its {count} numbered lines, none lost, none twice")),
        Err(line) => Err(Failure::new(format!("the log of api is not as it should be at '{line}'"))),
    }
}

/// Checks that the lines are numbered from 1 on without a gap; else the line where they are not.
fn count_lines(log: &str) -> Result<usize, String> {
    let wrong = |(i, line): &(usize, &str)| *line != format!("request {}", i + 1);
    match log.lines().enumerate().find(wrong) {
        Some((_, line)) => Err(line.to_owned()),
        None => Ok(log.lines().count()),
    }
}

fn pids(client: &mut Client) -> Result<Vec<(String, u64)>, Failure> {
    let list: Value = client.call("service.list", &json!({}))?;
    let services = list["services"].as_array().into_iter().flatten();
    Ok(services.filter_map(|s| Some((s["name"].as_str()?.to_owned(), s["pid"].as_u64()?))).collect())
}

/// An event in words, or nothing for those that say little.
fn narrate(event: &Value, paint: Paint) -> Option<String> {
    let name = paint.colour("1", event["name"].as_str().unwrap_or("hob"));
    let text = |k: &str| match &event[k] {
        Value::Null => String::new(),
        Value::String(s) => s.clone(),
        other => other.to_string(),
    };
    let line = match event["kind"].as_str()? {
        "service.started" => format!("{name} is started, pid {}", text("pid")),
        // What has nothing to wait for is ready as soon as it is started, which is no news.
        "service.ready" if event["after_ms"].as_u64().is_some_and(|ms| ms < 100) => return None,
        "service.ready" => format!("{name} is {}", paint.colour("32", "ready")),
        "service.waiting" => {
            let names = event["waiting_for"].as_array().into_iter().flatten().filter_map(Value::as_str);
            format!("{name} waits for {}", names.collect::<Vec<_>>().join(", "))
        }
        "service.exited" if event["signal_name"].is_string() => format!("{name} was ended by {}", text("signal_name")),
        "service.exited" => format!("{name} {} with exit code {}", paint.colour("31", "ended"), text("exit_code")),
        "service.backoff" => {
            let delay = Duration::from_millis(event["delay_ms"].as_u64().unwrap_or(0));
            format!("{name} will be restarted in {} (restart {})", human_duration(delay), text("restart"))
        }
        "service.stopping" => format!("{name} is being stopped"),
        "service.stopped" => format!("{name} is stopped, and nothing of it is left"),
        "service.failed" => format!("{name} has {}: {}", paint.colour("31;1", "failed"), text("error")),
        "service.flapping" => format!("{name} is flapping: it fails again and again"),
        "service.finished" => format!("{name} has finished its work"),
        _ => return None,
    };
    Some(line)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_demos_config_is_a_good_one() {
        let config = crate::config::parse(CONFIG, "demo", crate::sys::signals::platform()).unwrap();
        assert_eq!(config.services.len(), 4);
        assert_eq!(config.services["api"].requires[0].name, "database");
    }

    #[test]
    fn events_become_sentences() {
        let e = json!({ "kind": "service.exited", "name": "flaky", "exit_code": 3 });
        assert_eq!(narrate(&e, Paint { on: false }).unwrap(), "flaky ended with exit code 3");
        assert_eq!(narrate(&json!({ "kind": "daemon.heartbeat" }), Paint { on: false }), None);
    }
}
