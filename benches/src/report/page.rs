//! The page: one file that needs nothing else, neither network nor script.
//!
//! It is HTML that is XML as well (every element is closed, attributes are quoted), so that a
//! test can check its form with an ordinary parser.

use super::chart::{escape, number};
use super::{Change, Document, compare, pictures};
use crate::bars::{self, Row, Verdict};
use crate::measure::{Environment, Spread};
use std::fmt::Write as _;

const STYLE: &str = include_str!("page.css");

/// The page of a run. With `before`, an earlier run, it says what differs from that.
///
/// ```
/// # use tierce_bench::{bars::{Plan, Results}, measure::Environment};
/// use tierce_bench::report::{Document, render};
/// let document = Document::new(Environment::read(), &Plan::smoke(), Results::default());
/// assert!(render(&document, None).starts_with("<!DOCTYPE html>"));
/// ```
#[must_use]
pub fn render(document: &Document, before: Option<&Document>) -> String {
    let mut html = String::from("<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n");
    html += "<meta charset=\"utf-8\" />\n\
             <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\" />\n\
             <meta name=\"color-scheme\" content=\"light dark\" />\n\
             <title>tierce bench</title>\n";
    let _ = write!(html, "<style>\n{STYLE}</style>\n</head>\n<body>\n<main>\n");
    html += "<h1>tierce bench</h1>\n";
    html += &summary(document);
    html += &environment(&document.env);
    if let Some(before) = before {
        html += &comparison(before, document);
    }
    html += &bars_table(&document.rows);
    for group in pictures::groups(document) {
        let _ = writeln!(html, "<section><h2>{}</h2>", escape(group.heading));
        if group.charts.is_empty() {
            html += "<p class=\"absent\">Not measured in this run.</p>\n";
        }
        html += "<div class=\"charts\">\n";
        group.charts.iter().for_each(|chart| html += &chart.to_html());
        html += "</div></section>\n";
    }
    html += &all_figures(&document.rows);
    html += &data(document);
    html += "</main>\n</body>\n</html>\n";
    html
}

fn summary(document: &Document) -> String {
    let count = |verdict| document.rows.iter().filter(|row| row.verdict == verdict).count();
    let (ok, short) = (count(Verdict::Ok), count(Verdict::Short));
    let mut html = format!(
        "<p class=\"summary\"><b class=\"ok\">{ok} reached</b>, <b class=\"short\">{short} short\
         </b> of {} figures that have to reach something.</p>\n",
        ok + short
    );
    if let Some(disturbed) = bars::disturbed(&document.rows) {
        let _ = writeln!(html, "<p class=\"warning\">This run was {}.</p>", escape(&disturbed));
    }
    for note in &document.notes {
        let _ = writeln!(html, "<p class=\"absent\">{}</p>", escape(note));
    }
    html
}

fn environment(env: &Environment) -> String {
    let lines = [
        ("processor", format!("{}, {} cores", env.cpu, env.cores)),
        ("system", format!("{}, governor {}", env.kernel, env.governor)),
        ("commit", env.commit.clone()),
        ("settings", env.settings.clone()),
        (
            "load",
            format!("{} at the start; others used {:.2} CPUs meanwhile", env.load, env.others),
        ),
        ("one look at the clock", format!("{:.1} ns, in every latency once", env.timer_nanos)),
        ("one uncontended RMW", format!("{:.1} ns", env.rmw_nanos)),
    ];
    let mut html = String::from("<dl class=\"env\">\n");
    for (name, value) in lines {
        let _ = writeln!(html, "<dt>{name}</dt><dd>{}</dd>", escape(&value));
    }
    html + "</dl>\n"
}

fn comparison(before: &Document, after: &Document) -> String {
    let differences = compare(before, after);
    let mut html = format!(
        "<section><h2>What changed</h2>\n<p>From commit {} ({}) to {} ({}). A figure differs if \
         no sample of one run lies among those of the other, and if its ratio to the baseline \
         differs too; otherwise it was the machine.</p>\n",
        escape(&before.env.commit),
        escape(&before.env.cpu),
        escape(&after.env.commit),
        escape(&after.env.cpu),
    );
    html += "<table class=\"bars\"><thead><tr><th>figure</th><th>before</th><th>after</th>\
             <th>times better</th><th>change</th></tr></thead><tbody>\n";
    for d in differences.iter().filter(|d| d.change != Change::Same) {
        let _ = writeln!(
            html,
            "<tr><th scope=\"row\">{}</th>{}{}{}<td data-l=\"change\" class=\"{c}\">{c}</td></tr>",
            escape(&d.what),
            cell("before", &with_unit(d.before, &d.unit)),
            cell("after", &with_unit(d.after, &d.unit)),
            cell("times better", &format!("{} ×", number(d.times))),
            c = d.change,
        );
    }
    let same = differences.iter().filter(|d| d.change == Change::Same).count();
    let all = differences.len();
    let _ = writeln!(
        html,
        "</tbody></table>\n<p>{same} of {all} figures are the same within the noise.</p></section>"
    );
    html
}

fn with_unit(spread: Spread, unit: &str) -> String {
    format!("{} {unit}", shown(spread))
}

fn shown(spread: Spread) -> String {
    let Spread { median, min, max } = spread;
    match median.is_nan() {
        true => "–".to_owned(),
        false => format!("{} ({}–{})", number(median), number(min), number(max)),
    }
}

fn times(ratio: Spread) -> String {
    if ratio.median.is_nan() { "–".to_owned() } else { shown(ratio) + " ×" }
}

fn cell(label: &str, text: &str) -> String {
    format!("<td data-l=\"{label}\">{}</td>", escape(text))
}

/// The figures that have to reach something.
fn bars_table(rows: &[Row]) -> String {
    let judged = rows.iter().filter(|row| row.verdict != Verdict::NotApplicable);
    format!("<section><h2>Bars</h2>\n{}</section>\n", table(judged))
}

fn all_figures(rows: &[Row]) -> String {
    format!(
        "<section><h2>All figures</h2>\n<p>Median (smallest–largest) of the rounds. Ratio: how \
         many times better than the baseline, round by round. <b>*</b> others used the machine \
         meanwhile.</p>\n{}</section>\n",
        table(rows.iter())
    )
}

/// Rows beside further baselines are marked, to be set apart by the style.
fn table<'a>(rows: impl Iterator<Item = &'a Row>) -> String {
    let mut html = String::from(
        "<table class=\"bars\"><thead><tr><th>bar and figure</th><th>value</th>\
         <th>baseline</th><th>ratio</th><th>must</th><th>want</th><th>verdict</th></tr></thead>\
         <tbody>\n",
    );
    let mut last = None;
    for row in rows {
        let key = (&row.bar, &row.name, &row.setting);
        let is_more = last == Some(key);
        let class = if is_more { "more" } else { "first" };
        let value = if is_more { String::new() } else { with_unit(row.spread, &row.unit) };
        last = Some(key);
        let baseline = row.baseline.as_deref().zip(row.baseline_value);
        let baseline = baseline.map(|(name, spread)| format!("{name}: {}", shown(spread)));
        let disturbed = if row.is_disturbed() { " *" } else { "" };
        let _ = writeln!(
            html,
            "<tr class=\"{class}\"><th scope=\"row\"><b>{}</b> {}<br /><small>{}</small></th>\
             {}{}{}{}{}<td data-l=\"verdict\" class=\"{}\">{}{disturbed}</td></tr>",
            escape(&row.bar),
            escape(&row.name),
            escape(&row.setting),
            cell("value", &value),
            cell("baseline", &baseline.unwrap_or_else(|| "–".to_owned())),
            cell("ratio", &row.ratio.map_or_else(|| "–".to_owned(), times)),
            cell("must", &row.must),
            cell("want", &row.want),
            match row.verdict {
                Verdict::Ok => "ok",
                Verdict::Short => "short",
                Verdict::NotApplicable => "na",
            },
            row.verdict,
        );
    }
    html + "</tbody></table>\n"
}

/// The JSON of the run, for programs: `tierce bench report` reads it from a file of its own.
fn data(document: &Document) -> String {
    // Neither HTML nor XML ends or interprets anything in this form, and JSON means the same.
    let json = document.to_json().replace('&', "\\u0026");
    let json = json.replace('<', "\\u003c").replace('>', "\\u003e");
    format!("<script type=\"application/json\" id=\"run\">\n{json}</script>\n")
}
