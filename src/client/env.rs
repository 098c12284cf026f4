//! A job's way to the hob that runs it: the channel that it was started with, or the control socket. Reads the
//! environment; takes over one descriptor.

use super::wire::Raw;
use super::{Client, ClientError, Line, PATIENCE, Target};
use crate::sys::chan::Chan;
use std::io;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// The channel is one: the first client of a process has it.
static TAKEN: AtomicBool = AtomicBool::new(false);

impl Client {
    /// Connects to the hob whose job this process is: over the descriptor named by HOB_FD, where its service has
    /// `"hob_fd": true`, else at HOB_SOCKET. The first client of a process takes the descriptor, and sees to it that no
    /// program that is executed later inherits it; further ones use the socket, as [`Client::subscribe`] and
    /// [`Client::logs`] do for the connections of their own.
    ///
    /// Over HOB_FD no daemon's death is noticed: a call is sent again when the next one has taken over.
    ///
    /// # Errors
    /// `Io` with `NotFound` when neither variable names anything; else as [`Client::connect`].
    pub fn from_env() -> Result<Client, ClientError> {
        let socket = std::env::var_os("HOB_SOCKET").filter(|s| !s.is_empty()).map(PathBuf::from);
        let number = std::env::var("HOB_FD").ok().and_then(|n| n.parse().ok()).filter(|n| *n > 2);
        // A number that is no channel any more belongs to somebody else.
        let chan = number.filter(|_| !TAKEN.swap(true, Ordering::Relaxed)).and_then(|n| Chan::inherit(n).ok());
        match (chan, socket) {
            (Some(chan), socket) => Ok(Client::over(chan, socket.unwrap_or_default())),
            (None, Some(socket)) => Client::connect(socket),
            (None, None) => {
                let what = "neither HOB_FD nor HOB_SOCKET is set: hob has not started this process";
                Err(io::Error::new(io::ErrorKind::NotFound, what).into())
            }
        }
    }

    fn over(chan: Chan, socket: PathBuf) -> Client {
        let mut line = Line::new(Target { socket, patience: PATIENCE, restart: Duration::MAX });
        line.raw = Some((Raw::channel(chan), Instant::now()));
        Client { line, next_id: 0, limit: None }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::limits::MESSAGE_MAX;
    use serde_json::{Value, json};

    /// A client and the daemon's end of its channel.
    fn pair() -> (Client, Daemon) {
        let (ours, theirs) = Chan::pair_for_job(MESSAGE_MAX).unwrap();
        let client = Client::over(Chan::from_fd(theirs).unwrap(), "/nonexistent/hob.sock".into());
        (client, Daemon(ours))
    }

    struct Daemon(Chan);

    impl Daemon {
        fn request(&self) -> Value {
            let mut buf = vec![0; MESSAGE_MAX];
            loop {
                match self.0.recv(&mut buf) {
                    Ok(Some((n, _))) => return serde_json::from_slice(&buf[..n]).unwrap(),
                    Err(e) if e.kind() == io::ErrorKind::WouldBlock => {
                        crate::sys::chan::wait([(Some(std::os::fd::AsFd::as_fd(&self.0)), false)], None).unwrap();
                    }
                    other => panic!("{other:?}"),
                }
            }
        }

        fn say(&self, json: &Value) {
            self.0.send(json.to_string().as_bytes(), &[]).unwrap();
        }

        fn reply(&self, request: &Value, result: &Value) {
            self.say(&json!({"jsonrpc": "2.0", "id": request["id"], "result": result}));
        }

        fn resumed(&self) {
            self.say(&json!({"jsonrpc": "2.0", "method": "daemon.resumed", "params": {"pid": 1}}));
        }
    }

    #[test]
    fn a_call_is_sent_again_when_another_daemon_has_taken_over() {
        let (mut client, daemon) = pair();
        let script = std::thread::spawn(move || {
            let first = daemon.request();
            daemon.resumed();
            let again = daemon.request();
            assert_eq!(first, again, "the same text, and so the same key");
            assert!(first["params"]["request_key"].is_string());
            daemon.reply(&again, &json!({"n": 1}));
            // The first one was read after all, and answered late.
            daemon.reply(&first, &json!({"n": 1}));
            let ping = daemon.request();
            daemon.reply(&ping, &json!({"n": 2}));
            daemon
        });
        let stopped: Value = client.call("service.stop", &["web"]).unwrap();
        assert_eq!(stopped, json!({"n": 1}));
        let pong: Value = client.call("ping", &json!({})).unwrap();
        assert_eq!(pong, json!({"n": 2}));
        let _ = script.join().unwrap();
    }

    #[test]
    fn what_must_not_be_sent_twice_is_a_loss_and_the_channel_stays() {
        let (mut client, daemon) = pair();
        let script = std::thread::spawn(move || {
            assert_eq!(daemon.request()["method"], "future.change");
            daemon.resumed();
            assert_eq!(daemon.request()["method"], "service.stop");
            daemon.resumed();
            let ping = daemon.request();
            daemon.reply(&ping, &json!(7));
            daemon
        });
        assert!(matches!(client.call::<Value>("future.change", &json!({})), Err(ClientError::Closed)));
        assert!(matches!(client.call_once::<Value>("service.stop", &["web"]), Err(ClientError::Closed)));
        assert_eq!(client.call::<u32>("ping", &json!({})).unwrap(), 7);
        let _ = script.join().unwrap();
    }

    #[test]
    fn a_late_reply_is_passed_over_and_a_closed_channel_is_a_loss() {
        let (mut client, daemon) = pair();
        client.set_timeout(Some(Duration::from_millis(20)));
        let e = client.call::<Value>("ping", &json!({})).unwrap_err();
        assert!(matches!(e, ClientError::Io(ref e) if e.kind() == io::ErrorKind::TimedOut), "{e}");
        daemon.reply(&daemon.request(), &json!(1));
        client.set_timeout(None);
        let script = std::thread::spawn(move || daemon.reply(&daemon.request(), &json!(2)));
        assert_eq!(client.call::<u32>("ping", &json!({})).unwrap(), 2);
        script.join().unwrap();
        client.set_patience(Duration::from_millis(30));
        assert!(client.call::<Value>("ping", &json!({})).is_err(), "and nobody is at the socket either");
        let long = "x".repeat(MESSAGE_MAX);
        let (mut client, _daemon) = pair();
        let e = client.call::<Value>("service.get", &[long]).unwrap_err();
        assert!(matches!(&e, ClientError::Unexpected(what) if what.contains("HOB_SOCKET")), "{e}");
    }
}
