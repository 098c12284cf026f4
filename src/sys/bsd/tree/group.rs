//! Control groups, which these systems do not have: no value of these types can exist.

use super::Member;
use crate::base::ids::RunId;
use std::convert::Infallible;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

/// There are none.
#[derive(Clone, Debug)]
pub struct Groups(Infallible);

/// There are none.
#[derive(Debug)]
pub struct Group(Infallible);

/// # Errors
/// Always.
pub fn delegated(_pid: u32) -> Result<std::path::PathBuf, String> {
    Err("this system has no control groups".to_owned())
}

/// Why nothing can be started in control groups.
#[derive(Clone, Debug)]
pub struct Refused {
    pub why: String,
    pub passes: bool,
}

impl Groups {
    /// # Errors
    /// Always.
    pub fn probe(_keeper: u32, _home: u32) -> Result<Groups, String> {
        Err("this system has no control groups".to_owned())
    }

    /// # Errors
    /// Always.
    #[cfg(test)]
    pub fn useless(_base: std::path::PathBuf) -> Result<Groups, String> {
        Err("this system has no control groups".to_owned())
    }

    /// # Errors
    /// Always.
    #[cfg(test)]
    pub fn refusing(_refused: Refused) -> Result<Groups, String> {
        Err("this system has no control groups".to_owned())
    }

    /// # Errors
    /// None, as nothing can call it.
    pub fn tried(&self) -> Result<(), Refused> {
        match self.0 {}
    }

    #[must_use]
    pub fn base(&self) -> &Path {
        match self.0 {}
    }

    /// # Errors
    /// None, as nothing can call it.
    pub fn open(&self, _service: &str) -> io::Result<Group> {
        match self.0 {}
    }

    #[must_use]
    pub fn holds(&self, _service: &str, _pid: u32) -> Option<bool> {
        match self.0 {}
    }

    /// # Errors
    /// None, as nothing can call it.
    pub fn service_of(&self, _pid: u32) -> io::Result<Option<String>> {
        match self.0 {}
    }

    #[must_use]
    pub fn list(&self) -> Vec<Group> {
        match self.0 {}
    }

    pub fn remove_empty(&self) {
        match self.0 {}
    }
}

impl Group {
    #[must_use]
    pub fn service(&self) -> &str {
        match self.0 {}
    }

    /// # Errors
    /// None, as nothing can call it.
    pub fn mark(&self, _run: RunId) -> io::Result<()> {
        match self.0 {}
    }

    #[must_use]
    pub fn marked(&self) -> Option<RunId> {
        match self.0 {}
    }

    #[must_use]
    pub fn exists(&self) -> bool {
        match self.0 {}
    }

    /// # Errors
    /// None, as nothing can call it.
    pub fn populated(&self) -> io::Result<bool> {
        match self.0 {}
    }

    #[must_use]
    pub fn pids(&self) -> Vec<u32> {
        match self.0 {}
    }

    #[must_use]
    pub fn members(&self) -> Vec<Member> {
        match self.0 {}
    }

    #[must_use]
    pub fn signal(&self, _signal: i32) -> usize {
        match self.0 {}
    }

    pub fn kill(&self) {
        match self.0 {}
    }

    /// # Errors
    /// None, as nothing can call it.
    pub fn watch(&self) -> io::Result<OwnedFd> {
        match self.0 {}
    }

    #[must_use]
    pub fn memory(&self) -> Option<u64> {
        match self.0 {}
    }

    /// # Errors
    /// None, as nothing can call it.
    pub fn remove(&self) -> io::Result<()> {
        match self.0 {}
    }
}

impl AsFd for Group {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self.0 {}
    }
}
