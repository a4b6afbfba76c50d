//! A list of shapes: what every output format draws.

/// A drawing; units are CSS pixels, y goes down.
#[derive(Debug, Clone, Default)]
pub struct Drawing {
    /// From the left edge to the right one.
    pub width: f64,
    /// From the top edge to the bottom.
    pub height: f64,
    /// What it shows, for readers who cannot see it; empty for an ornament.
    pub label: String,
    /// In the order in which they are drawn.
    pub shapes: Vec<Shape>,
}

/// Lines, dots or a text.
#[derive(Debug, Clone)]
pub struct Shape {
    /// What it is for, which decides how it looks.
    pub role: Role,
    /// What is drawn.
    pub form: Form,
    /// What a pointer on it is told.
    pub title: Option<String>,
}

/// What a shape is for.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Role {
    /// A line at a tick.
    Grid,
    /// The edge of a frame.
    Axis,
    /// A step at which something happened.
    Event,
    /// A value that a chart is compared with.
    Rule,
    /// A line from a point to its name.
    Leader,
    /// A part of a curve: the colour's number, and how it looks.
    Curve(usize, Look),
    /// The title of a panel or figure.
    Title,
    /// A word beside an axis.
    Label,
    /// The name of a point.
    Name,
}

/// How the points of a curve are drawn.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Look {
    /// A line.
    Line,
    /// A thin, pale line, for one of many.
    Faint,
    /// A dashed line.
    Dashed,
    /// A dot at each point.
    Dots,
    /// A bar of spread behind a dot.
    Bar,
    /// A line with a dot at each point.
    Marked,
    /// A dashed line with a dot at each point.
    MarkedDashed,
}

/// What a shape consists of.
#[derive(Debug, Clone)]
pub enum Form {
    /// Lines with round ends.
    Lines(Vec<Vec<[f64; 2]>>),
    /// Dots of a radius.
    Dots(Vec<[f64; 2]>, f64),
    /// A text.
    Text {
        /// Its characters.
        text: String,
        /// A point of its baseline.
        at: [f64; 2],
        /// Which part of the text is there.
        anchor: Anchor,
        /// Whether it reads upward.
        upward: bool,
    },
}

/// Which part of a text is at its point.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Anchor {
    /// Its first letter.
    Start,
    /// Its middle.
    Middle,
    /// Its last letter.
    End,
}

/// How a role looks outside a page.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Pen {
    /// Red, green, blue.
    pub color: [u8; 3],
    /// In [0, 1].
    pub opacity: f64,
    /// The width of lines, or the height of capitals.
    pub size: f64,
    /// Lengths of dash and gap.
    pub dash: Option<[f64; 2]>,
}

/// Okabe and Ito's colours, which the colour-blind can tell apart.
pub const PALETTE: [[u8; 3]; 7] = [
    [0, 114, 178],
    [213, 94, 0],
    [0, 158, 115],
    [204, 121, 167],
    [230, 159, 0],
    [86, 180, 233],
    [90, 90, 90],
];
const INK: [u8; 3] = [40, 40, 40];

impl Role {
    /// How it looks outside a page.
    pub fn pen(self) -> Pen {
        let (size, opacity) = match self {
            Self::Grid => (0.6, 0.15),
            Self::Axis => (1.0, 1.0),
            Self::Event | Self::Rule => (1.0, 0.5),
            Self::Leader => (0.6, 0.6),
            Self::Curve(_, Look::Line | Look::Marked | Look::Dots) => (1.8, 1.0),
            Self::Curve(_, Look::Faint) => (0.8, 0.3),
            Self::Curve(_, Look::Dashed | Look::MarkedDashed) => (1.2, 0.9),
            Self::Curve(_, Look::Bar) => (1.6, 0.45),
            Self::Title => (9.0, 1.0),
            Self::Label | Self::Name => (7.5, 1.0),
        };
        let (color, dash) = match self {
            Self::Curve(color, look) => (PALETTE[color % PALETTE.len()], look.is_dashed()),
            role => (INK, matches!(role, Self::Event | Self::Rule)),
        };
        Pen {
            color,
            opacity,
            size,
            dash: dash.then_some([4.0, 4.0]),
        }
    }
}

impl Look {
    /// Whether its lines have gaps.
    pub fn is_dashed(self) -> bool {
        matches!(self, Self::Dashed | Self::MarkedDashed)
    }

    /// Whether it has a dot at each point beside a line.
    pub fn is_marked(self) -> bool {
        matches!(self, Self::Marked | Self::MarkedDashed)
    }
}

impl Shape {
    /// Lines of a role.
    pub fn lines(role: Role, lines: Vec<Vec<[f64; 2]>>) -> Self {
        Self::new(role, Form::Lines(lines))
    }

    /// A level text.
    pub fn text(role: Role, text: &str, at: [f64; 2], anchor: Anchor) -> Self {
        let (text, upward) = (text.to_owned(), false);
        let form = Form::Text {
            text,
            at,
            anchor,
            upward,
        };
        Self::new(role, form)
    }

    /// A shape without a title.
    pub fn new(role: Role, form: Form) -> Self {
        Self {
            role,
            form,
            title: None,
        }
    }
}
