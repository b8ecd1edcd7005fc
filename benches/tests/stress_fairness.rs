//! The harness is fair: a copy of `locked` under another name, measured in the product's place,
//! is as good as `locked` in every row.
//!
//! 1. Always: the copy gets every turn that `locked` gets, in every bar that both can run.
//! 2. In a soak (`TIERCE_SOAK_SECONDS`): no figure differs. A row fails only if the copy was
//!    better, or worse, in *all* of 15 rounds and its median ratio is off by more than 15 %.
//!    If nothing but noise were at work the first alone would happen once in 16384 rows,
//!    whatever else the machine does; the second leaves the compiler its choice of layout.

use std::sync::atomic::AtomicBool;
use tierce_bench::backend::{Full, Locked, SectorWrite, Space, SpaceCounts};
use tierce_bench::bars::{Plan, Row, Section, run_of};
use tierce_lockfree::BucketRef;

/// `locked` under another name.
struct Copy(Locked);

impl Space for Copy {
    const NAME: &'static str = "copy";
    const PASSES: bool = Locked::PASSES;
    const SECTORS: bool = Locked::SECTORS;
    const READS: bool = Locked::READS;
    type Bucket<'a> = <Locked as Space>::Bucket<'a>;
    type Extent<'a> = <Locked as Space>::Extent<'a>;

    fn start(full: &Full) -> Self {
        Self(Locked::start(full))
    }
    // As those of all that are measured.
    #[inline(always)]
    fn try_alloc(&self) -> Option<Self::Bucket<'_>> {
        self.0.try_alloc()
    }
    fn alloc(&self) -> Self::Bucket<'_> {
        self.0.alloc()
    }
    fn written<'a>(&'a self, bucket: Self::Bucket<'a>) {
        self.0.written(bucket);
    }
    fn reclaim(&self) {
        self.0.reclaim();
    }
    fn reclaim_until(&self, stop: &AtomicBool) {
        self.0.reclaim_until(stop);
    }
    #[inline(always)]
    fn sectors(&self, write: &SectorWrite) -> Option<Self::Extent<'_>> {
        self.0.sectors(write)
    }
    fn sectors_of(extent: &Self::Extent<'_>) -> u32 {
        Locked::sectors_of(extent)
    }
    fn pointer(bucket: &Self::Bucket<'_>) -> Option<BucketRef> {
        Locked::pointer(bucket)
    }
    fn read_hit(&self, pointer: BucketRef) -> bool {
        self.0.read_hit(pointer)
    }
    fn account_io(&self, sectors: u32) {
        self.0.account_io(sectors);
    }
    fn collect(&self) {
        self.0.collect();
    }
    fn counts(&self) -> SpaceCounts {
        self.0.counts()
    }
}

/// The rows of the copy beside `locked`.
fn rows(plan: &Plan) -> Vec<Row> {
    let mut rows = run_of::<Copy>(plan, &|_progress| {}).rows;
    rows.retain(|row| row.baseline.as_deref() == Some("locked"));
    rows
}

#[test]
fn the_copy_gets_every_turn_that_locked_gets() {
    let plan = Plan { rounds: 2, threads: vec![1, 2], buckets: vec![4096], ..Plan::smoke() };
    let rows = rows(&plan);
    for bar in ["P1", "P2", "P3", "P4", "P5", "P6", "P7", "P8"] {
        assert!(rows.iter().any(|row| row.bar == bar), "{bar} has no row beside locked");
    }
    for row in &rows {
        assert_eq!((&*row.subject, row.samples.len()), ("copy", 2), "{}", row.name);
        assert_eq!(row.baseline_samples.len(), 2, "{}", row.name);
    }
}

#[test]
fn the_copy_is_as_good_as_locked() {
    if std::env::var_os("TIERCE_SOAK_SECONDS").is_none() {
        eprintln!("skipped: it measures, and runs in a soak");
        return;
    }
    let sections = [Section::Alloc, Section::Steady, Section::Passes, Section::Sectors];
    let plan = Plan {
        rounds: 15,
        threads: vec![1, 2],
        buckets: vec![1 << 16],
        sections: [&sections[..], &[Section::Tail, Section::Hit]].concat(),
        ..Plan::quick()
    };
    let rows = rows(&plan);
    assert!(rows.len() >= 20, "{} rows", rows.len());
    let mut unfair = Vec::new();
    for row in &rows {
        let ratio = row.ratio.expect("it stands beside locked");
        let name = format!("{} {} ({})", row.bar, row.name, row.setting);
        println!("{:.3} ({:.3}–{:.3})  {name}", ratio.median, ratio.min, ratio.max);
        let one_sided = ratio.min > 1.0 || ratio.max < 1.0;
        if one_sided && !(1.0 / 1.15..=1.15).contains(&ratio.median) {
            unfair.push(format!("{name}: {:?}", row.ratios()));
        }
    }
    assert!(
        unfair.is_empty(),
        "the copy differs from what it is a copy of:\n{}",
        unfair.join("\n")
    );
}
