//! One picture: lines over two axes, as SVG.
//!
//! Colours are stand-ins that `page.css` replaces by those of the light or the dark page; a
//! series keeps its colour and mark in every picture. Names stand in a legend of HTML below the
//! picture, where they can wrap.

use plotters::coord::ranged1d::{KeyPointHint, NoDefaultFormatting, ValueFormatter};
use plotters::prelude::*;
use std::fmt::Write as _;
use std::ops::Range;

/// Of the drawing, in units that a page scales to its width: small, so that text stays
/// readable on a phone.
const SIZE: (u32, u32) = (480, 320);

const INK: RGBColor = RGBColor(0x11, 0x11, 0x11);
const GRID: RGBColor = RGBColor(0xDD, 0xDD, 0xDD);
const FONT: (&str, i32) = ("sans-serif", 14);

/// How far from each other the values of an axis are drawn.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Scale {
    Linear,
    /// Each factor is as wide wherever it is.
    Log,
}

impl Scale {
    fn place(self, value: f64) -> f64 {
        match self {
            Self::Linear => value,
            Self::Log => value.max(f64::MIN_POSITIVE).log10(),
        }
    }

    /// Whether such a value has a place at all.
    fn has(self, value: f64) -> bool {
        value.is_finite() && (self == Self::Linear || value > 0.0)
    }
}

/// An axis. Every one has a name with a unit.
#[derive(Clone, Debug)]
pub(super) struct Axis {
    pub(super) name: String,
    pub(super) scale: Scale,
    /// What is written at which value; chosen from the data if there is nothing.
    pub(super) ticks: Vec<(f64, String)>,
    /// Values that have to be in the picture.
    pub(super) include: Vec<f64>,
}

impl Axis {
    pub(super) fn new(name: impl Into<String>, scale: Scale) -> Self {
        Self { name: name.into(), scale, ticks: Vec::new(), include: Vec::new() }
    }

    pub(super) fn ticks(self, ticks: Vec<(f64, String)>) -> Self {
        Self { ticks, ..self }
    }

    pub(super) fn include(mut self, value: f64) -> Self {
        self.include.push(value);
        self
    }

    /// The ends, in places, with a little air.
    fn ends(&self, values: impl Iterator<Item = f64>) -> (f64, f64) {
        let all = values.chain(self.include.iter().copied());
        let places = all.filter(|&v| self.scale.has(v)).map(|v| self.scale.place(v));
        let (low, high) = places
            .fold((f64::MAX, f64::MIN), |(low, high), place| (low.min(place), high.max(place)));
        if low > high {
            return (0.0, 1.0);
        }
        let air = if high > low { (high - low) * 0.05 } else { 0.5 };
        // An axis that begins at nothing has no air below.
        let low = if self.scale == Scale::Linear && low == 0.0 { 0.0 } else { low - air };
        (low, high + air)
    }

    /// Where something is written, in places, and what.
    fn labels(&self, (low, high): (f64, f64)) -> Vec<(f64, String)> {
        let chosen = match (self.ticks.is_empty(), self.scale) {
            (false, _) => self.ticks.clone(),
            (true, Scale::Linear) => linear_ticks(low, high),
            (true, Scale::Log) => log_ticks(low, high),
        };
        let places = chosen.into_iter().map(|(value, text)| (self.scale.place(value), text));
        places.filter(|(place, _)| (low..=high).contains(place)).collect()
    }
}

/// The places of an axis, and what is written at some of them.
struct Places {
    ends: (f64, f64),
    labels: Vec<(f64, String)>,
}

impl Ranged for Places {
    type FormatOption = NoDefaultFormatting;
    type ValueType = f64;

    fn map(&self, place: &f64, (from, to): (i32, i32)) -> i32 {
        let share = (place - self.ends.0) / (self.ends.1 - self.ends.0);
        from + (share * f64::from(to - from)).round() as i32
    }

    fn key_points<H: KeyPointHint>(&self, _hint: H) -> Vec<f64> {
        self.labels.iter().map(|label| label.0).collect()
    }

    fn range(&self) -> Range<f64> {
        self.ends.0..self.ends.1
    }
}

impl ValueFormatter<f64> for Places {
    fn format_ext(&self, place: &f64) -> String {
        let found = self.labels.iter().find(|label| label.0 == *place);
        found.map(|label| label.1.clone()).unwrap_or_default()
    }
}

/// Every 1, 2 or 5 times a power of ten, about five of them.
fn linear_ticks(low: f64, high: f64) -> Vec<(f64, String)> {
    let rough = (high - low).max(f64::MIN_POSITIVE) / 5.0;
    let power = 10f64.powf(rough.log10().floor());
    let step = [1.0, 2.0, 5.0, 10.0].map(|n| n * power).into_iter().find(|&step| step >= rough);
    let step = step.unwrap_or(power * 10.0);
    let first = (low / step).ceil();
    let values = (0..20).map(|n| (first + f64::from(n)) * step);
    values.take_while(|&v| v <= high + step * 1e-9).map(|v| (v, number(v))).collect()
}

/// Powers of ten, with 2 and 5 times them where there are few.
fn log_ticks(low: f64, high: f64) -> Vec<(f64, String)> {
    let factors: &[f64] = if high - low > 2.0 { &[1.0] } else { &[1.0, 2.0, 5.0] };
    let powers = (low.floor() as i32)..=(high.ceil() as i32);
    let values = powers.flat_map(|power| factors.iter().map(move |f| f * 10f64.powi(power)));
    values.map(|value| (value, number(value))).collect()
}

/// A number as short as it is worth being written.
pub(super) fn number(value: f64) -> String {
    let magnitude = value.abs();
    // So many times better than something that is to be avoided, and was.
    if magnitude.is_infinite() {
        return if value > 0.0 { "∞" } else { "−∞" }.to_owned();
    }
    let (divided, suffix) = match magnitude {
        m if m >= 1e9 => (value / 1e9, " G"),
        m if m >= 1e6 => (value / 1e6, " M"),
        m if m >= 1e4 => (value / 1e3, " k"),
        _ => (value, ""),
    };
    // Three digits that count; thousandths are the least that is shown.
    let decimals = match divided.abs() {
        d if d >= 100.0 => 0,
        d if d >= 10.0 => 1,
        d if d >= 1.0 => 2,
        _ => 3,
    };
    let text = format!("{divided:.decimals$}");
    let text = match text.contains('.') {
        true => text.trim_end_matches('0').trim_end_matches('.'),
        false => &text,
    };
    format!("{text}{suffix}")
}

/// What a series looks like.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Draw {
    /// A line, with a mark at each point.
    Marked,
    /// A line.
    Plain,
    /// A bar from the bottom at each point.
    Bars,
}

/// A series of points.
#[derive(Clone, Debug)]
pub(super) struct Series {
    /// Whose: decides the colour.
    pub(super) name: String,
    pub(super) points: Vec<(f64, f64)>,
    pub(super) draw: Draw,
}

/// Something that lasted: drawn as a tinted strip over the whole height.
#[derive(Clone, Debug)]
pub(super) struct Strip {
    pub(super) name: String,
    pub(super) from: f64,
    pub(super) to: f64,
}

/// A picture.
#[derive(Clone, Debug)]
pub(super) struct Chart {
    pub(super) title: String,
    /// What one should know to read it.
    pub(super) note: String,
    pub(super) x: Axis,
    pub(super) y: Axis,
    pub(super) series: Vec<Series>,
    pub(super) strips: Vec<Strip>,
}

/// The names that have a colour of their own, in the order of `page.css`.
const COLOURS: [(&str, RGBColor); 8] = [
    ("lockfree", RGBColor(0x00, 0x72, 0xB2)),
    ("original", RGBColor(0xD5, 0x5E, 0x00)),
    ("locked", RGBColor(0x00, 0x9E, 0x73)),
    ("fifo-queue", RGBColor(0xCC, 0x79, 0xA7)),
    ("tierce", RGBColor(0x00, 0x72, 0xB2)),
    ("foyer psync", RGBColor(0xD5, 0x5E, 0x00)),
    ("foyer io_uring", RGBColor(0xE6, 0x9F, 0x00)),
    ("disk", RGBColor(0x77, 0x77, 0x77)),
];

/// Of passes.
const TINTS: [(&str, RGBColor); 3] = [
    ("LRU", RGBColor(0xF0, 0xE4, 0x42)),
    ("rescale", RGBColor(0x56, 0xB4, 0xE9)),
    ("collection", RGBColor(0xBB, 0xBB, 0xBB)),
];

/// The stand-in of a name; a name that has none gets grey.
fn colour(name: &str) -> RGBColor {
    let known = COLOURS.iter().chain(&TINTS).find(|(known, _)| *known == name);
    known.map_or(RGBColor(0x77, 0x77, 0x77), |&(_, colour)| colour)
}

/// The same as CSS writes it, and as the drawing does.
fn hex(colour: RGBColor) -> String {
    format!("#{:02X}{:02X}{:02X}", colour.0, colour.1, colour.2)
}

impl Chart {
    /// The picture with its title, legend and note, as HTML.
    pub(super) fn to_html(&self) -> String {
        let mut html = format!("<figure><figcaption>{}</figcaption>\n", escape(&self.title));
        html += &self.labelled_svg();
        html += "<p class=\"legend\">";
        let mut names: Vec<(&str, bool)> = Vec::new();
        let all = self.series.iter().map(|series| (series.name.as_str(), false));
        for name in all.chain(self.strips.iter().map(|strip| (strip.name.as_str(), true))) {
            if !names.contains(&name) {
                names.push(name);
            }
        }
        for (name, is_strip) in names {
            let shape = if is_strip {
                "<rect width=\"22\" height=\"14\" opacity=\"0.45\""
            } else {
                "<rect y=\"5\" width=\"22\" height=\"4\""
            };
            let fill = hex(colour(name));
            let name = escape(name);
            let _ = write!(
                html,
                "<span><svg class=\"key\" width=\"22\" height=\"14\" viewBox=\"0 0 22 14\" \
                 aria-hidden=\"true\">{shape} fill=\"{fill}\"/></svg> {name}</span> "
            );
        }
        let _ = write!(html, "</p>\n<p class=\"note\">{}</p></figure>\n", escape(&self.note));
        html
    }

    fn labelled_svg(&self) -> String {
        let label = format!("{}: {} over {}", self.title, self.y.name, self.x.name);
        let label = format!("<svg role=\"img\" aria-label=\"{}\" ", escape(&label));
        self.svg().replacen("<svg ", &label, 1)
    }

    fn svg(&self) -> String {
        let mut svg = String::new();
        // Writing into a string cannot fail, and the ranges are never empty.
        self.draw(SVGBackend::with_string(&mut svg, SIZE)).expect("drawing into memory");
        svg
    }

    fn draw<B: DrawingBackend>(
        &self,
        backend: B,
    ) -> Result<(), DrawingAreaErrorKind<B::ErrorType>> {
        let points = || self.series.iter().flat_map(|series| &series.points);
        let strips = self.strips.iter().flat_map(|strip| [strip.from, strip.to]);
        let (x0, x1) = self.x.ends(points().map(|p| p.0).chain(strips));
        let (y0, y1) = self.y.ends(points().map(|p| p.1));
        let root = backend.into_drawing_area();
        let mut chart = ChartBuilder::on(&root)
            .margin_top(10)
            .margin_right(22)
            .margin_bottom(4)
            .x_label_area_size(46)
            .y_label_area_size(74)
            .build_cartesian_2d(
                Places { ends: (x0, x1), labels: self.x.labels((x0, x1)) },
                Places { ends: (y0, y1), labels: self.y.labels((y0, y1)) },
            )?;
        chart
            .configure_mesh()
            .axis_style(INK)
            .bold_line_style(GRID)
            .light_line_style(TRANSPARENT)
            .label_style(FONT.into_font().color(&INK))
            .axis_desc_style(FONT.into_font().color(&INK))
            .x_desc(&self.x.name)
            .y_desc(&self.y.name)
            .draw()?;
        let strip = |strip: &Strip| {
            let (from, to) = (self.x.scale.place(strip.from), self.x.scale.place(strip.to));
            // The shortest pass is still to be seen.
            let to = to.max(from + (x1 - x0) / 400.0);
            Rectangle::new([(from, y0), (to, y1)], colour(&strip.name).mix(0.45).filled())
        };
        chart.draw_series(self.strips.iter().map(strip))?;
        for series in &self.series {
            let has = |p: &&(f64, f64)| self.x.scale.has(p.0) && self.y.scale.has(p.1);
            let place = |p: &(f64, f64)| (self.x.scale.place(p.0), self.y.scale.place(p.1));
            let places = || series.points.iter().filter(has).map(place);
            let colour = colour(&series.name);
            if series.draw == Draw::Bars {
                let half = (x1 - x0) / 60.0;
                let bar = |(x, y)| Rectangle::new([(x - half, y0), (x + half, y)], colour.filled());
                chart.draw_series(places().map(bar))?;
                continue;
            }
            chart.draw_series(LineSeries::new(places(), colour.stroke_width(2)))?;
            if series.draw == Draw::Marked {
                chart.draw_series(places().map(|place| Circle::new(place, 4, colour.filled())))?;
            }
        }
        root.present()
    }
}

/// Text as HTML and XML write it, also within quotes.
pub(super) fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '&' => escaped += "&amp;",
            '<' => escaped += "&lt;",
            '>' => escaped += "&gt;",
            '"' => escaped += "&quot;",
            other => escaped.push(other),
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_short() {
        let wanted = [
            (0.0, "0"),
            (0.35, "0.35"),
            (2.0, "2"),
            (150.4, "150"),
            (1.234, "1.23"),
            (25_000.0, "25 k"),
            (f64::INFINITY, "∞"),
            (1e9, "1 G"),
        ];
        for (value, text) in wanted {
            assert_eq!(number(value), text);
        }
    }

    #[test]
    fn ticks_lie_on_round_numbers() {
        let texts = |ticks: Vec<(f64, String)>| ticks.into_iter().map(|t| t.1).collect::<Vec<_>>();
        assert_eq!(texts(linear_ticks(0.0, 10.0)), ["0", "2", "4", "6", "8", "10"]);
        assert_eq!(texts(log_ticks(0.0, 0.9)), ["1", "2", "5", "10", "20", "50"]);
    }

    /// A value that the scale has no place for is left out, and leaves the picture whole.
    #[test]
    fn nothing_and_infinity_are_left_out() {
        let points = vec![(1.0, f64::NAN), (2.0, 0.0), (3.0, f64::INFINITY), (4.0, 5.0)];
        let series = Series { name: "lockfree".into(), points, draw: Draw::Marked };
        let chart = Chart {
            title: "<t>".into(),
            note: String::new(),
            x: Axis::new("threads", Scale::Linear),
            y: Axis::new("time in ns", Scale::Log),
            series: vec![series],
            strips: Vec::new(),
        };
        let html = chart.to_html();
        assert_eq!(html.matches("<circle").count(), 1, "{html}");
        assert!(html.contains("time in ns") && html.contains("&lt;t&gt;") && !html.contains("NaN"));
    }
}
