//! The notify sockets of services, as in sd_notify(3): one a service, kept over its runs and over daemons (the keeper
//! holds it).

use super::{Ctx, Setup};
use crate::base::map::Map;
use crate::daemon::capture::lines::Secrets;
use crate::daemon::closer::Closer;
use crate::daemon::source::Source;
use crate::sys::file;
use crate::sys::net;
use crate::sys::net::serve::{self, FileId};
use crate::sys::notify::{self as sys, Datagram};
use mio::{Interest, Token};
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;
use std::sync::Arc;

/// What the keeper knows the socket of a service by.
#[must_use]
pub fn label(service: &str) -> String {
    format!("notify/{service}")
}

/// A path of this many bytes or more does not fit into a socket address.
const PATH_BYTES: usize = 108;
/// Assignments in one datagram that are looked at.
const FIELDS_MAX: usize = 32;
/// Words of a service whose descriptors are being closed.
const CLOSING_MAX: usize = 4;
/// What a service may say; anything else is not for hob.
const NAMES: [&str; 7] = ["READY", "STATUS", "STOPPING", "RELOADING", "MAINPID", "WATCHDOG", "EXTEND_TIMEOUT_USEC"];

#[derive(Debug, Default)]
pub(super) struct Sockets {
    open: Map<Arc<str>, Socket>,
}

#[derive(Debug)]
struct Socket {
    fd: OwnedFd,
    /// `None` for a name that is no file.
    file: Option<FileId>,
    token: Token,
    /// Closes what came with its words.
    closer: Closer,
}

/// Where the socket of a service is: a file where the name fits, else a name in the abstract space of this keeper.
pub(super) fn place(setup: &Setup, service: &str) -> Result<PathBuf, String> {
    let path = setup.notify_dir.join(service.replace('%', "%25").replace('/', "%2f"));
    if path.as_os_str().as_bytes().len() < PATH_BYTES {
        Ok(path)
    } else {
        Err(format!("hob-{:08x}-{}-{service}", setup.home, setup.keeper))
    }
}

/// The value of NOTIFY_SOCKET.
pub(super) fn address(setup: &Setup, service: &str) -> String {
    match place(setup, service) {
        Ok(path) => path.to_string_lossy().into_owned(),
        Err(name) => format!("@{name}"),
    }
}

impl Sockets {
    /// Makes the socket unless it is there, and has the keeper hold it.
    pub(super) fn ensure(&mut self, ctx: &mut Ctx<'_>, setup: &Setup, service: &Arc<str>) -> io::Result<()> {
        let place = place(setup, service);
        let is_there = |socket: &Socket| match &place {
            Ok(path) => socket.file.is_some() && serve::file_of(path) == socket.file,
            Err(_) => true,
        };
        if self.open.get(service).is_some_and(is_there) {
            return Ok(());
        }
        self.close(ctx, service);
        let (fd, file) = match &place {
            Ok(path) => {
                file::create_dir_all(&setup.notify_dir, 0o711)?;
                // The keeper may still have the one before.
                file::remove(path)?;
                sys::bind(path)?
            }
            Err(name) => (sys::bind_abstract(name)?, None),
        };
        ctx.link.hold(&label(service), &[fd.as_fd()])?;
        self.add(ctx, service, fd, file)
    }

    /// The file of the socket of a service, by which it is known that nobody has put another in its place.
    pub(super) fn file(&self, service: &str) -> Option<FileId> {
        self.open.get(service)?.file
    }

    /// Takes back the socket that the keeper held while there was no daemon.
    pub(super) fn restore(
        &mut self,
        ctx: &mut Ctx<'_>,
        setup: &Setup,
        service: &Arc<str>,
        fd: OwnedFd,
    ) -> io::Result<()> {
        self.close(ctx, service);
        let file = place(setup, service).ok().and_then(|path| serve::file_of(&path));
        self.add(ctx, service, fd, file)
    }

    fn add(&mut self, ctx: &mut Ctx<'_>, service: &Arc<str>, fd: OwnedFd, file: Option<FileId>) -> io::Result<()> {
        let source = Source::Notify(Arc::clone(service));
        let token = ctx.sources.add(ctx.registry, fd.as_raw_fd(), Interest::READABLE, source)?;
        self.open.insert(Arc::clone(service), Socket { fd, file, token, closer: Closer::default() });
        Ok(())
    }

    fn close(&mut self, ctx: &mut Ctx<'_>, service: &str) {
        if let Some(socket) = self.open.remove(service) {
            ctx.sources.remove(ctx.registry, socket.fd.as_raw_fd(), socket.token);
            // Whoever closes it last closes what lies in it.
            net::shut(socket.fd.as_fd());
            if net::peek(socket.fd.as_fd(), &mut [0; 1]).is_ok() {
                socket.closer.drain(socket.fd);
            }
        }
    }

    /// The service is gone for good.
    pub(super) fn remove(&mut self, ctx: &mut Ctx<'_>, setup: &Setup, service: &str) {
        if !self.open.contains_key(service) {
            return;
        }
        self.close(ctx, service);
        ctx.link.release(&label(service));
        if let Ok(path) = place(setup, service) {
            // It may have been removed by hand.
            let _ = std::fs::remove_file(path);
        }
    }

    /// The first datagram, which stays in the socket.
    pub(super) fn peek(&self, service: &str) -> Option<Datagram> {
        sys::peek(self.open.get(service)?.fd.as_fd()).ok().flatten()
    }

    /// Whether so much that came with its words is being closed that the next has to wait.
    pub(super) fn is_stalled(&self, service: &str) -> bool {
        self.open.get(service).is_some_and(|s| s.closer.open() >= CLOSING_MAX)
    }

    /// Takes the first datagram out. Answers whether there was one.
    pub(super) fn take(&self, service: &str) -> bool {
        let Some(socket) = self.open.get(service) else { return false };
        // An error here comes again at the next peek.
        let Ok(Some((_, fds))) = sys::take(socket.fd.as_fd()) else { return false };
        socket.closer.close(fds);
        true
    }

    /// Empties the socket, so that nothing of an earlier run is taken for the next one's word.
    pub(super) fn drain(&self, service: &str) {
        // A flood must not keep the caller; what is left after this many is taken for the next run's and judged by its
        // sender.
        const AT_MOST: u32 = 10_000;
        for _ in 0..AT_MOST {
            if self.is_stalled(service) || !self.take(service) {
                break;
            }
        }
    }
}

/// The assignments that hob knows, in their order. A cut or malformed datagram has none. Control characters become
/// spaces, because what a service says about itself is shown on terminals, and secrets are masked.
pub(super) fn fields(datagram: &Datagram, secrets: Option<&Secrets>) -> Vec<(String, String)> {
    let Ok(text) = std::str::from_utf8(&datagram.bytes) else { return Vec::new() };
    if datagram.cut {
        return Vec::new();
    }
    let clean = |value: &str| value.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    let hide = |name: &str, value: &str| match secrets {
        // The other words are no text, and a secret may well be "1".
        Some(secrets) if name == "STATUS" => clean(&String::from_utf8_lossy(&secrets.hide(value.as_bytes()))),
        _ => clean(value),
    };
    text.lines()
        .take(FIELDS_MAX)
        .filter_map(|line| line.split_once('='))
        .filter(|(name, _)| NAMES.contains(name))
        .map(|(name, value)| (name.to_owned(), hide(name, value)))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(bytes: &[u8]) -> Vec<(String, String)> {
        fields(&Datagram { bytes: bytes.to_vec(), pid: None, uid: None, cut: false }, None)
    }

    #[test]
    fn known_assignments_are_kept_in_order() {
        let found = of(b"READY=1\nSTATUS=up = \x1b[31mred\nX_ODD=1\nFDSTORE=1\nEXTEND_TIMEOUT_USEC=5\n\nWATCHDOG=1");
        let names: Vec<&str> = found.iter().map(|f| f.0.as_str()).collect();
        assert_eq!(names, ["READY", "STATUS", "EXTEND_TIMEOUT_USEC", "WATCHDOG"]);
        assert_eq!(found[1].1, "up =  [31mred");
    }

    #[test]
    fn garbage_says_nothing() {
        for bytes in [&b""[..], b"READY", b"=1", b"ready=1", b" READY=1", b"\xff\xfeREADY=1", b"\0", b"READY=1\n\xff"] {
            assert!(of(bytes).is_empty(), "{bytes:?}");
        }
        assert!(
            fields(&Datagram { bytes: b"READY=1\nSTATUS=".to_vec(), pid: None, uid: None, cut: true }, None).is_empty()
        );
        assert_eq!(of("READY=1\n".repeat(100).as_bytes()).len(), FIELDS_MAX);
    }

    #[test]
    fn a_long_path_becomes_a_name_that_fits() {
        let mut setup = Setup { home: 0xab, keeper: 7, notify_dir: "/run/hob/notify".into(), ..Setup::default() };
        assert_eq!(address(&setup, "web"), "/run/hob/notify/web");
        assert_eq!(address(&setup, "a/b"), "/run/hob/notify/a%2fb");
        setup.notify_dir = PathBuf::from("/x").join("y".repeat(101));
        assert_eq!(address(&setup, "web"), "@hob-000000ab-7-web");
        assert!(address(&setup, &"n".repeat(crate::base::limits::NAME_MAX)).len() < PATH_BYTES);
    }
}
