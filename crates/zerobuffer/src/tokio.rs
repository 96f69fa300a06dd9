//! A client of a service for programs that run on tokio; needs the feature `tokio`.
//!
//! It has one connection for life. A program that runs for longer than its servers awaits the futures of a
//! [`Pool`](crate::Pool), which need nothing of tokio, not even this feature: a thread of the library connects to
//! new servers and completes the calls. Only connecting blocks.
//!
//! ```
//! use std::time::Duration;
//! use tokio::task::spawn_blocking;
//! use zerobuffer::{ClientConfig, Frame, Pool, Service, ServiceConfig};
//!
//! # let directory = format!("/tmp/zb-doc-tokio-pool-{}", std::process::id());
//! let serve = || {
//!     let config = ServiceConfig::new().directory(&directory);
//!     let mut service = Service::create("uppercase", config)?;
//!     service.start(|frame: &mut Frame| frame.data_mut().make_ascii_uppercase())?;
//!     Ok::<Service, zerobuffer::Error>(service)
//! };
//! let service = serve()?;
//!
//! let second = Duration::from_secs(1);
//! # let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
//! # let next = runtime.block_on(async {
//! let config = ClientConfig::new().directory(&directory);
//! let connect = move || Pool::connect_with("uppercase", 4, second, config);
//! let pool = spawn_blocking(connect).await.expect("it does not panic")?;
//! assert_eq!(pool.call_async(b"one", second).await?.data(), b"ONE");
//!
//! drop(service); // it is replaced, and the next call finds its successor
//! let next = serve()?;
//! assert_eq!(pool.call_async(b"two", 5 * second).await?.data(), b"TWO");
//! # Ok::<Service, zerobuffer::Error>(next)
//! # })?;
//! # drop(next);
//! # std::fs::remove_dir_all(&directory).unwrap();
//! # Ok::<(), zerobuffer::Error>(())
//! ```

use crate::client::{CallFuture, EventLoopClient, RequestLayout};
use crate::config::ClientConfig;
use crate::debug::debug_line;
use crate::error::{Error, Result};
use ::tokio::io::Interest;
use ::tokio::io::unix::AsyncFd;
use ::tokio::task::{JoinHandle, spawn, spawn_blocking};
use ::tokio::time::timeout_at;
use std::os::fd::{AsRawFd, RawFd};
use std::sync::Arc;
use std::time::Duration;

/// A client of a service on tokio's runtime: any number of calls at once, each a future, and no thread waits for
/// them. Clones share one connection.
///
/// It is an [`EventLoopClient`] that a task of the runtime drives, which sleeps while nothing happens. The
/// runtime, of either flavour, needs its drivers for I/O and time (`enable_all`).
///
/// A server's end ends the calls under way with an error that says what became of each request
/// ([`Error::lost_request`]), and all later calls: then connect another client, or use a
/// [`Pool`](crate::Pool), as [above](self). Channels have no descriptor to
/// wait for; connecting to one fails with [`Error::Unsupported`], and
/// [`SharedClient::call_async`](crate::SharedClient::call_async) works there, on any runtime.
///
/// When the last clone is dropped, or the runtime ends, the connection is closed, and calls under way end with
/// [`Error::Closed`].
///
/// ```
/// use std::time::Duration;
/// use zerobuffer::{ClientConfig, Frame, Service, ServiceConfig, tokio::Client};
///
/// # let directory = format!("/tmp/zb-doc-tokio-{}", std::process::id());
/// let config = ServiceConfig::new().directory(&directory);
/// let mut service = Service::create("uppercase", config)?;
/// service.start(|frame: &mut Frame| frame.data_mut().make_ascii_uppercase())?;
///
/// let second = Duration::from_secs(1);
/// # let place = directory.clone();
/// # let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
/// # runtime.block_on(async move {
/// # let directory = &place;
/// let config = ClientConfig::new().directory(directory);
/// let client = Client::connect_with("uppercase", second, config).await?;
/// let (one, two) = (client.call(b"one", second), client.call(b"two", second));
/// assert_eq!(two.await?.data(), b"TWO");
/// assert_eq!(one.await?.data(), b"ONE");
/// # Ok::<(), zerobuffer::Error>(())
/// # })?;
/// # drop(service);
/// # std::fs::remove_dir_all(&directory).unwrap();
/// # Ok::<(), zerobuffer::Error>(())
/// ```
#[derive(Clone)]
pub struct Client {
    inner: Arc<Inner>,
}

debug_line!(Client, "tokio::Client", |client| name: client.name());

struct Inner {
    client: Arc<EventLoopClient>,
    task: JoinHandle<()>,
}

impl Client {
    /// Connects to a server of service `name`, on a thread for blocking work of the runtime's, which is free
    /// again afterwards.
    ///
    /// # Errors
    /// As [`EventLoopClient::connect`]; [`Error::Closed`] if the runtime ends.
    ///
    /// # Panics
    /// Outside of a runtime, and in one without its drivers for I/O and time.
    pub async fn connect(name: &str, timeout: Duration) -> Result<Self> {
        Self::connect_with(name, timeout, ClientConfig::default()).await
    }

    /// As [`connect`](Self::connect), with a configuration of its own.
    ///
    /// # Errors
    /// As [`EventLoopClient::connect_with`]; [`Error::Closed`] if the runtime ends.
    ///
    /// # Panics
    /// As [`connect`](Self::connect).
    pub async fn connect_with(name: &str, timeout: Duration, config: ClientConfig) -> Result<Self> {
        let name = name.to_owned();
        let connect = move || EventLoopClient::connect_with(&name, timeout, config);
        let client = spawn_blocking(connect).await.map_err(|_| Error::Closed)??;
        let client = Arc::new(client);
        let task = spawn(drive(watch(&client)?));
        Ok(Self { inner: Arc::new(Inner { client, task }) })
    }

    /// Sends a copy of `data`; the future is the response. The request is sent before this returns if there is
    /// room and no other one is before it, otherwise in its order and within `timeout`. Dropping the future
    /// cancels the request.
    ///
    /// # Errors
    /// The future's are those of [`SharedClient::call_async`](crate::SharedClient::call_async).
    pub fn call(&self, data: &[u8], timeout: Duration) -> CallFuture {
        self.inner.client.call_async(data, timeout)
    }

    /// As [`call`](Self::call), but `fill` writes the request, of `size` bytes, where the server will read it:
    /// before this returns, or later in the task that drives the client.
    ///
    /// ```
    /// # use std::time::Duration;
    /// # use zerobuffer::{ClientConfig, Frame, RequestLayout, Service, ServiceConfig, tokio::Client};
    /// # let directory = format!("/tmp/zb-doc-tokio-with-{}", std::process::id());
    /// # let config = ServiceConfig::new().directory(&directory);
    /// # let mut service = Service::create("reverse", config)?;
    /// # service.start(|frame: &mut Frame| frame.data_mut().reverse())?;
    /// # let second = Duration::from_secs(1);
    /// # let config = ClientConfig::new().directory(&directory);
    /// # let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    /// # runtime.block_on(async move {
    /// # let client = Client::connect_with("reverse", second, config).await?;
    /// let fill = |to: &mut [u8]| to.copy_from_slice(b"stressed");
    /// let response = client.call_with(8, RequestLayout::new(), fill, second).await?;
    /// assert_eq!(response.data(), b"desserts");
    /// # Ok::<(), zerobuffer::Error>(())
    /// # })?;
    /// # drop(service);
    /// # std::fs::remove_dir_all(&directory).unwrap();
    /// # Ok::<(), zerobuffer::Error>(())
    /// ```
    ///
    /// # Errors
    /// The future's are those of [`SharedClient::call_async_with`](crate::SharedClient::call_async_with).
    pub fn call_with(
        &self,
        size: usize,
        layout: RequestLayout,
        fill: impl FnMut(&mut [u8]) + Send + 'static,
        timeout: Duration,
    ) -> CallFuture {
        self.inner.client.call_async_with(size, layout, fill, timeout)
    }

    /// Closes the connection cleanly, for good, for all clones. Calls under way end with [`Error::Closed`], and
    /// later ones do. Responses that are held stay readable.
    pub fn close(&self) {
        self.inner.client.close();
    }

    /// The service's name.
    pub fn name(&self) -> &str {
        self.inner.client.name()
    }

    /// What the server has published about itself; empty if nothing.
    pub fn server_metadata(&self) -> Vec<u8> {
        self.inner.client.server_metadata()
    }

    /// Whether the server is connected at this moment. Asks the operating system.
    pub fn is_server_connected(&self) -> bool {
        self.inner.client.is_server_connected()
    }

    /// The most bytes that a request can have.
    pub fn max_request_size(&self) -> usize {
        self.inner.client.max_request_size()
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        end(&self.client);
        self.task.abort();
    }
}

/// Ends every call under way.
fn end(client: &EventLoopClient) {
    client.close();
    client.process();
}

/// The client as its task has it. Without the task nothing completes calls, so its end is the client's.
struct Driver(Arc<EventLoopClient>);

impl AsRawFd for Driver {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_raw_fd()
    }
}

impl Drop for Driver {
    fn drop(&mut self) {
        end(&self.0);
    }
}

#[allow(
    deprecated,
    reason = "its successor, of tokio 1.53.3, is unsafe: the descriptor must be the same and open for as long as the \
              driver is there, and it is, since the driver keeps the client that owns it"
)]
fn watch(client: &Arc<EventLoopClient>) -> Result<AsyncFd<Driver>> {
    let watched = AsyncFd::with_interest(Driver(Arc::clone(client)), Interest::READABLE);
    watched.map_err(|error| Error::System {
        operation: "watch the connection to",
        object: client.name().to_owned(),
        errno: error.raw_os_error().unwrap_or_default(),
    })
}

async fn drive(watched: AsyncFd<Driver>) {
    loop {
        let until = watched.get_ref().0.process();
        let ready = async {
            // Before the next turn: what comes during that makes it ready again. The runtime is ending if it
            // fails.
            let ready = watched.readable().await;
            ready.map(|mut ready| ready.clear_ready()).is_ok()
        };
        let goes_on = match until {
            Some(until) => timeout_at(until.into(), ready).await.unwrap_or(true),
            None => ready.await,
        };
        if !goes_on {
            return;
        }
    }
}
