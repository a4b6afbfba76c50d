//! From the Jinja that `transformers` reads to the Jinja of the engine.
//!
//! Hides where the two differ in the source: line ends, escapes in literals, `%` behind a literal, what may be
//! looped over, `{% generation %}`.
//!
//! *Why*: a template's text is compared exactly with what `transformers` renders. What the engine has no
//! hook for is written in terms of what it has.

use super::refusal::Refusal;
use super::tags::check_tags;

/// The filter that refuses what Python cannot iterate over.
pub(super) const ITERATED: &str = "__iterated";
/// The filter that is Python's `%` of a string.
pub(super) const PERCENT: &str = "__percent";
/// The filter that marks what the assistant says.
pub(super) const SPAN: &str = "__span";

/// A source that the engine reads.
#[derive(Debug)]
pub(super) struct Translated {
    pub text: String,
    /// Whether it marks what the assistant says.
    pub has_spans: bool,
}

/// Translates the source of a template.
///
/// # Errors
/// If a tag is too long, or there are too many branches.
pub(super) fn translate(source: &str) -> Result<Translated, Refusal> {
    check_tags(source)?;
    let source = source.replace("\r\n", "\n").replace('\r', "\n");
    let mut text = String::with_capacity(source.len());
    let mut has_spans = false;
    let mut rest = source.as_str();
    while let Some(open) = rest.find('{') {
        let (before, tag) = rest.split_at(open);
        text += before;
        let (close, is_statement) = match tag.as_bytes().get(1) {
            Some(b'{') => ("}}", false),
            Some(b'%') => ("%}", true),
            Some(b'#') => {
                let length = tag.find("#}").map_or(tag.len(), |at| at + 2);
                text += &tag[..length];
                rest = &tag[length..];
                continue;
            }
            _ => {
                text.push('{');
                rest = &tag[1..];
                continue;
            }
        };
        let inner = &tag[2..];
        let length = end_of_tag(inner, close);
        let code = &inner[..length];
        rest = inner[length..].strip_prefix(close).unwrap_or_default();
        let closed = inner.len() > length;
        text += &tag[..2];
        match is_statement {
            true => statement(code, &mut text, &mut has_spans),
            false => expression(code, &mut text),
        }
        if closed {
            text += close;
        }
        if is_statement && closed && word_of(code).0 == "raw" {
            let length = end_of_raw(rest);
            text += &rest[..length];
            rest = &rest[length..];
        }
    }
    text += rest;
    Ok(Translated { text, has_spans })
}

/// The first word of a statement, and what stands behind it.
fn word_of(code: &str) -> (&str, &str) {
    let code = code.trim_start_matches(['-', '+']).trim_start();
    let length = code.find(|c: char| !c.is_alphanumeric() && c != '_');
    code.split_at(length.unwrap_or(code.len()))
}

/// The bytes in front of the tag that ends a raw block.
fn end_of_raw(text: &str) -> usize {
    let mut from = 0;
    while let Some(at) = text[from..].find("{%") {
        let at = from + at;
        if word_of(&text[at + 2..]).0 == "endraw" {
            return at;
        }
        from = at + 2;
    }
    text.len()
}

fn statement(code: &str, text: &mut String, has_spans: &mut bool) {
    let (word, rest) = word_of(code);
    let front = &code[..code.len() - word.len() - rest.len()];
    let end = rest.trim_matches(|c: char| c == '-' || c == '+' || c.is_whitespace());
    match word {
        // A block that writes nothing itself and keeps names to itself.
        "generation" if end.is_empty() => {
            *has_spans = true;
            *text += &format!("{front}with %}}{{% filter {SPAN}{rest}");
        }
        "endgeneration" if end.is_empty() => {
            *text += &format!("{front}endfilter %}}{{% endwith{rest}");
        }
        "for" => match loop_parts(rest) {
            Some((target, iterated, behind)) => {
                *text += front;
                *text += "for";
                *text += target;
                text.push('(');
                expression(iterated, text);
                *text += &format!(")|{ITERATED} ");
                expression(behind, text);
            }
            None => expression(code, text),
        },
        _ => expression(code, text),
    }
}

/// Of what stands behind `for`: up to and with `in`, what is looped over, and the rest.
fn loop_parts(code: &str) -> Option<(&str, &str, &str)> {
    let mut words = Words::new(code);
    let (_, target) = words.find(|(word, _)| *word == "in")?;
    let end = words.find(|(word, _)| ["if", "recursive"].contains(word));
    let end = match end {
        Some((word, end)) => end - word.len(),
        None => code.trim_end_matches(['-', '+']).len(),
    };
    let iterated = code.get(target..end)?;
    (!iterated.trim().is_empty()).then_some((&code[..target], iterated, &code[end..]))
}

/// The names outside brackets and literals, each with where it ends.
struct Words<'a> {
    code: &'a str,
    at: usize,
    depth: usize,
}

impl<'a> Words<'a> {
    fn new(code: &'a str) -> Self {
        let (at, depth) = (0, 0);
        Self { code, at, depth }
    }
}

impl<'a> Iterator for Words<'a> {
    type Item = (&'a str, usize);

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            let rest = &self.code[self.at..];
            let letter = rest.chars().next()?;
            let start = self.at;
            let is_part = |c: char| c.is_alphanumeric() || c == '_';
            self.at += match letter {
                '"' | '\'' => literal_length(rest),
                _ if is_part(letter) => rest.find(|c| !is_part(c)).unwrap_or(rest.len()),
                _ => letter.len_utf8(),
            };
            match letter {
                '(' | '[' | '{' => self.depth += 1,
                ')' | ']' | '}' => self.depth = self.depth.saturating_sub(1),
                _ if is_part(letter) && self.depth == 0 => {
                    return Some((&self.code[start..self.at], self.at));
                }
                _ => {}
            }
        }
    }
}

/// Copies an expression with its literals as the engine reads them.
fn expression(code: &str, text: &mut String) {
    let mut rest = code;
    while let Some(at) = rest.find(['"', '\'']) {
        text.push_str(&rest[..at]);
        let (literal, behind) = rest[at..].split_at(literal_length(&rest[at..]));
        rest = behind;
        let literal = translate_literal(literal);
        let operator = rest.trim_start();
        let operand = operator
            .strip_prefix('%')
            .filter(|operand| !operand.is_empty());
        match operand {
            Some(operand) => {
                let (own, behind) = operand.split_at(operand_length(operand));
                *text += &format!("({literal}|{PERCENT}(");
                expression(own, text);
                *text += "))";
                rest = behind;
            }
            None => *text += &literal,
        }
    }
    *text += rest;
}

/// The bytes of an operand: a sign, a name, number, literal or group, and what is called, looked up or
/// filtered of it.
fn operand_length(code: &str) -> usize {
    let is_part = |c: char| c.is_alphanumeric() || c == '_';
    let word = |rest: &str| rest.find(|c| !is_part(c)).unwrap_or(rest.len());
    let blank = |rest: &str| rest.len() - rest.trim_start().len();
    let mut at = blank(code);
    at += usize::from(code[at..].starts_with(['-', '+']));
    let mut is_first = true;
    loop {
        let from = at + blank(&code[at..]);
        let rest = &code[from..];
        let name = |sign: usize| sign + blank(&rest[sign..]) + word(rest[sign..].trim_start());
        let length = match rest.chars().next() {
            Some('"' | '\'') if is_first => literal_length(rest),
            Some('{') if is_first => group_length(rest),
            Some('(' | '[') => group_length(rest),
            Some('.' | '|') => name(1),
            Some(letter) if is_first && is_part(letter) => word(rest),
            _ => return at,
        };
        at = from + length;
        is_first = false;
    }
}

/// The bytes of a group in brackets.
fn group_length(code: &str) -> usize {
    let (mut at, mut depth) = (0, 0_usize);
    while let Some(letter) = code[at..].chars().next() {
        match letter {
            '"' | '\'' => {
                at += literal_length(&code[at..]);
                continue;
            }
            '(' | '[' | '{' => depth += 1,
            ')' | ']' | '}' => depth = depth.saturating_sub(1),
            _ => {}
        }
        at += letter.len_utf8();
        if depth == 0 {
            break;
        }
    }
    at
}

/// The bytes of the literal that `code` begins with, its quotes included.
fn literal_length(code: &str) -> usize {
    let quote = code.as_bytes()[0];
    let mut escaped = false;
    for (at, byte) in code.bytes().enumerate().skip(1) {
        match byte {
            _ if escaped => escaped = false,
            b'\\' => escaped = true,
            _ if byte == quote => return at + 1,
            _ => {}
        }
    }
    code.len()
}

/// A literal that says to the engine what it says to Python. One that Python refuses stays as it is.
fn translate_literal(literal: &str) -> String {
    let quote = &literal[..1];
    let inner = literal[1..].strip_suffix(quote);
    match inner
        .filter(|inner| inner.contains('\\'))
        .and_then(unescape)
    {
        None => literal.to_owned(),
        Some(said) => {
            let said = said.replace('\\', "\\\\");
            let said = said.replace(quote, &format!("\\{quote}"));
            format!("{quote}{said}{quote}")
        }
    }
}

/// Python's escapes; `None` where there is one that it refuses.
fn unescape(literal: &str) -> Option<String> {
    let mut said = String::new();
    let mut rest = literal;
    while let Some(at) = rest.find('\\') {
        said += &rest[..at];
        let escape = rest[at + 1..].chars().next()?;
        rest = &rest[at + 1 + escape.len_utf8()..];
        let mut code = |most: usize, least: usize, base: u32, front: &str| {
            let is_digit = |c: char| c.is_digit(base);
            let digits: String = rest
                .chars()
                .take_while(|c| is_digit(*c))
                .take(most)
                .collect();
            if digits.len() < least {
                return None;
            }
            rest = &rest[digits.len()..];
            char::from_u32(u32::from_str_radix(&format!("{front}{digits}"), base).ok()?)
        };
        let letter = match escape {
            '\n' => continue,
            '\\' | '\'' | '"' => escape,
            'a' => '\u{7}',
            'b' => '\u{8}',
            'f' => '\u{c}',
            'n' => '\n',
            'r' => '\r',
            't' => '\t',
            'v' => '\u{b}',
            '0'..='7' => code(2, 0, 8, escape.encode_utf8(&mut [0]))?,
            'x' => code(2, 2, 16, "")?,
            'u' => code(4, 4, 16, "")?,
            'U' => code(8, 8, 16, "")?,
            'N' => return None,
            _ => {
                said.push('\\');
                escape
            }
        };
        said.push(letter);
    }
    Some(said + rest)
}

/// The bytes up to `close`, outside literals and, as Jinja has it, outside brackets.
fn end_of_tag(code: &str, close: &str) -> usize {
    let (mut at, mut depth) = (0, 0_usize);
    while let Some(letter) = code[at..].chars().next() {
        if depth == 0 && code[at..].starts_with(close) {
            return at;
        }
        match letter {
            '"' | '\'' => {
                at += literal_length(&code[at..]);
                continue;
            }
            '(' | '[' | '{' => depth += 1,
            ')' | ']' | '}' => depth = depth.saturating_sub(1),
            _ => {}
        }
        at += letter.len_utf8();
    }
    code.len()
}
