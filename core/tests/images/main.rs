//! Devices that Linux wrote, read by this crate.
//!
//! Each image of the reference is decoded and compared with what is known of it: the superblock,
//! the newest journal entry, the prio chain, every gen and prio, and the state of every bucket
//! after start-up. What was decoded is encoded again and must give the same bytes. At the end a
//! table of image × check is printed.
//!
//! The place of the reference is taken from `TIERCE_REFERENCE`. Without it the test says that
//! it was skipped, or fails if `TIERCE_REQUIRE_REFERENCE` is 1. What does not need it is in the
//! unit tests and in `vectors.rs`.

#![expect(clippy::unwrap_used, reason = "a failing check ends the test")]

mod image;
mod records;
mod report;
mod start_up;
mod vectors;

use image::{Image, reference};
use report::Report;

const NAMES: [&str; 7] = [
    "A0_formatted",
    "A1_registered",
    "A2_used",
    "A3_recycled",
    "B1_multi_prio_used",
    "B2_multi_prio_recycled",
    "D1_sbv5_large",
];

#[test]
fn every_image_is_understood() {
    let Some(directory) = reference() else { return };
    let mut report = Report::default();
    for name in NAMES {
        let image = Image::open(&directory, name);
        report.image(name);
        records::check(&image, &mut report);
        if image.json.get("journal").is_some() {
            start_up::check(&image, &mut report);
        }
    }
    println!("{report}");
    report.assert_clean();
}
