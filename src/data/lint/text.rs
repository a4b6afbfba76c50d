//! What a text shows on its own: characters that do not belong there, and markers of turns.
//!
//! *Why*: pure functions of a text, so that each is tried on texts of a line.

/// What its characters are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Characters {
    pub count: usize,
    pub control: bool,
    pub replacement: bool,
    pub invisible: bool,
    pub private: bool,
    /// A bit for each of [`SCRIPTS`] that a letter is of.
    pub scripts: u32,
}

pub(super) fn characters(text: &str) -> Characters {
    let mut found = Characters::default();
    for c in text.chars() {
        found.count += 1;
        match c {
            'a'..='z' | 'A'..='Z' => found.scripts |= 1,
            '\t' | '\n' | '\r' | ' '..='~' => {}
            '\u{fffd}' => found.replacement = true,
            // Joiners (U+200C, U+200D) and marks of direction (U+200E, U+200F) are spelling.
            '\u{ad}' | '\u{200b}' | '\u{2060}' | '\u{feff}' => found.invisible = true,
            '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' => found.invisible = true,
            // Flags of Scotland, Wales and England are written with these tags behind a black flag.
            '\u{e0000}'..='\u{e007f}' => found.invisible |= !text.contains('\u{1f3f4}'),
            '\u{e000}'..='\u{f8ff}' | '\u{f0000}'..='\u{10ffff}' => found.private = true,
            c if c.is_control() => found.control = true,
            c if c.is_alphabetic() => found.scripts |= 1 << script(c),
            _ => {}
        }
    }
    found
}

/// The scripts that letters are told apart by; the last is any other.
pub(super) const SCRIPTS: [&str; 28] = [
    "Latin",
    "Greek",
    "Cyrillic",
    "Armenian",
    "Hebrew",
    "Arabic",
    "Devanagari",
    "Bengali",
    "Gurmukhi",
    "Gujarati",
    "Tamil",
    "Telugu",
    "Kannada",
    "Malayalam",
    "Sinhala",
    "Thai",
    "Lao",
    "Tibetan",
    "Myanmar",
    "Georgian",
    "Hangul",
    "Ethiopic",
    "Khmer",
    "Mongolian",
    "Kana",
    "Han",
    "mathematical",
    "other",
];

/// The blocks of Unicode by their first and last character, with their place in [`SCRIPTS`].
const BLOCKS: [(u32, u32, usize); 42] = [
    (0x00aa, 0x02ff, 0),
    (0x0370, 0x03ff, 1),
    (0x0400, 0x052f, 2),
    (0x0530, 0x058f, 3),
    (0x0590, 0x05ff, 4),
    (0x0600, 0x06ff, 5),
    (0x0750, 0x077f, 5),
    (0x08a0, 0x08ff, 5),
    (0x0900, 0x097f, 6),
    (0x0980, 0x09ff, 7),
    (0x0a00, 0x0a7f, 8),
    (0x0a80, 0x0aff, 9),
    (0x0b80, 0x0bff, 10),
    (0x0c00, 0x0c7f, 11),
    (0x0c80, 0x0cff, 12),
    (0x0d00, 0x0d7f, 13),
    (0x0d80, 0x0dff, 14),
    (0x0e00, 0x0e7f, 15),
    (0x0e80, 0x0eff, 16),
    (0x0f00, 0x0fff, 17),
    (0x1000, 0x109f, 18),
    (0x10a0, 0x10ff, 19),
    (0x1100, 0x11ff, 20),
    (0x1200, 0x139f, 21),
    (0x1780, 0x17ff, 22),
    (0x1800, 0x18af, 23),
    (0x1e00, 0x1eff, 0),
    (0x1f00, 0x1fff, 1),
    (0x2100, 0x214f, 26),
    (0x3005, 0x3007, 25),
    (0x3040, 0x30ff, 24),
    (0x3130, 0x318f, 20),
    (0x31f0, 0x31ff, 24),
    (0x3400, 0x9fff, 25),
    (0xac00, 0xd7af, 20),
    (0xf900, 0xfaff, 25),
    (0xfb50, 0xfdff, 5),
    (0xfe70, 0xfefc, 5),
    (0xff21, 0xff5a, 0),
    (0xff66, 0xff9f, 24),
    (0x1d400, 0x1d7ff, 26),
    (0x20000, 0x323af, 25),
];

fn script(c: char) -> usize {
    let c = c as u32;
    let after = BLOCKS.partition_point(|(first, ..)| *first <= c);
    match after.checked_sub(1).map(|at| BLOCKS[at]) {
        Some((_, last, script)) if c <= last => script,
        _ => SCRIPTS.len() - 1,
    }
}

/// Whether a part of the text is UTF-8 whose bytes were read as Windows-1252 or Latin-1: `Ã©`, `â€™`.
///
/// Told by a run of characters whose bytes in that encoding are one character of UTF-8. Of two bytes only
/// those of Latin letters and signs count, and not where the second is a quotation mark or a dash: `IRMÃ”` ends a quotation. Cyrillic and Greek, whose letters have two such signs each,
/// count where two follow each other.
pub(super) fn is_mojibake(text: &str) -> bool {
    if text.is_ascii() {
        return false;
    }
    let bytes: Vec<u8> = text
        .chars()
        .map(|c| windows_1252(c).unwrap_or(b'?'))
        .collect();
    let continues = |at: usize| {
        bytes
            .get(at)
            .is_some_and(|byte| (0x80..0xc0).contains(byte))
    };
    let pair = |at: usize| {
        let lead = bytes.get(at);
        lead.is_some_and(|byte| matches!(byte, 0xce..=0xd1)) && continues(at + 1)
    };
    (0..bytes.len()).any(|at| match bytes[at] {
        0xc2 | 0xc3 => continues(at + 1) && !PUNCTUATION.contains(&bytes[at + 1]),
        0xce..=0xd1 => pair(at) && pair(at + 2),
        // The signs of general punctuation, such as the quotation marks.
        0xe2 => bytes.get(at + 1) == Some(&0x80) && continues(at + 2),
        0xf0 => bytes.get(at + 1) == Some(&0x9f) && continues(at + 2) && continues(at + 3),
        0xef => bytes[at..].starts_with(b"\xef\xbb\xbf"),
        _ => false,
    })
}

/// What may stand behind a capital letter in Windows-1252: quotation marks, dashes, an ellipsis, a
/// bullet.
const PUNCTUATION: [u8; 16] = [
    0x82, 0x84, 0x85, 0x8b, 0x91, 0x92, 0x93, 0x94, 0x95, 0x96, 0x97, 0x99, 0x9b, 0xab, 0xb7, 0xbb,
];

/// The byte of a character in Windows-1252; those that it leaves out are of Latin-1.
fn windows_1252(c: char) -> Option<u8> {
    const HIGH: [char; 27] = [
        '€', '‚', 'ƒ', '„', '…', '†', '‡', 'ˆ', '‰', 'Š', '‹', 'Œ', 'Ž', '‘', '’', '“', '”', '•',
        '–', '—', '˜', '™', 'š', '›', 'œ', 'ž', 'Ÿ',
    ];
    const BYTES: [u8; 27] = [
        0x80, 0x82, 0x83, 0x84, 0x85, 0x86, 0x87, 0x88, 0x89, 0x8a, 0x8b, 0x8c, 0x8e, 0x91, 0x92,
        0x93, 0x94, 0x95, 0x96, 0x97, 0x98, 0x99, 0x9a, 0x9b, 0x9c, 0x9e, 0x9f,
    ];
    match u8::try_from(c) {
        Ok(byte) => Some(byte),
        Err(_) => HIGH.iter().position(|high| *high == c).map(|at| BYTES[at]),
    }
}

/// Markers of turns in plain texts: what begins one and what ends it.
const MARKERS: [(&str, &str); 4] = [
    ("<|im_start|>", "<|im_end|>"),
    ("<start_of_turn>", "<end_of_turn>"),
    ("<|start_header_id|>", "<|eot_id|>"),
    ("[INST]", "[/INST]"),
];

/// Whether the turns of a prompt with its answer begin as often as they end; the last may be open.
pub(super) fn is_balanced(prompt: &str, answer: &str) -> bool {
    MARKERS.iter().all(|(begin, end)| {
        let count = |marker: &str| prompt.matches(marker).count() + answer.matches(marker).count();
        let (begun, ended) = (count(begin), count(end));
        begun == ended || begun == ended + 1
    })
}

/// Whether a turn of the user begins in an answer.
pub(super) fn has_user_turn(answer: &str) -> bool {
    let turns = [
        "\n\nHuman:",
        "<|im_start|>user",
        "<start_of_turn>user",
        "<|start_header_id|>user",
        "<|user|>",
        "[INST]",
    ];
    turns.iter().any(|turn| answer.contains(turn))
}

/// Whether there is a marker of a chat template: `<|name|>` or one of those without bars.
pub(super) fn has_marker(text: &str) -> bool {
    let bars = text.match_indices("<|").any(|(at, _)| {
        let name = &text[at + 2..];
        let end = name.find(|c: char| !(c.is_ascii_alphanumeric() || c == '_'));
        end.is_some_and(|end| end > 0 && name[end..].starts_with("|>"))
    });
    let others = [
        "<start_of_turn>",
        "<end_of_turn>",
        "[INST]",
        "[/INST]",
        "<<SYS>>",
        "<｜",
    ];
    bars || others.iter().any(|marker| text.contains(marker))
}

/// The text in lower case, its white space a single space, without any at its ends.
pub(super) fn normalized(text: &str, into: &mut String) {
    for (index, word) in text.split_whitespace().enumerate() {
        if index > 0 {
            into.push(' ');
        }
        match word.is_ascii() {
            true => into.extend(word.bytes().map(|byte| byte.to_ascii_lowercase() as char)),
            false => into.extend(word.chars().flat_map(char::to_lowercase)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn utf_8_read_in_another_encoding_is_told_from_what_looks_like_it() {
        let misread = |text: &str| -> String {
            let latin = |byte: u8| {
                let high = (0x80..0xa0).contains(&byte).then(|| {
                    let mut all = (0x80..=0x2122).filter_map(char::from_u32);
                    all.rfind(|c| windows_1252(*c) == Some(byte))
                });
                high.flatten().unwrap_or(byte as char)
            };
            text.bytes().map(latin).collect()
        };
        assert_eq!(misread("é’"), "Ã©â€™");
        for text in [
            "café",
            "it’s",
            "“so”",
            "a – b",
            "schön",
            "£5",
            "привет",
            "λόγος",
            "🙂",
            "…",
        ] {
            assert!(is_mojibake(&misread(text)), "{}", misread(text));
            assert!(!is_mojibake(text), "{text}");
        }
        for text in [
            "“AMANHÔ",
            "IRMÃ’S",
            "â la carte",
            "Âge",
            "«Â»",
            "São",
            "ÐÑ",
            "naïve",
            "Ω",
            "",
        ] {
            assert!(!is_mojibake(text), "{text}");
        }
    }

    #[test]
    fn characters_are_of_their_kind_and_letters_of_their_script() {
        let none = |text: &str| {
            let Characters {
                control,
                replacement,
                invisible,
                private,
                ..
            } = characters(text);
            [control, replacement, invisible, private]
        };
        assert_eq!(none("a\tb\r\n ~é漢🙂\u{200d}"), [false; 4]);
        assert_eq!(none("\u{0}"), [true, false, false, false]);
        assert_eq!(none("\u{7f}"), [true, false, false, false]);
        assert_eq!(none("\u{85}"), [true, false, false, false]);
        assert_eq!(none("\u{fffd}"), [false, true, false, false]);
        assert_eq!(none("\u{200b}"), [false, false, true, false]);
        assert_eq!(none("\u{202e}"), [false, false, true, false]);
        assert_eq!(none("\u{e0041}"), [false, false, true, false]);
        assert_eq!(none("\u{1f3f4}\u{e0067}\u{e007f}"), [false; 4]);
        assert_eq!(none("\u{e000}"), [false, false, false, true]);
        assert_eq!(characters("é漢🙂").count, 3);
        let scripts = |text: &str| -> Vec<&str> {
            let bits = characters(text).scripts;
            let all = (0..SCRIPTS.len()).filter(|bit| bits >> bit & 1 == 1);
            all.map(|bit| SCRIPTS[bit]).collect()
        };
        assert_eq!(scripts("12 🙂 - \u{300}"), [""; 0]);
        assert_eq!(scripts("é"), ["Latin"]);
        assert_eq!(
            scripts("abc λ ж 漢字 かな カナ 한글"),
            ["Latin", "Greek", "Cyrillic", "Hangul", "Kana", "Han"]
        );
        assert_eq!(
            scripts("שלום سلام ไทย हिन्दी"),
            ["Hebrew", "Arabic", "Devanagari", "Thai"]
        );
        assert_eq!(scripts("Ꭰ"), ["other"]);
        assert!(BLOCKS.windows(2).all(|two| two[0].1 < two[1].0));
    }

    #[test]
    fn markers_are_found_and_the_last_turn_may_be_open() {
        assert!(
            has_marker("say <|im_end|> now") && has_marker("[INST] x") && has_marker("<|a_1|>")
        );
        assert!(!has_marker("a <| b |> c") && !has_marker("x <|> y") && !has_marker("if a<|b"));
        let prompt = "<|im_start|>user\nx<|im_end|>\n<|im_start|>assistant\n";
        assert!(is_balanced(prompt, "y<|im_end|>") && is_balanced(prompt, "y"));
        assert!(!is_balanced(prompt, "y<|im_end|><|im_end|>"));
        assert!(!is_balanced(
            "<|im_start|>user\nx\n<|im_start|>assistant\n",
            "y"
        ));
        assert!(is_balanced("[INST] x [/INST]", "y") && !is_balanced("x [/INST]", "y"));
        assert!(has_user_turn("y\n\nHuman: z") && !has_user_turn("a Human: z"));
    }

    #[test]
    fn case_and_white_space_are_no_difference() {
        let of = |text: &str| {
            let mut into = String::new();
            normalized(text, &mut into);
            into
        };
        assert_eq!(of("  The\tRED \n É "), "the red é");
        assert_eq!(of(" \n"), "");
    }
}
