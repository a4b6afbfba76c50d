//! Panels of curves side by side.
//!
//! Hides the layout: margins, ticks, clipping at the frame, the legend.

use super::axis::Axis;
use super::canvas::{Anchor, Canvas, INK, Shape};
use super::clip::{clipped, within};
use super::png;

/// Panels in rows, with one title and one legend.
#[derive(Debug, Clone)]
pub struct Figure {
    /// What its files are called, without an extension.
    pub name: String,
    /// Above the panels.
    pub title: String,
    /// Panels in a row.
    pub columns: usize,
    /// From left to right, then down.
    pub panels: Vec<Panel>,
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

/// A sequence of points.
#[derive(Debug, Clone)]
pub struct Curve {
    /// Its word in the legend; none where it is empty.
    pub label: String,
    /// Its number in the list of colours.
    pub color: usize,
    /// How it is drawn.
    pub look: Look,
    /// (x, y); a point that is not finite interrupts the curve.
    pub points: Vec<(f64, f64)>,
}

/// How points are drawn.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Look {
    /// A line.
    Line,
    /// A thin, pale line, for one of many.
    Faint,
    /// A line of dashes.
    Dashed,
    /// A dot at each point.
    Dots,
    /// A bar of spread behind a dot.
    Bar,
}

/// A dashed horizontal line across a panel.
#[derive(Debug, Clone)]
pub struct Rule {
    /// Its word in the legend; none where it is empty.
    pub label: String,
    /// Its number in the list of colours; `None` is grey.
    pub color: Option<usize>,
    /// Where it is.
    pub y: f64,
}

/// How many colours there are; then they begin again.
pub const COLORS: usize = 7;
/// Okabe and Ito's colours, which the colour-blind can tell apart.
const PALETTE: [[u8; 3]; COLORS] = [
    [0, 114, 178],
    [213, 94, 0],
    [0, 158, 115],
    [204, 121, 167],
    [230, 159, 0],
    [86, 180, 233],
    [90, 90, 90],
];
const GREY: [u8; 3] = [110, 110, 110];

const FRAME: [f64; 2] = [220.0, 160.0];
const LEFT: f64 = 58.0;
const RIGHT: f64 = 14.0;
const TOP: f64 = 24.0;
const BOTTOM: f64 = 44.0;
const TITLE: f64 = 30.0;
const LEGEND_ROW: f64 = 20.0;
const LEGEND_LINE: f64 = 22.0;
/// The height of capitals, in titles and elsewhere.
const LARGE: f64 = 9.0;
const SMALL: f64 = 7.5;

impl Figure {
    /// As an SVG file.
    pub fn to_svg(&self) -> String {
        self.draw().to_svg()
    }

    /// As a PNG file.
    pub fn to_png(&self) -> Vec<u8> {
        png::encode(&self.draw())
    }

    fn draw(&self) -> Canvas {
        let columns = self.columns.clamp(1, self.panels.len().max(1));
        let rows = self.panels.len().div_ceil(columns);
        let [wide, high] = [LEFT + FRAME[0] + RIGHT, TOP + FRAME[1] + BOTTOM];
        let width = wide * columns as f64;
        let legend = self.legend(width);
        let panels = high * rows as f64;
        let height = TITLE + panels + LEGEND_ROW * legend.len() as f64 + 8.0;
        let mut canvas = Canvas::new(width, height);
        canvas.text(
            &self.title,
            [width / 2.0, 20.0],
            LARGE,
            Anchor::Middle,
            false,
        );
        for (index, panel) in self.panels.iter().enumerate() {
            let (column, row) = ((index % columns) as f64, (index / columns) as f64);
            panel.draw(
                &mut canvas,
                [column * wide + LEFT, row * high + TITLE + TOP],
            );
        }
        for (row, keys) in legend.iter().enumerate() {
            let total: f64 = keys.iter().map(|key| key.width).sum();
            let y = TITLE + panels + LEGEND_ROW * (row as f64 + 0.5);
            let mut x = (width - total) / 2.0;
            for key in keys {
                key.draw(&mut canvas, [x, y]);
                x += key.width;
            }
        }
        canvas
    }

    /// The words of curves and rules, once each, in rows that fit.
    fn legend(&self, width: f64) -> Vec<Vec<Key>> {
        let mut keys: Vec<Key> = Vec::new();
        for panel in &self.panels {
            let curves = panel.curves.iter();
            let curves = curves.map(|c| Key::new(&c.label, PALETTE[c.color % COLORS], c.look));
            let rules = panel.rules.iter();
            let rules = rules.map(|r| Key::new(&r.label, r.ink(), Look::Dashed));
            for key in curves.chain(rules) {
                if !key.label.is_empty() && keys.iter().all(|other| !other.same(&key)) {
                    keys.push(key);
                }
            }
        }
        let mut rows: Vec<Vec<Key>> = Vec::new();
        for key in keys {
            let fits = |row: &&mut Vec<Key>| {
                row.iter().map(|key| key.width).sum::<f64>() + key.width < width
            };
            match rows.last_mut().filter(fits) {
                Some(row) => row.push(key),
                None => rows.push(vec![key]),
            }
        }
        rows
    }
}

/// An entry of the legend.
struct Key {
    label: String,
    color: [u8; 3],
    look: Look,
    width: f64,
}

impl Key {
    fn new(label: &str, color: [u8; 3], look: Look) -> Self {
        let text = super::font::width(label) * SMALL / super::font::CAPITAL;
        Self {
            label: label.to_owned(),
            color,
            look,
            width: LEGEND_LINE + 6.0 + text + 18.0,
        }
    }

    fn same(&self, other: &Self) -> bool {
        (&self.label, self.color, self.look) == (&other.label, other.color, other.look)
    }

    fn draw(&self, canvas: &mut Canvas, [x, y]: [f64; 2]) {
        let line = match self.look {
            Look::Dots => vec![[x + LEGEND_LINE / 2.0, y]; 2],
            _ => vec![[x, y], [x + LEGEND_LINE, y]],
        };
        canvas
            .shapes
            .push(stroke(vec![line], self.color, self.look));
        let at = [x + LEGEND_LINE + 6.0, y + SMALL / 2.0];
        canvas.text(&self.label, at, SMALL, Anchor::Start, false);
    }
}

impl Panel {
    fn draw(&self, canvas: &mut Canvas, origin: [f64; 2]) {
        let [left, top] = origin;
        let [right, bottom] = [left + FRAME[0], top + FRAME[1]];
        let middle = (left + right) / 2.0;
        canvas.text(
            &self.title,
            [middle, top - 8.0],
            LARGE,
            Anchor::Middle,
            false,
        );
        for (value, text) in self.x.ticks() {
            let x = left + self.x.place(value) * FRAME[0];
            canvas.rule([x, top], [x, bottom], 0.6, 0.12);
            canvas.rule([x, bottom], [x, bottom + 4.0], 0.8, 1.0);
            canvas.text(&text, [x, bottom + 15.0], SMALL, Anchor::Middle, false);
        }
        for (value, text) in self.y.ticks() {
            let y = bottom - self.y.place(value) * FRAME[1];
            canvas.rule([left, y], [right, y], 0.6, 0.12);
            canvas.rule([left - 4.0, y], [left, y], 0.8, 1.0);
            canvas.text(
                &text,
                [left - 8.0, y + SMALL / 2.0],
                SMALL,
                Anchor::End,
                false,
            );
        }
        canvas.text(
            &self.x.label,
            [middle, bottom + 31.0],
            SMALL,
            Anchor::Middle,
            false,
        );
        let centre = [left - 42.0, (top + bottom) / 2.0];
        canvas.text(&self.y.label, centre, SMALL, Anchor::Middle, true);
        let place = |(x, y): (f64, f64)| {
            let along = self.x.place(x) * FRAME[0];
            [left + along, bottom - self.y.place(y) * FRAME[1]]
        };
        let frame = [left, top, right, bottom];
        for curve in &self.curves {
            let points: Vec<[f64; 2]> = curve.points.iter().copied().map(place).collect();
            let lines = match curve.look {
                Look::Dots => {
                    let seen = points.into_iter().filter(|point| within(*point, frame));
                    seen.map(|point| vec![point, point]).collect()
                }
                _ => clipped(&points, frame),
            };
            let color = PALETTE[curve.color % COLORS];
            canvas.shapes.push(stroke(lines, color, curve.look));
        }
        for rule in &self.rules {
            let line = [place((self.x.from, rule.y)), place((self.x.to, rule.y))];
            canvas
                .shapes
                .push(stroke(clipped(&line, frame), rule.ink(), Look::Dashed));
        }
        let corners = vec![
            [left, top],
            [right, top],
            [right, bottom],
            [left, bottom],
            [left, top],
        ];
        canvas.shapes.push(Shape {
            lines: vec![corners],
            color: INK,
            opacity: 1.0,
            width: 1.0,
            dash: None,
            label: None,
        });
    }
}

impl Rule {
    fn ink(&self) -> [u8; 3] {
        self.color.map_or(GREY, |color| PALETTE[color % COLORS])
    }
}

fn stroke(lines: Vec<Vec<[f64; 2]>>, color: [u8; 3], look: Look) -> Shape {
    let (width, opacity, dash) = match look {
        Look::Line => (1.8, 1.0, None),
        Look::Faint => (0.8, 0.3, None),
        Look::Dashed => (1.2, 0.9, Some([4.0, 4.0])),
        Look::Dots => (4.5, 1.0, None),
        Look::Bar => (1.6, 0.45, None),
    };
    Shape {
        lines,
        color,
        opacity,
        width,
        dash,
        label: None,
    }
}
