//! Request keys that no two processes ever share.

use std::io::Read;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

/// A new key: pid, time and chance of this process, and a number that counts up.
pub(super) fn next() -> String {
    static PROCESS: OnceLock<(u128, u64)> = OnceLock::new();
    static COUNT: AtomicU64 = AtomicU64::new(1);
    let (time, chance) = PROCESS.get_or_init(|| {
        let mut random = [0; 8];
        // Without it pid and time have to do.
        let _ = std::fs::File::open("/dev/urandom").and_then(|mut f| f.read_exact(&mut random));
        let time = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |t| t.as_nanos());
        (time, u64::from_ne_bytes(random))
    });
    let count = COUNT.fetch_add(1, Ordering::Relaxed);
    format!("{:x}-{time:x}-{chance:x}-{count:x}", std::process::id())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::limits::REQUEST_KEY_MAX;

    #[test]
    fn keys_differ_and_fit() {
        let (a, b) = (next(), next());
        assert_ne!(a, b);
        assert!(a.len() < REQUEST_KEY_MAX && b.len() < REQUEST_KEY_MAX);
    }
}
