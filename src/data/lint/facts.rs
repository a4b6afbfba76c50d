//! From a row to what the checks ask of it.
//!
//! *Why*: a row's facts are a few numbers and hashes of the row alone. So rows are read on all cores, and
//! of a million rows no text stays in memory.

use super::check::Check;
use super::text;
use crate::data::chat::{Content, Message};
use crate::data::config::{AssistantTurns, RowConfig};
use crate::data::dataset::row::{RowReader, check_answers};
use crate::data::format::RowExample;
use crate::data::rows::read::{Place, Record, Row};
use crate::data::rows::{Invalid, RowError};
use crate::error::{Error, Result};
use crate::loss::Role;
use sha2::{Digest, Sha256};
use std::mem;

/// What contents are found again by: 128 bits of their SHA-256.
pub(super) type Key = [u8; 16];

/// A row, and what it says.
pub(super) struct Facts {
    /// Its number, as in score files.
    pub number: usize,
    pub place: Place,
    /// The reason where it cannot be used.
    pub contents: std::result::Result<Contents, (Invalid, Error)>,
}

/// What the texts of a row are.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Contents {
    /// Of the normalized prompt, where there is one.
    pub prompt: Option<Key>,
    /// Of prompt and answers, whichever of them is preferred.
    pub answers: Key,
    /// 0 or 1: which of them, or which label.
    pub order: u8,
    /// Of prompt and answers in their order, normalized.
    pub normal: Key,
    /// A bit for each check that the row fails on its own.
    pub found: u64,
    pub scripts: u32,
    /// Characters of the prompt, of the chosen and of the rejected answer.
    pub lengths: [Option<usize>; 3],
    /// Messages and turns of the assistant, of a conversation.
    pub turns: Option<[usize; 2]>,
}

impl Contents {
    pub fn fails(&self, check: Check) -> bool {
        self.found >> check as u32 & 1 == 1
    }

    fn find(&mut self, check: Check, is_so: bool) {
        self.found |= u64::from(is_so) << check as u32;
    }
}

/// The facts of a record, read as a run with this configuration would.
///
/// # Errors
/// If no row of its kind can be read.
pub(super) fn facts(number: usize, record: Record, config: &RowConfig) -> Result<Facts> {
    let Record { place, row } = record;
    let row = row.map_err(|error| RowError::Unusable(Invalid::NotAnObject, error));
    let contents = row.and_then(|row| read(&row, config));
    let contents = match contents {
        Ok(contents) => Ok(contents),
        Err(RowError::Unusable(reason, error)) => Err((reason, error)),
        Err(RowError::Fatal(error)) => return Err(error),
    };
    Ok(Facts {
        number,
        place,
        contents,
    })
}

fn read(row: &Row, config: &RowConfig) -> std::result::Result<Contents, RowError> {
    let (example, common, _) = RowReader::of_rows(config.format, config).contents(row)?;
    check_answers(&example)?;
    Ok(contents(&common.row, example, config))
}

/// The text of a content, and whether a chat template writes its turns.
struct Side {
    messages: Vec<Message>,
    is_chat: bool,
}

impl Side {
    fn new(content: Content, role: &str, config: &RowConfig) -> Self {
        match content {
            Content::Messages(messages) => Self {
                messages,
                is_chat: true,
            },
            Content::Text(text) => Self {
                messages: vec![Message::new(role, &text)],
                is_chat: config.tokens.apply_chat_template,
            },
        }
    }

    fn texts(&self) -> impl Iterator<Item = &str> {
        self.messages
            .iter()
            .map(|message| message.text().unwrap_or_default())
    }

    /// The text, where it is one that no template has a part in.
    fn plain(&self) -> Option<&str> {
        self.texts().next().filter(|_| !self.is_chat)
    }

    /// The characters of the messages that `counts`.
    fn length(&self, counts: impl Fn(&Message) -> bool) -> usize {
        let counted = self.messages.iter().filter(|message| counts(message));
        counted
            .map(|message| message.text().map_or(0, |text| text.chars().count()))
            .sum()
    }

    fn key(&self) -> Key {
        let mut hasher = Sha256::new();
        for message in &self.messages {
            // A map of strings and values has no key that could not be written.
            let json = serde_json::to_vec(message).unwrap_or_default();
            hasher.update((json.len() as u64).to_le_bytes());
            hasher.update(json);
        }
        short(hasher)
    }

    /// Without the names of the roles, so that a text is the same as a message that says it.
    fn normal_key(&self) -> Key {
        let (mut hasher, mut text) = (Sha256::new(), String::new());
        for message in self.texts() {
            text::normalized(message, &mut text);
            hasher.update((text.len() as u64).to_le_bytes());
            hasher.update(mem::take(&mut text));
        }
        short(hasher)
    }
}

fn short(hasher: Sha256) -> Key {
    let mut key = Key::default();
    key.copy_from_slice(&hasher.finalize()[..16]);
    key
}

fn joined<'a>(keys: impl IntoIterator<Item = &'a Key>) -> Key {
    let mut hasher = Sha256::new();
    keys.into_iter().for_each(|key| hasher.update(key));
    short(hasher)
}

fn contents(row: &Row, example: RowExample, config: &RowConfig) -> Contents {
    let preference = example.preference;
    let (prompt, answers) = split(example, config);
    let prompt = prompt.map(|prompt| Side::new(prompt, "user", config));
    let answers: Vec<(Role, Side)> = answers
        .into_iter()
        .map(|(role, content)| (role, Side::new(content, "assistant", config)))
        .collect();
    let mut found = Contents::default();
    identify(prompt.as_ref(), &answers, &mut found);
    measure(prompt.as_ref(), &answers, &mut found);
    let score = |column| row.get(column).and_then(serde_json::Value::as_f64);
    let scores = score("score_chosen").zip(score("score_rejected"));
    found.find(
        Check::ScoresDisagree,
        scores.is_some_and(|(chosen, rejected)| chosen < rejected),
    );
    found.find(
        Check::LabelDisagrees,
        preference.is_some_and(|label| label < 0.5),
    );
    if let Some(prompt) = &prompt {
        of_prompt(prompt, config, &mut found);
    }
    of_answers(prompt.as_ref(), &answers, &mut found);
    for side in prompt.iter().chain(answers.iter().map(|(_, side)| side)) {
        of_texts(side, &mut found);
    }
    found
}

/// Parts a whole conversation where its answer begins, as a run does.
fn split(example: RowExample, config: &RowConfig) -> (Option<Content>, Vec<(Role, Content)>) {
    let RowExample {
        prompt,
        mut answers,
        ..
    } = example;
    if prompt.is_none()
        && let Some((_, Content::Messages(messages))) = answers.first_mut()
    {
        let mut turns = messages.iter();
        let at = match config.tokens.assistant_turns {
            AssistantTurns::All => turns.position(Message::is_assistant),
            AssistantTurns::Last => turns.rposition(Message::is_assistant),
        };
        let answer = messages.split_off(at.unwrap_or(messages.len()));
        let prompt = mem::replace(messages, answer);
        return (Some(Content::Messages(prompt)), answers);
    }
    (prompt, answers)
}

fn identify(prompt: Option<&Side>, answers: &[(Role, Side)], found: &mut Contents) {
    let key = prompt.map(Side::key).unwrap_or_default();
    let mut keys: Vec<Key> = answers.iter().map(|(_, answer)| answer.key()).collect();
    found.order = match (answers, keys.as_slice()) {
        ([(role, _)], _) => u8::from(*role == Role::Rejected),
        (_, [chosen, rejected]) => u8::from(chosen > rejected),
        _ => 0,
    };
    found.find(Check::SameAnswers, keys.len() == 2 && keys[0] == keys[1]);
    keys.sort_unstable();
    found.answers = joined([&key].into_iter().chain(&keys));
    let normal = prompt.map(Side::normal_key);
    let normals: Vec<Key> = answers
        .iter()
        .map(|(_, answer)| answer.normal_key())
        .collect();
    let order = Key::from([found.order * u8::from(answers.len() == 1); 16]);
    found.normal = joined(
        [&normal.unwrap_or_default(), &order]
            .into_iter()
            .chain(&normals),
    );
    // Rows without a prompt have none in common.
    found.prompt = normal;
}

fn measure(prompt: Option<&Side>, answers: &[(Role, Side)], found: &mut Contents) {
    let length = |role| {
        let (_, answer) = answers.iter().find(|(other, _)| *other == role)?;
        Some(answer.length(Message::is_assistant))
    };
    found.lengths = [
        prompt.map(|prompt| prompt.length(|_| true)),
        length(Role::Chosen),
        length(Role::Rejected),
    ];
    let first = answers.first().map(|(_, answer)| answer);
    let sides = || prompt.into_iter().chain(first);
    if sides().all(|side| !side.is_chat) {
        return;
    }
    let messages = || sides().flat_map(|side| &side.messages);
    let spoken = messages().filter(|message| message.is_assistant());
    found.turns = Some([messages().count(), spoken.count()]);
    let mut orders = answers.iter().map(|(_, answer)| {
        let all = prompt.into_iter().chain([answer]);
        alternates(all.flat_map(|side| &side.messages).map(Message::role))
    });
    let in_order = orders.all(|one| one);
    found.find(Check::TurnOrder, !in_order);
}

/// Whether user and assistant take turns, after what the system says; tools answer the assistant.
fn alternates<'a>(roles: impl Iterator<Item = &'a str>) -> bool {
    let mut before = "system";
    for role in roles {
        let fits = matches!(
            (before, role),
            ("system", "system" | "developer" | "user")
                | ("user", "assistant")
                | ("assistant", "user" | "tool")
                | ("tool", "tool" | "assistant")
        );
        if !fits {
            return false;
        }
        if role != "developer" {
            before = role;
        }
    }
    true
}

fn of_prompt(prompt: &Side, config: &RowConfig, found: &mut Contents) {
    found.find(
        Check::EmptyPrompt,
        prompt.texts().all(|text| text.trim().is_empty()),
    );
    let Some(text) = prompt.plain().filter(|text| !text.trim().is_empty()) else {
        return;
    };
    let begins = text.starts_with(char::is_whitespace) && !config.format.writes_turns;
    found.find(Check::PromptBegin, begins);
    found.find(Check::PromptEnd, text.ends_with([' ', '\t']));
}

fn of_answers(prompt: Option<&Side>, answers: &[(Role, Side)], found: &mut Contents) {
    let texts: Vec<&str> = answers
        .iter()
        .filter_map(|(_, side)| side.plain())
        .collect();
    if let [chosen, rejected] = texts[..] {
        let begins = |text: &str| text.starts_with(char::is_whitespace);
        found.find(Check::AnswersBegin, begins(chosen) != begins(rejected));
    }
    let before = prompt.and_then(Side::plain);
    for text in texts {
        // A text without a prompt is a whole transcript.
        found.find(
            Check::TurnInAnswer,
            before.is_some() && text::has_user_turn(text),
        );
        let balanced = text::is_balanced(before.unwrap_or_default(), text);
        found.find(Check::UnbalancedMarkers, !balanced);
    }
}

fn of_texts(side: &Side, found: &mut Contents) {
    for text in side.texts() {
        let characters = text::characters(text);
        found.scripts |= characters.scripts;
        found.find(Check::ControlCharacter, characters.control);
        found.find(Check::ReplacementCharacter, characters.replacement);
        found.find(Check::InvisibleCharacter, characters.invisible);
        found.find(Check::PrivateCharacter, characters.private);
        found.find(Check::Mojibake, text::is_mojibake(text));
        found.find(Check::RoleMarker, side.is_chat && text::has_marker(text));
    }
}
