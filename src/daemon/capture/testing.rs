//! What several tests need: a folder that is removed at the end, and the words of the table in memory.

use super::desk::Words;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

static COUNT: AtomicU32 = AtomicU32::new(0);

#[derive(Debug)]
pub(crate) struct Dir(PathBuf);

impl Dir {
    pub(crate) fn new() -> Dir {
        let n = COUNT.fetch_add(1, Ordering::Relaxed);
        let dir = std::env::temp_dir().join(format!("hob-capture-{}-{n}", std::process::id()));
        std::fs::create_dir_all(&dir).unwrap();
        Dir(dir)
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }
}

impl Drop for Dir {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// The words of the table in memory, with room for one owner.
#[derive(Debug, Default)]
pub(crate) struct Memory {
    owner: AtomicU64,
    copied: AtomicU64,
    dropped: AtomicU64,
}

impl Words for Memory {
    fn owner(&self) -> u64 {
        self.owner.load(Ordering::SeqCst)
    }
    fn set_owner(&self, hash: u64) {
        self.owner.store(hash, Ordering::SeqCst);
    }
    fn copied(&self) -> u64 {
        self.copied.load(Ordering::SeqCst)
    }
    fn set_copied(&self, mark: u64) {
        self.copied.store(mark, Ordering::SeqCst);
    }
    fn dropped(&self, _: u64) -> u64 {
        self.dropped.load(Ordering::SeqCst)
    }
    fn set_dropped(&self, _: u64, bytes: u64) {
        self.dropped.store(bytes, Ordering::SeqCst);
    }
}
