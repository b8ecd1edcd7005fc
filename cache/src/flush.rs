//! Durability: what was acknowledged becomes durable, or whoever asks is told that it is lost.
//!
//! # Protocol
//!
//! 1. What is in memory is submitted, and what was submitted awaited.
//! 2. Every device is flushed. One that cannot be is out of use from then on, as one that cannot be
//!    written is: nothing that is acknowledged later goes there.
//! 3. Losses are counted, by device, after it is out of use. A flush tells of a loss that was
//!    counted since it began, for it may be of what its caller wrote, and of one that nobody has
//!    told yet. Who writes and flushes in one call counts from before the write.

use crate::engine::{Disk, Engine};
use crate::error::Error;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use tierce_core::DeviceIndex;
use tierce_core::geometry::MAX_DEVICES;
use tierce_io::Request;

/// The losses of each device at some time.
pub(crate) type Losses = [u64; MAX_DEVICES as usize];

impl Engine {
    /// Everything that was acknowledged before becomes durable.
    pub(crate) async fn flush(&self) -> Result<(), Error> {
        self.flush_since(self.losses()).await
    }

    /// As [`flush`](Self::flush), for who wants to know of every loss after those in `before`,
    /// though another flush told it.
    pub(crate) async fn flush_since(&self, before: Losses) -> Result<(), Error> {
        self.recovered().await?;
        self.streams.submit();
        for life in self.lives.buffered() {
            life.written().await;
        }
        for ((number, disk), before) in (0..).zip(&self.devices).zip(before) {
            self.flush_device(DeviceIndex::new(number), disk, before).await?;
        }
        Ok(())
    }

    /// What each device has lost by now.
    pub(crate) fn losses(&self) -> Losses {
        let mut losses = Losses::default();
        for (disk, losses) in self.devices.iter().zip(&mut losses) {
            // Acquire: who does not ask for this loss again finds the device out of use; pairs with
            // the Release in `lose`.
            *losses = disk.losses.load(Ordering::Acquire);
        }
        losses
    }

    /// Whether any device has lost anything since the cache was opened.
    pub(crate) fn has_lost(&self) -> bool {
        self.losses().iter().any(|&losses| losses > 0)
    }

    /// The part of a flush that is of one device. The caller knows of its losses `before`.
    async fn flush_device(
        &self,
        device: DeviceIndex,
        disk: &Disk,
        before: u64,
    ) -> Result<(), Error> {
        let flushed = disk.device.submit(Request::Flush).await;
        let failed = flushed.err().map(|error| self.cannot_flush(device, disk, error));
        // Acquire: as in `losses`.
        let now = disk.losses.load(Ordering::Acquire);
        // Relaxed: a count, nothing is published with it.
        let told = disk.told.fetch_max(now, Ordering::Relaxed);
        // What nobody has told yet, or was lost meanwhile: that may be the caller's.
        let is_news = now > told.min(before);
        match failed {
            // The others have their own to make durable.
            Some(error) if is_news || self.devices.len() == 1 => Err(error),
            None if is_news => {
                self.allocator().check(device)?;
                Err(Error::Lost { device: disk.name() })
            }
            _ => Ok(()),
        }
    }

    /// What was written to a device that cannot be flushed is lost. Nothing more goes there.
    #[cold]
    fn cannot_flush(&self, device: DeviceIndex, disk: &Disk, error: tierce_io::Error) -> Error {
        let error = Arc::new(error);
        self.allocator().fail(device, error.clone());
        // Relaxed: decides only who counts it.
        if !disk.is_unflushed.swap(true, Ordering::Relaxed) {
            // Whoever has found it in use has written by then: it is lost before that is told.
            self.streams.submit();
            disk.lose();
        }
        Error::Io(error)
    }
}
