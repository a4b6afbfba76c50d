//! Lines to pixels, and pixels to a PNG file.
//!
//! A pixel's share of a line is its distance from the line's edge, which is exact for straight
//! edges and good to the eye for the rest. A shape is blended once, however often it crosses itself.

use std::io::Write;

use flate2::write::ZlibEncoder;
use flate2::{Compression, Crc};

use super::canvas::{Canvas, Shape};

/// Pixels per unit of a figure.
const SCALE: f64 = 2.0;

/// The figure on white, as a PNG file.
pub fn encode(canvas: &Canvas) -> Vec<u8> {
    let (width, height) = (pixels(canvas.width), pixels(canvas.height));
    let mut image = vec![255; width * height * 3];
    for shape in &canvas.shapes {
        paint(&mut image, width, height, shape);
    }
    let mut file = b"\x89PNG\r\n\x1a\n".to_vec();
    let mut header = Vec::new();
    header.extend((width as u32).to_be_bytes());
    header.extend((height as u32).to_be_bytes());
    // 8 bits, RGB, deflate, the five filters, not interlaced.
    header.extend([8, 2, 0, 0, 0]);
    chunk(&mut file, b"IHDR", &header);
    chunk(&mut file, b"IDAT", &compressed(&image, width * 3));
    chunk(&mut file, b"IEND", &[]);
    file
}

fn pixels(length: f64) -> usize {
    (length * SCALE).ceil() as usize
}

fn compressed(image: &[u8], row: usize) -> Vec<u8> {
    let mut encoder = ZlibEncoder::new(Vec::new(), Compression::default());
    for line in image.chunks(row) {
        // Filter 0: the bytes as they are.
        encoder.write_all(&[0]).expect("a vector takes all bytes");
        encoder.write_all(line).expect("a vector takes all bytes");
    }
    encoder.finish().expect("a vector takes all bytes")
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

/// Blends one shape into the image.
fn paint(image: &mut [u8], width: usize, height: usize, shape: &Shape) {
    let radius = shape.width * SCALE / 2.0;
    let segments: Vec<[[f64; 2]; 2]> = shape.segments().map(|ends| ends.map(scaled)).collect();
    let Some(bounds) = bounds(&segments, radius + 1.0, width, height) else {
        return;
    };
    let [left, top, right, bottom] = bounds;
    let stride = right - left;
    let mut cover = vec![0f64; stride * (bottom - top)];
    for segment in &segments {
        let own = self::bounds(std::slice::from_ref(segment), radius + 1.0, width, height);
        let Some([x0, y0, x1, y1]) = own else {
            continue;
        };
        for y in y0..y1 {
            for x in x0..x1 {
                let centre = [x as f64 + 0.5, y as f64 + 0.5];
                let share = (radius + 0.5 - distance(centre, segment)).clamp(0.0, 1.0);
                let place = &mut cover[(y - top) * stride + x - left];
                *place = place.max(share);
            }
        }
    }
    for (index, share) in cover.iter().enumerate().filter(|(_, share)| **share > 0.0) {
        let (x, y) = (left + index % stride, top + index / stride);
        let pixel = &mut image[(y * width + x) * 3..][..3];
        for (old, new) in pixel.iter_mut().zip(shape.color) {
            let share = share * shape.opacity;
            *old = (f64::from(*old) * (1.0 - share) + f64::from(new) * share).round() as u8;
        }
    }
}

fn scaled(point: [f64; 2]) -> [f64; 2] {
    point.map(|x| x * SCALE)
}

/// The pixels that segments reach with a margin, `[left, top, right, bottom]`; `None` for none.
fn bounds(
    segments: &[[[f64; 2]; 2]],
    margin: f64,
    width: usize,
    height: usize,
) -> Option<[usize; 4]> {
    let along = |axis: usize, size: usize| {
        let points = || segments.iter().flatten().map(|point| point[axis]);
        let low = points().fold(f64::INFINITY, f64::min) - margin;
        let high = points().fold(f64::NEG_INFINITY, f64::max) + margin;
        let low = low.floor().max(0.0) as usize;
        let high = (high.ceil().max(0.0) as usize).min(size);
        (low < high).then_some((low, high))
    };
    let (left, right) = along(0, width)?;
    let (top, bottom) = along(1, height)?;
    Some([left, top, right, bottom])
}

/// From a point to a segment.
fn distance([x, y]: [f64; 2], [[ax, ay], [bx, by]]: &[[f64; 2]; 2]) -> f64 {
    let (dx, dy) = (bx - ax, by - ay);
    let length = dx * dx + dy * dy;
    let along = if length > 0.0 {
        (((x - ax) * dx + (y - ay) * dy) / length).clamp(0.0, 1.0)
    } else {
        0.0
    };
    (x - ax - along * dx).hypot(y - ay - along * dy)
}

#[cfg(test)]
mod tests {
    use super::*;
    use flate2::read::ZlibDecoder;
    use std::io::Read;

    fn line() -> Canvas {
        let mut canvas = Canvas::new(10.0, 5.0);
        canvas.shapes.push(Shape {
            lines: vec![vec![[0.0, 2.5], [10.0, 2.5]]],
            color: [200, 0, 0],
            opacity: 1.0,
            width: 1.0,
            dash: None,
            label: None,
        });
        canvas
    }

    #[test]
    fn a_file_has_the_chunks_of_the_standard_and_its_pixels() {
        let file = encode(&line());
        assert!(file.starts_with(b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR\0\0\0\x14\0\0\0\x0a"));
        // The checksum of an empty IEND, from the standard.
        assert!(file.ends_with(b"\0\0\0\0IEND\xaeB\x60\x82"));
        let at = file.windows(4).position(|w| w == b"IDAT").unwrap();
        let mut bytes = Vec::new();
        let mut decoder = ZlibDecoder::new(&file[at + 4..]);
        decoder.read_to_end(&mut bytes).unwrap();
        assert_eq!(bytes.len(), 10 * (1 + 3 * 20));
        let row = |y: usize| &bytes[y * 61 + 1..][..3];
        assert_eq!(row(0), [255, 255, 255]);
        // Two pixels wide: rows 4 and 5, whole.
        assert_eq!((row(4), row(5)), (&[200, 0, 0][..], &[200, 0, 0][..]));
        assert_eq!(row(6), [255, 255, 255]);
    }
}
