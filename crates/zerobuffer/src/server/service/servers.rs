//! A service as monitors and administrators see it.

use crate::config::Place;
use crate::debug::debug_line;
use crate::error::Result;
use crate::link::socket::ask_status;
use crate::name::ChannelName;
use crate::wait::Deadline;
use std::time::Duration;

/// All servers of a service, seen from outside: what each of them reports, and what dead ones have left. For
/// monitors and administrators; it neither serves nor calls.
///
/// ```
/// use std::time::Duration;
/// use zerobuffer::{Client, ErrorKind, Servers, Service, ServiceConfig};
///
/// let name = format!("doc-servers-{}", std::process::id());
/// let service = Service::create(&name, ServiceConfig::new().ring(1 << 16))?;
/// let _client = Client::connect(&name, Duration::from_secs(5))?;
///
/// let servers = Servers::of(&name)?;
/// for status in servers.status(Duration::from_secs(5))? {
///     assert!(status?.contains(r#""ring_bytes_in_use":0"#)); // JSON
/// }
///
/// drop(service);
/// assert!(servers.clean()?, "the directory is removed");
/// let error = servers.status(Duration::from_secs(5)).unwrap_err();
/// assert_eq!(error.kind(), ErrorKind::NotRunning);
/// # Ok::<(), zerobuffer::Error>(())
/// ```
#[derive(Clone)]
pub struct Servers {
    name: ChannelName,
    place: Place,
}

debug_line!(Servers, "Servers", |servers| name: servers.name.as_str());

impl Servers {
    /// Those of the service `name`. There need not be any.
    ///
    /// # Errors
    /// [`Error::BadName`](crate::Error::BadName).
    pub fn of(name: &str) -> Result<Self> {
        Ok(Self { name: ChannelName::new(name)?, place: Place::default() })
    }

    /// The runtime directory, as [`ServiceConfig::directory`](crate::ServiceConfig::directory) names it.
    /// Default: every place where this user's servers may have their sockets.
    pub fn directory(mut self, path: impl Into<String>) -> Self {
        self.place.directory = Some(path.into());
        self
    }

    /// The user that the servers run as, if it is neither this one nor root.
    pub fn owner(mut self, uid: u32) -> Self {
        self.place.owner = Some(uid);
        self
    }

    /// Where a server of the service that this process creates has its socket.
    pub fn path(&self) -> String {
        self.place.path_for_worker(&self.name)
    }

    /// Asks every server what it and its clients do, all at once, and waits for at most `timeout`. An entry
    /// for each server that listens: one line of JSON, or why there is none. The keys are in
    /// [docs/protocol-service.md](https://github.com/zerobuffer/zerobuffer/blob/main/docs/protocol-service.md),
    /// section 3.6 "Status".
    ///
    /// # Errors
    /// [`Error::NotRunning`](crate::Error::NotRunning) if none listens;
    /// [`Error::ForeignObject`](crate::Error::ForeignObject),
    /// [`Error::PermissionDenied`](crate::Error::PermissionDenied) for a directory that cannot be used. Those
    /// of an entry: [`Error::NotRunning`](crate::Error::NotRunning) if the server does not reply in time,
    /// [`Error::PermissionDenied`](crate::Error::PermissionDenied) if it does not tell this user,
    /// [`Error::Incompatible`](crate::Error::Incompatible) for one of another version.
    pub fn status(&self, timeout: Duration) -> Result<Vec<Result<String>>> {
        ask_status(&self.name, &self.place, &Deadline::after(timeout))
    }

    /// Removes the sockets that killed servers have left. What listens stays, and so does what no server has
    /// made. A server that starts does the same.
    ///
    /// # Errors
    /// As [`clean`](Self::clean).
    pub fn sweep(&self) -> Result<()> {
        self.place.sweep(&self.name)
    }

    /// As [`sweep`](Self::sweep), and removes the service's directory if nothing is in it then. True if
    /// nothing of the service is left.
    ///
    /// Servers leave the directory when they stop: a container may have it mounted, and would not find one
    /// that is made anew.
    ///
    /// # Errors
    /// [`Error::ForeignObject`](crate::Error::ForeignObject) for a directory that others can write in;
    /// [`Error::PermissionDenied`](crate::Error::PermissionDenied), [`Error::System`](crate::Error::System).
    pub fn clean(&self) -> Result<bool> {
        self.place.clean(&self.name)
    }
}
