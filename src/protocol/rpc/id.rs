//! The id of a request, kept until its reply. Pure.

use core::fmt;

/// The JSON text of an id, byte for byte as it came. The usual short ones take no memory of their own.
#[derive(Clone, PartialEq, Eq)]
pub struct Id(Text);

#[derive(Clone, PartialEq, Eq)]
enum Text {
    Short { len: u8, bytes: [u8; SHORT] },
    Long(Box<str>),
}

const SHORT: usize = 22;

impl Id {
    #[must_use]
    pub fn new(json: &str) -> Id {
        let mut bytes = [0; SHORT];
        match (bytes.get_mut(..json.len()), u8::try_from(json.len())) {
            (Some(to), Ok(len)) => {
                to.copy_from_slice(json.as_bytes());
                Id(Text::Short { len, bytes })
            }
            _ => Id(Text::Long(json.into())),
        }
    }

    #[must_use]
    pub fn as_str(&self) -> &str {
        match &self.0 {
            Text::Short { len, bytes } => {
                bytes.get(..usize::from(*len)).and_then(|b| core::str::from_utf8(b).ok()).unwrap_or("null")
            }
            Text::Long(text) => text,
        }
    }
}

impl fmt::Debug for Id {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_of_any_length_are_kept() {
        for n in [0, 1, SHORT - 1, SHORT, SHORT + 1, 300] {
            let text = "7".repeat(n);
            assert_eq!(Id::new(&text).as_str(), text);
        }
        assert_eq!(Id::new("\"\u{e4}\"").as_str(), "\"\u{e4}\"");
    }
}
