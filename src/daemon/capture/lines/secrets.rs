//! The secrets of one service: learnt where a run is started, before its program can write anything, and used where its
//! output is processed.

use super::hoard::Safe;
use super::mask::Masks;
use crate::base::limits::SECRET_MIN;
use std::ffi::CString;
use std::io;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Secrets that several threads share.
#[derive(Debug)]
pub struct Secrets {
    safe: Safe,
    news: Mutex<News>,
}

#[derive(Debug)]
struct News {
    fresh: bool,
    /// Names that cannot be masked, with the reason.
    useless: Vec<(String, &'static str)>,
}

impl Secrets {
    /// Secrets that are kept in this safe, those of earlier runs included.
    #[must_use]
    pub fn new(safe: Safe) -> Secrets {
        Secrets { safe, news: Mutex::new(News { fresh: true, useless: Vec::new() }) }
    }

    fn lock(&self) -> MutexGuard<'_, News> {
        self.news.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes the values of the variables of these names out of a new run's environment, `NAME=VALUE` each.
    ///
    /// # Errors
    /// When they cannot be kept: then the run must not start.
    pub fn learn(&self, names: &[String], environment: &[CString]) -> io::Result<()> {
        let value_of = |name: &String| {
            environment.iter().rev().find_map(|e| {
                let (key, value) = e.as_bytes().split_at_checked(name.len())?;
                value.strip_prefix(b"=").filter(|_| key == name.as_bytes())
            })
        };
        let (mut values, mut useless) = (Vec::new(), Vec::new());
        for name in names {
            match value_of(name) {
                Some(value) if value.len() >= SECRET_MIN => values.push(value.to_vec()),
                Some(_) => useless.push((name.clone(), "its value is too short to be masked")),
                None => useless.push((name.clone(), "no such variable is set")),
            }
        }
        self.safe.put(&values)?;
        *self.lock() = News { fresh: true, useless };
        Ok(())
    }

    /// A whole text with the values masked, for what is told of a service beside its output.
    #[must_use]
    pub fn hide(&self, text: &[u8]) -> Vec<u8> {
        Masks::new(&self.safe.values()).apply(text)
    }

    /// The masks, when something was learnt since the last call; what is wrong with it becomes notes.
    pub(super) fn news(&self, service: &str, notes: &mut Vec<String>) -> Option<Masks> {
        let mut news = self.lock();
        if !core::mem::take(&mut news.fresh) {
            return None;
        }
        let useless = core::mem::take(&mut news.useless);
        drop(news);
        notes.extend(useless.into_iter().map(|(name, why)| format!("the secret {name} of {service}: {why}")));
        Some(Masks::new(&self.safe.values()))
    }
}
