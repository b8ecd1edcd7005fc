//! A table of image × check.

use std::fmt;

/// What one check came to: a word for the table, or what is wrong.
type Outcome = (&'static str, Result<String, String>);

/// What every check of every image came to.
#[derive(Default)]
pub(crate) struct Report {
    checks: Vec<&'static str>,
    rows: Vec<(&'static str, Vec<Outcome>)>,
}

impl Report {
    /// The checks that follow are of this image.
    pub(crate) fn image(&mut self, name: &'static str) {
        self.rows.push((name, Vec::new()));
    }

    /// Records a check that is passed when `found` equals `wanted`.
    pub(crate) fn equal<T: PartialEq + fmt::Debug>(
        &mut self,
        check: &'static str,
        found: T,
        wanted: T,
    ) {
        let result = match found == wanted {
            true => Ok("ok".to_owned()),
            false => Err(format!("found {found:?}, wanted {wanted:?}")),
        };
        self.result(check, result);
    }

    /// Records the result of a check; several of one name count as passed if all are.
    pub(crate) fn result(&mut self, check: &'static str, result: Result<String, String>) {
        if !self.checks.contains(&check) {
            self.checks.push(check);
        }
        let (_, row) = self.rows.last_mut().expect("an image was named");
        match row.iter_mut().find(|(name, _)| *name == check) {
            Some((_, Err(_))) => (),
            Some((_, earlier)) => *earlier = result,
            None => row.push((check, result)),
        }
    }

    pub(crate) fn assert_clean(&self) {
        let mut failed = Vec::new();
        for (image, row) in &self.rows {
            for (check, result) in row {
                if let Err(message) = result {
                    let message: String = message.chars().take(2000).collect();
                    failed.push(format!("{image}, {check}: {message}"));
                }
            }
        }
        assert!(failed.is_empty(), "{}", failed.join("\n"));
        let checks: usize = self.rows.iter().map(|(_, row)| row.len()).sum();
        assert!(checks >= 7 * 6, "only {checks} checks were made");
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:24}", "image")?;
        for check in &self.checks {
            write!(f, " {check:>12}")?;
        }
        writeln!(f)?;
        for (image, row) in &self.rows {
            write!(f, "{image:24}")?;
            for check in &self.checks {
                let found = row.iter().find(|(name, _)| name == check);
                let text = match found {
                    None => "–",
                    Some((_, Ok(text))) => text,
                    Some((_, Err(_))) => "FAILED",
                };
                write!(f, " {text:>12}")?;
            }
            writeln!(f)?;
        }
        Ok(())
    }
}
