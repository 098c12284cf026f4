//! What tells this machine from others.

/// Longer names are cut.
const NAME_MAX: usize = 256;
/// Where systems keep a name that no other machine has.
const FILES: [&str; 3] = ["/etc/machine-id", "/var/lib/dbus/machine-id", "/etc/hostid"];

/// An id of the machine that outlives boots, else its name; empty where it has neither.
#[must_use]
pub fn id() -> String {
    let text = |path: &&str| std::fs::read_to_string(path).ok().map(|t| t.trim().to_owned()).filter(|t| !t.is_empty());
    FILES.iter().find_map(text).unwrap_or_else(name)
}

fn name() -> String {
    let mut buffer = [0_u8; NAME_MAX];
    // SAFETY: the buffer is as long as the call is told.
    let result = unsafe { libc::gethostname(buffer.as_mut_ptr().cast(), buffer.len()) };
    let end = buffer.iter().position(|b| *b == 0).unwrap_or(buffer.len());
    let name = buffer.get(..end).unwrap_or_default();
    if result == 0 { String::from_utf8_lossy(name).into_owned() } else { String::new() }
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_machine_has_a_name_that_stays() {
        assert_eq!(super::id(), super::id());
        assert!(!super::name().is_empty());
    }
}
