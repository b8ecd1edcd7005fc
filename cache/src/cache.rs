//! The cache as its users see it.

use crate::block::{block_on, block_until};
use crate::codec::Code;
use crate::config::{Config, Put};
use crate::engine::{Engine, Reads};
use crate::error::Error;
use crate::events::{event, in_span, span};
use crate::open;
use crate::stats::Stats;
use std::future::Future;
use std::marker::PhantomData;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};
use tierce_io::{Device, Pipeline};

/// A key-value cache on one or more devices, shared by any number of threads and tasks.
///
/// Every operation exists twice, blocking and, with `_async` behind its name, as a future that
/// needs no particular runtime. They are the same code.
///
/// See the [crate] for an example and for what it promises.
#[derive(Debug)]
pub struct Cache<K: ?Sized = [u8], V: ?Sized = [u8]> {
    background: Background,
    space_timeout: Duration,
    types: PhantomData<fn(&K) -> Box<V>>,
}

/// The engine and its threads. Ends them when it is dropped.
#[derive(Debug)]
pub(crate) struct Background {
    pub(crate) engine: Arc<Engine>,
    pub(crate) pipelines: Vec<Pipeline>,
    pub(crate) collector: Option<JoinHandle<()>>,
}

impl Background {
    fn stop(&mut self) -> Result<(), Error> {
        self.engine.allocator.close();
        if let Some(collector) = self.collector.take()
            && let Err(panic) = collector.join()
        {
            std::panic::resume_unwind(panic);
        }
        let ended = self.pipelines.drain(..).map(Pipeline::close).collect::<Vec<_>>();
        ended.into_iter().collect::<Result<(), _>>().map_err(Error::from)
    }
}

impl Drop for Background {
    fn drop(&mut self) {
        // What went wrong was told to those who waited; `close` is for those who want to know.
        self.engine.allocator.close();
        self.engine.forget();
    }
}

impl Cache {
    /// Opens the cache on the devices of `config`, which must have been formatted. It comes back
    /// as it was: see the [crate] for what survives what. Blocks until it is known what is there.
    ///
    /// # Errors
    ///
    /// [`Error::Io`] says why a device was refused, and nothing on it was changed;
    /// [`Error::Geometry`], [`Error::SmallBuckets`], [`Error::Space`] for settings out of range,
    /// [`Error::Thread`].
    pub fn open(config: Config) -> Result<Self, Error> {
        let _span = span!(INFO, "recovery");
        Ok(Self::on(open::open(&config)?, &config))
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
        let _span = span!(INFO, "recovery");
        Ok(Self::on(open::open_on(config, devices)?, config))
    }

    fn on(background: Background, config: &Config) -> Self {
        let engine = &background.engine;
        let (entries, buckets) = (engine.index.len(), engine.lives.count());
        event!(INFO, "recovered", entries = entries, buckets = buckets);
        Self { background, space_timeout: config.space_timeout, types: PhantomData }
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
        let Self { background, space_timeout, types: _ } = self;
        Cache { background, space_timeout, types: PhantomData }
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
    /// device, so a following [`get`](Self::get) can still miss. It does not count as a use.
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
    /// no room, [`Error::Space`] if no device works. An older value of the key stays.
    pub fn insert(&self, key: &K, value: &V) -> Result<(), Error> {
        self.insert_with(key, value, &Put::new())
    }

    /// As [`insert`](Self::insert), with a time to live or a write point.
    ///
    /// # Errors
    ///
    /// As [`insert`](Self::insert).
    pub fn insert_with(&self, key: &K, value: &V, put: &Put) -> Result<(), Error> {
        self.in_time(self.insert_async(key, value, put))
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
        self.insert(key, value)?;
        self.flush()
    }

    /// Forgets `key`. `true` if it was there. It stays forgotten over a restart after the next
    /// [`flush`](Self::flush).
    ///
    /// # Errors
    ///
    /// As [`insert`](Self::insert): that a key was removed has to be written, too. Then it was not
    /// removed.
    pub fn remove(&self, key: &K) -> Result<bool, Error> {
        self.in_time(self.remove_async(key))
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
        let removed = self.remove(key)?;
        self.flush()?;
        Ok(removed)
    }

    /// The value of `key`, or what `fill` makes of it, stored. While one caller fills, others who
    /// want the same key wait for him; if he fails or gives up, the next one fills.
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
    /// What `fill` returns, and those of [`get`](Self::get) and [`insert`](Self::insert).
    pub fn get_with<E: From<Error>>(
        &self,
        key: &K,
        fill: impl FnOnce() -> Result<V::Owned, E>,
    ) -> Result<V::Owned, E>
    where
        V::Owned: std::borrow::Borrow<V>,
    {
        block_on(self.get_with_async(key, async || fill()))
    }

    /// As [`get_with`](Self::get_with).
    ///
    /// # Errors
    ///
    /// As [`get_with`](Self::get_with).
    pub async fn get_with_async<E: From<Error>>(
        &self,
        key: &K,
        fill: impl AsyncFnOnce() -> Result<V::Owned, E>,
    ) -> Result<V::Owned, E>
    where
        V::Owned: std::borrow::Borrow<V>,
    {
        use std::borrow::Borrow;
        let hash = self.engine().hash(&key.encode())?;
        loop {
            if let Some(value) = self.get_async(key).await? {
                return Ok(value);
            }
            let Some(_leader) = self.engine().flights.lead(hash) else {
                self.engine().flights.landed(hash).await;
                continue;
            };
            // Whoever led before may have filled since we looked.
            if let Some(value) = self.get_async(key).await? {
                return Ok(value);
            }
            let value = fill().await?;
            self.insert_async(key, value.borrow(), &Put::new()).await?;
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

    fn in_time<T>(&self, work: impl Future<Output = Result<T, Error>>) -> Result<T, Error> {
        let deadline = Instant::now().checked_add(self.space_timeout);
        let waited_ms = self.space_timeout.as_millis();
        block_until(work, deadline).unwrap_or(Err(Error::TimedOut { waited_ms }))
    }

    /// Counters and gauges.
    #[must_use]
    pub fn stats(&self) -> Stats {
        Stats::of(self.engine())
    }

    /// Bytes of the longest value that can be stored under a key of `key_bytes` bytes.
    #[must_use]
    pub fn value_bytes_max(&self, key_bytes: usize) -> usize {
        self.engine().value_bytes_max(key_bytes)
    }

    /// Makes everything durable and stops the background threads. Dropping a cache stops them
    /// too, without the flush: what was in memory is lost, what was written is found again.
    ///
    /// # Errors
    ///
    /// [`Error::Io`] with what a background thread or the flush ran into.
    pub fn close(mut self) -> Result<(), Error> {
        let flushed = block_on(self.engine().flush());
        self.background.stop().and(flushed)
    }
}
