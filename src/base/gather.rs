//! Filling maps and sets.

/// For iterators: `collect` for a map or a set sorts a list of all first, by some kilobytes of code that each place
/// gets for itself. Here one after the other is inserted, which the program can do anyway.
pub trait Gather: Iterator + Sized {
    fn gather<C: Default + Extend<Self::Item>>(self) -> C {
        let mut all = C::default();
        all.extend(self);
        all
    }
}

impl<I: Iterator> Gather for I {}
