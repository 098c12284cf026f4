//! The last of what jobs have written, before hob ends.

use super::pace::DELAY_MIN;
use super::source::Order;
use super::{Capture, turn};
use crate::base::time::Now;
use core::time::Duration;
use std::sync::TryLockError;

impl Capture {
    /// Moves all that lies in the pipes, on the caller's thread and for no longer than `limit`, before hob ends. False
    /// when something is left.
    pub fn flush(&mut self, limit: Duration, clock: impl Fn() -> Now) -> bool {
        let until = clock().mono + limit;
        let Some(desk) = &self.desk else { return true };
        while matches!(desk.try_lock(), Err(TryLockError::WouldBlock)) {
            if clock().mono >= until {
                return false;
            }
            std::thread::sleep(DELAY_MIN);
        }
        for service in self.services.values() {
            service.source.order(Order::Finish);
        }
        loop {
            let (mut empty, mut moved) = (true, false);
            for service in self.services.values() {
                let outcome = turn(desk, &service.writer, clock());
                empty &= outcome.drained && outcome.moved == 0;
                moved |= outcome.moved > 0 || outcome.again;
            }
            if empty || clock().mono >= until {
                return empty;
            }
            if !moved {
                std::thread::sleep(DELAY_MIN);
            }
        }
    }
}
