//! Subject and peers take turns, so that whatever the machine does meanwhile hits all of them.

use serde::{Deserialize, Serialize};

use super::number::number;

/// Median, smallest and largest of some samples.
///
/// ```
/// use tierce_bench::measure::Spread;
/// let spread = Spread::of(&[3.0, 1.0, 2.0]);
/// assert_eq!((spread.median, spread.min, spread.max), (2.0, 1.0, 3.0));
/// ```
#[derive(Clone, Copy, PartialEq, Debug, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Spread {
    /// Half of the samples are at most this; the mean of the middle two of an even number.
    #[serde(deserialize_with = "number")]
    pub median: f64,
    /// The smallest.
    #[serde(deserialize_with = "number")]
    pub min: f64,
    /// The largest.
    #[serde(deserialize_with = "number")]
    pub max: f64,
}

impl Spread {
    /// Of these samples; not a number if there are none.
    #[must_use]
    pub fn of(samples: &[f64]) -> Self {
        let mut sorted = samples.to_vec();
        sorted.sort_by(f64::total_cmp);
        let at = |n: usize| sorted.get(n).copied().unwrap_or(f64::NAN);
        let middle = sorted.len() / 2;
        let median = match sorted.len() % 2 {
            0 => (at(middle.wrapping_sub(1)) + at(middle)) / 2.0,
            _ => at(middle),
        };
        Self { median, min: at(0), max: at(sorted.len().wrapping_sub(1)) }
    }
}

/// What takes turns: a name, and a closure that runs once and returns its figures.
pub struct Subject<'a> {
    /// How tables name it.
    pub name: &'static str,
    run: Box<dyn FnMut() -> Vec<f64> + 'a>,
}

impl std::fmt::Debug for Subject<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Subject").field("name", &self.name).finish_non_exhaustive()
    }
}

impl<'a> Subject<'a> {
    /// `run` gives the same number of figures every time.
    ///
    /// ```
    /// use tierce_bench::measure::{Subject, take_turns};
    /// let turns = take_turns(3, vec![Subject::new("two", || vec![2.0])]);
    /// assert_eq!(turns[0].figures, [[2.0; 3]]);
    /// ```
    pub fn new(name: &'static str, run: impl FnMut() -> Vec<f64> + 'a) -> Self {
        Self { name, run: Box::new(run) }
    }

    /// One run: its figures.
    ///
    /// ```
    /// use tierce_bench::measure::Subject;
    /// assert_eq!(Subject::new("two", || vec![2.0]).run(), [2.0]);
    /// ```
    pub fn run(&mut self) -> Vec<f64> {
        (self.run)()
    }
}

/// The samples of one subject.
///
/// ```
/// # use tierce_bench::measure::{Subject, take_turns};
/// let mut n = 0.0;
/// let count = Subject::new("count", || { n += 1.0; vec![n] });
/// // One turn more than asked for: the first is the warm-up.
/// assert_eq!(take_turns(2, vec![count])[0].figures, [[2.0, 3.0]]);
/// ```
#[derive(Clone, PartialEq, Debug)]
#[non_exhaustive]
pub struct Turns {
    /// Whose.
    pub name: &'static str,
    /// For each figure one sample per round.
    pub figures: Vec<Vec<f64>>,
}

/// `rounds` rounds of A B A B …, and one before them that does not count.
///
/// ```
/// use tierce_bench::measure::{Subject, take_turns};
/// let subjects = vec![Subject::new("a", || vec![1.0]), Subject::new("b", || vec![2.0])];
/// assert_eq!(take_turns(5, subjects)[1].figures, [[2.0; 5]]);
/// ```
#[must_use]
pub fn take_turns(rounds: usize, mut subjects: Vec<Subject<'_>>) -> Vec<Turns> {
    let turns = |subject: &Subject<'_>| Turns { name: subject.name, figures: Vec::new() };
    let mut all: Vec<_> = subjects.iter().map(turns).collect();
    for round in 0..=rounds {
        for (subject, turns) in subjects.iter_mut().zip(&mut all) {
            let figures = subject.run();
            turns.figures.resize(figures.len(), Vec::new());
            if round > 0 {
                turns.figures.iter_mut().zip(figures).for_each(|(all, one)| all.push(one));
            }
        }
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn subjects_take_turns() {
        let order = std::cell::RefCell::new(String::new());
        let subject = |name: &'static str| {
            let order = &order;
            Subject::new(name, move || {
                order.borrow_mut().push_str(name);
                vec![1.0, 2.0]
            })
        };
        let turns = take_turns(2, vec![subject("a"), subject("b")]);
        assert_eq!(*order.borrow(), "ababab");
        assert_eq!(turns[1].figures, [[1.0, 1.0], [2.0, 2.0]]);
    }

    #[test]
    fn median_of_an_even_number() {
        assert_eq!(Spread::of(&[4.0, 1.0, 2.0, 3.0]).median, 2.5);
        assert!(Spread::of(&[]).median.is_nan());
    }
}
