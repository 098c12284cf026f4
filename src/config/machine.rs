//! Readers of what a service may use of the machine: processors and the priority of its input and output. Touches
//! nothing.

use super::error::quote;
use super::keys::IO_CLASSES;
use super::read::{Bad, Cx};
use super::spec::{Cpus, IoClass, IoNice};
use super::tree::{Node, Value};
use crate::base::near::nearest;

/// The level of a class that is given without one, as ionice(1) has it.
const LEVEL: u8 = 4;
pub(super) const LEVEL_MAX: u8 = 7;
/// The highest number of a processor.
const CPU_MAX: u16 = 1_023;

pub(super) fn ionice(node: &Node) -> Result<IoNice, Bad> {
    let Value::Text(t) = &node.value else { return Err(Bad::Kind(None)) };
    let (class, level) = t.split_once(':').map_or((t.as_str(), None), |(class, level)| (class, Some(level)));
    let Some((_, class)) = IO_CLASSES.iter().find(|(word, _)| *word == class) else {
        return Err(Bad::Kind(nearest(class, IO_CLASSES.iter().map(|(word, _)| *word)).map(quote)));
    };
    match (class, level) {
        (_, None) => Ok(IoNice { class: *class, level: LEVEL }),
        (IoClass::Idle, Some(_)) => Err(Bad::Kind(Some(quote("idle")))),
        (_, Some(level)) => match level.parse() {
            Ok(level @ 0..=LEVEL_MAX) => Ok(IoNice { class: *class, level }),
            _ => Err(Bad::Kind(None)),
        },
    }
}

pub(super) fn cpus(node: &Node, cx: &mut Cx<'_, '_>) -> Result<Cpus, Bad> {
    let text = match &node.value {
        Value::Text(t) => t.as_str(),
        Value::Number(n) => return Err(Bad::Kind(Some(quote(n)))),
        _ => return Err(Bad::Kind(None)),
    };
    let mut ranges: Vec<(u16, u16)> = Vec::new();
    for part in text.split(',').map(str::trim) {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let (Ok(first), Ok(last)) = (first.parse::<u16>(), last.parse::<u16>()) else { return Err(Bad::Kind(None)) };
        if first > last {
            return Err(cx.suggest(node.pos, format!("{part} ends before it begins"), Some(format!("{last}-{first}"))));
        }
        if last > CPU_MAX {
            return Err(cx.say(node.pos, format!("{CPU_MAX} is the highest number of a processor")));
        }
        ranges.push((first, last));
    }
    ranges.sort_unstable();
    let mut merged: Vec<(u16, u16)> = Vec::with_capacity(ranges.len());
    for (first, last) in ranges {
        match merged.last_mut() {
            Some(before) if first <= before.1 + 1 => before.1 = before.1.max(last),
            _ => merged.push((first, last)),
        }
    }
    Ok(Cpus(merged))
}
