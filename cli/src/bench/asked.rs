//! What the command line asks for.

use clap::ValueEnum;
use clap::builder::PossibleValue;
use std::str::FromStr;
use std::time::Duration;
use tierce_bench::bars::Section;

/// A section, or all of them.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum What {
    All,
    Only(Section),
}

impl ValueEnum for What {
    fn value_variants<'a>() -> &'a [Self] {
        const ALL: &[What] = &[
            What::Only(Section::Alloc),
            What::Only(Section::Tail),
            What::Only(Section::Steady),
            What::Only(Section::Passes),
            What::Only(Section::Sectors),
            What::Only(Section::Hit),
            What::Only(Section::Prio),
            What::Only(Section::Open),
            What::Only(Section::Memory),
            What::Only(Section::Cache),
            What::Only(Section::Idle),
            What::All,
        ];
        ALL
    }

    fn to_possible_value(&self) -> Option<PossibleValue> {
        match self {
            Self::All => Some(PossibleValue::new("all").help("Everything")),
            Self::Only(section) => section.to_possible_value(),
        }
    }
}

/// Empty for all.
pub(super) fn sections(what: &[What]) -> Vec<Section> {
    if what.contains(&What::All) {
        return Vec::new();
    }
    let only = |what: &What| match what {
        What::All => None,
        What::Only(section) => Some(*section),
    };
    what.iter().filter_map(only).collect()
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
        assert_eq!(sections(&[What::Only(Section::Tail), What::All]), []);
        assert_eq!(sections(&[What::Only(Section::Tail)]), [Section::Tail]);
    }

    #[test]
    fn ranges_are_checked() {
        assert!(threads("0").is_err() && threads("257").is_err() && threads("2") == Ok(2));
        assert!(seconds("NaN").is_err() && seconds("0").is_err() && seconds("0.5").is_ok());
    }
}
