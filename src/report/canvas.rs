//! A list of lines, which is all that a figure is made of.

use std::fmt::Write;

use super::font;

/// A drawing; units are those of CSS pixels, y goes down.
#[derive(Debug, Clone)]
pub struct Canvas {
    pub width: f64,
    pub height: f64,
    pub shapes: Vec<Shape>,
}

/// Lines with round ends that are drawn together.
#[derive(Debug, Clone)]
pub struct Shape {
    pub lines: Vec<Vec<[f64; 2]>>,
    pub color: [u8; 3],
    pub opacity: f64,
    pub width: f64,
    /// Lengths of dash and gap.
    pub dash: Option<[f64; 2]>,
    /// The text that the lines are, for those who cannot see them.
    pub label: Option<String>,
}

/// Which part of a text is at its place.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Anchor {
    Start,
    Middle,
    End,
}

/// Text and frames.
pub const INK: [u8; 3] = [40, 40, 40];

impl Canvas {
    pub fn new(width: f64, height: f64) -> Self {
        Self {
            width,
            height,
            shapes: Vec::new(),
        }
    }

    /// One thin line of ink.
    pub fn rule(&mut self, from: [f64; 2], to: [f64; 2], width: f64, opacity: f64) {
        self.shapes.push(Shape {
            lines: vec![vec![from, to]],
            color: INK,
            opacity,
            width,
            dash: None,
            label: None,
        });
    }

    /// A text in capitals of height `size`, on the baseline through `at`; turned, it reads upwards.
    pub fn text(&mut self, text: &str, at: [f64; 2], size: f64, anchor: Anchor, turned: bool) {
        let scale = size / font::CAPITAL;
        let shift = match anchor {
            Anchor::Start => 0.0,
            Anchor::Middle => font::width(text) / 2.0,
            Anchor::End => font::width(text),
        };
        let place = |[x, y]: [f64; 2]| {
            let (along, up) = ((x - shift) * scale, y * scale);
            match turned {
                false => [at[0] + along, at[1] - up],
                true => [at[0] - up, at[1] - along],
            }
        };
        let lines = font::lines(text).into_iter();
        let lines = lines.map(|line| line.into_iter().map(place).collect());
        self.shapes.push(Shape {
            lines: lines.collect(),
            color: INK,
            opacity: 1.0,
            width: (size * 0.13).max(0.8),
            dash: None,
            label: Some(text.to_owned()),
        });
    }

    /// The drawing as an SVG file.
    pub fn to_svg(&self) -> String {
        let (width, height) = (self.width, self.height);
        let mut svg = format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{width}\" height=\"{height}\" \
             viewBox=\"0 0 {width} {height}\">\n\
             <rect width=\"100%\" height=\"100%\" fill=\"white\"/>\n\
             <g fill=\"none\" stroke-linecap=\"round\" stroke-linejoin=\"round\">\n"
        );
        for shape in &self.shapes {
            svg += &shape.to_svg();
        }
        svg + "</g>\n</svg>\n"
    }
}

impl Shape {
    /// The straight pieces of its lines, gaps between dashes left out.
    pub fn segments(&self) -> impl Iterator<Item = [[f64; 2]; 2]> {
        let lines = self.lines.iter();
        lines.flat_map(|line| match self.dash {
            Some(dash) => dashed(line, dash),
            None => line.windows(2).map(|pair| [pair[0], pair[1]]).collect(),
        })
    }

    fn to_svg(&self) -> String {
        let mut path = String::new();
        for line in &self.lines {
            for (index, [x, y]) in line.iter().enumerate() {
                let command = if index == 0 { 'M' } else { 'L' };
                write!(path, "{command}{x:.2} {y:.2}").expect("a string takes all text");
            }
        }
        let [r, g, b] = self.color;
        let mut tag = format!(
            "<path d=\"{path}\" stroke=\"#{r:02x}{g:02x}{b:02x}\" stroke-width=\"{:.2}\"",
            self.width
        );
        if self.opacity < 1.0 {
            tag += &format!(" stroke-opacity=\"{}\"", self.opacity);
        }
        if let Some([dash, gap]) = self.dash {
            tag += &format!(" stroke-dasharray=\"{dash} {gap}\"");
        }
        if let Some(label) = &self.label {
            let label = label.replace('&', "&amp;").replace('<', "&lt;");
            tag += &format!(
                " role=\"text\" aria-label=\"{}\"",
                label.replace('"', "&quot;")
            );
        }
        tag + "/>\n"
    }
}

/// The dashes of a line, in straight pieces.
fn dashed(line: &[[f64; 2]], [dash, gap]: [f64; 2]) -> Vec<[[f64; 2]; 2]> {
    let mut pieces = Vec::new();
    let mut phase = 0.0;
    for pair in line.windows(2) {
        let [[ax, ay], [bx, by]] = [pair[0], pair[1]];
        let length = (bx - ax).hypot(by - ay);
        let point = |at: f64| {
            let share = at / length;
            [ax + (bx - ax) * share, ay + (by - ay) * share]
        };
        let mut at = 0.0;
        while at < length {
            let inside = phase < dash;
            let rest = if inside {
                dash - phase
            } else {
                dash + gap - phase
            };
            let end = (at + rest).min(length);
            if inside {
                pieces.push([point(at), point(end)]);
            }
            phase += end - at;
            if phase >= dash + gap - 1e-9 {
                phase = 0.0;
            }
            // A piece of no length would never end.
            at = end.max(at + 1e-9);
        }
    }
    pieces
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dashes_go_on_around_corners() {
        let line = [[0.0, 0.0], [3.0, 0.0], [3.0, 3.0]];
        let pieces = dashed(&line, [2.0, 2.0]);
        let expected = [[[0.0, 0.0], [2.0, 0.0]], [[3.0, 1.0], [3.0, 3.0]]];
        assert_eq!(pieces, expected);
    }

    #[test]
    fn a_text_is_labelled_and_escaped() {
        let mut canvas = Canvas::new(100.0, 20.0);
        canvas.text("a < \"b\" & c", [0.0, 10.0], 7.0, Anchor::Start, false);
        let svg = canvas.to_svg();
        assert!(
            svg.contains("aria-label=\"a &lt; &quot;b&quot; &amp; c\""),
            "{svg}"
        );
    }
}
