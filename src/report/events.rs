//! Events as TensorBoard reads them.
//!
//! Hides the framing of TensorFlow's record files (length and bytes, each with a masked CRC-32C) and
//! the few fields of its protocol buffers `Event`, `Summary` and `SessionLog` that are needed.
//!
//! *Why*: that is a hundred lines. A crate for it brings a compiler of protocol buffers along.

/// Seconds since 1970, and the step that an event is of.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct When {
    /// Seconds since the beginning of 1970.
    pub wall_time: f64,
    /// The optimizer step.
    pub step: u64,
}

/// The first record of a file: the version of its format.
pub fn version(wall_time: f64) -> Vec<u8> {
    let mut event = head(When { wall_time, step: 0 });
    bytes_field(&mut event, 3, b"brain.Event:2");
    framed(&event)
}

/// A record that drops everything from `when.step` on, which a resumed run repeats.
pub fn restart(when: When) -> Vec<u8> {
    const START: u64 = 1;
    let mut log = Vec::new();
    integer_field(&mut log, 1, START);
    let mut event = head(when);
    bytes_field(&mut event, 7, &log);
    framed(&event)
}

/// A record of figures by tag, in single precision: TensorBoard keeps no more.
pub fn scalars<'a>(when: When, figures: impl IntoIterator<Item = (&'a str, f64)>) -> Vec<u8> {
    let mut summary = Vec::new();
    for (tag, figure) in figures {
        let mut value = Vec::new();
        bytes_field(&mut value, 1, tag.as_bytes());
        key(&mut value, 2, 5);
        value.extend((figure as f32).to_le_bytes());
        bytes_field(&mut summary, 1, &value);
    }
    summarised(when, &summary)
}

/// A record of a text, which is shown as Markdown.
pub fn text(when: When, tag: &str, text: &str) -> Vec<u8> {
    const STRING: u64 = 7;
    let mut plugin = Vec::new();
    bytes_field(&mut plugin, 1, b"text");
    let mut metadata = Vec::new();
    bytes_field(&mut metadata, 1, &plugin);
    let mut dimension = Vec::new();
    integer_field(&mut dimension, 1, 1);
    let mut shape = Vec::new();
    bytes_field(&mut shape, 2, &dimension);
    let mut tensor = Vec::new();
    integer_field(&mut tensor, 1, STRING);
    bytes_field(&mut tensor, 2, &shape);
    bytes_field(&mut tensor, 8, text.as_bytes());
    let mut value = Vec::new();
    bytes_field(&mut value, 1, tag.as_bytes());
    bytes_field(&mut value, 8, &tensor);
    bytes_field(&mut value, 9, &metadata);
    let mut summary = Vec::new();
    bytes_field(&mut summary, 1, &value);
    summarised(when, &summary)
}

fn summarised(when: When, summary: &[u8]) -> Vec<u8> {
    let mut event = head(when);
    bytes_field(&mut event, 5, summary);
    framed(&event)
}

fn head(when: When) -> Vec<u8> {
    let mut event = Vec::new();
    key(&mut event, 1, 1);
    event.extend(when.wall_time.to_le_bytes());
    integer_field(&mut event, 2, when.step);
    event
}

/// A field's number and its wire type: 0 a varint, 1 eight bytes, 2 bytes with their length, 5 four.
fn key(message: &mut Vec<u8>, field: u64, wire: u64) {
    varint(message, (field << 3) | wire);
}

fn integer_field(message: &mut Vec<u8>, field: u64, value: u64) {
    key(message, field, 0);
    varint(message, value);
}

fn bytes_field(message: &mut Vec<u8>, field: u64, bytes: &[u8]) {
    key(message, field, 2);
    varint(message, bytes.len() as u64);
    message.extend(bytes);
}

fn varint(message: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        message.push(value as u8 | 0x80);
        value >>= 7;
    }
    message.push(value as u8);
}

fn framed(record: &[u8]) -> Vec<u8> {
    let length = (record.len() as u64).to_le_bytes();
    let check = |bytes: &[u8]| masked(crc32c(bytes)).to_le_bytes();
    [&length[..], &check(&length), record, &check(record)].concat()
}

/// A checksum of bytes that hold checksums would be a weak one, so it is turned and shifted.
fn masked(crc: u32) -> u32 {
    crc.rotate_right(15).wrapping_add(0xa282_ead8)
}

/// Castagnoli's CRC (RFC 3720), bit by bit: a record has a few hundred bytes.
fn crc32c(bytes: &[u8]) -> u32 {
    let mut crc = u32::MAX;
    for &byte in bytes {
        crc ^= u32::from(byte);
        for _ in 0..8 {
            crc = (crc >> 1) ^ ((crc & 1).wrapping_neg() & 0x82f6_3b78);
        }
    }
    !crc
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn checksums_are_those_of_rfc_3720() {
        assert_eq!(crc32c(&[0; 32]), 0x8a91_36aa);
        assert_eq!(crc32c(&[0xff; 32]), 0x62a8_ab43);
        let up: Vec<u8> = (0..32).collect();
        assert_eq!(crc32c(&up), 0x46dd_794e);
        let down: Vec<u8> = (0..32).rev().collect();
        assert_eq!(crc32c(&down), 0x113f_db5c);
        assert_eq!(crc32c(b"123456789"), 0xe306_9283);
    }

    #[test]
    fn a_scalar_is_the_bytes_that_the_format_says() {
        let when = When {
            wall_time: 1.0,
            step: 300,
        };
        let record = scalars(when, [("a", 0.5)]);
        let event: &[u8] = &[
            9, 0, 0, 0, 0, 0, 0, 0xf0, 0x3f, // wall_time = 1.0
            16, 0xac, 2, // step = 300
            42, 10, // summary
            10, 8, // value
            10, 1, b'a', // tag
            21, 0, 0, 0, 0x3f, // simple_value = 0.5
        ];
        assert_eq!(&record[..8], (event.len() as u64).to_le_bytes());
        assert_eq!(&record[12..record.len() - 4], event);
        let check = masked(crc32c(event)).to_le_bytes();
        assert_eq!(&record[record.len() - 4..], check);
    }
}
