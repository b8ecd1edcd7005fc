//! What is on a simulated device: durable sectors, and the versions that are not durable yet.
//!
//! # State
//!
//! `durable`: the sectors that a power loss leaves; one that is missing is zeros. `volatile`:
//! per sector the versions that it had since, oldest first, each with the number of its write.
//!
//! # Invariants
//!
//! 1. A read sees the last version, or else the durable sector.
//! 2. A list of versions is never empty.
//! 3. When a sector becomes durable by itself, its versions go: an older one cannot come back.

use super::SECTOR;
use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;
use tierce_core::draws::Draws;

type Sector = Arc<[u8; SECTOR]>;

#[derive(Clone, Debug, Default)]
pub(super) struct Media {
    durable: BTreeMap<u64, Sector>,
    volatile: BTreeMap<u64, Vec<(u64, Sector)>>,
    writes: u64,
}

/// How a power loss chooses among the versions.
#[derive(Clone, Copy, Debug)]
enum Survival {
    None,
    All,
    /// Each sector on its own.
    Sectors,
    /// Each write as a whole, decided by hashing its number with this; the last may be torn.
    Writes(u64),
    /// All writes before this one; it itself is torn.
    Before(u64),
}

impl Media {
    /// Fills `buffer` from `first` on.
    pub(super) fn read(&self, first: u64, buffer: &mut [u8]) {
        for (sector, out) in (first..).zip(buffer.chunks_exact_mut(SECTOR)) {
            match self.sector(sector) {
                Some(content) => out.copy_from_slice(&content[..]),
                None => out.fill(0),
            }
        }
    }

    fn sector(&self, sector: u64) -> Option<&Sector> {
        let newest = self.volatile.get(&sector).and_then(|versions| versions.last());
        newest.map(|(_, content)| content).or_else(|| self.durable.get(&sector))
    }

    /// Writes `data` from sector `first` on.
    pub(super) fn write(&mut self, first: u64, data: &[u8], durable: bool) {
        self.writes += 1;
        for (sector, content) in (first..).zip(data.chunks_exact(SECTOR)) {
            self.put(sector, content, durable);
        }
    }

    /// Writes some of the sectors.
    pub(super) fn write_some(&mut self, first: u64, data: &[u8], draws: &mut Draws) {
        self.writes += 1;
        for (sector, content) in (first..).zip(data.chunks_exact(SECTOR)) {
            if draws.below(2) == 0 {
                self.put(sector, content, false);
            }
        }
    }

    fn put(&mut self, sector: u64, content: &[u8], durable: bool) {
        let content: Sector = Arc::new(content.try_into().expect("a whole sector"));
        if durable {
            self.volatile.remove(&sector);
            self.durable.insert(sector, content);
        } else {
            self.volatile.entry(sector).or_default().push((self.writes, content));
        }
    }

    /// Everything is durable.
    pub(super) fn flush(&mut self) {
        for (sector, mut versions) in std::mem::take(&mut self.volatile) {
            let (_, newest) = versions.pop().expect("by invariant 2");
            self.durable.insert(sector, newest);
        }
    }

    /// Some sectors are durable.
    pub(super) fn flush_some(&mut self, draws: &mut Draws) {
        let (safe, rest): (BTreeMap<_, _>, _) =
            std::mem::take(&mut self.volatile).into_iter().partition(|_| draws.below(2) == 0);
        self.volatile = safe;
        self.flush();
        self.volatile = rest;
    }

    /// A range becomes zeros.
    pub(super) fn zero(&mut self, sectors: Range<u64>, durable: bool) {
        self.writes += 1;
        sectors.for_each(|sector| self.put(sector, &[0; SECTOR], durable));
    }

    /// A range becomes some bytes or other, for good.
    pub(super) fn scramble(&mut self, sectors: Range<u64>, draws: &mut Draws) {
        for sector in sectors {
            let word = draws.below(u32::MAX).to_le_bytes();
            self.put(sector, &word.repeat(SECTOR / word.len()), true);
        }
    }

    /// What a power loss leaves.
    pub(super) fn after_power_loss(&self, draws: &mut Draws) -> Self {
        let survival = match draws.below(8) {
            0 => Survival::None,
            1 => Survival::All,
            2 | 3 => Survival::Writes(draws.below(u32::MAX).into()),
            4 | 5 => Survival::Before(self.some_volatile_write(draws)),
            _ => Survival::Sectors,
        };
        let mut durable = self.durable.clone();
        for (&sector, versions) in &self.volatile {
            if let Some(content) = survival.choose(versions, self.writes, draws) {
                durable.insert(sector, Arc::clone(content));
            }
        }
        Self { durable, volatile: BTreeMap::new(), writes: 0 }
    }

    fn some_volatile_write(&self, draws: &mut Draws) -> u64 {
        let versions = || self.volatile.values().flatten();
        let oldest = versions().map(|&(write, _)| write).min().unwrap_or(self.writes);
        oldest + u64::from(draws.below((self.writes - oldest + 1) as u32))
    }
}

impl Survival {
    /// The version that survives; `None` if it is the durable one.
    fn choose<'a>(
        self,
        versions: &'a [(u64, Sector)],
        last_write: u64,
        draws: &mut Draws,
    ) -> Option<&'a Sector> {
        let any = draws.below(versions.len() as u32 + 1) as usize;
        let is_torn_away = draws.below(2) == 0;
        let mut newest_first = versions.iter().rev();
        let chosen = match self {
            Self::None => None,
            Self::All => versions.last(),
            Self::Sectors => versions.get(any),
            Self::Writes(seed) => newest_first.find(|&&(write, _)| {
                let survives = Draws::new(seed ^ write).below(2) == 0;
                if write == last_write { !is_torn_away } else { survives }
            }),
            Self::Before(end) => {
                newest_first.find(|&&(write, _)| write < end || write == end && !is_torn_away)
            }
        };
        chosen.map(|(_, content)| content)
    }
}
