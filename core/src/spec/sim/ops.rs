//! The operations of the language.

use super::super::{Bump, Figure, Marked, Pass, Pointer, PrioWrite, Unused, Write};
use super::engine::Engine;
use super::parse::{Key, Line};
use super::print;
use super::runner::State;
use crate::bucket::{BucketId, Gen, Prio};
use crate::error::Error;
use crate::word::{PIN_LIMIT, SECTORS_MAX};
use core::fmt::Write as _;

const U64: core::ops::RangeInclusive<u64> = 0..=u64::MAX;

impl<E: Engine> State<E> {
    /// Carries out one operation and returns what it prints.
    pub(super) fn run(&mut self, line: &Line<'_>) -> Result<String, Error> {
        match line.op {
            "start" | "step" | "stats" | "lists" | "open" | "prio_block" | "prio_unblock"
            | "gc_start" | "gc_finish" | "gc_abandon" | "crash" => {
                line.only(&[])?;
                self.run_alone(line.op)
            }
            "alloc" => self.alloc(line),
            "alloc_set" => self.alloc_set(line),
            "alloc_sectors" => self.alloc_sectors(line),
            "uuid" => self.uuid(line),
            "free" | "put" | "get" | "touch" | "inc_gen" | "dirty" | "give_back" => {
                self.each_bucket(line)
            }
            "unused" => self.unused(line),
            "set" => self.set(line),
            "gc" => self.gc(line),
            "gc_mark" => self.gc_mark(line),
            "observe" => self.observe(line),
            "rescale" => self.rescale(line),
            "invalidate" => self.invalidate(line),
            "clear_inc" => self.clear_inc(line),
            "prio_write" => self.prio_write(line),
            "moving" => self.moving(line),
            "policy" => self.policy(line),
            "fail" => self.fail(line),
            "dump" => self.dump(line),
            other => Err(line.error("", other, "an operation, such as new, start, step, alloc")),
        }
    }

    /// Operations without arguments.
    fn run_alone(&mut self, op: &str) -> Result<String, Error> {
        match op {
            "start" => {
                let _reused_shows_in_the_events = self.engine.start()?;
                let events = print::events(&self.names, &self.engine.take_events());
                Ok(format!("start {events} avail={}\n", self.engine.gauges().available))
            }
            "step" => Ok(self.step()),
            "stats" => Ok(print::stats(&self.engine, &self.names, &self.devices())),
            "lists" => {
                let devices = self.devices().into_iter();
                Ok(devices.map(|d| print::lists(&self.engine, &self.names, d)).collect())
            }
            "open" => Ok(print::open(&self.engine, &self.names)),
            "prio_block" => Ok(format!("prio_block {}\n", self.engine.prio_block())),
            "prio_unblock" => Ok(format!("prio_unblock {}\n", self.engine.prio_unblock()?)),
            "gc_start" => {
                self.engine.gc_begin()?;
                Ok(self.marks_valid(op))
            }
            "gc_finish" => {
                self.engine.gc_finish()?;
                Ok(format!("gc_finish {}\n", print::gc_figures(&self.engine.gauges())))
            }
            "gc_abandon" => {
                self.engine.gc_abandon()?;
                Ok(self.marks_valid(op))
            }
            _ => {
                self.engine = self.engine.after_crash()?;
                Ok(self.marks_valid(op))
            }
        }
    }

    fn marks_valid(&self, op: &str) -> String {
        format!("{op} gc_mark_valid={}\n", u8::from(self.engine.gauges().marks_valid))
    }

    fn step(&mut self) -> String {
        let mut text = "step".to_owned();
        for device in self.devices() {
            let wait = self.engine.step(device);
            let events = print::events(&self.names, &self.engine.take_events());
            if self.names.many() {
                let _ = write!(text, " dev{device}");
            }
            let _ = write!(text, " {events} wait={wait}");
        }
        text.push('\n');
        text
    }

    fn pointer(&self, p: Pointer) -> String {
        format!("{}@{}", self.names.show(p.bucket), p.gen_)
    }

    fn alloc(&mut self, line: &Line<'_>) -> Result<String, Error> {
        line.only(&["reserve", "n", "dev"])?;
        let (reserve, device) = (line.reserve()?, self.names.device(line)?);
        let mut text = "alloc".to_owned();
        for _ in 0..line.number("n", 1..=u64::MAX)?.unwrap_or(1) {
            match self.engine.alloc_on(device, reserve).ready() {
                Some(p) => {
                    let _ = write!(text, " {}", self.pointer(p));
                }
                None => {
                    text.push_str(" fail");
                    break;
                }
            }
        }
        let _ = writeln!(text, " avail={}", self.engine.gauges().available);
        Ok(text)
    }

    fn alloc_set(&mut self, line: &Line<'_>) -> Result<String, Error> {
        line.only(&["reserve", "n"])?;
        let n = line.number("n", 1..=self.devices().len() as u64)?.unwrap_or(1);
        let pointers = self.engine.alloc_set(line.reserve()?, n as usize)?.ready();
        let result = match pointers {
            Some(pointers) => {
                let texts: Vec<_> = pointers.into_iter().map(|p| self.pointer(p)).collect();
                format!("ok {}", texts.join(" "))
            }
            None => "fail".to_owned(),
        };
        Ok(format!("alloc_set {result} avail={}\n", self.engine.gauges().available))
    }

    fn alloc_sectors(&mut self, line: &Line<'_>) -> Result<String, Error> {
        line.only(&["inode", "offset", "sectors", "write_point", "write_prio", "flash_only"])?;
        let inode = line.required("inode", U64)?;
        let offset = line.required("offset", U64)?;
        let sectors = line.required("sectors", 1..=u64::from(u32::MAX))? as u32;
        let mut write = Write::new(inode, offset, sectors);
        write.write_point = line.number("write_point", U64)?.unwrap_or(0);
        write.write_prio = line.number("write_prio", 0..=65535)?.is_some_and(|prio| prio != 0);
        if let Some(flash_only) = line.flag("flash_only")? {
            self.flash_only.insert(inode, flash_only);
        }
        write.flash_only = self.flash_only.get(&inode).copied().unwrap_or(false);
        let Some(extent) = self.engine.alloc_sectors(write)?.ready() else {
            return Ok("alloc_sectors fail\n".to_owned());
        };
        Ok(format!(
            "alloc_sectors ok b={} off={} gen={} pin={} size={} end={}\n",
            self.names.show(extent.bucket),
            extent.offset,
            extent.gen_,
            self.engine.word(extent.bucket).pin_count(),
            extent.sectors,
            offset.wrapping_add(u64::from(extent.sectors)),
        ))
    }

    fn uuid(&mut self, line: &Line<'_>) -> Result<String, Error> {
        line.only(&["inode", "flash_only"])?;
        let inode = line.required("inode", U64)?;
        let flash_only = line.required("flash_only", 0..=1)?;
        self.flash_only.insert(inode, flash_only == 1);
        Ok(format!("uuid inode={inode} flash_only={flash_only}\n"))
    }

    /// Operations on each of the named buckets.
    fn each_bucket(&mut self, line: &Line<'_>) -> Result<String, Error> {
        let mut text = line.op.to_owned();
        for id in self.names.buckets(line)? {
            let result = self.on_bucket(line.op, id)?;
            let _ = write!(text, " {}:{result}", self.names.show(id));
        }
        text.push('\n');
        self.engine.take_events();
        Ok(text)
    }

    fn on_bucket(&mut self, op: &str, id: BucketId) -> Result<String, Error> {
        let word = self.engine.word(id);
        let current = Pointer::new(id, word.gen_());
        Ok(match op {
            "free" => {
                self.engine.free(id)?;
                format!("avail={}", self.engine.gauges().available)
            }
            "give_back" => {
                self.engine.give_back(id)?;
                format!("avail={}", self.engine.gauges().available)
            }
            "put" => {
                self.engine.unpin(id)?;
                format!("pin={}", self.engine.word(id).pin_count())
            }
            "get" => {
                if !self.engine.pin(current) {
                    let what = format!("pinning bucket {id}");
                    return Err(Error::state(
                        what,
                        word.pin_count(),
                        "fewer pins, on a bucket that can be allocated",
                    ));
                }
                format!("pin={}", self.engine.word(id).pin_count())
            }
            "touch" => {
                self.engine.touch(current);
                format!("prio={}", self.engine.word(id).prio())
            }
            "dirty" => {
                self.engine.mark_dirty(id)?;
                format!("mark={}", print::mark_name(self.engine.word(id).mark()))
            }
            _ => match self.engine.bump_gen(id)? {
                Bump::Bumped(gen_) => {
                    format!("gen={gen_}:need_gc={}", self.engine.gauges().need_gc)
                }
                Bump::MustGc => "must_gc".to_owned(),
            },
        })
    }

    fn unused(&mut self, line: &Line<'_>) -> Result<String, Error> {
        let mut results = String::new();
        for id in self.names.buckets(line)? {
            let result = match self.engine.unused(id)? {
                Unused::Released => "released",
                Unused::Refused => "refused",
            };
            let _ = write!(results, " {}:{result}", self.names.show(id));
        }
        let events = print::events(&self.names, &self.engine.take_events());
        Ok(format!("unused {events}{results}\n"))
    }

    fn set(&mut self, line: &Line<'_>) -> Result<String, Error> {
        line.only_keys(&[
            "prio",
            "gen",
            "last_gc",
            "mark",
            "sectors",
            "pin",
            "move",
            "durable",
            "min_prio",
            "rescale",
            "fifo_next",
            "need_gc",
            "needs_gc",
            "seed",
            "dev",
        ])?;
        let device = self.names.device(line)?;
        let figures = [
            line.small("min_prio", 0..=32768)?.map(|p| Figure::MinPrio(Prio::new(p as u16))),
            line.signed("rescale")?.map(Figure::Rescale),
            line.small("fifo_next", 0..=u32::MAX)?.map(Figure::FifoNext),
            line.small("need_gc", 0..=255)?.map(|n| Figure::NeedGc(n as u8)),
            line.flag("needs_gc")?.map(Figure::NeedsGc),
            line.number("seed", U64)?.map(Figure::Seed),
        ];
        for figure in figures.into_iter().flatten() {
            self.engine.store_figure(device, figure)?;
        }
        let mut count = 0;
        for id in self.names.ranges(line)?.into_iter().flatten() {
            self.set_bucket(line, id)?;
            count += 1;
        }
        Ok(format!("set {count}\n"))
    }

    fn set_bucket(&mut self, line: &Line<'_>, id: BucketId) -> Result<(), Error> {
        let before = self.engine.word(id);
        let mut word = before;
        let gen_of = |key| Ok(line.small(key, 0..=255)?.map(|g| Gen::new(g as u8)));
        if let Some(prio) = line.small("prio", 0..=65535)? {
            word = word.with_prio(Prio::new(prio as u16));
        }
        let new_gen: Option<Gen> = gen_of("gen")?;
        word = new_gen.map_or(word, |gen_| word.with_gen(gen_));
        word = gen_of("last_gc")?.map_or(word, |gen_| word.with_last_gc(gen_));
        word = line.mark()?.map_or(word, |mark| word.with_mark(mark));
        let most = u32::from(SECTORS_MAX) << self.geometry.sector_shift();
        if let Some(sectors) = line.small("sectors", 0..=most)? {
            word = word.with_sectors(sectors.div_ceil(self.unit()));
        }
        if let Some(pin) = line.small("pin", 0..=u32::from(PIN_LIMIT))? {
            word = word.with_pin(pin as u16);
        }
        word = line.flag("move")?.map_or(word, |moving| word.with_moving(moving));
        self.engine.store(id, word)?;
        if let Some(durable) = gen_of("durable")?.or(new_gen) {
            self.engine.store_durable(id, durable)?;
        }
        Ok(())
    }

    /// Sectors that a word's count of 1 stands for.
    fn unit(&self) -> u32 {
        1 << self.geometry.sector_shift()
    }

    fn gc(&mut self, line: &Line<'_>) -> Result<String, Error> {
        line.only_keys(&["keep"])?;
        let keys = self.names.keys(line)?;
        let kept = if line.flag("keep")?.unwrap_or(false) { self.marked() } else { Vec::new() };
        self.engine.gc_begin()?;
        self.mark_all(&kept)?;
        self.mark_all(&keys)?;
        self.engine.gc_finish()?;
        Ok(format!("gc {}\n", print::gc_figures(&self.engine.gauges())))
    }

    /// What is marked and not pinned, as keys.
    fn marked(&self) -> Vec<Key> {
        let mut keys = Vec::new();
        for device in self.devices() {
            for bucket in self.geometry.buckets() {
                let id = BucketId::new(device, bucket);
                let word = self.engine.word(id);
                let live = match word.mark() {
                    crate::Mark::Reclaimable => super::super::Live::Clean,
                    crate::Mark::Dirty => super::super::Live::Dirty,
                    crate::Mark::Metadata => super::super::Live::Metadata,
                    crate::Mark::None => continue,
                };
                if word.pin_count() == 0 {
                    let sectors = u32::from(word.sectors()) * self.unit();
                    keys.push(Key { bucket: id, sectors, live, gen_: None });
                }
            }
        }
        keys
    }

    /// Shows keys to the running garbage collection; returns how many were stale.
    fn mark_all(&mut self, keys: &[Key]) -> Result<usize, Error> {
        let mut stale = 0;
        for key in keys {
            let pointer = key.pointer(self.engine.word(key.bucket).gen_());
            let marked = self.engine.gc_mark(pointer, key.sectors, key.live)?;
            stale += usize::from(marked == Marked::Stale);
        }
        Ok(stale)
    }

    fn gc_mark(&mut self, line: &Line<'_>) -> Result<String, Error> {
        line.only_words("keys, B:S[:clean|dirty|meta][@G]")?;
        let keys = self.names.keys(line)?;
        let stale = self.mark_all(&keys)?;
        Ok(format!("gc_mark {} stale={stale}\n", keys.len()))
    }

    fn observe(&mut self, line: &Line<'_>) -> Result<String, Error> {
        line.only_words("keys, B:S[:clean|dirty|meta]@G")?;
        let keys = self.names.keys(line)?;
        let mut stale = 0;
        for key in &keys {
            let pointer = key.pointer(self.engine.word(key.bucket).gen_());
            let marked = self.engine.observe(pointer, key.sectors, key.live)?;
            stale += usize::from(marked == Marked::Stale);
        }
        Ok(format!("observe {} stale={stale}\n", keys.len()))
    }

    fn rescale(&mut self, line: &Line<'_>) -> Result<String, Error> {
        line.only(&["sectors"])?;
        let fired = self.engine.account_io(line.required("sectors", U64)?);
        let gauges = self.engine.gauges();
        Ok(format!(
            "rescale fired={} counter={} min_prio={}\n",
            u8::from(fired),
            gauges.rescale_counter,
            gauges.min_prio
        ))
    }

    fn invalidate(&mut self, line: &Line<'_>) -> Result<String, Error> {
        line.only(&["dev"])?;
        let device = self.names.device(line)?;
        let pass = self.engine.invalidate(device);
        let events = print::events(&self.names, &self.engine.take_events());
        let gauges = self.engine.gauges();
        let needs_gc = u8::from(self.engine.needs_gc(device));
        Ok(match pass {
            Pass::Refused => {
                let valid = u8::from(gauges.marks_valid);
                format!("invalidate refused needs_gc={needs_gc} gc_mark_valid={valid}\n")
            }
            Pass::Filled | Pass::Short => {
                format!("invalidate {events} needs_gc={needs_gc} need_gc={}\n", gauges.need_gc)
            }
        })
    }

    fn clear_inc(&mut self, line: &Line<'_>) -> Result<String, Error> {
        line.only(&["dev"])?;
        let device = self.names.device(line)?;
        Ok(format!("clear_inc {}\n", self.engine.clear_free_inc(device)?))
    }

    fn prio_write(&mut self, line: &Line<'_>) -> Result<String, Error> {
        line.only(&["dev"])?;
        let device = self.names.device(line)?;
        let written = self.engine.prio_write(device);
        let events = print::events(&self.names, &self.engine.take_events());
        let result = match written {
            PrioWrite::Written { .. } => &events,
            PrioWrite::WouldBlock => "would_block",
            PrioWrite::Blocked => "prio_blocked",
            PrioWrite::NoSync => "no_sync",
            PrioWrite::Failed => "failed",
        };
        Ok(format!("prio_write {result}\n"))
    }

    fn moving(&mut self, line: &Line<'_>) -> Result<String, Error> {
        line.only(&["dev"])?;
        let device = self.names.device(line)?;
        let buckets = self.engine.moving_candidates(device)?;
        let show = |b| self.names.show(BucketId::new(device, b));
        let texts: Vec<_> = buckets.into_iter().map(show).collect();
        Ok(format!("moving [{}]\n", texts.join(" ")))
    }

    fn policy(&mut self, line: &Line<'_>) -> Result<String, Error> {
        line.only_keys(&["dev"])?;
        let device = self.names.device(line)?;
        let [name] = line.bare[..] else {
            return Err(line.error("", line.bare.join(" "), "lru, fifo or random"));
        };
        let policy = name.parse().map_err(|_| line.error("", name, "lru, fifo or random"))?;
        self.engine.set_policy(device, policy)?;
        Ok(format!("policy {name} dev={device}\n"))
    }

    fn fail(&mut self, line: &Line<'_>) -> Result<String, Error> {
        line.only(&["dev"])?;
        let device = self.names.device(line)?;
        self.engine.fail_device(device, "the script said so")?;
        Ok(format!("fail dev={device}\n"))
    }

    fn dump(&mut self, line: &Line<'_>) -> Result<String, Error> {
        line.only_words("buckets or ranges")?;
        let buckets = self.names.ranges(line)?.into_iter().flatten();
        let unit = self.unit();
        let show = |id| print::bucket(&self.names, id, self.engine.word(id), unit);
        Ok(buckets.map(show).collect())
    }
}
