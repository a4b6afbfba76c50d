//! Changes of one value or some bytes of a file: what they are.
//!
//! JSON is changed as JSON, a safetensors header as the JSON that it is, anything else as bytes.

use serde_json::Value;

use super::Random;

/// Numbers and other values as they stand in a file, most of them beyond what a key takes.
const VALUES: [&str; 28] = [
    "0",
    "-1",
    "1",
    "3",
    "0.5",
    "-0",
    "1e308",
    "-1e308",
    "1e-320",
    "1e400",
    "NaN",
    "inf",
    "1e18",
    "18446744073709551615",
    "18446744073709551616",
    "-9223372036854775808",
    "9223372036854775807",
    "4294967296",
    "4294967295",
    "2147483647",
    "65536",
    "null",
    "true",
    "\"\"",
    "\"a\"",
    "[]",
    "{}",
    "[0]",
];

/// Pieces of the formats, and what terminals and paths take amiss.
const PIECES: [&[u8]; 26] = [
    b"{",
    b"}",
    b"[",
    b"]",
    b"\"",
    b":",
    b",",
    b"null",
    b"NaN",
    b"\\u0000",
    b"\\ud800",
    b"\0",
    b"\xff\xfe",
    b"\xef\xbb\xbf",
    b"\r\n",
    b"\n",
    b"..",
    b"/",
    b"\x1b[31m",
    b"{{",
    b"}}",
    b"{%",
    b"(?:a+)+$",
    b"e999",
    b"-",
    b"%",
];

/// Texts that are put behind a string.
const ENDINGS: [&str; 4] = ["\0", "/../x", "\u{1b}]0;title\u{7}", "\u{202e}"];

/// The bytes of a file of this name with some change.
pub fn mutate(name: &str, bytes: &[u8], random: &mut Random) -> Vec<u8> {
    let structured = random.below(10) < 6;
    let changed = match name.rsplit('.').next() {
        Some("safetensors") if structured => tensors(bytes, random),
        Some("json") if structured => json(bytes, random),
        Some("jsonl") if structured => line(bytes, random),
        _ => None,
    };
    changed.unwrap_or_else(|| raw(bytes.to_vec(), random))
}

/// One line of JSON among others.
fn line(bytes: &[u8], random: &mut Random) -> Option<Vec<u8>> {
    let mut lines: Vec<&[u8]> = bytes.split(|&byte| byte == b'\n').collect();
    let at = random.below(lines.len() as u64) as usize;
    let changed = json(lines[at], random)?;
    lines[at] = &changed;
    Some(lines.join(&b'\n'))
}

/// The header of a safetensors file, or values of its tensors.
fn tensors(bytes: &[u8], random: &mut Random) -> Option<Vec<u8>> {
    let length = u64::from_le_bytes(bytes.get(..8)?.try_into().ok()?) as usize;
    let header = bytes.get(8..8 + length)?;
    let data = &bytes[8 + length..];
    if random.below(2) == 0 {
        let header = json(header, random)?;
        let length = match random.below(10) {
            0 => [0, 1, 1 << 63, u64::MAX, 1_000_000_000][random.below(5) as usize],
            _ => header.len() as u64,
        };
        return Some([&length.to_le_bytes()[..], &header, data].concat());
    }
    let mut changed = bytes.to_vec();
    let numbers = data.len() / 4;
    for _ in 0..=random.below(4) {
        let at = 8 + length + 4 * random.below(numbers.max(1) as u64) as usize;
        let numbers = [
            f32::NAN,
            f32::INFINITY,
            f32::NEG_INFINITY,
            1e38,
            -1e38,
            1e-45,
            0.0,
        ];
        let number = numbers[random.below(numbers.len() as u64) as usize];
        changed
            .get_mut(at..at + 4)?
            .copy_from_slice(&number.to_le_bytes());
    }
    Some(changed)
}

/// JSON of which some values are others. What stands for a value that JSON does not have is a string
/// that is no other's, and replaced in the text.
fn json(bytes: &[u8], random: &mut Random) -> Option<Vec<u8>> {
    let mut value: Value = serde_json::from_slice(bytes).ok()?;
    let mut raw = Vec::new();
    for _ in 0..=random.below(3) {
        let count = nodes(&value);
        change(
            &mut value,
            &mut random.below(count as u64),
            random,
            &mut raw,
        );
    }
    let mut text = value.to_string();
    for (number, with) in raw.iter().enumerate() {
        text = text.replace(&format!("\"@raw{number}@\""), with);
    }
    Some(text.into_bytes())
}

/// The values in a value, itself included.
fn nodes(value: &Value) -> usize {
    1 + match value {
        Value::Array(items) => items.iter().map(nodes).sum(),
        Value::Object(fields) => fields.values().map(nodes).sum::<usize>(),
        _ => 0,
    }
}

/// Changes the value of this number, counted in the order of the text.
fn change(value: &mut Value, number: &mut u64, random: &mut Random, raw: &mut Vec<&'static str>) {
    if *number == 0 {
        *number = u64::MAX;
        return change_this(value, random, raw);
    }
    *number -= 1;
    match value {
        Value::Array(items) => {
            for item in items {
                if *number == u64::MAX {
                    return;
                }
                change(item, number, random, raw);
            }
        }
        Value::Object(fields) => {
            for field in fields.values_mut() {
                if *number == u64::MAX {
                    return;
                }
                change(field, number, random, raw);
            }
        }
        _ => {}
    }
}

fn change_this(value: &mut Value, random: &mut Random, raw: &mut Vec<&'static str>) {
    match (random.below(10), &mut *value) {
        (0, _) => *value = Value::Null,
        (1..=3, Value::String(text)) => *text += ENDINGS[random.below(4) as usize],
        (1, Value::Array(items)) => {
            let count = items.len() * (1 + random.below(40) as usize);
            let again: Vec<Value> = items.iter().cloned().cycle().take(count).collect();
            items.extend(again);
        }
        (1..=2, Value::Object(fields)) => {
            let at = random.below(fields.len().max(1) as u64) as usize;
            let key = fields.keys().nth(at).cloned();
            key.map(|key| fields.remove(&key));
        }
        (1..=3, Value::Number(number)) => {
            let factors = [-1.0, 2.0, 10.0, 0.5, 1e3, 1e9];
            let factor = factors[random.below(6) as usize];
            *value = (number.as_f64().unwrap_or(1.0) * factor).into();
        }
        _ => {
            *value = format!("@raw{}@", raw.len()).into();
            raw.push(VALUES[random.below(VALUES.len() as u64) as usize]);
        }
    }
}

/// Bits, bytes, pieces, lines and numbers of any file.
fn raw(mut bytes: Vec<u8>, random: &mut Random) -> Vec<u8> {
    for _ in 0..[1, 1, 1, 2, 3, 8][random.below(6) as usize] {
        let length = bytes.len();
        if length == 0 {
            bytes.push(b'x');
            continue;
        }
        let at = random.below(length as u64) as usize;
        let near =
            |random: &mut Random, most: u64| length.min(at + 1 + random.below(most) as usize);
        match random.below(20) {
            0..=3 => bytes[at] ^= 1 << random.below(8),
            4..=5 => bytes[at] = random.below(256) as u8,
            6..=8 => {
                let piece = PIECES[random.below(PIECES.len() as u64) as usize];
                bytes.splice(at..at, piece.iter().copied());
            }
            9..=10 => drop(bytes.drain(at..near(random, 64))),
            11..=12 => {
                let again =
                    bytes[at..near(random, 200)].repeat([1, 2, 100][random.below(3) as usize]);
                bytes.splice(at..at, again);
            }
            13 => bytes.truncate(at),
            14..=17 => {
                if let Some((from, to)) = number_from(&bytes, at) {
                    let with = VALUES[random.below(VALUES.len() as u64) as usize];
                    bytes.splice(from..to, with.bytes());
                }
            }
            _ => {
                let mut lines: Vec<&[u8]> = bytes.split(|&byte| byte == b'\n').collect();
                let other = random.below(lines.len() as u64) as usize;
                let one = random.below(lines.len() as u64) as usize;
                lines.swap(one, other);
                bytes = lines.join(&b'\n');
            }
        }
    }
    bytes
}

/// Where the next number from `at` on stands.
fn number_from(bytes: &[u8], at: usize) -> Option<(usize, usize)> {
    let of_number = |byte: &u8| byte.is_ascii_digit() || b".eE+-".contains(byte);
    let from = at + bytes[at..].iter().position(u8::is_ascii_digit)?;
    let length = bytes[from..].iter().position(|byte| !of_number(byte));
    Some((from, length.map_or(bytes.len(), |length| from + length)))
}
