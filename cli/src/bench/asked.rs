//! What the command line asks for.

use clap::ValueEnum;
use clap::builder::PossibleValue;
use std::str::FromStr;
use std::time::Duration;
use tierce_bench::bars::{NAMES, Section};

/// A section, a bar, or everything.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum What {
    All,
    Only(Section),
    Bar(&'static str),
}

const SECTIONS: [Section; 11] = [
    Section::Alloc,
    Section::Tail,
    Section::Steady,
    Section::Passes,
    Section::Sectors,
    Section::Hit,
    Section::Prio,
    Section::Open,
    Section::Memory,
    Section::Cache,
    Section::Idle,
];

const NAMED: [What; SECTIONS.len() + 1 + NAMES.len()] = {
    let mut named = [What::All; SECTIONS.len() + 1 + NAMES.len()];
    let mut number = 0;
    while number < SECTIONS.len() {
        named[number] = What::Only(SECTIONS[number]);
        number += 1;
    }
    number = 0;
    while number < NAMES.len() {
        named[SECTIONS.len() + 1 + number] = What::Bar(NAMES[number]);
        number += 1;
    }
    named
};

impl ValueEnum for What {
    fn value_variants<'a>() -> &'a [Self] {
        &NAMED
    }

    fn to_possible_value(&self) -> Option<PossibleValue> {
        match self {
            Self::All => Some(PossibleValue::new("all").help("Everything")),
            Self::Only(section) => section.to_possible_value(),
            // The help of each section names its bars.
            Self::Bar(name) => Some(PossibleValue::new(*name).hide(true)),
        }
    }
}

/// Sections and bars; both empty for everything.
pub(super) fn named(what: &[What]) -> (Vec<Section>, Vec<String>) {
    let (mut sections, mut bars) = (Vec::new(), Vec::new());
    for what in what {
        match what {
            What::All => return (Vec::new(), Vec::new()),
            What::Only(section) => sections.push(*section),
            What::Bar(name) => bars.push((*name).to_owned()),
        }
    }
    (sections, bars)
}

/// A number of buckets, with Ki or Mi.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Buckets(pub(super) u32);

impl FromStr for Buckets {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (digits, shift) = match text {
            text if text.ends_with("Ki") => (text.trim_end_matches("Ki"), 10),
            text if text.ends_with("Mi") => (text.trim_end_matches("Mi"), 20),
            text => (text, 0),
        };
        let count = digits.parse::<u64>().ok().and_then(|count| count.checked_mul(1 << shift));
        match count {
            Some(count @ 1024..=0x0400_0000) => Ok(Self(count as u32)),
            _ => Err("wanted 1Ki to 64Mi buckets".to_owned()),
        }
    }
}

pub(super) fn threads(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(count @ 1..=256) => Ok(count),
        _ => Err("wanted 1 to 256 threads".to_owned()),
    }
}

pub(super) fn seconds(text: &str) -> Result<Duration, String> {
    match text.parse::<f64>() {
        Ok(seconds) if (0.001..=60.0).contains(&seconds) => Ok(Duration::from_secs_f64(seconds)),
        _ => Err("wanted 0.001 to 60 seconds".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bucket_counts_have_binary_suffixes() {
        assert_eq!("64Ki".parse(), Ok(Buckets(65_536)));
        assert_eq!("16Mi".parse(), Ok(Buckets(16 << 20)));
        assert_eq!("5000".parse(), Ok(Buckets(5000)));
        for bad in ["", "Ki", "1", "65Mi", "-1Ki", "99999999999999999999Mi", "64K"] {
            assert!(bad.parse::<Buckets>().is_err(), "{bad}");
        }
    }

    #[test]
    fn all_is_everything() {
        let nothing_named = (vec![], vec![]);
        assert_eq!(named(&[What::Only(Section::Tail), What::Bar("P1"), What::All]), nothing_named);
        let some = named(&[What::Only(Section::Tail), What::Bar("P1")]);
        assert_eq!(some, (vec![Section::Tail], vec!["P1".to_owned()]));
        assert_eq!(What::from_str("p13", true), Ok(What::Bar("P13")));
        assert_eq!(What::from_str("tail", true), Ok(What::Only(Section::Tail)));
        assert!(What::value_variants().contains(&What::All));
    }

    #[test]
    fn ranges_are_checked() {
        assert!(threads("0").is_err() && threads("257").is_err() && threads("2") == Ok(2));
        assert!(seconds("NaN").is_err() && seconds("0").is_err() && seconds("0.5").is_ok());
    }
}
