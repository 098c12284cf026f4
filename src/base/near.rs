//! Which of the known words was probably meant by a misspelt one.

/// The nearest of `known` to `word`, if it is near enough to be worth a suggestion: a third of the word's length in edits
/// (insert, delete, replace, swap of neighbours), at least one, at most three. Case does not count.
pub fn nearest<'a>(word: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let lower = |s: &str| s.chars().flat_map(char::to_lowercase).collect::<Vec<_>>();
    let wanted = lower(word);
    let limit = (wanted.len().div_ceil(3)).clamp(1, 3);
    known
        .into_iter()
        .map(|k| (distance(&wanted, &lower(k)), k))
        .filter(|(d, k)| *d <= limit && *d < k.len())
        .min_by_key(|(d, _)| *d)
        .map(|(_, k)| k)
}

/// Optimal string alignment distance.
fn distance(a: &[char], b: &[char]) -> usize {
    let mut rows = [vec![0; b.len() + 1], (0..=b.len()).collect::<Vec<_>>(), vec![0; b.len() + 1]];
    for i in 1..=a.len() {
        let [before, last, row] = &mut rows;
        row[0] = i;
        for j in 1..=b.len() {
            let cost = usize::from(a[i - 1] != b[j - 1]);
            row[j] = (last[j] + 1).min(row[j - 1] + 1).min(last[j - 1] + cost);
            if i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] {
                row[j] = row[j].min(before[j - 2] + 1);
            }
        }
        rows.rotate_left(1);
    }
    rows[1][b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn suggests_what_is_near_and_nothing_else() {
        let known = ["status", "start", "stop", "restart", "reload"];
        assert_eq!(nearest("statsu", known), Some("status"));
        assert_eq!(nearest("Stopp", known), Some("stop"));
        assert_eq!(nearest("relaod", known), Some("reload"));
        assert_eq!(nearest("frobnicate", known), None);
        assert_eq!(nearest("", known), None);
    }
}
