//! The cache as its users see it.

use crate::block::{block_on, block_until};
use crate::codec::Code;
use crate::config::{Config, Put};
use crate::engine::{Disk, Engine, Reads};
use crate::error::Error;
use crate::events::{event, in_span};
use crate::flush::Losses;
use crate::open;
use crate::stats::Stats;
use std::fmt;
use std::future::Future;
use std::marker::PhantomData;
use std::sync::Arc;
use std::thread::{self, JoinHandle, ThreadId};
use std::time::{Duration, Instant};
use tierce_io::{Device, Pipeline};

/// A key-value cache on one or more devices, shared by any number of threads and tasks.
///
/// Every operation exists twice, blocking and, with `_async` behind its name, as a future that
/// needs no particular runtime. They are the same code.
///
/// See the [crate] for an example and for what it promises.
pub struct Cache<K: ?Sized = [u8], V: ?Sized = [u8]> {
    background: Background,
    types: PhantomData<fn(&K) -> Box<V>>,
}

impl<K: ?Sized, V: ?Sized> fmt::Debug for Cache<K, V> {
    /// Its devices, policy and size, without what is in it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let engine = self.engine();
        let devices: Vec<_> = engine.devices.iter().map(Disk::name).collect();
        f.debug_struct("Cache")
            .field("devices", &devices)
            .field("policy", &engine.allocator.get().map(|allocator| allocator.policy()))
            .field("entries", &engine.index.len())
            .field("is_recovered", &engine.warm.is_over())
            .finish_non_exhaustive()
    }
}

/// The engine and its threads. Ends them when it is dropped.
#[derive(Debug)]
pub(crate) struct Background {
    pub(crate) engine: Arc<Engine>,
    /// What comes back while the cache is used, and ends with the threads.
    pub(crate) recovery: Option<JoinHandle<Result<Threads, Error>>>,
    pub(crate) threads: Option<Threads>,
    /// How long somebody waits who does not want to wait for ever.
    pub(crate) space_timeout: Duration,
}

/// What runs as long as the cache is open and recovered.
#[derive(Debug)]
pub(crate) struct Threads {
    pub(crate) pipelines: Vec<Pipeline>,
    pub(crate) collector: JoinHandle<()>,
}

impl Background {
    /// Ends the recovery, wherever it is. `None`: it hangs, in a read that does not come back, or in
    /// a waker that called us. Then it is left alone: it ends with that, and the devices are free.
    fn end_recovery(&mut self) -> Option<thread::Result<Result<(), Error>>> {
        let Some(recovery) = self.recovery.take() else { return Some(Ok(Ok(()))) };
        let warm = &self.engine.warm;
        warm.stop();
        if is_own(&recovery) {
            return None;
        }
        // How it ended its thread says.
        let _ = block_until(warm.over(), Instant::now().checked_add(self.space_timeout))?;
        Some(recovery.join().map(|ended| match ended {
            Ok(threads) => {
                self.threads = Some(threads);
                Ok(())
            }
            Err(Error::Space(tierce_lockfree::Error::Closed)) => Ok(()),
            Err(error) => Err(error),
        }))
    }

    fn stop(&mut self) -> Result<(), Error> {
        let Some(Threads { pipelines, collector }) = self.threads.take() else { return Ok(()) };
        self.engine.allocator().close();
        if !is_own(&collector)
            && let Err(panic) = collector.join()
        {
            std::panic::resume_unwind(panic);
        }
        let ended = pipelines.into_iter().map(Pipeline::close).collect::<Vec<_>>();
        ended.into_iter().collect::<Result<(), _>>().map_err(Error::from)
    }
}

/// Whether it is the calling thread, which cannot wait for its own end: it calls wakers, and those
/// may do anything.
fn is_own<T>(thread: &JoinHandle<T>) -> bool {
    thread.thread().id() == thread::current().id()
}

impl Drop for Background {
    fn drop(&mut self) {
        // What went wrong was told to those who waited; `close` is for those who want to know.
        drop(self.end_recovery());
        if let Some(allocator) = self.engine.allocator.get() {
            allocator.close();
        }
        self.engine.forget();
    }
}

impl Cache {
    /// Opens the cache on the devices of `config`, which must have been formatted. It comes back
    /// as it was: see the [crate] for what survives what. Blocks until it is known what is there,
    /// unless [`Config::recover`] says otherwise.
    ///
    /// # Errors
    ///
    /// [`Error::Io`] says why a device was refused, and nothing on it was changed;
    /// [`Error::Geometry`], [`Error::SmallBuckets`], [`Error::Twice`], [`Error::Unknown`],
    /// [`Error::Space`] for settings out of range, [`Error::Thread`].
    pub fn open(config: Config) -> Result<Self, Error> {
        Ok(Self { background: open::open(&config)?, types: PhantomData })
    }

    /// Opens the cache on devices that are open already, for who brings devices of his own. The
    /// paths of `config` are not looked at.
    ///
    /// ```
    /// use tierce_cache::{Cache, Config};
    /// use tierce_io::{FormatOptions, Sim, SimOptions, format_on};
    /// let device = Sim::new(&SimOptions::default());
    /// format_on(&*device, &FormatOptions::default().bucket(64 << 10))?;
    /// let cache = Cache::open_on(&Config::new("simulated"), vec![device.clone()])?;
    /// cache.insert_durable(b"key", b"value")?;
    ///
    /// let after = device.power_loss();
    /// drop(cache);
    /// let cache = Cache::open_on(&Config::new("simulated"), vec![after])?;
    /// assert_eq!(cache.get(b"key")?.as_deref(), Some(&b"value"[..]));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    ///
    /// As [`open`](Self::open).
    pub fn open_on(config: &Config, devices: Vec<Arc<dyn Device>>) -> Result<Self, Error> {
        Ok(Self { background: open::open_on(config, devices)?, types: PhantomData })
    }

    /// Waits until it is known what is on the devices; without [`Config::recover`] it is.
    ///
    /// ```
    /// # use tierce_cache::{Cache, Config, Recover};
    /// # let dir = tempfile::tempdir()?;
    /// # let path = dir.path().join("cache");
    /// # let options = tierce_io::FormatOptions::default().size(Some(64 << 20)).bucket(64 << 10);
    /// # tierce_io::format(&path, &options)?;
    /// let cache = Cache::open(Config::new(&path).recover(Recover::WaitMeanwhile))?;
    /// cache.recovered()?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    ///
    /// Those of [`open`](Self::open) that come late then. Nothing can be written, and nothing that
    /// was not known is found.
    pub fn recovered(&self) -> Result<(), Error> {
        block_on(self.recovered_async())
    }

    /// As [`recovered`](Self::recovered).
    ///
    /// # Errors
    ///
    /// As [`recovered`](Self::recovered).
    pub async fn recovered_async(&self) -> Result<(), Error> {
        self.engine().warm.over().await
    }

    /// The same cache for keys and values of other types. What was stored as something else is
    /// found to be so when it is met.
    ///
    /// ```
    /// # use tierce_cache::{Cache, Config};
    /// # let dir = tempfile::tempdir()?;
    /// # let path = dir.path().join("cache");
    /// # let options = tierce_io::FormatOptions::default().size(Some(64 << 20)).bucket(64 << 10);
    /// # tierce_io::format(&path, &options)?;
    /// let cache = Cache::open(Config::new(&path))?.typed::<str, u64>();
    /// cache.insert("answer", &42)?;
    /// assert_eq!(cache.get("answer")?, Some(42));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    pub fn typed<K: Code + ?Sized, V: Code + ?Sized>(self) -> Cache<K, V> {
        Cache { background: self.background, types: PhantomData }
    }
}

/// Reading.
impl<K: Code + ?Sized, V: Code + ?Sized> Cache<K, V> {
    /// The value of `key`, if it is there. Blocks for one read of the device, on nobody else.
    ///
    /// What cannot be read, is damaged, or was reused meanwhile is a miss, and counted.
    ///
    /// # Errors
    ///
    /// [`Error::EmptyKey`], [`Error::Code`].
    pub fn get(&self, key: &K) -> Result<Option<V::Owned>, Error> {
        block_on(self.get_by(key, Reads::Here))
    }

    /// As [`get`](Self::get).
    ///
    /// # Errors
    ///
    /// As [`get`](Self::get).
    pub async fn get_async(&self, key: &K) -> Result<Option<V::Owned>, Error> {
        self.get_by(key, Reads::Elsewhere).await
    }

    async fn get_by(&self, key: &K, reads: Reads) -> Result<Option<V::Owned>, Error> {
        let mut value = Vec::new();
        let hit = self.get_bytes(key, &mut value, reads).await?;
        Ok(if hit { Some(V::decode(value)?) } else { None })
    }

    /// As [`get`](Self::get), for who brings the memory: `true` and the bytes of the value, or
    /// `false` and nothing.
    ///
    /// # Errors
    ///
    /// [`Error::EmptyKey`].
    pub fn get_into(&self, key: &K, value: &mut Vec<u8>) -> Result<bool, Error> {
        value.clear();
        block_on(self.get_bytes(key, value, Reads::Here))
    }

    async fn get_bytes(&self, key: &K, value: &mut Vec<u8>, reads: Reads) -> Result<bool, Error> {
        in_span!(TRACE, "get", async {
            let hit = self.engine().get(&key.encode(), value, reads).await?;
            match hit {
                true => event!(TRACE, "hit", bytes = value.len()),
                false => event!(TRACE, "miss"),
            }
            Ok(hit)
        })
        .await
    }

    /// Whether the index holds `key` and its bucket has not been reused. Nothing is read from the
    /// device, so a following [`get`](Self::get) can still miss. It does not count as a use. While
    /// the cache is [recovering](Config::recover), what is not known is not there.
    ///
    /// # Errors
    ///
    /// [`Error::EmptyKey`].
    pub fn contains(&self, key: &K) -> Result<bool, Error> {
        self.engine().contains(&key.encode())
    }
}

/// Writing.
impl<K: Code + ?Sized, V: Code + ?Sized> Cache<K, V> {
    /// Stores `value` under `key`, in place of what was there. When it returns the value can be
    /// read; it is durable after the next [`flush`](Self::flush). Blocks while there is no memory
    /// or no bucket for it.
    ///
    /// # Errors
    ///
    /// [`Error::TooLarge`], [`Error::EmptyKey`], [`Error::Full`] or [`Error::TimedOut`] if there is
    /// no room, [`Error::Space`] if no device works, [`Error::Recovering`] if it is not known yet
    /// what is there. An older value of the key stays.
    pub fn insert(&self, key: &K, value: &V) -> Result<(), Error> {
        self.insert_with(key, value, &Put::new())
    }

    /// As [`insert`](Self::insert), with a time to live or a write point.
    ///
    /// # Errors
    ///
    /// As [`insert`](Self::insert).
    pub fn insert_with(&self, key: &K, value: &V, put: &Put) -> Result<(), Error> {
        self.in_time(self.insert_async(key, value, put)).unwrap_or_else(|| {
            self.engine().counters.failed_inserts.add_one();
            Err(self.late())
        })
    }

    /// As [`insert_with`](Self::insert_with). Dropped before it is ready, it may have stored the
    /// value or not; nothing is left behind.
    ///
    /// # Errors
    ///
    /// As [`insert`](Self::insert), without [`Error::TimedOut`].
    pub async fn insert_async(&self, key: &K, value: &V, put: &Put) -> Result<(), Error> {
        in_span!(TRACE, "insert", self.engine().insert(&key.encode(), &value.encode(), put)).await
    }

    /// As [`insert`](Self::insert), and durable when it returns. Several at the same time share the
    /// device's flushes.
    ///
    /// # Errors
    ///
    /// As [`insert`](Self::insert) and [`flush`](Self::flush).
    pub fn insert_durable(&self, key: &K, value: &V) -> Result<(), Error> {
        let before = self.engine().losses();
        self.insert(key, value)?;
        self.flush_since(before)
    }

    /// Forgets `key`. `true` if it was there. It stays forgotten over a restart after the next
    /// [`flush`](Self::flush).
    ///
    /// # Errors
    ///
    /// As [`insert`](Self::insert): that a key was removed has to be written, too. Then it was not
    /// removed.
    pub fn remove(&self, key: &K) -> Result<bool, Error> {
        self.limited(self.remove_async(key))
    }

    /// As [`remove`](Self::remove).
    ///
    /// # Errors
    ///
    /// As [`remove`](Self::remove).
    pub async fn remove_async(&self, key: &K) -> Result<bool, Error> {
        in_span!(TRACE, "remove", self.engine().remove(&key.encode())).await
    }

    /// As [`remove`](Self::remove), and durable when it returns.
    ///
    /// # Errors
    ///
    /// As [`remove`](Self::remove) and [`flush`](Self::flush).
    pub fn remove_durable(&self, key: &K) -> Result<bool, Error> {
        let before = self.engine().losses();
        let removed = self.remove(key)?;
        self.flush_since(before)?;
        Ok(removed)
    }

    /// Also tells what was lost since `before`, whoever was told it.
    fn flush_since(&self, before: Losses) -> Result<(), Error> {
        block_on(in_span!(DEBUG, "flush", self.engine().flush_since(before)))
    }

    /// The value of `key`, or what `fill` makes of it, stored. While one caller fills, others who
    /// want the same key wait for him; if he fails or gives up, the next one fills. Fills that wait
    /// for each other's keys, on different threads, wait for ever.
    ///
    /// ```
    /// # use tierce_cache::{Cache, Config, Error};
    /// # let dir = tempfile::tempdir()?;
    /// # let path = dir.path().join("cache");
    /// # let options = tierce_io::FormatOptions::default().size(Some(64 << 20)).bucket(64 << 10);
    /// # tierce_io::format(&path, &options)?;
    /// let cache = Cache::open(Config::new(&path))?.typed::<str, String>();
    /// let value = cache.get_with("key", || Ok::<_, Error>("from afar".to_owned()))?;
    /// assert_eq!(value, "from afar");
    /// assert_eq!(cache.get("key")?.as_deref(), Some("from afar"));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    ///
    /// What `fill` returns, and those of [`get`](Self::get) and [`insert`](Self::insert);
    /// [`Error::FillsItself`] from a `fill` that asks for the same key. While the cache is
    /// [recovering](Config::recover) nothing is filled: what is not found waits as an insert does.
    pub fn get_with<E: From<Error>>(
        &self,
        key: &K,
        fill: impl FnOnce() -> Result<V::Owned, E>,
    ) -> Result<V::Owned, E>
    where
        V::Owned: std::borrow::Borrow<V>,
    {
        // Nothing else happens on this thread meanwhile, so what waits may block it.
        let recovered = async || self.limited(self.engine().recovered());
        let store = async |value: &V| self.insert(key, value);
        let blocks = Some(thread::current().id());
        block_on(self.get_or_fill(key, async || fill(), recovered, store, blocks))
    }

    /// As [`get_with`](Self::get_with), without its limits: it waits until it is dropped. A `fill`
    /// that waits for the same key waits for itself, for ever.
    ///
    /// # Errors
    ///
    /// As [`get_with`](Self::get_with), without [`Error::TimedOut`] and [`Error::FillsItself`].
    pub async fn get_with_async<E: From<Error>>(
        &self,
        key: &K,
        fill: impl AsyncFnOnce() -> Result<V::Owned, E>,
    ) -> Result<V::Owned, E>
    where
        V::Owned: std::borrow::Borrow<V>,
    {
        let recovered = async || self.engine().recovered().await;
        let put = Put::new();
        let store = async |value: &V| self.insert_async(key, value, &put).await;
        self.get_or_fill(key, fill, recovered, store, None).await
    }

    /// Both, for a thread that does nothing else until it is through, or for none.
    async fn get_or_fill<E: From<Error>>(
        &self,
        key: &K,
        fill: impl AsyncFnOnce() -> Result<V::Owned, E>,
        recovered: impl AsyncFn() -> Result<(), Error>,
        store: impl AsyncFnOnce(&V) -> Result<(), Error>,
        blocks: Option<ThreadId>,
    ) -> Result<V::Owned, E>
    where
        V::Owned: std::borrow::Borrow<V>,
    {
        use std::borrow::Borrow;
        let reads = if blocks.is_some() { Reads::Here } else { Reads::Elsewhere };
        loop {
            if let Some(value) = self.get_by(key, reads).await? {
                return Ok(value);
            }
            // It could not be stored, and may be there.
            recovered().await?;
            let flights = &self.engine().flights;
            let hash = self.engine().hash(&key.encode())?;
            let Some(_leader) = flights.lead(hash, blocks) else {
                if blocks.is_some_and(|thread| flights.is_led_by(hash, thread)) {
                    return Err(Error::FillsItself.into());
                }
                flights.landed(hash).await;
                continue;
            };
            // Whoever led before may have filled since we looked.
            if let Some(value) = self.get_by(key, reads).await? {
                return Ok(value);
            }
            let value = fill().await?;
            store(value.borrow()).await?;
            return Ok(value);
        }
    }

    /// Makes everything durable whose insert or remove has returned: it survives a power loss.
    ///
    /// # Errors
    ///
    /// [`Error::Io`] if a device does not confirm it, [`Error::Space`] or [`Error::Lost`] if some
    /// of it could not be written.
    pub fn flush(&self) -> Result<(), Error> {
        block_on(self.flush_async())
    }

    /// As [`flush`](Self::flush).
    ///
    /// # Errors
    ///
    /// As [`flush`](Self::flush).
    pub async fn flush_async(&self) -> Result<(), Error> {
        in_span!(DEBUG, "flush", self.engine().flush()).await
    }
}

/// The rest.
impl<K: ?Sized, V: ?Sized> Cache<K, V> {
    pub(crate) fn engine(&self) -> &Engine {
        &self.background.engine
    }

    fn in_time<T>(&self, work: impl Future<Output = T>) -> Option<T> {
        block_until(work, Instant::now().checked_add(self.background.space_timeout))
    }

    fn limited<T>(&self, work: impl Future<Output = Result<T, Error>>) -> Result<T, Error> {
        self.in_time(work).unwrap_or_else(|| Err(self.late()))
    }

    /// Why something took too long.
    fn late(&self) -> Error {
        let waited_ms = self.background.space_timeout.as_millis();
        match self.engine().warm.is_over() {
            true => Error::TimedOut { waited_ms },
            false => self.engine().warm.recovering(),
        }
    }

    /// Counters and gauges.
    #[must_use]
    pub fn stats(&self) -> Stats {
        Stats::of(self.engine())
    }

    /// Bytes of the longest value that can be stored under a key of `key_bytes` bytes: those of a
    /// bucket, unless the key fills one nearly. 0 also if no value can be.
    #[must_use]
    pub fn value_bytes_max(&self, key_bytes: usize) -> usize {
        self.engine().value_bytes_max(key_bytes).unwrap_or(0)
    }

    /// Makes everything durable and stops the background threads. Dropping a cache stops them
    /// too, without the flush: what was in memory is lost, what was written is found again. A cache
    /// that is still [recovering](Config::recover) gives that up.
    ///
    /// # Errors
    ///
    /// [`Error::Io`] with what a background thread or the flush ran into; what the recovery did.
    pub fn close(mut self) -> Result<(), Error> {
        match self.background.end_recovery() {
            None => return Err(self.engine().warm.recovering()),
            Some(ended) => ended.unwrap_or_else(|panic| std::panic::resume_unwind(panic))?,
        }
        if self.background.threads.is_none() {
            return Ok(()); // nothing was written
        }
        let flushed = block_on(self.engine().flush());
        self.background.stop().and(flushed)
    }
}
