//! Panels of curves side by side.
//!
//! Hides the layout: margins, ticks, clipping at the frame, the legend.

use super::canvas::{Anchor, Canvas, INK, Shape};
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

/// One direction of a panel.
#[derive(Debug, Clone)]
pub struct Axis {
    /// What is measured.
    pub label: String,
    /// The value at the frame's beginning.
    pub from: f64,
    /// The value at the frame's end.
    pub to: f64,
    /// Whether equal factors are equally far apart.
    pub log: bool,
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

/// Okabe and Ito's colours, which the colour-blind can tell apart.
const COLORS: [[u8; 3]; 7] = [
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
            let curves = curves.map(|c| Key::new(&c.label, COLORS[c.color % COLORS.len()], c.look));
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
            let color = COLORS[curve.color % COLORS.len()];
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
        self.color
            .map_or(GREY, |color| COLORS[color % COLORS.len()])
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

impl Axis {
    /// With equal differences equally far apart.
    pub fn linear(label: &str, from: f64, to: f64) -> Self {
        Self {
            label: label.to_owned(),
            from,
            to,
            log: false,
        }
    }

    /// With equal factors equally far apart.
    pub fn log(label: &str, from: f64, to: f64) -> Self {
        Self {
            log: true,
            ..Self::linear(label, from, to)
        }
    }

    /// The same with a little room below, so that a curve at the lower end is not on the frame.
    #[must_use]
    pub fn with_room(self) -> Self {
        Self {
            from: self.from - 0.03 * (self.to - self.from),
            ..self
        }
    }

    /// 0 at the beginning, 1 at the end.
    fn place(&self, value: f64) -> f64 {
        let [from, to, at] = [self.from, self.to, value].map(|x| match self.log {
            true => x.log10(),
            false => x,
        });
        (at - from) / (to - from)
    }

    fn ticks(&self) -> Vec<(f64, String)> {
        match self.log {
            true => self.decades(),
            false => self.round_steps(),
        }
    }

    fn decades(&self) -> Vec<(f64, String)> {
        let first = (self.from.log10() - 1e-9).ceil() as i32;
        let last = (self.to.log10() + 1e-9).floor() as i32;
        let every = ((last - first) as usize / 7 + 1).max(1);
        let powers = (first..=last).step_by(every);
        let text = |power: i32| match power {
            -2..=3 => format!("{}", 10f64.powi(power)),
            _ => format!("1e{power}"),
        };
        powers
            .map(|power| (10f64.powi(power), text(power)))
            .collect()
    }

    /// Steps of 1, 2 or 5 times a power of ten.
    fn round_steps(&self) -> Vec<(f64, String)> {
        let rough = (self.to - self.from) / 5.0;
        let power = 10f64.powf(rough.log10().floor());
        let factor = [1.0, 2.0, 5.0, 10.0]
            .into_iter()
            .find(|factor| factor * power >= rough * 0.999);
        let step = factor.unwrap_or(10.0) * power;
        let digits = (-(step.log10() + 1e-9).floor()).max(0.0) as usize;
        let first = (self.from / step - 1e-9).ceil() as i64;
        let last = (self.to / step + 1e-9).floor() as i64;
        let tick = |n: i64| (n as f64 * step, format!("{:.digits$}", n as f64 * step));
        (first..=last).map(tick).collect()
    }
}

fn within([x, y]: [f64; 2], [left, top, right, bottom]: [f64; 4]) -> bool {
    (left..=right).contains(&x) && (top..=bottom).contains(&y)
}

/// The parts of a line inside a frame.
fn clipped(points: &[[f64; 2]], frame: [f64; 4]) -> Vec<Vec<[f64; 2]>> {
    let mut lines: Vec<Vec<[f64; 2]>> = Vec::new();
    for pair in points.windows(2) {
        let Some([from, to]) = clip([pair[0], pair[1]], frame) else {
            continue;
        };
        match lines.last_mut().filter(|line| line.last() == Some(&from)) {
            Some(line) => line.push(to),
            None => lines.push(vec![from, to]),
        }
    }
    lines
}

/// The part of a segment inside a frame (Liang and Barsky 1984).
fn clip([a, b]: [[f64; 2]; 2], [left, top, right, bottom]: [f64; 4]) -> Option<[[f64; 2]; 2]> {
    let (mut enter, mut leave) = (0.0f64, 1.0f64);
    for (from, to, low, high) in [(a[0], b[0], left, right), (a[1], b[1], top, bottom)] {
        if !(from.is_finite() && to.is_finite()) {
            return None;
        }
        let step = to - from;
        if step == 0.0 {
            if !(low..=high).contains(&from) {
                return None;
            }
            continue;
        }
        let (one, other) = ((low - from) / step, (high - from) / step);
        enter = enter.max(one.min(other));
        leave = leave.min(one.max(other));
    }
    let at = |t: f64| [a[0] + (b[0] - a[0]) * t, a[1] + (b[1] - a[1]) * t];
    // The ends themselves keep their digits, so that the next segment joins them.
    let start = if enter == 0.0 { a } else { at(enter) };
    let end = if leave == 1.0 { b } else { at(leave) };
    (enter <= leave).then_some([start, end])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ticks_are_round() {
        let texts = |axis: Axis| axis.ticks().into_iter().map(|t| t.1).collect::<Vec<_>>();
        assert_eq!(
            texts(Axis::linear("", 0.0, 1.0)),
            ["0.0", "0.2", "0.4", "0.6", "0.8", "1.0"]
        );
        assert_eq!(
            texts(Axis::log("", 1e-5, 100.0)),
            ["1e-5", "1e-4", "1e-3", "0.01", "0.1", "1", "10", "100"]
        );
        assert_eq!(
            texts(Axis::linear("", -5.0, 5.0)),
            ["-4", "-2", "0", "2", "4"]
        );
    }

    #[test]
    fn lines_end_at_the_frame() {
        let frame = [0.0, 0.0, 10.0, 10.0];
        let inside = clipped(&[[5.0, 5.0], [5.0, 20.0], [8.0, 20.0], [8.0, 5.0]], frame);
        let expected = [[[5.0, 5.0], [5.0, 10.0]], [[8.0, 10.0], [8.0, 5.0]]];
        assert_eq!(inside, expected);
        assert!(clipped(&[[0.0, f64::NAN], [1.0, 1.0]], frame).is_empty());
    }
}
