//! The settings and operations that are drawn at random.

use proptest::prelude::*;
use tierce_core::Policy;

/// How both allocators are set up.
#[derive(Clone, Debug)]
pub(crate) struct Config {
    pub(crate) devices: u8,
    pub(crate) sync: bool,
    pub(crate) shadow: bool,
    pub(crate) recycle: bool,
    pub(crate) discard: bool,
    pub(crate) policy: Policy,
    pub(crate) sizes: (u32, u32, u32, u32),
    pub(crate) slots: u16,
    pub(crate) journal: u32,
    pub(crate) seed: u64,
}

pub(crate) fn config() -> impl Strategy<Value = Config> {
    let policy = prop_oneof![Just(Policy::Lru), Just(Policy::Fifo), Just(Policy::Random)];
    let flags = (prop::bool::weighted(0.8), any::<bool>(), any::<bool>(), any::<bool>());
    let sizes = (1u32..=3, 0u32..=2, 1u32..=4, 2u32..=8);
    let slots = prop_oneof![1u16..=8, Just(100u16)];
    (1u8..=3, flags, policy, sizes, slots, 0u32..=2, any::<u64>()).prop_map(
        |(devices, (sync, shadow, recycle, discard), policy, sizes, slots, journal, seed)| Config {
            devices,
            sync,
            shadow,
            recycle,
            discard,
            policy,
            sizes,
            slots,
            journal,
            seed,
        },
    )
}

/// One operation. Numbers choose among what there is.
#[derive(Clone, Debug)]
pub(crate) enum Op {
    Alloc { device: u8, reserve: u8 },
    AllocSet { reserve: u8, n: u8 },
    Sectors { stream: u8, jump: bool, sectors: u8, write_point: u8, write_prio: bool },
    MarkDirty(u8),
    Written(u8),
    GiveBack(u8),
    Pin(u8),
    Unpin(u8),
    Touch(u8),
    Forget(u8),
    Free(u8),
    Bump(u8),
    Unused(u8),
    Io(u16),
    Step(u8),
    Pass(u8),
    PrioWrite(u8),
    Block(bool),
    GcBegin,
    GcMark(u8),
    GcFinish,
    GcAbandon,
    Moving(u8),
    SetPolicy(u8),
    Fail(u8),
    Crash,
}

pub(crate) fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        8 => (any::<u8>(), 0u8..4).prop_map(|(device, reserve)| Op::Alloc { device, reserve }),
        3 => (0u8..4, 1u8..=3).prop_map(|(reserve, n)| Op::AllocSet { reserve, n }),
        10 => (0u8..6, any::<bool>(), 1u8..80, 0u8..5, any::<bool>()).prop_map(
            |(stream, jump, sectors, write_point, write_prio)| Op::Sectors {
                stream, jump, sectors, write_point, write_prio
            }
        ),
        2 => any::<u8>().prop_map(Op::MarkDirty),
        12 => any::<u8>().prop_map(Op::Written),
        3 => any::<u8>().prop_map(Op::GiveBack),
        2 => any::<u8>().prop_map(Op::Pin),
        3 => any::<u8>().prop_map(Op::Unpin),
        3 => any::<u8>().prop_map(Op::Touch),
        6 => any::<u8>().prop_map(Op::Forget),
        2 => any::<u8>().prop_map(Op::Free),
        4 => any::<u8>().prop_map(Op::Bump),
        3 => any::<u8>().prop_map(Op::Unused),
        3 => any::<u16>().prop_map(Op::Io),
        14 => any::<u8>().prop_map(Op::Step),
        2 => any::<u8>().prop_map(Op::Pass),
        2 => any::<u8>().prop_map(Op::PrioWrite),
        1 => Just(Op::Block(true)),
        2 => Just(Op::Block(false)),
        4 => Just(Op::GcBegin),
        6 => any::<u8>().prop_map(Op::GcMark),
        6 => Just(Op::GcFinish),
        1 => Just(Op::GcAbandon),
        1 => any::<u8>().prop_map(Op::Moving),
        1 => (0u8..3).prop_map(Op::SetPolicy),
        1 => prop_oneof![1 => any::<u8>().prop_map(Op::Fail), 10 => Just(Op::Step(0))],
        1 => Just(Op::Crash),
    ]
}

impl Op {
    /// What kinds there are. Those that differ by more than a number are told apart.
    pub(crate) const KINDS: [&str; 27] = [
        "alloc",
        "alloc_set",
        "sectors",
        "mark_dirty",
        "written",
        "give_back",
        "pin",
        "unpin",
        "touch",
        "forget",
        "free",
        "bump_gen",
        "unused",
        "io",
        "step",
        "pass",
        "prio_write",
        "prio_block",
        "prio_unblock",
        "gc_begin",
        "gc_mark",
        "gc_finish",
        "gc_abandon",
        "moving",
        "set_policy",
        "fail",
        "crash",
    ];

    pub(crate) fn kind(&self) -> usize {
        match self {
            Self::Alloc { .. } => 0,
            Self::AllocSet { .. } => 1,
            Self::Sectors { .. } => 2,
            Self::MarkDirty(_) => 3,
            Self::Written(_) => 4,
            Self::GiveBack(_) => 5,
            Self::Pin(_) => 6,
            Self::Unpin(_) => 7,
            Self::Touch(_) => 8,
            Self::Forget(_) => 9,
            Self::Free(_) => 10,
            Self::Bump(_) => 11,
            Self::Unused(_) => 12,
            Self::Io(_) => 13,
            Self::Step(_) => 14,
            Self::Pass(_) => 15,
            Self::PrioWrite(_) => 16,
            Self::Block(true) => 17,
            Self::Block(false) => 18,
            Self::GcBegin => 19,
            Self::GcMark(_) => 20,
            Self::GcFinish => 21,
            Self::GcAbandon => 22,
            Self::Moving(_) => 23,
            Self::SetPolicy(_) => 24,
            Self::Fail(_) => 25,
            Self::Crash => 26,
        }
    }
}
