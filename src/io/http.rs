//! HTTP rules shared by the clients of the hub and of a judge: where a secret may be sent, `Retry-After`,
//! the size limit of a response, and what is redacted.

use std::io::{self, Read};
use std::net::{Ipv4Addr, Ipv6Addr};
use std::time::{Duration, SystemTime};

use base64::Engine;
use base64::engine::general_purpose::{STANDARD_NO_PAD, URL_SAFE_NO_PAD};
use ureq::http::HeaderMap;

/// Shorter secrets are words that a text may hold by chance: they are hidden in messages, and neither
/// in the text of a reply nor in base64.
const SHORTEST_SECRET: usize = 8;

/// How long `Retry-After` wants the server to be left alone: seconds or a date; one that is over asks
/// for nothing.
pub fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    wait_of(headers.get("retry-after")?.to_str().ok()?)
}

fn wait_of(value: &str) -> Option<Duration> {
    if let Ok(seconds) = value.trim().parse::<f64>() {
        return Duration::try_from_secs_f64(seconds).ok();
    }
    let at = jiff::fmt::rfc2822::parse(value.trim()).ok()?;
    let at = SystemTime::from(at.timestamp());
    Some(at.duration_since(SystemTime::now()).unwrap_or_default())
}

/// Whether a host of an address is this machine, to which a secret may travel unencrypted.
pub fn is_loopback(host: &str) -> bool {
    let bare = host
        .strip_prefix('[')
        .and_then(|host| host.strip_suffix(']'));
    host.eq_ignore_ascii_case("localhost")
        || host.parse::<Ipv4Addr>().is_ok_and(|ip| ip.is_loopback())
        || bare.is_some_and(|ip| ip.parse::<Ipv6Addr>().is_ok_and(|ip| ip.is_loopback()))
}

/// A body of at most `most` bytes, counted after decompression; `None` if it has more.
///
/// # Errors
/// If the connection breaks or a timeout passes.
pub fn read_bounded(body: impl Read, most: u64) -> io::Result<Option<Vec<u8>>> {
    let mut bytes = Vec::new();
    body.take(most.saturating_add(1)).read_to_end(&mut bytes)?;
    Ok((bytes.len() as u64 <= most).then_some(bytes))
}

/// Tokens, keys and passwords, which appear in no message and no file.
#[derive(Default)]
pub struct Secrets {
    /// As they are.
    plain: Vec<Vec<char>>,
    /// What base64 makes of them, wherever they begin in what it was made of.
    encoded: Vec<Vec<char>>,
}

impl Secrets {
    /// Those of the secrets that are not empty.
    pub fn new<'a>(secrets: impl IntoIterator<Item = &'a str>) -> Self {
        let mut found = Self::default();
        for secret in secrets.into_iter().filter(|secret| !secret.is_empty()) {
            found.plain.push(secret.chars().collect());
            if secret.len() >= SHORTEST_SECRET {
                for shift in 0..3 {
                    found
                        .encoded
                        .push(base64_of(secret, shift, &STANDARD_NO_PAD));
                    found
                        .encoded
                        .push(base64_of(secret, shift, &URL_SAFE_NO_PAD));
                }
            }
        }
        found
    }

    /// The text with `mark` in place of every secret, also of one in base64, with characters escaped as
    /// in an address or in JSON, or with white space and characters that a terminal does not show in it.
    pub fn hide(&self, text: &str, mark: &str) -> String {
        self.replace(text, mark, 0)
    }

    /// As [`hide`](Self::hide), but for secrets so short that they are words: for texts whose letters count.
    pub fn hide_long(&self, text: &str, mark: &str) -> String {
        self.replace(text, mark, SHORTEST_SECRET)
    }

    fn replace(&self, text: &str, mark: &str, shortest: usize) -> String {
        let secrets = || self.plain.iter().chain(&self.encoded);
        let secrets: Vec<&Vec<char>> = secrets()
            .filter(|secret| secret.len() >= shortest)
            .collect();
        if secrets.is_empty() {
            return text.to_owned();
        }
        let (mut hidden, mut rest) = (String::new(), text);
        while let Some(first) = rest.chars().next() {
            let lengths = secrets
                .iter()
                .filter_map(|secret| length_of_secret(secret, rest));
            let length = lengths.max();
            match length {
                Some(_) => hidden.push_str(mark),
                None => hidden.push(first),
            }
            rest = &rest[length.unwrap_or(first.len_utf8())..];
        }
        hidden
    }

    /// The text on one line of at most `most` characters: without secrets and control characters.
    pub fn line(&self, text: &str, mark: &str, most: usize) -> String {
        let text = self.hide(text, mark);
        let words: Vec<&str> = text.split_whitespace().collect();
        let words = words.join(" ");
        words
            .chars()
            .filter(|c| !is_unseen(*c))
            .take(most)
            .collect()
    }
}

/// The bytes of a secret at the start of a text.
fn length_of_secret(secret: &[char], text: &str) -> Option<usize> {
    let mut rest = text;
    for (number, expected) in secret.iter().enumerate() {
        // What stands before the first character is not part of it.
        if number > 0 {
            rest = rest.trim_start_matches(|c: char| is_unseen(c) || c.is_whitespace());
        }
        rest = &rest[length_of(*expected, rest)?..];
    }
    Some(text.len() - rest.len())
}

/// The bytes of a character at the start of a text: `a`, `%61`, `\u0061` or, of a sign, `\/`.
fn length_of(expected: char, text: &str) -> Option<usize> {
    let is_code = |digits: Option<&str>| {
        let digits = digits.filter(|digits| digits.bytes().all(|byte| byte.is_ascii_hexdigit()));
        digits.and_then(|digits| u32::from_str_radix(digits, 16).ok()) == Some(expected as u32)
    };
    let length = expected.len_utf8();
    if text.starts_with(expected) {
        Some(length)
    } else if text.starts_with('%') && is_code(text.get(1..3)) {
        Some(3)
    } else if text.starts_with("\\u") && is_code(text.get(2..6)) {
        Some(6)
    } else {
        let escaped = text.strip_prefix('\\')?.starts_with(expected);
        escaped.then_some(1 + length)
    }
}

/// Whether a terminal shows nothing of a character: control characters, and those of no width.
fn is_unseen(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{ad}' | '\u{200b}'..='\u{200f}' | '\u{2060}'..='\u{2064}' | '\u{feff}')
}

/// The characters of base64 that depend on the secret alone, where `shift` bytes stand before it.
fn base64_of(secret: &str, shift: usize, engine: &impl Engine) -> Vec<char> {
    let bytes = [&[0; 2][..shift], secret.as_bytes()].concat();
    let whole = bytes.len() * 8 / 6;
    let first = (shift * 8).div_ceil(6);
    engine
        .encode(&bytes)
        .chars()
        .take(whole)
        .skip(first)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_are_seconds_or_dates() {
        assert_eq!(wait_of(" 3 "), Some(Duration::from_secs(3)));
        assert_eq!(wait_of("0.25"), Some(Duration::from_millis(250)));
        assert_eq!(
            wait_of("Wed, 21 Oct 2015 07:28:00 GMT"),
            Some(Duration::ZERO)
        );
        let far = wait_of("Wed, 21 Oct 2099 07:28:00 GMT").unwrap();
        assert!(far > Duration::from_secs(365 * 86_400));
        for wrong in ["-1", "nan", "soon", ""] {
            assert_eq!(wait_of(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn this_machine_is_known_by_its_names_and_no_other_is() {
        for host in ["localhost", "LocalHost", "127.0.0.1", "127.9.9.9", "[::1]"] {
            assert!(is_loopback(host), "{host}");
        }
        for host in [
            "localhost.x.example",
            "127.x.example",
            "128.0.0.1",
            "[::2]",
            "0.0.0.0",
        ] {
            assert!(!is_loopback(host), "{host}");
        }
    }

    #[test]
    fn a_body_is_bounded_by_what_comes_out_of_it() {
        assert_eq!(read_bounded(&b"four"[..], 4).unwrap().unwrap(), b"four");
        assert_eq!(read_bounded(&b"fives"[..], 4).unwrap(), None);
        assert_eq!(read_bounded(io::repeat(0), 1000).unwrap(), None);
    }

    #[test]
    fn a_secret_is_hidden_however_it_is_written() {
        let secrets = Secrets::new(["sk-CANARY/KEY+1", ""]);
        for text in [
            "sk-CANARY/KEY+1",
            "sk-CA\u{1}NARY/KEY+1",
            "sk-CA\u{1b}\u{7f}NARY/K\u{200b}EY+1",
            "sk-CA\r\n  NARY/KEY+1",
            "sk-CANARY%2FKEY%2b1",
            "sk-CANARY\\/KEY\\u002b1",
            "\\u0073k-CANARY/KEY+1",
        ] {
            assert_eq!(secrets.hide(text, "[key]"), "[key]", "{text:?}");
        }
        assert_eq!(secrets.hide("sk-CANARY/KEY+2", "[key]"), "sk-CANARY/KEY+2");
        for before in ["", "B", "Be", "Bearer "] {
            for engine in [&STANDARD_NO_PAD, &URL_SAFE_NO_PAD] {
                let encoded = engine.encode(format!("{before}sk-CANARY/KEY+1 and more"));
                let hidden = secrets.hide(&encoded, "[key]");
                assert!(hidden.contains("[key]"), "{hidden}");
                // What is left of it are at most the two characters that it shares with its neighbours.
                assert!(hidden.len() <= before.len() * 2 + 20, "{hidden}");
            }
        }
        assert_eq!(
            secrets.line("it  says\nsk-CANARY/KEY+1\u{7}!", "[key]", 14),
            "it says [key]!"
        );
    }

    #[test]
    fn a_secret_that_is_a_word_is_left_in_a_reply() {
        let secrets = Secrets::new(["A"]);
        assert_eq!(secrets.hide("Better: A", "[key]"), "Better: [key]");
        assert_eq!(secrets.hide_long("Better: A", "[key]"), "Better: A");
        let secrets = Secrets::new(["sk-12345"]);
        assert_eq!(secrets.hide_long("sk-12345: A", "[key]"), "[key]: A");
    }
}
