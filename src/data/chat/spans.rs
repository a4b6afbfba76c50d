//! Where in a text `{% generation %}` stands.
//!
//! *Why*: only the finished text has positions. So the block's text goes through the template between two
//! letters that nothing else of it has: they are chosen among those that no message contains, and no message
//! can forge them.

use super::refusal::Refusal;
use super::request::Rendered;
use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

/// Private letters, each of which is four bytes that begin with [`LEAD`].
const PRIVATE: std::ops::Range<u32> = 0x10_0000..0x10_FFFE;
const LEAD: u8 = 0xF4;

/// The letters in front of and behind a block: the one that is kept here, and the next.
#[derive(Debug, Clone)]
pub(super) struct Marks(Arc<AtomicU32>);

impl Default for Marks {
    fn default() -> Self {
        Self(Arc::new(AtomicU32::new(PRIVATE.start)))
    }
}

impl Marks {
    /// Takes letters that none of `texts` has.
    pub fn choose<'a>(&self, texts: impl Iterator<Item = &'a [u8]>) -> Result<(), Refusal> {
        let mut used = HashSet::new();
        for text in texts.filter(|text| text.contains(&LEAD)) {
            let text = str::from_utf8(text).map_err(Refusal::failed)?;
            used.extend(
                text.chars()
                    .map(u32::from)
                    .filter(|letter| PRIVATE.contains(letter)),
            );
        }
        let mut pairs = PRIVATE.step_by(2);
        let free = pairs.find(|first| !used.contains(first) && !used.contains(&(first + 1)));
        let free = free.ok_or_else(|| Refusal::new("the messages use all private letters"))?;
        self.0.store(free, Ordering::Relaxed);
        Ok(())
    }

    fn letters(&self) -> [char; 2] {
        let first = self.0.load(Ordering::Relaxed);
        [first, first + 1].map(|letter| char::from_u32(letter).unwrap_or_default())
    }

    /// Puts them around the text of a block.
    pub fn filter(&self) -> impl Fn(&str) -> String + use<> {
        let marks = self.clone();
        move |text| {
            let [open, close] = marks.letters();
            format!("{open}{text}{close}")
        }
    }

    /// Takes them out of a text.
    pub fn take(&self, marked: &str) -> Rendered {
        let [open, close] = self.letters();
        let mut text = String::with_capacity(marked.len());
        let mut spans = Vec::new();
        let (mut depth, mut start) = (0_usize, 0);
        for part in marked.split_inclusive([open, close]) {
            text += part.trim_end_matches([open, close]);
            if part.ends_with(open) {
                if depth == 0 {
                    start = text.len();
                }
                depth += 1;
            } else if part.ends_with(close) {
                depth = depth.saturating_sub(1);
                if depth == 0 {
                    spans.push(start..text.len());
                }
            }
        }
        Rendered { text, spans }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn letters_of_the_messages_are_not_taken() {
        let marks = Marks::default();
        let text = "a\u{100000}b\u{100003}";
        marks.choose([text.as_bytes()].into_iter()).unwrap();
        let block = marks.filter()(text);
        let rendered = marks.take(&format!("x{block}\u{100000}{}", marks.filter()("é")));
        assert_eq!(rendered.text, format!("x{text}\u{100000}é"));
        assert_eq!(
            rendered.spans,
            [1..text.len() + 1, text.len() + 5..text.len() + 7]
        );
    }
}
