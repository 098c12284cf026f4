//! What the index says of bytes that are read back: when they were written, and on which stream.

use super::index::{Record, What};
use super::tail::Share;
use super::times::index_of;
use crate::base::time::Wall;
use std::io;

/// Bytes of one time and stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Piece {
    pub position: u64,
    /// When they were written, or up to a second later; `None` where no index says it.
    pub wall: Option<Wall>,
    /// 0 both in one, 1 and 2 standard output and error.
    pub stream: u32,
    pub bytes: Vec<u8>,
}

/// Cuts bytes that begin at this position and lie in one file into pieces.
///
/// # Errors
/// What reading the index answers.
pub fn cut(share: &Share, position: u64, bytes: Vec<u8>) -> io::Result<Vec<Piece>> {
    let spans = share.spans()?;
    let number = spans.files.iter().position(|s| s.base <= position);
    let index = match number.and_then(|n| Some((n, spans.files.get(n)?.base))) {
        Some((number, base)) => index_of(share, number, base)?,
        None => None,
    };
    let end = position + bytes.len() as u64;
    let records = index.map_or_else(|| Ok(Vec::new()), |index| index.around(position, end))?;
    let mut pieces: Vec<Piece> = Vec::new();
    let mut rest = bytes;
    let mut at = position;
    for pair in records.iter().map(Some).chain([None]).collect::<Vec<_>>().windows(2) {
        let (Some(record), next) = (pair[0], pair[1]) else { continue };
        let until = next.map_or(end, |r| r.position.clamp(at, end));
        let tail = rest.split_off(usize::try_from(until - at).unwrap_or(usize::MAX).min(rest.len()));
        push(&mut pieces, Some(record), at, core::mem::replace(&mut rest, tail));
        at = until;
    }
    push(&mut pieces, None, at, rest);
    Ok(pieces)
}

fn push(pieces: &mut Vec<Piece>, record: Option<&Record>, position: u64, bytes: Vec<u8>) {
    if bytes.is_empty() {
        return;
    }
    let (wall, stream) = match record.map(|r| r.what) {
        Some(What::Output { wall, stream }) => (Some(wall), stream & 0xff),
        _ => (None, 0),
    };
    pieces.push(Piece { position, wall, stream, bytes });
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::ids::RunId;
    use crate::daemon::capture::index::Index;
    use crate::daemon::capture::rotate::Names;
    use crate::daemon::capture::testing::Dir;

    #[test]
    fn bytes_are_cut_where_time_or_stream_change() {
        let dir = Dir::new();
        let names = Names::new(dir.path("a.log"));
        std::fs::write(names.log(0), [b'x'; 100]).unwrap();
        let output = |wall, position, stream| Record { position, what: What::Output { wall: Wall(wall), stream } };
        let mut index = Index::replace(&names.index(0), output(1, 0, 0), None).unwrap();
        for record in [
            output(2, 10, 1),
            Record { position: 15, what: What::Run(RunId(9)) },
            output(3, 20, 0x102),
            output(4, 30, 1),
            output(5, 200, 2),
        ] {
            index.append(record, || names.index(0)).unwrap();
        }
        let share = Share::new(names.clone());
        let cut = |from: u64, len: usize| -> Vec<(u64, Option<i64>, u32, usize)> {
            let pieces = cut(&share, from, vec![b'x'; len]).unwrap();
            pieces.iter().map(|p| (p.position, p.wall.map(|w| w.0), p.stream, p.bytes.len())).collect()
        };
        assert_eq!(cut(0, 5), [(0, Some(1), 0, 5)]);
        assert_eq!(cut(5, 10), [(5, Some(1), 0, 5), (10, Some(2), 1, 5)]);
        assert_eq!(cut(16, 84), [(16, Some(2), 1, 4), (20, Some(3), 2, 10), (30, Some(4), 1, 70)]);
        assert_eq!(cut(30, 1), [(30, Some(4), 1, 1)]);
        std::fs::remove_file(names.index(0)).unwrap();
        assert_eq!(cut(30, 4), [(30, None, 0, 4)]);
    }
}
