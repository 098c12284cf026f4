//! What a kernel or a file system can be found to be, by the same names on every system.

/// Something that the kernel may know.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Feature {
    pub name: &'static str,
    pub found: Found,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Found {
    No,
    Yes,
    /// In this version of it, from 1 on.
    Version(u32),
}

/// What keeps a file, with its name for people.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Storage {
    Local,
    /// Gone with the next boot.
    Memory(&'static str),
    Network(&'static str),
    /// A program, which may fetch it from anywhere.
    Unsure(&'static str),
}
