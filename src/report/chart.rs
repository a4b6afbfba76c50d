//! Charts: axes, curves and labels laid out once, written as SVG or PNG.
//!
//! Hides coordinates and file formats: a [`Plot`] turns values into a list of shapes, a [`Drawing`] is
//! such a list, and each format is one function of it. Figures in files and curves in pages share both.
//!
//! *Why*: a shape has a role, not a colour. Inside a page its role is a CSS class, so that curves follow
//! the reader's light or dark mode; in a file it is a fixed [`Pen`](drawing::Pen). No chart library is
//! used: `plotters` and `resvg` both need a font file to put text into a PNG, and there is none to rely
//! on. The PNG's letters are strokes (`font.rs`) and `tiny-skia` fills the pixels.

mod axis;
mod clip;
mod drawing;
mod figure;
mod font;
mod labels;
mod plot;
mod png;
mod svg;

pub use axis::{Axis, is_drawn, room};
pub use drawing::{Anchor, Drawing, Form, Look, Role, Shape};
pub use figure::{COLORS, Figure, Panel, Rule};
pub use labels::{Label, labels};
pub use plot::{Curve, KEY, Plot, key};
pub use svg::PAGE_COLORS;
