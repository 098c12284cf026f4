//! Rotation because somebody asks for it: each named log begins a new file, and the answer says which did.

use super::file::LogFile;
use super::source::Order;
use super::{Capture, Did, Host, Job, Turned};
use crate::base::ids::ReqId;
use crate::base::time::Now;
use crate::config::spec::ServiceSpec;
use crate::core::Input;
use serde_json::{Value, json};
use std::sync::Arc;

/// What is known of one request.
#[derive(Debug, Default)]
pub(super) struct Rows {
    rows: Vec<Value>,
    missing: usize,
}

impl Capture {
    /// Begins new files for these services; `Input::Rotated` follows, from here or from `done`.
    pub fn rotate(
        &mut self,
        req: ReqId,
        names: Vec<(Arc<str>, Arc<ServiceSpec>)>,
        now: Now,
        host: &mut impl Host,
    ) -> Option<Input> {
        let rows = Rows { rows: Vec::new(), missing: names.len() };
        if names.is_empty() {
            return Some(answer(req, rows));
        }
        self.rotations.insert(req, rows);
        for (name, spec) in names {
            if let Some(service) = self.services.get(&name) {
                service.source.order(Order::Rotate(req));
                self.enqueue(&name);
            } else {
                let share = self.share(&name);
                let job: Job = Box::new(move || {
                    let result = rotate_unused(share.names(), spec.log.max_files, now);
                    share.forget();
                    Turned(Did::Rotated { req, name, result })
                });
                host.files(job);
            }
        }
        self.pump(now, host);
        None
    }

    /// One of the logs is done.
    pub(super) fn rotated(&mut self, req: ReqId, name: &str, result: Result<bool, String>) -> Option<Input> {
        let rows = self.rotations.get_mut(&req)?;
        rows.rows.push(match result {
            Ok(true) => json!({"name": name, "rotated": true}),
            Ok(false) => json!({"name": name, "rotated": false, "message": "its file is empty"}),
            Err(why) => json!({"name": name, "rotated": false, "message": why}),
        });
        rows.missing = rows.missing.saturating_sub(1);
        if rows.missing > 0 {
            return None;
        }
        self.rotations.remove(&req).map(|rows| answer(req, rows))
    }
}

fn answer(req: ReqId, rows: Rows) -> Input {
    Input::Rotated { req, result: Ok(json!({"services": rows.rows}).to_string()) }
}

/// Rotates a log that nobody writes to.
fn rotate_unused(names: &super::rotate::Names, keep: u32, now: Now) -> Result<bool, String> {
    if !names.log(0).exists() {
        return Ok(false);
    }
    let mut log = LogFile::open(names, now.wall, 0).map_err(|e| e.to_string())?;
    if log.size() == 0 {
        return Ok(false);
    }
    log.rotate((keep, false), now.wall).map(|()| true).map_err(|e| e.to_string())
}
