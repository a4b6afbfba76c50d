//! A frame with two axes: where values are in a drawing.

use super::axis::{Axis, is_drawn};
use super::clip::{clipped, within};
use super::drawing::{Anchor, Form, Look, Role, Shape};

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

/// A frame with two axes.
pub struct Plot<'a> {
    /// From left to right.
    pub x: &'a Axis,
    /// From bottom to top.
    pub y: &'a Axis,
    /// Left, top, right, bottom.
    pub frame: [f64; 4],
}

/// The radius of dots.
const DOT: f64 = 3.0;
/// Dots that touch are a thicker line: so many points at most have one beside their line.
const MARKED: usize = 40;
/// The width of a curve's sign in a legend.
pub const KEY: f64 = 22.0;

/// A curve's sign in a legend, [`KEY`] wide, from a point at its left.
pub fn key(color: usize, look: Look, [x, y]: [f64; 2]) -> Vec<Shape> {
    let role = Role::Curve(color, look);
    let line = Shape::lines(role, vec![vec![[x + 1.0, y], [x + KEY - 1.0, y]]]);
    let dot = Shape::new(role, Form::Dots(vec![[x + KEY / 2.0, y]], DOT));
    match look {
        Look::Dots => vec![dot],
        look if look.is_marked() => vec![line, dot],
        _ => vec![line],
    }
}

impl Plot<'_> {
    /// Where a point is in the drawing.
    pub fn place(&self, (x, y): (f64, f64)) -> [f64; 2] {
        let [left, top, right, bottom] = self.frame;
        [
            left + self.x.place(x) * (right - left),
            bottom + self.y.place(y) * (top - bottom),
        ]
    }

    /// Lines across the frame at the ticks of y, and with `upright` at those of x; the labels of both.
    pub fn grid(&self, upright: bool) -> Vec<Shape> {
        let [left, top, right, bottom] = self.frame;
        let mut lines = Vec::new();
        let mut labels = Vec::new();
        let mut label = |text: &str, at, anchor| {
            labels.push(Shape::text(Role::Label, text, at, anchor));
        };
        for (value, text) in self.y.ticks() {
            let [_, y] = self.place((self.x.from, value));
            lines.push(vec![[left, y], [right, y]]);
            label(&text, [left - 6.0, y + 4.0], Anchor::End);
        }
        for (value, text) in self.x.ticks() {
            let [x, _] = self.place((value, self.y.from));
            if upright {
                lines.push(vec![[x, top], [x, bottom]]);
            }
            label(&text, [x, bottom + 16.0], Anchor::Middle);
        }
        let mut shapes = vec![Shape::lines(Role::Grid, lines)];
        shapes.append(&mut labels);
        shapes
    }

    /// A curve, as far as it is inside the frame.
    pub fn curve(&self, curve: &Curve) -> Vec<Shape> {
        let placed = curve.points.iter().map(|&(x, y)| {
            let place = self.place((x, y));
            (is_drawn(y) && place.iter().all(|at| at.is_finite())).then_some(place)
        });
        let placed: Vec<Option<[f64; 2]>> = placed.collect();
        let all = match curve.look {
            Look::Dots => true,
            look => look.is_marked() && placed.len() <= MARKED,
        };
        let (mut lines, mut dots) = (Vec::new(), Vec::new());
        for part in placed.split(Option::is_none) {
            let part: Vec<[f64; 2]> = part.iter().copied().flatten().collect();
            // A point by itself is no line.
            if all || part.len() == 1 {
                let inside = part.iter().filter(|point| within(**point, self.frame));
                dots.extend(inside);
            }
            if curve.look != Look::Dots {
                lines.append(&mut clipped(&part, self.frame));
            }
        }
        let role = Role::Curve(curve.color, curve.look);
        let lines = (!lines.is_empty()).then_some(Form::Lines(lines));
        let dots = (!dots.is_empty()).then_some(Form::Dots(dots, DOT));
        let forms = lines.into_iter().chain(dots);
        forms.map(|form| Shape::new(role, form)).collect()
    }
}
