//! The page of a run:
//!
//! 1. it is well-formed, for an XML parser even, whatever text the run contains;
//! 2. it needs no other file and no network;
//! 3. every picture has a name, and both its axes a unit; no two labels overlap;
//! 4. the run can be read out of it again;
//! 5. a browser draws it at the width of a phone and of a desk (if there is one).

use roxmltree::{Document as Xml, Node, ParsingOptions};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};
use tierce_bench::report::{Document, compare, render};

fn run() -> Document {
    Document::parse(include_str!("vectors/run.json")).expect("it is checked in")
}

fn page() -> String {
    render(&run(), Some(&run()))
}

fn parse(page: &str) -> Xml<'_> {
    let options = ParsingOptions { allow_dtd: true, ..ParsingOptions::default() };
    Xml::parse_with_options(page, options).expect("it is well-formed")
}

fn texts<'a>(node: Node<'a, 'a>) -> impl Iterator<Item = Node<'a, 'a>> {
    node.descendants().filter(|node| node.has_tag_name(("http://www.w3.org/2000/svg", "text")))
}

#[test]
fn it_is_well_formed_and_needs_nothing_else() {
    let page = page();
    let xml = parse(&page);
    for node in xml.descendants().filter(Node::is_element) {
        for attribute in node.attributes() {
            let name = attribute.name();
            assert!(!["src", "href", "srcset", "data", "onload"].contains(&name), "{name}");
        }
        let name = node.tag_name().name();
        assert!(!["link", "img", "iframe", "object", "base"].contains(&name), "{name}");
    }
    let outside = page.replace("http://www.w3.org/2000/svg", "");
    for bad in ["http:", "https:", "url(", "@import"] {
        assert!(!outside.contains(bad), "{bad}");
    }
}

#[test]
fn every_axis_has_a_unit() {
    let page = page();
    let xml = parse(&page);
    let figures: Vec<_> = xml.descendants().filter(|node| node.has_tag_name("figure")).collect();
    assert!(figures.len() >= 8, "{} pictures", figures.len());
    for figure in figures {
        let svg = figure.children().find(|node| node.attribute("role") == Some("img"));
        let svg = svg.expect("a figure has a picture");
        let label = svg.attribute("aria-label").expect("it says what it shows");
        let units = ["(", " per second", " per bucket"];
        let names = texts(svg).filter_map(|text| text.text());
        let names: Vec<_> = names.filter(|t| units.iter().any(|unit| t.contains(unit))).collect();
        assert!(names.len() >= 2, "{label}: {names:?}");
        assert!(texts(svg).count() >= 5, "{label}: an axis without numbers");
    }
}

/// Estimated, and generously: 0.62 of the height per character.
#[test]
fn labels_do_not_overlap() {
    let page = page();
    let xml = parse(&page);
    for svg in xml.descendants().filter(|node| node.attribute("role") == Some("img")) {
        let label = svg.attribute("aria-label").expect("it says what it shows");
        let number = |node: Node<'_, '_>, name| -> f64 {
            node.attribute(name).and_then(|text| text.parse().ok()).expect("a number")
        };
        let upright = texts(svg).filter(|text| text.attribute("transform").is_none());
        let mut boxes = Vec::new();
        for text in upright {
            let words = text.text().unwrap_or_default().trim();
            let height = number(text, "font-size");
            let width = words.chars().count() as f64 * height * 0.62;
            let left = match text.attribute("text-anchor") {
                Some("middle") => number(text, "x") - width / 2.0,
                Some("end") => number(text, "x") - width,
                _ => number(text, "x"),
            };
            if words.is_empty() {
                continue;
            }
            assert!(left >= 0.0 && left + width <= 482.0, "{label}: {words} is cut off");
            boxes.push((words.to_owned(), left, left + width, number(text, "y"), height));
        }
        for (n, a) in boxes.iter().enumerate() {
            for b in &boxes[n + 1..] {
                let apart = a.2 < b.1 || b.2 < a.1 || (a.3 - b.3).abs() >= a.4 * 0.9;
                assert!(apart, "{label}: {} lies on {}", a.0, b.0);
            }
        }
    }
}

#[test]
fn the_run_can_be_read_out_of_it() {
    let page = page();
    let xml = parse(&page);
    let script = xml.descendants().find(|node| node.attribute("id") == Some("run"));
    let json = script.and_then(|node| node.text()).expect("the run is embedded");
    let (again, wanted) = (Document::parse(json).expect("it is JSON"), run());
    // Compared as text: what is no number is not equal to itself.
    assert_eq!(again.to_json(), wanted.to_json());
}

#[test]
fn a_run_equals_itself() {
    let run = run();
    let differences = compare(&run, &run);
    assert!(differences.len() > 10);
    assert!(differences.iter().all(|d| ["same", "unknown"].contains(&&*d.change.to_string())));
}

#[test]
fn a_browser_draws_it() {
    let Some(browser) = browser() else {
        eprintln!("skipped: neither chromium nor google-chrome is installed");
        return;
    };
    let place = Path::new(env!("CARGO_TARGET_TMPDIR")).join("page");
    std::fs::create_dir_all(&place).expect("a directory of the build");
    std::fs::write(place.join("page.html"), page()).expect("a file of the build");
    for width in [390, 1200] {
        let frame = format!(
            "<!DOCTYPE html><title>frame</title><body style=\"margin:0\"><iframe src=\"page.html\" \
             style=\"border:0;width:{width}px;height:6000px\"></iframe></body>"
        );
        let (html, png) = (format!("frame-{width}.html"), format!("page-{width}.png"));
        std::fs::write(place.join(&html), frame).expect("a file of the build");
        shoot(&browser, &place.join(html), &place.join(&png), width.max(500));
        let bytes = std::fs::read(place.join(&png)).expect("the browser has drawn it");
        assert!(bytes.starts_with(b"\x89PNG"), "{png} is no picture");
        // A blank page of this size compresses to a few kilobytes.
        assert!(bytes.len() > 60_000, "{png} has {} bytes: nearly blank", bytes.len());
        eprintln!("{}", place.join(&png).display());
    }
}

fn browser() -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    let names = ["chromium", "chromium-browser", "google-chrome"];
    let all = std::env::split_paths(&path).flat_map(|dir| names.map(|name| dir.join(name)));
    all.into_iter().find(|place| place.is_file())
}

/// Waits at most a minute for the browser.
fn shoot(browser: &Path, html: &Path, png: &Path, width: u32) {
    let profile = tempfile::tempdir().expect("a directory");
    let mut command = Command::new(browser);
    command.args(["--headless", "--no-sandbox", "--disable-gpu", "--disable-quic"]);
    command.args(["--no-first-run", "--disable-background-networking", "--hide-scrollbars"]);
    command.args(["--disable-component-update", "--disable-sync"]);
    command.arg(format!("--user-data-dir={}", profile.path().display()));
    command.arg(format!("--window-size={width},6000"));
    command.arg(format!("--screenshot={}", png.display())).arg(html);
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    let mut child = command.spawn().expect("it is installed");
    let end = Instant::now() + Duration::from_secs(60);
    while child.try_wait().expect("it is our child").is_none() {
        if Instant::now() > end {
            child.kill().expect("it is our child");
            panic!("the browser took more than a minute");
        }
        std::thread::sleep(Duration::from_millis(50));
    }
}
