//! The bounds on the tags of a template's source.
//!
//! *Why*: the engine's parser recurses over expressions and branches before any other bound holds.

use super::refusal::Refusal;

/// The letters of one tag outside its texts. Each may be an operator, and each operator nests the
/// expression, which the engine parses, compiles and drops recursively. Real templates have some
/// hundreds.
const LONGEST_TAG: usize = 16 << 10;

/// `elif`s, each of which nests as well.
const MOST_ELIFS: usize = 1000;

/// Refuses expressions and branches that would nest too deep for the engine's parser.
pub(super) fn check_tags(source: &str) -> Result<(), Refusal> {
    let refuse = |at: usize, what: String| {
        let line = source[..at].matches('\n').count() + 1;
        Err(Refusal::new(what).line(Some(line)))
    };
    let mut elifs = 0;
    let mut from = 0;
    while let Some(open) = source[from..].find('{') {
        let open = from + open;
        let rest = &source[open + 1..];
        from = open + 1;
        let close = match rest.as_bytes().first() {
            Some(b'{') => "}}",
            Some(b'%') => "%}",
            Some(b'#') => {
                from += rest.find("#}").unwrap_or(rest.len());
                continue;
            }
            _ => continue,
        };
        let tag = &rest[1..];
        let word = tag.trim_start_matches(|c: char| c == '-' || c == '+' || c.is_whitespace());
        elifs += usize::from(word.starts_with("elif"));
        if elifs > MOST_ELIFS {
            return refuse(
                open,
                format!("the chat template has more than {MOST_ELIFS} `elif`s"),
            );
        }
        let (length, own) = measure(tag, close);
        if own > LONGEST_TAG {
            let most = LONGEST_TAG >> 10;
            return refuse(
                open,
                format!("the chat template has a tag of more than {most} KiB"),
            );
        }
        from += 1 + length;
    }
    Ok(())
}

/// The bytes up to `close`, with and without those in quotes.
fn measure(tag: &str, close: &str) -> (usize, usize) {
    let (mut own, mut quote, mut escaped) = (0, None, false);
    for (at, letter) in tag.bytes().enumerate() {
        match quote {
            Some(_) if escaped => escaped = false,
            Some(_) if letter == b'\\' => escaped = true,
            Some(end) if letter == end => quote = None,
            Some(_) => {}
            None if tag.as_bytes()[at..].starts_with(close.as_bytes()) => return (at, own),
            None => {
                own += 1;
                quote = matches!(letter, b'"' | b'\'').then_some(letter);
            }
        }
    }
    (tag.len(), own)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tags_are_measured_without_their_texts_and_comments() {
        let tag = |letters: &str| format!("{{{{ {letters} }}}}");
        let text = "x".repeat(LONGEST_TAG);
        for fine in [
            format!("{text}{text}"),
            format!("{{# {text}{text} #}}{{{{ a }}}}"),
            tag(&format!("'{text}\\'{text}' ~ \"{text}{text}\"")),
            format!("{}{}", tag(&text[20..]), tag(&text[20..])),
            "{ é { % {".to_owned(),
            "{% elif a %}".repeat(MOST_ELIFS),
        ] {
            assert_eq!(check_tags(&fine), Ok(()));
        }
        for (long, line) in [
            (tag(&text), 1),
            (format!("\n{{% if {text} %}}"), 2),
            (format!("\n\n{{{{ 'a' {text}"), 3),
        ] {
            let refusal = check_tags(&long).unwrap_err().at("t").to_string();
            let expected = format!("t:{line}: the chat template has a tag of more than 16 KiB");
            assert_eq!(refusal, expected);
        }
        let branches = "{%- elif a %}".repeat(MOST_ELIFS + 1);
        assert!(check_tags(&branches).is_err());
    }
}
