//! The win rate of a model's samples, by a judge.
//!
//! Hides who judges: a language model behind a chat endpoint, or a scorer that runs here. Both get the
//! same questions in the same order, and their replies are read the same way.
//!
//! *Why*: a judge's figure is only as good as the judge, which nobody has tested on these very items. So
//! every reply is kept to the letter, and with the win rate comes what it depends on.

mod ask;
mod cache;
mod calls;
mod endpoint;
mod figures;
mod items;
mod offline;
mod reply;
mod scorer;
mod template;

pub use ask::{Asked, Judge, ask, keys};
pub use cache::{Cache, Entry};
pub use calls::{Call, Kind, calls};
pub use endpoint::{Endpoint, Settings};
pub use figures::{
    Figures, Identical, Judged, Length, MOST_MISSING, Null, Outcome, Position, figures, judged,
};
pub use items::{Against, Answer, Item, Items};
pub use offline::{Lexicon, Offline};
pub use reply::{Miss, Reply};
pub use scorer::{Scorer, TooLong};
pub use template::{Grammar, HELPFUL_HARMLESS, Template, Verdict};
