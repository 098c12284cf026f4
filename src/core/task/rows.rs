//! What is answered about many tasks: so many rows, and counts of the rest. Pure.

use crate::base::ids::TaskId;
use crate::base::limits::TASK_ROWS_MAX;

/// Rows of tasks in the order of their ids. Where there are too many, those that are worth a look go first.
#[derive(Debug, Default)]
pub(super) struct Rows {
    notable: Vec<(TaskId, String)>,
    plain: Vec<(TaskId, String)>,
    count: usize,
}

impl Rows {
    pub(super) fn push(&mut self, id: TaskId, notable: bool, row: impl FnOnce() -> String) {
        self.count += 1;
        let rows = if notable { &mut self.notable } else { &mut self.plain };
        if rows.len() < TASK_ROWS_MAX {
            rows.push((id, row()));
        }
    }

    /// The rows as a JSON array, and how many were left out.
    pub(super) fn finish(mut self) -> (String, u64) {
        self.plain.truncate(TASK_ROWS_MAX - self.notable.len());
        let mut rows = self.notable;
        rows.append(&mut self.plain);
        rows.sort_unstable_by_key(|(id, _)| *id);
        let left_out = u64::try_from(self.count - rows.len()).unwrap_or(u64::MAX);
        (format!("[{}]", rows.into_iter().map(|(_, row)| row).collect::<Vec<_>>().join(",")), left_out)
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
}
