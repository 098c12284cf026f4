//! What the keeper says: lines of hob's own log, in the way that the daemon has read in the config.
//!
//! Before the first daemon has told that, a line waits; but not one about an error, and none once a daemon serves or
//! has died.

use crate::base::log::{Level, LogFormat, LogStyle};
use crate::base::time::Wall;

/// Lines that wait at most.
const WAITING_MAX: usize = 16;

/// One line of the keeper, to be written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Line<'a> {
    pub wall: Wall,
    pub level: Level,
    pub format: LogFormat,
    /// No line feed at its end.
    pub text: &'a str,
}

#[derive(Debug, Default)]
pub(super) struct Words {
    /// `None` until a daemon has told it.
    style: Option<LogStyle>,
    waiting: Vec<(Wall, Level, String)>,
}

impl Words {
    pub(super) fn style(&self) -> LogStyle {
        self.style.unwrap_or(LogStyle::DEFAULT)
    }

    pub(super) fn say(&mut self, wall: Wall, level: Level, text: &str, tell: &mut dyn FnMut(&Line<'_>)) {
        self.waiting.push((wall, level, text.to_owned()));
        if self.style.is_some() || level == Level::Error || self.waiting.len() >= WAITING_MAX {
            self.release(tell);
        }
    }

    pub(super) fn set_style(&mut self, style: LogStyle, tell: &mut dyn FnMut(&Line<'_>)) {
        self.style = Some(style);
        self.release(tell);
    }

    /// Nothing waits any longer.
    pub(super) fn release(&mut self, tell: &mut dyn FnMut(&Line<'_>)) {
        let style = self.style();
        for (wall, level, text) in self.waiting.drain(..).filter(|(_, level, _)| *level <= style.level) {
            tell(&Line { wall, level, format: style.format, text: &text });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_wait_for_the_style_and_serious_ones_do_not() {
        let mut words = Words::default();
        let mut told = Vec::new();
        let mut tell = |line: &Line<'_>| told.push(format!("{:?} {:?} {}", line.level, line.format, line.text));
        words.say(Wall(1), Level::Info, "a", &mut tell);
        words.say(Wall(2), Level::Warn, "b", &mut tell);
        words.set_style(LogStyle { level: Level::Warn, format: LogFormat::Json }, &mut tell);
        words.say(Wall(3), Level::Info, "c", &mut tell);
        let mut young = Words::default();
        young.say(Wall(1), Level::Info, "d", &mut tell);
        young.say(Wall(2), Level::Error, "e", &mut tell);
        assert_eq!(told, ["Warn Json b", "Info Text d", "Error Text e"]);
        let (mut count, mut young) = (0, Words::default());
        (0..WAITING_MAX).for_each(|_| young.say(Wall(1), Level::Info, "-", &mut |_| count += 1));
        assert_eq!(count, WAITING_MAX);
    }
}
