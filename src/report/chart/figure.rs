//! Panels of curves side by side.
//!
//! Hides the layout: margins, ticks, clipping at the frame, the legend.

use super::axis::Axis;
use super::drawing::{Anchor, Drawing, Form, Look, PALETTE, Role, Shape};
use super::font;
use super::plot::{Curve, KEY, Plot, key};

/// Panels in rows, with one title and one legend.
#[derive(Debug, Clone)]
pub struct Figure {
    /// What its files are called, without an extension.
    pub name: String,
    /// Above the panels.
    pub title: String,
    /// Panels in a row; fewer where they do not fit into 1200 pixels.
    pub columns: usize,
    /// From left to right, then down.
    pub panels: Vec<Panel>,
    /// Below the legend, a paragraph each.
    pub notes: Vec<String>,
}

/// Curves in a frame.
#[derive(Debug, Clone)]
pub struct Panel {
    /// Above the frame.
    pub title: String,
    /// From left to right.
    pub x: Axis,
    /// From bottom to top.
    pub y: Axis,
    /// Drawn in this order.
    pub curves: Vec<Curve>,
    /// Values that curves are compared with.
    pub rules: Vec<Rule>,
}

/// A dashed horizontal line across a panel.
#[derive(Debug, Clone)]
pub struct Rule {
    /// Its word in the legend; none where it is empty.
    pub label: String,
    /// Its number in the list of colours; `None` for grey.
    pub color: Option<usize>,
    /// Where it is.
    pub y: f64,
}

/// How many colours there are; then they begin again.
pub const COLORS: usize = PALETTE.len();
/// The number of the colour of rules without one.
const GREY: usize = COLORS - 1;

/// The frame of one panel of several, and of one alone.
const FRAMES: [[f64; 2]; 2] = [[220.0, 160.0], [460.0, 300.0]];
/// The widest that a figure is, in pixels: what a page or a column of text shows whole.
pub const WIDEST: f64 = 1200.0;
const LEFT: f64 = 58.0;
const RIGHT: f64 = 14.0;
const TOP: f64 = 24.0;
const BOTTOM: f64 = 44.0;
const TITLE: f64 = 30.0;
const LEGEND_ROW: f64 = 20.0;
const NOTE_ROW: f64 = 15.0;
/// Between a sign of the legend and its word, and after the word.
const GAPS: [f64; 2] = [6.0, 24.0];

impl Figure {
    /// As an SVG file.
    pub fn to_svg(&self) -> String {
        self.draw().to_svg()
    }

    /// As a PNG file.
    pub fn to_png(&self) -> Vec<u8> {
        self.draw().to_png()
    }

    fn draw(&self) -> Drawing {
        let frame = FRAMES[usize::from(self.panels.len() == 1)];
        let [wide, high] = [LEFT + frame[0] + RIGHT, TOP + frame[1] + BOTTOM];
        let panels = self.panels.len().max(1);
        let most = ((WIDEST / wide) as usize).clamp(1, panels);
        let rows = panels.div_ceil(self.columns.clamp(1, most));
        // Rows of about the same length.
        let columns = panels.div_ceil(rows);
        let width = wide * columns as f64;
        let below = TITLE + high * rows as f64;
        let title = [width / 2.0, 20.0];
        let mut shapes = vec![Shape::text(Role::Title, &self.title, title, Anchor::Middle)];
        for (index, panel) in self.panels.iter().enumerate() {
            let (column, row) = ((index % columns) as f64, (index / columns) as f64);
            let corner = [column * wide + LEFT, row * high + TITLE + TOP];
            shapes.extend(panel.draw(corner, frame));
        }
        let legend = self.legend(width);
        for (row, keys) in legend.iter().enumerate() {
            let total: f64 = keys.iter().map(Key::width).sum();
            let y = below + LEGEND_ROW * (row as f64 + 0.5);
            let mut x = (width - total) / 2.0;
            for key in keys {
                shapes.extend(key.draw([x, y]));
                x += key.width();
            }
        }
        let mut bottom = below + LEGEND_ROW * legend.len() as f64 + 8.0;
        for line in self
            .notes
            .iter()
            .flat_map(|note| broken(note, width - LEFT))
        {
            bottom += NOTE_ROW;
            let at = [LEFT / 2.0, bottom - 4.0];
            shapes.push(Shape::text(Role::Label, &line, at, Anchor::Start));
        }
        Drawing {
            width,
            height: bottom + if self.notes.is_empty() { 0.0 } else { 6.0 },
            label: [std::slice::from_ref(&self.title), &self.notes]
                .concat()
                .join(". "),
            shapes,
        }
    }

    /// The words of curves and rules, once each, in rows that fit.
    fn legend(&self, width: f64) -> Vec<Vec<Key<'_>>> {
        let mut keys: Vec<Key> = Vec::new();
        for panel in &self.panels {
            let curves = panel.curves.iter();
            let curves = curves.map(|curve| Key(&curve.label, curve.color, curve.look));
            let rules = panel.rules.iter();
            let rules = rules.map(|rule| Key(&rule.label, rule.color(), Look::Dashed));
            for key in curves.chain(rules) {
                if !key.0.is_empty() && !keys.contains(&key) {
                    keys.push(key);
                }
            }
        }
        let mut rows: Vec<Vec<Key>> = Vec::new();
        for key in keys {
            let fits =
                |row: &&mut Vec<Key>| row.iter().map(Key::width).sum::<f64>() + key.width() < width;
            match rows.last_mut().filter(fits) {
                Some(row) => row.push(key),
                None => rows.push(vec![key]),
            }
        }
        rows
    }
}

/// A paragraph in lines that are at most so wide, also in the fonts of a browser, which are wider than ours.
fn broken(note: &str, width: f64) -> Vec<String> {
    let width = 0.85 * width;
    let mut lines: Vec<String> = Vec::new();
    for word in note.split(' ') {
        let fits = |line: &&mut String| {
            font::width(&format!("{line} {word}"), Role::Label.pen().size) <= width
        };
        match lines.last_mut().filter(fits) {
            Some(line) => *line += &format!(" {word}"),
            None => lines.push(word.to_owned()),
        }
    }
    lines
}

/// An entry of the legend: its word, the number of its colour, how its curve looks.
#[derive(PartialEq)]
struct Key<'a>(&'a str, usize, Look);

impl Key<'_> {
    fn width(&self) -> f64 {
        let word = font::width(self.0, Role::Label.pen().size);
        KEY + GAPS[0] + word + GAPS[1]
    }

    fn draw(&self, [x, y]: [f64; 2]) -> Vec<Shape> {
        let mut shapes = key(self.1, self.2, [x, y]);
        let at = [x + KEY + GAPS[0], y + 4.0];
        shapes.push(Shape::text(Role::Label, self.0, at, Anchor::Start));
        shapes
    }
}

impl Panel {
    fn draw(&self, [left, top]: [f64; 2], [wide, high]: [f64; 2]) -> Vec<Shape> {
        let [right, bottom] = [left + wide, top + high];
        let plot = Plot {
            x: &self.x,
            y: &self.y,
            frame: [left, top, right, bottom],
        };
        let [middle, centre] = [(left + right) / 2.0, (top + bottom) / 2.0];
        let text = |role, text, at| Shape::text(role, text, at, Anchor::Middle);
        let mut shapes = plot.grid(true);
        shapes.push(text(Role::Title, &self.title, [middle, top - 8.0]));
        shapes.push(text(Role::Label, &self.x.label, [middle, bottom + 32.0]));
        let upward = Form::Text {
            text: self.y.label.clone(),
            at: [left - 42.0, centre],
            anchor: Anchor::Middle,
            upward: true,
        };
        shapes.push(Shape::new(Role::Label, upward));
        shapes.extend(self.curves.iter().flat_map(|curve| plot.curve(curve)));
        for rule in &self.rules {
            shapes.extend(plot.curve(&Curve {
                label: String::new(),
                color: rule.color(),
                look: Look::Dashed,
                points: vec![(self.x.from, rule.y), (self.x.to, rule.y)],
            }));
        }
        let corners = [[left, top], [right, top], [right, bottom], [left, bottom]];
        let around = corners.into_iter().chain([[left, top]]).collect();
        shapes.push(Shape::lines(Role::Axis, vec![around]));
        shapes
    }
}

impl Rule {
    fn color(&self) -> usize {
        self.color.unwrap_or(GREY)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn figure(panels: usize, columns: usize) -> Figure {
        let panel = Panel {
            title: String::new(),
            x: Axis::linear("x", 0.0, 1.0),
            y: Axis::linear("y", 0.0, 1.0),
            curves: Vec::new(),
            rules: Vec::new(),
        };
        Figure {
            name: "f".into(),
            title: "t".into(),
            columns,
            panels: vec![panel; panels],
            notes: Vec::new(),
        }
    }

    #[test]
    fn no_figure_is_wider_than_a_page_and_rows_are_even() {
        for (panels, columns, width) in [(1, 1, 532.0), (2, 2, 584.0), (5, 5, 876.0), (9, 9, 876.0)]
        {
            let drawing = figure(panels, columns).draw();
            assert_eq!(drawing.width, width, "{panels}");
        }
        assert!((1..40).all(|panels| figure(panels, panels).draw().width <= WIDEST));
    }

    #[test]
    fn notes_are_below_the_figure_in_lines_that_fit() {
        let plain = figure(1, 1).draw();
        let noted = Figure {
            notes: vec!["left out of the figure: a run ".repeat(10)],
            ..figure(1, 1)
        }
        .draw();
        assert!(noted.height > plain.height + NOTE_ROW);
        assert!(noted.label.contains("left out of the figure"));
        let texts = noted.shapes.iter().filter_map(|shape| match &shape.form {
            Form::Text { text, at, .. } => Some((text, at)),
            _ => None,
        });
        for (text, [x, _]) in texts.filter(|(text, _)| text.contains("figure")) {
            let width = font::width(text, Role::Label.pen().size);
            assert!(x + width <= noted.width, "{text}");
        }
    }
}
