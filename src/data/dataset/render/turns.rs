//! Where in the rendering of a conversation the prompt ends and the assistant speaks.
//!
//! Hides the two ways to know it: the template's own marks, and renderings of the conversation up to each
//! turn.
//!
//! *Why*: the text is exactly the template's rendering of the whole conversation; only bounds in it are
//! looked for. `{% generation %}` says them. Without it a turn begins where the rendering of all before it,
//! with the generation prompt, ends, and the whole must begin with that: else the model would never see, when
//! it is asked, what it is trained on.

use super::{Answer, Rendering};
use crate::data::chat::{ChatTemplate, Conversation, Message, Rendered};
use crate::data::rows::{Invalid, RowError};
use crate::data::tokens::Turn;
use crate::error::Error;
use crate::loss::Role;
use serde_json::{Map, Value};
use std::collections::HashMap;
use std::ops::Range;

/// Variables of a template by name.
pub(super) type Variables = Map<String, Value>;

/// A prompt and its answers as messages.
pub(super) struct Chat {
    pub prompt: Vec<Message>,
    pub answers: Vec<(Role, Vec<Message>)>,
    pub variables: Variables,
    /// Whether the row is one conversation, without a prompt of its own.
    pub is_whole: bool,
}

/// A text: the number of a conversation, of its messages, and whether the generation prompt is behind them.
pub(super) type Key = crate::data::chat::Rendering;

/// The texts of conversations, as they are asked for.
pub(super) struct Texts<'a> {
    template: &'a ChatTemplate,
    conversations: Vec<Vec<Message>>,
    variables: &'a Variables,
    known: HashMap<Key, Result<Rendered, Error>>,
}

impl<'a> Texts<'a> {
    pub fn new(
        template: &'a ChatTemplate,
        conversations: Vec<Vec<Message>>,
        variables: &'a Variables,
    ) -> Self {
        Self {
            template,
            conversations,
            variables,
            known: HashMap::new(),
        }
    }

    /// Renders what is not known yet, in one exchange.
    pub fn fetch(&mut self, keys: &[Key]) -> Rendering<()> {
        let mut new: Vec<Key> = Vec::new();
        for key in keys {
            if !self.known.contains_key(key) && !new.contains(key) {
                new.push(*key);
            }
        }
        if new.is_empty() {
            return Ok(());
        }
        let variables = self.variables;
        let conversations = self.conversations.iter().map(|messages| Conversation {
            messages,
            variables,
        });
        let conversations: Vec<_> = conversations.collect();
        let texts = self.template.render_all(&conversations, &new);
        self.known
            .extend(new.into_iter().zip(texts.map_err(RowError::Fatal)?));
        Ok(())
    }

    /// A text that was fetched.
    pub fn get(&self, key: Key) -> Rendering<&Rendered> {
        match self.known.get(&key) {
            Some(Ok(rendered)) => Ok(rendered),
            Some(Err(error)) => Err(RowError::Unusable(Invalid::TemplateRefuses, error.clone())),
            None => Err(RowError::Fatal(Error::failed("a text was not rendered"))),
        }
    }
}

/// The prompt and the answers as text.
pub(super) fn split(
    template: &ChatTemplate,
    chat: &Chat,
    ends: &[String],
) -> Rendering<(String, Vec<Answer>)> {
    let conversations: Vec<Vec<Message>> = chat
        .answers
        .iter()
        .map(|(_, messages)| [chat.prompt.as_slice(), messages].concat())
        .collect();
    let mut texts = Texts::new(template, conversations, &chat.variables);
    let mut keys = vec![Key::new(0, chat.prompt.len(), true)];
    for (number, (_, messages)) in chat.answers.iter().enumerate() {
        keys.push(Key::new(number, chat.prompt.len() + messages.len(), false));
        if !template.has_spans() {
            keys.extend(bounds(number, chat));
        }
    }
    texts.fetch(&keys)?;
    let mut split = Splitter { chat, ends, texts };
    let mut prompt: Option<String> = None;
    let mut answers = Vec::new();
    for (number, (role, _)) in chat.answers.iter().enumerate() {
        let marked = match template.has_spans() {
            true => split.by_marks(number)?,
            false => None,
        };
        let found = match marked {
            Some(found) => found,
            None => split.by_prefixes(number)?,
        };
        let whole = &split.whole(number)?.text;
        let (own, text) = (&whole[..found.text.start], &whole[found.text.clone()]);
        match &prompt {
            Some(prompt) if prompt != own => {
                let places = ["in front of one answer", "in front of the other"];
                return Err(unstable([prompt, own], places, TEMPLATE));
            }
            _ => prompt = Some(own.to_owned()),
        }
        answers.push(Answer {
            role: *role,
            text: text.to_owned(),
            turns: found.turns,
        });
    }
    Ok((prompt.unwrap_or_default(), answers))
}

/// The renderings that bound the turns of an answer, but for the first one's beginning and the last one's
/// end.
fn bounds(number: usize, chat: &Chat) -> Vec<Key> {
    let messages = &chat.answers[number].1;
    let mut keys = Vec::new();
    for (turn, message) in messages.iter().enumerate() {
        let at = chat.prompt.len() + turn;
        if message.is_assistant() {
            keys.extend((turn > 0).then(|| Key::new(number, at, true)));
            keys.extend((turn + 1 < messages.len()).then(|| Key::new(number, at + 1, false)));
        }
    }
    keys
}

/// Where an answer is in the whole text, and its turns, as bytes of it.
struct Found {
    text: Range<usize>,
    turns: Vec<Turn>,
}

struct Splitter<'a> {
    chat: &'a Chat,
    /// The texts of the end tokens.
    ends: &'a [String],
    texts: Texts<'a>,
}

impl Splitter<'_> {
    fn length(&self, number: usize) -> usize {
        self.texts.conversations[number].len()
    }

    fn whole(&self, number: usize) -> Rendering<&Rendered> {
        self.texts.get(Key::new(number, self.length(number), false))
    }

    /// The prompt as the model sees it when it is asked.
    fn asked(&self) -> Rendering<&str> {
        let key = Key::new(0, self.chat.prompt.len(), true);
        Ok(&self.texts.get(key)?.text)
    }

    /// By the template's own marks; `None` where they do not say whose turn is whose.
    fn by_marks(&mut self, number: usize) -> Rendering<Option<Found>> {
        let prompt = self.chat.prompt.len();
        let messages = &self.texts.conversations[number];
        let spoken = (0..messages.len()).filter(|turn| messages[*turn].is_assistant());
        let spoken: Vec<usize> = spoken.collect();
        let mut spans = self.whole(number)?.spans.clone();
        if spans.len() != spoken.len() {
            spans = joined(&spans);
        }
        let own: Vec<(Option<usize>, Range<usize>)> = match spans.len() == spoken.len() {
            true => {
                let each = spoken.into_iter().zip(spans);
                let own = each.filter(|(turn, _)| *turn >= prompt);
                own.map(|(turn, span)| (Some(turn), span)).collect()
            }
            false => {
                let before = Key::new(number, prompt, false);
                self.texts.fetch(&[before])?;
                let before = joined(&self.texts.get(before)?.spans).len();
                let own = spans.into_iter().skip(before);
                own.map(|span| (None, span)).collect()
            }
        };
        let (Some(first), Some(end)) = (own.first(), own.last()) else {
            return Ok(None);
        };
        let (first, end) = (first.1.start, end.1.end);
        let whole = &self.whole(number)?.text;
        // What samples are drawn after stays the prompt wherever it can be.
        let asked = self.asked().ok().filter(|asked| whole.starts_with(*asked));
        let start = match asked {
            Some(asked) if asked.len() <= first || !self.chat.is_whole => asked.len(),
            _ => first,
        };
        let messages = &self.texts.conversations[number];
        let mut turns = Vec::new();
        for (turn, span) in own {
            let span = span.start.max(start)..span.end;
            let message = turn.map(|turn| &messages[turn]);
            if span.is_empty() || message.is_some_and(|message| !message.is_learned()) {
                continue;
            }
            let said = match message {
                Some(message) => said(message, &whole[span.clone()])?,
                None => 0,
            };
            turns.push(Turn {
                bytes: span.start - start..span.end - start,
                said: span.start - start + said,
            });
        }
        Self::learned(start..end, turns).map(Some)
    }

    /// By renderings of what stands in front of each turn.
    fn by_prefixes(&mut self, number: usize) -> Rendering<Found> {
        self.texts.fetch(&bounds(number, self.chat))?;
        let prompt = self.chat.prompt.len();
        let start = match self.whole(number)?.text.starts_with(self.asked()?) {
            true => self.asked()?.len(),
            false => self.without_prefill(number)?,
        };
        let whole = &self.whole(number)?.text;
        let messages = &self.texts.conversations[number];
        let mut turns = Vec::new();
        for turn in (prompt..messages.len()).filter(|turn| messages[*turn].is_assistant()) {
            let from = match turn == prompt {
                true => start,
                false => {
                    let before = &self.texts.get(Key::new(number, turn, true))?.text;
                    if !whole.starts_with(before) {
                        return Err(self.unstable(number, before, turn));
                    }
                    before.len()
                }
            };
            let said = |to: usize| said(&messages[turn], &whole[from..to.max(from)]);
            let (to, said) = match turn + 1 == messages.len() {
                true => (whole.len(), said(whole.len())?),
                false => {
                    // What a template writes behind the last message may be otherwise.
                    let alone = &self.texts.get(Key::new(number, turn + 1, false))?.text;
                    let to = common(alone, whole);
                    let said = match said(to) {
                        Err(_) if to < alone.len() => {
                            return Err(self.unstable(number, alone, turn + 1));
                        }
                        said => said?,
                    };
                    let behind = &whole[from + said..to];
                    let has_end = self.ends.iter().any(|end| behind.contains(end.as_str()));
                    if to < alone.len() && !has_end {
                        return Err(unstable([alone, whole], PLACES, END));
                    }
                    (to, said)
                }
            };
            if messages[turn].is_learned() {
                turns.push(Turn {
                    bytes: from - start..to - start,
                    said: from - start + said,
                });
            }
        }
        Self::learned(start..whole.len(), turns)
    }

    /// The end of the prompt where the template begins the answer when it is asked for one (a `<think>`), and
    /// not where the answer is there: as the whole conversation has it, if all of the answer is in that.
    fn without_prefill(&mut self, number: usize) -> Rendering<usize> {
        let prompt = self.chat.prompt.len();
        let bare = Key::new(0, prompt, false);
        if let [answer] = self.chat.answers[number].1.as_slice() {
            self.texts.fetch(&[bare])?;
            let (whole, asked) = (&self.whole(number)?.text, self.asked()?);
            let content = answer.stripped();
            let bare = self.texts.get(bare).map_or("", |bare| bare.text.as_str());
            if !bare.is_empty()
                && !content.is_empty()
                && whole.starts_with(bare)
                && asked.starts_with(bare)
            {
                let places = (bare.len()..=common(asked, whole)).rev();
                let mut places = places.filter(|at| whole.is_char_boundary(*at));
                if let Some(at) = places.find(|at| whole[*at..].starts_with(content)) {
                    return Ok(at);
                }
            }
        }
        let (whole, asked) = (&self.whole(number)?.text, self.asked()?);
        Err(unstable([asked, whole], PLACES, self.remedy(number)))
    }

    /// The error of the first `count` messages, which are `alone` by themselves.
    fn unstable(&self, number: usize, alone: &str, count: usize) -> RowError {
        let here = format!("where the first {count} messages are rendered alone");
        match self.whole(number) {
            Ok(whole) => unstable(
                [alone, &whole.text],
                [&here, PLACES[1]],
                self.remedy(number),
            ),
            Err(error) => error,
        }
    }

    /// What would help: the last turn alone, where that is stable.
    fn remedy(&self, number: usize) -> &'static str {
        let last = Key::new(number, self.length(number) - 1, true);
        let stable = || {
            Some(
                self.whole(number)
                    .ok()?
                    .text
                    .starts_with(&self.texts.get(last).ok()?.text),
            )
        };
        match self.chat.is_whole && stable() == Some(true) {
            true => LAST,
            false => TEMPLATE,
        }
    }

    fn learned(text: Range<usize>, turns: Vec<Turn>) -> Rendering<Found> {
        match turns.is_empty() {
            true => Err(Invalid::NothingToScore.into()),
            false => Ok(Found { text, turns }),
        }
    }
}

const PLACES: [&str; 2] = [
    "where what comes first is rendered alone",
    "in the whole conversation",
];
const END: &str = "name the token that ends a turn in data.eot_tokens";
const TEMPLATE: &str = "name a training template, one with {% generation %} around what the assistant says, in \
                        data.chat_template";
const LAST: &str = "data.assistant_turns = \"last\" takes only the last turn of a conversation; or name a training \
                    template, one with {% generation %} around what the assistant says, in data.chat_template";

/// Spans with nothing between them as one: a template may mark a turn in pieces, e.g. its end alone.
fn joined(spans: &[Range<usize>]) -> Vec<Range<usize>> {
    let mut joined: Vec<Range<usize>> = Vec::new();
    for span in spans {
        match joined.last_mut() {
            Some(last) if last.end == span.start => last.end = span.end,
            _ => joined.push(span.clone()),
        }
    }
    joined
}

/// The bytes that two texts have in common at their beginning, in whole letters.
fn common(a: &str, b: &str) -> usize {
    let same = a.bytes().zip(b.bytes()).take_while(|(a, b)| a == b).count();
    (0..=same)
        .rev()
        .find(|at| a.is_char_boundary(*at))
        .unwrap_or(0)
}

/// Two texts that should begin alike, and where each is from.
fn unstable(texts: [&str; 2], places: [&str; 2], remedy: &str) -> RowError {
    let [a, b] = texts;
    let at = common(a, b);
    let mut before: Vec<char> = a[..at].chars().rev().take(24).collect();
    before.reverse();
    let before: String = before.into_iter().collect();
    let [a, b] = texts.map(|text| text[at..].chars().take(32).collect::<String>());
    let [here, there] = places;
    let error = Error::input(format!(
        "the chat template is not prefix-stable: after {before:?} it writes {a:?} {here}, {b:?} {there}"
    ));
    RowError::Unusable(Invalid::NotPrefixStable, error.hint(remedy))
}

/// Where in the text of its turn a message has been said: behind its content.
///
/// A template may trim the content, drop what was thought or write it as JSON; its last line must be there.
fn said(message: &Message, text: &str) -> Rendering<usize> {
    let content = message.stripped();
    if content.is_empty() {
        let calls = message.calls();
        if let Some(name) = calls.first()
            && !calls.iter().any(|name| text.contains(name))
        {
            let error = Error::input(format!(
                "the chat template does not write the call of {name:?}, which is all that the answer is"
            ));
            let error = error.hint("name a template that writes tool calls in data.chat_template");
            return Err(RowError::Unusable(Invalid::AnswerNotRendered, error));
        }
        return Ok(0);
    }
    let answer = content.rsplit("</think>").next().unwrap_or_default().trim();
    let line = content.lines().next_back().unwrap_or_default().trim();
    let json = Value::from(content).to_string();
    let forms = [content, answer, json.trim_matches('"'), line];
    let mut forms = forms.into_iter().filter(|form| !form.is_empty());
    let found = forms.find_map(|form| Some(text.find(form)? + form.len()));
    found.ok_or_else(|| {
        let shown: String = line.chars().take(40).collect();
        let error = Error::input(format!(
            "the chat template does not write the answer's content: {shown:?} is not in its text"
        ));
        let error = error.hint("the template drops it, or expects contents of another form");
        RowError::Unusable(Invalid::AnswerNotRendered, error)
    })
}
