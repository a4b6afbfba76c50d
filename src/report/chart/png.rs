//! A drawing as PNG.
//!
//! `tiny-skia` fills the pixels. Its own encoder would link a second copy of deflate beside the one of
//! `flate2`; the file around the pixels is three chunks.

use std::io::Write;

use flate2::write::ZlibEncoder;
use flate2::{Compression, Crc};
use tiny_skia::{
    Color, FillRule, LineCap, LineJoin, Paint, Path, PathBuilder, Pixmap, Stroke, StrokeDash,
    Transform,
};

use super::drawing::{Drawing, Form, Pen, Shape};
use super::figure::WIDEST;
use super::font;

/// Pixels per unit of a drawing, at most and at least.
const SCALES: [f64; 2] = [2.0, 1.0];

impl Drawing {
    /// As a PNG file, on white.
    pub fn to_png(&self) -> Vec<u8> {
        let scale = (WIDEST / self.width).clamp(SCALES[1], SCALES[0]);
        let pixels = |length: f64| (length * scale).ceil() as u32;
        let image = Pixmap::new(pixels(self.width), pixels(self.height));
        let mut image = image.expect("a drawing has a size");
        image.fill(Color::WHITE);
        for shape in &self.shapes {
            shape.paint(&mut image, scale);
        }
        encode(&image)
    }
}

/// The opaque image as a file of 8-bit RGB.
fn encode(image: &Pixmap) -> Vec<u8> {
    let mut deflated = ZlibEncoder::new(Vec::new(), Compression::default());
    let mut put = |bytes: &[u8]| deflated.write_all(bytes).expect("a vector takes all bytes");
    for row in image.pixels().chunks(image.width() as usize) {
        // Filter 0: the bytes as they are.
        put(&[0]);
        let row = row.iter().flat_map(|p| [p.red(), p.green(), p.blue()]);
        put(&row.collect::<Vec<u8>>());
    }
    let deflated = deflated.finish().expect("a vector takes all bytes");
    let mut header = Vec::new();
    header.extend(image.width().to_be_bytes());
    header.extend(image.height().to_be_bytes());
    // 8 bits, RGB, deflate, the five filters, not interlaced.
    header.extend([8, 2, 0, 0, 0]);
    let mut file = b"\x89PNG\r\n\x1a\n".to_vec();
    chunk(&mut file, b"IHDR", &header);
    chunk(&mut file, b"IDAT", &deflated);
    chunk(&mut file, b"IEND", &[]);
    file
}

fn chunk(file: &mut Vec<u8>, kind: &[u8; 4], data: &[u8]) {
    let mut crc = Crc::new();
    crc.update(kind);
    crc.update(data);
    file.extend((data.len() as u32).to_be_bytes());
    file.extend(kind);
    file.extend(data);
    file.extend(crc.sum().to_be_bytes());
}

impl Shape {
    fn paint(&self, image: &mut Pixmap, scale: f64) {
        let pen = self.role.pen();
        match &self.form {
            Form::Lines(lines) => stroke(image, lines, pen, scale),
            Form::Dots(dots, radius) => {
                for [x, y] in dots {
                    let dot = PathBuilder::from_circle(*x as f32, *y as f32, *radius as f32);
                    let dot = dot.expect("a dot has a radius");
                    let around = Pen {
                        color: [255; 3],
                        opacity: 1.0,
                        size: 1.2,
                        dash: None,
                    };
                    let (fill, rule) = (paint(pen), FillRule::Winding);
                    image.fill_path(&dot, &fill, rule, transform(scale), None);
                    stroke_path(image, &dot, around, scale);
                }
            }
            Form::Text {
                text,
                at,
                anchor,
                upward,
            } => {
                let letters = font::text(text, *at, pen.size, *anchor, *upward);
                let size = (pen.size * 0.13).max(0.8);
                stroke(image, &letters, Pen { size, ..pen }, scale);
            }
        }
    }
}

fn stroke(image: &mut Pixmap, lines: &[Vec<[f64; 2]>], pen: Pen, scale: f64) {
    let mut path = PathBuilder::new();
    for line in lines {
        for (index, [x, y]) in line.iter().enumerate() {
            match index {
                0 => path.move_to(*x as f32, *y as f32),
                _ => path.line_to(*x as f32, *y as f32),
            }
        }
    }
    // Nothing but moves is no path.
    if let Some(path) = path.finish() {
        stroke_path(image, &path, pen, scale);
    }
}

fn stroke_path(image: &mut Pixmap, path: &Path, pen: Pen, scale: f64) {
    let dash = pen
        .dash
        .map(|dash| dash.map(|length| length as f32).to_vec());
    let stroke = Stroke {
        width: pen.size as f32,
        line_cap: LineCap::Round,
        line_join: LineJoin::Round,
        dash: dash.and_then(|dash| StrokeDash::new(dash, 0.0)),
        ..Stroke::default()
    };
    image.stroke_path(path, &paint(pen), &stroke, transform(scale), None);
}

fn paint(pen: Pen) -> Paint<'static> {
    let mut paint = Paint::default();
    let [r, g, b] = pen.color;
    paint.set_color_rgba8(r, g, b, (pen.opacity * 255.0).round() as u8);
    paint
}

fn transform(scale: f64) -> Transform {
    Transform::from_scale(scale as f32, scale as f32)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::chart::{Anchor, Role};
    use flate2::read::ZlibDecoder;
    use std::io::Read;

    #[test]
    fn a_file_has_the_signature_of_the_standard_and_its_pixels() {
        let drawing = Drawing {
            width: 10.0,
            height: 5.0,
            shapes: vec![
                Shape::lines(Role::Axis, vec![vec![[0.0, 2.5], [10.0, 2.5]]]),
                // A text of spaces has no lines, and so no path.
                Shape::text(Role::Label, " ", [0.0, 2.0], Anchor::Start),
            ],
            ..Drawing::default()
        };
        let file = drawing.to_png();
        assert!(file.starts_with(b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR\0\0\0\x14\0\0\0\x0a"));
        // The checksum of an empty IEND, from the standard.
        assert!(file.ends_with(b"\0\0\0\0IEND\xaeB\x60\x82"));
        let at = file.windows(4).position(|w| w == b"IDAT").unwrap();
        let mut bytes = Vec::new();
        let mut decoder = ZlibDecoder::new(&file[at + 4..]);
        decoder.read_to_end(&mut bytes).unwrap();
        assert_eq!(bytes.len(), 10 * (1 + 3 * 20));
        // Two pixels wide: rows 4 and 5, whole.
        let rows = [3, 4, 5, 6].map(|y| bytes[y * 61 + 31]);
        assert_eq!(rows, [255, 40, 40, 255]);
    }
}
