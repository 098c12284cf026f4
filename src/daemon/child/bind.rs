//! The file of one socket that is held for a service, as a job for the pool: it is looked at, or made.

use super::Setup;
use super::listen::{kind, rights};
use crate::config::Listen;
use crate::sys::net::serve::{self, FileId};
use crate::sys::reason;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Why something failed.
pub(super) type Trouble = (io::ErrorKind, String);

#[derive(Debug)]
pub struct Bind {
    pub(super) service: Arc<str>,
    pub(super) number: u64,
    pub(super) at: usize,
    pub(super) path: PathBuf,
    pub(super) listen: Listen,
    pub(super) known: Option<Known>,
    pub(super) setup: Arc<Setup>,
}

/// A socket that was open before.
#[derive(Debug)]
pub(super) struct Known {
    pub(super) fd: Arc<OwnedFd>,
    pub(super) file: FileId,
    /// Its config has changed.
    pub(super) changed: bool,
}

/// What came of it.
#[derive(Debug)]
pub struct Bound {
    pub(super) service: Arc<str>,
    pub(super) number: u64,
    pub(super) at: usize,
    pub(super) path: PathBuf,
    pub(super) listen: Listen,
    /// `None`: the one that was known is still there.
    pub(super) result: Result<Option<Made>, Trouble>,
}

#[derive(Debug)]
pub(super) struct Made {
    pub(super) fd: OwnedFd,
    pub(super) file: Option<FileId>,
}

impl Bind {
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    pub(super) fn run(self) -> Bound {
        let result = self.go();
        let Bind { service, number, at, path, listen, .. } = self;
        Bound { service, number, at, path, listen, result }
    }

    fn go(&self) -> Result<Option<Made>, Trouble> {
        let wrong = |e: io::Error| (e.kind(), reason(&e));
        let rights = || rights(&self.setup, &self.listen).map_err(|e| (io::ErrorKind::Other, e));
        let (kind, backlog) = (kind(&self.listen.at), self.listen.backlog);
        if let Some(known) = &self.known
            && serve::file_of(&self.path) == Some(known.file)
        {
            if known.changed {
                serve::set_backlog(known.fd.as_fd(), kind, backlog).map_err(wrong)?;
                serve::set_rights(&self.path, rights()?, known.file).map_err(wrong)?;
            }
            return Ok(None);
        }
        let (fd, file) = serve::unix(kind, &self.path, rights()?, backlog).map_err(wrong)?;
        Ok(Some(Made { fd, file }))
    }
}
