//! Users by their names: the protocol has their numbers. Reads the accounts of the system once.

use crate::sys::user::Accounts;
use std::path::Path;
use std::sync::LazyLock;

static ACCOUNTS: LazyLock<Option<Accounts>> = LazyLock::new(|| Accounts::read(Path::new("/etc")).ok());

/// How a text of the protocol names a user who is not root.
const NUMBER: &str = "uid ";

/// `alice` for 1000, or `uid 1000` where no account has that number.
pub(crate) fn name(uid: u32) -> String {
    let user = ACCOUNTS.as_ref().and_then(|all| all.user(&uid.to_string(), Some("0")).ok());
    user.map(|user| user.name).filter(|name| !name.is_empty()).unwrap_or_else(|| format!("{NUMBER}{uid}"))
}

/// A text with every `uid 1000` in it as the name.
pub(crate) fn named(text: &str) -> String {
    replaced(text, name)
}

fn replaced(text: &str, name: impl Fn(u32) -> String) -> String {
    let mut parts = text.split(NUMBER);
    let mut out = parts.next().unwrap_or("").to_owned();
    for part in parts {
        let digits = part.bytes().take_while(u8::is_ascii_digit).count();
        let (number, rest) = part.split_at(digits);
        let begins = out.chars().next_back().is_none_or(|c| !c.is_alphanumeric());
        match number.parse().ok().filter(|_| begins) {
            Some(uid) => out.push_str(&name(uid)),
            None => out.push_str(&format!("{NUMBER}{number}")),
        }
        out.push_str(rest);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_of_users_become_names_and_nothing_else_does() {
        let name = |uid: u32| if uid == 7 { "alice".to_owned() } else { format!("uid {uid}") };
        for (text, want) in [
            ("stopped by uid 7 (pid 12), for uid 8", "stopped by alice (pid 12), for uid 8"),
            ("uid 7", "alice"),
            ("uid 77 and fluid 7, uid x, uid ", "uid 77 and fluid 7, uid x, uid "),
            ("nobody", "nobody"),
        ] {
            assert_eq!(replaced(text, name), want);
        }
        assert_eq!(super::name(0), "root");
    }
}
