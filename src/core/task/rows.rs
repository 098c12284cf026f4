//! What is answered about many tasks: so many rows, and counts of the rest. Pure.

use crate::base::ids::TaskId;
use crate::base::limits::TASK_ROWS_MAX;

/// What the rows of one answer come to at most, in bytes, apart from a first one that is larger. It leaves room for the
/// rest of a reply.
pub(super) const ROWS_BYTES_MAX: usize = 4 << 20;

/// Rows of tasks in the order of their ids. Where there are too many, those that are worth a look go first.
#[derive(Debug, Default)]
pub(super) struct Rows {
    notable: Kept,
    plain: Kept,
    count: usize,
}

#[derive(Debug, Default)]
struct Kept {
    rows: Vec<(TaskId, String)>,
    bytes: usize,
    full: bool,
}

impl Kept {
    fn push(&mut self, id: TaskId, row: impl FnOnce() -> String) {
        if self.full {
            return;
        }
        let row = row();
        let bytes = self.bytes + row.len();
        self.full = !self.rows.is_empty() && bytes > ROWS_BYTES_MAX;
        if !self.full {
            self.bytes = bytes;
            self.rows.push((id, row));
            self.full = self.rows.len() == TASK_ROWS_MAX;
        }
    }
}

impl Rows {
    pub(super) fn push(&mut self, id: TaskId, notable: bool, row: impl FnOnce() -> String) {
        self.count += 1;
        if notable { &mut self.notable } else { &mut self.plain }.push(id, row);
    }

    /// The rows as a JSON array, and how many were left out.
    pub(super) fn finish(self) -> (String, u64) {
        let Kept { rows: mut all, mut bytes, .. } = self.notable;
        for (id, row) in self.plain.rows {
            bytes += row.len();
            if all.len() == TASK_ROWS_MAX || (bytes > ROWS_BYTES_MAX && !all.is_empty()) {
                break;
            }
            all.push((id, row));
        }
        all.sort_unstable_by_key(|(id, _)| *id);
        let left_out = u64::try_from(self.count - all.len()).unwrap_or(u64::MAX);
        (format!("[{}]", all.into_iter().map(|(_, row)| row).collect::<Vec<_>>().join(",")), left_out)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_too_many_those_worth_a_look_are_shown_in_order() {
        let most = u64::try_from(TASK_ROWS_MAX).unwrap();
        let of = |all: u64, notable: fn(u64) -> bool| {
            let mut rows = Rows::default();
            (1..=all).for_each(|n| rows.push(TaskId(n), notable(n), || n.to_string()));
            let (text, left_out) = rows.finish();
            (serde_json::from_str::<Vec<u64>>(&text).unwrap(), left_out)
        };
        assert_eq!(of(0, |_| false), (vec![], 0));
        assert_eq!(of(3, |n| n == 2), (vec![1, 2, 3], 0));
        assert_eq!(of(most, |n| n % 2 == 0), ((1..=most).collect(), 0));
        let expected: Vec<u64> = (1..most).chain([most + 7]).collect();
        assert_eq!(of(most + 9, |n| n == 1007), (expected, 9));
        assert_eq!(of(2 * most, |_| true), ((1..=most).collect(), most));
    }

    #[test]
    fn rows_that_are_too_large_together_are_left_out_and_those_worth_a_look_go_first() {
        let of = |sizes: &[(bool, usize)]| {
            let mut rows = Rows::default();
            for (n, (notable, bytes)) in (1..).zip(sizes) {
                rows.push(TaskId(n), *notable, || format!("\"{}\"", "x".repeat(bytes - 2)));
            }
            let (text, left_out) = rows.finish();
            (serde_json::from_str::<Vec<String>>(&text).unwrap().len(), left_out, text.len())
        };
        let half = ROWS_BYTES_MAX / 2;
        assert_eq!(of(&[(false, half), (false, half), (false, 9)]), (2, 1, 2 * half + 3));
        assert_eq!(of(&[(false, half), (true, half), (true, half), (true, 9)]).1, 2);
        // The first is given however large it is.
        assert_eq!(of(&[(true, 3 * half), (true, 9), (false, 9)]), (1, 2, 3 * half + 2));
    }
}
