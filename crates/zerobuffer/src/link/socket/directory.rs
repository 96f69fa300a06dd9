//! Where a service's sockets are (docs/protocol-service.md, section 2 "Where a service is").

use crate::config::Place;
use crate::error::{Error, Result};
use crate::failpoint::failpoint;
use crate::link::named::NO_CHANNEL;
use crate::name::ChannelName;
use crate::sys::{self, Errno, Folder, Identity, Socket};
use std::time::Duration;

/// A socket that is not ready for longer than this belongs to a worker that died.
const UNREADY: Duration = Duration::from_secs(60);
/// What `NotRunning` says where no server has made a socket: there is no such service.
pub(crate) const NO_SOCKET: &str = "no server has a socket there";
/// What to do about that.
const ELSEWHERE: &str = "start one, wait longer, or name the directory in which its server runs: `directory` of the \
                         client's configuration, or ZEROBUFFER_DIR in the environment";
/// The variable that names the runtime directory.
const VARIABLE: &str = "ZEROBUFFER_DIR";

impl Place {
    /// Where this process's workers publish their sockets.
    fn for_worker(&self) -> String {
        let variable = |name| std::env::var(name).ok().filter(|value: &String| !value.is_empty());
        let uid = sys::effective_uid();
        self.directory.clone().or_else(|| variable(VARIABLE)).unwrap_or_else(|| {
            match variable("XDG_RUNTIME_DIR") {
                _ if uid == 0 => "/run/zerobuffer".to_owned(),
                Some(directory) => format!("{directory}/zerobuffer"),
                None => format!("/tmp/zerobuffer-{uid}"),
            }
        })
    }

    /// Where clients look: all places of this user, as the environment differs between a login, a job of
    /// cron and sudo.
    fn for_client(&self) -> Vec<String> {
        let named = self.directory.clone().or_else(|| std::env::var(VARIABLE).ok());
        if let Some(directory) = named.filter(|directory| !directory.is_empty()) {
            return vec![directory];
        }
        let uid = sys::effective_uid();
        let own = self.for_worker();
        let usual = [
            format!("/run/user/{uid}/zerobuffer"),
            format!("/tmp/zerobuffer-{uid}"),
            "/run/zerobuffer".to_owned(),
        ];
        let mut places = vec![own];
        for place in usual {
            if !places.contains(&place) {
                places.push(place);
            }
        }
        places
    }

    /// The same error; where no server of `service` has a socket, it says where one was looked for.
    pub(super) fn told(&self, service: &ChannelName, error: Error) -> Error {
        match error {
            Error::NotRunning { found: NO_SOCKET, .. } => {
                let message = format!(
                    "no server for service {:?}: no server has a socket in {}; {ELSEWHERE}",
                    service.as_str(),
                    self.searched(service)
                );
                error.explained(message)
            }
            error => error,
        }
    }

    /// `absent`, the error of a client that has not found a channel `name`, and no service of that name before.
    pub(crate) fn told_of_both(&self, name: &ChannelName, absent: Error) -> Error {
        let Error::NotRunning { found: found @ NO_CHANNEL, .. } = absent else { return absent };
        let message = format!(
            "no server for service or channel {:?}: no service has a socket in {}, and {found}; {ELSEWHERE}",
            name.as_str(),
            self.searched(name)
        );
        absent.explained(message)
    }

    /// The directories in which a client looks for sockets, for a person.
    fn searched(&self, service: &ChannelName) -> String {
        let paths = self.for_client().into_iter().map(|root| format!("{root}/{service}"));
        let mut paths: Vec<String> = paths.collect();
        match paths.pop() {
            Some(last) if !paths.is_empty() => format!("{} or {last}", paths.join(", ")),
            last => last.unwrap_or_default(),
        }
    }

    fn mode(&self) -> u32 {
        if self.group.is_some() { 0o750 } else { 0o700 }
    }

    /// Opens a directory and makes sure that nobody else can put sockets into it. `None` if it does not
    /// exist.
    fn open(&self, path: &str) -> Result<Option<Folder>> {
        let foreign = |uid, reason| Error::ForeignObject { object: path.to_owned(), uid, reason };
        let folder = match Folder::open(path) {
            Ok(folder) => folder,
            Err(errno) if errno.is_absence() => return Ok(None),
            // Somebody else's, and none of those that let this user in.
            Err(errno) if errno.is_denial() && self.directory.is_none() => return Ok(None),
            Err(errno) if errno.is_no_folder() => {
                return Err(foreign(u32::MAX, "it is no directory, or a symbolic link to one"));
            }
            Err(errno) => return Err(errno.on("open", path)),
        };
        let found = folder.stat().map_err(|errno| errno.on("look at", path))?;
        let owners = [Some(0), Some(sys::effective_uid()), self.owner];
        if !owners.contains(&Some(found.uid)) {
            return Err(foreign(
                found.uid,
                "its owner is neither this user, nor root, nor the one expected",
            ));
        }
        if found.mode & 0o022 != 0 {
            return Err(foreign(found.uid, "its group or others can write in it"));
        }
        Ok(Some(folder))
    }

    /// The directory of a service, made if it is missing.
    fn make(&self, service: &ChannelName) -> Result<Folder> {
        let root = self.for_worker();
        let path = format!("{root}/{service}");
        for place in [root.as_str(), path.as_str()] {
            match Folder::make(place, self.mode()) {
                Ok(()) => {
                    if let Some(group) = self.group {
                        let made = Folder::open(place).and_then(|folder| folder.set_group(group));
                        made.map_err(|errno| errno.on("give a group to", place))?;
                    }
                }
                Err(errno) if errno.is_presence() => {}
                Err(errno) => {
                    return Err(errno.making("create", place, 0, sys::Place::Folder(place)));
                }
            }
            // The one above is judged before anything is made in it.
            if place == root {
                self.open(place)?;
            }
        }
        self.open(&path)?.ok_or_else(|| Errno::ABSENT.on("open", &path))
    }

    /// The sockets of a service's workers, as far as clients may see them.
    ///
    /// # Errors
    /// That of a directory that cannot be used, if no other has sockets.
    pub(crate) fn find(&self, service: &ChannelName) -> Result<Vec<Address>> {
        let mut found = Vec::new();
        let mut failed = None;
        for root in self.for_client() {
            match self.find_in(&root, service) {
                Ok(sockets) => found.extend(sockets),
                Err(error) => failed = failed.or(Some(error)),
            }
        }
        match failed {
            Some(error) if found.is_empty() => Err(error),
            _ => Ok(found),
        }
    }

    fn find_in(&self, root: &str, service: &ChannelName) -> Result<Vec<Address>> {
        if self.open(root)?.is_none() {
            return Ok(Vec::new());
        }
        let path = format!("{root}/{service}");
        let Some(folder) = self.open(&path)? else { return Ok(Vec::new()) };
        let sockets = match folder.sockets() {
            Ok(sockets) => sockets,
            Err(errno) if errno.is_absence() => return Ok(Vec::new()),
            Err(errno) => return Err(errno.on("read", &path)),
        };
        let folder = std::sync::Arc::new(folder);
        let visible = sockets
            .into_iter()
            .filter(|socket| socket.name.ends_with(".sock") && !socket.name.starts_with('.'));
        let address =
            |socket: sys::SocketEntry| Address { folder: folder.clone(), entry: socket.name };
        Ok(visible.map(address).collect())
    }

    /// The directory in which a worker of this process has its socket.
    pub(crate) fn path_for_worker(&self, service: &ChannelName) -> String {
        format!("{}/{service}", self.for_worker())
    }

    /// Removes the sockets that dead workers of the service have left in this user's directories.
    ///
    /// # Errors
    /// `ForeignObject`, `PermissionDenied`, `System`; the other places are swept all the same.
    pub(crate) fn sweep(&self, service: &ChannelName) -> Result<()> {
        self.each_own(service, |folder| {
            remove_dead(folder);
            Ok(true)
        })
        .map(|_| ())
    }

    /// As [`Place::sweep`], and removes the directories that are empty then; whether nothing is left.
    pub(crate) fn clean(&self, service: &ChannelName) -> Result<bool> {
        self.each_own(service, |folder| {
            remove_dead(folder);
            match folder.remove() {
                Ok(()) => Ok(true),
                Err(errno) if errno.is_not_empty() => Ok(false),
                Err(errno) => Err(errno.on("remove", folder.path())),
            }
        })
    }

    /// Does something with each directory of the service that is this user's; whether all of it succeeded.
    fn each_own(
        &self,
        service: &ChannelName,
        work: impl Fn(&Folder) -> Result<bool>,
    ) -> Result<bool> {
        let own = |root: &str| -> Result<bool> {
            if self.open(root)?.is_none() {
                return Ok(true);
            }
            let path = format!("{root}/{service}");
            let Some(folder) = self.open(&path)? else { return Ok(true) };
            let stat = folder.stat().map_err(|errno| errno.on("look at", &path))?;
            // Another user's is one to look into, and no more.
            let is_own = stat.uid == sys::effective_uid() || self.directory.is_some();
            if is_own { work(&folder) } else { Ok(true) }
        };
        // All of them, before the first that failed is told.
        let done: Vec<Result<bool>> =
            self.for_client().into_iter().map(|root| own(&root)).collect();
        done.into_iter().try_fold(true, |all, one| one.map(|one| all && one))
    }

    /// The directories in which a worker of the service would appear, the upper ones first.
    pub(crate) fn watched(&self, service: &ChannelName) -> Vec<String> {
        let places = self.for_client().into_iter();
        places.flat_map(|root| [root.clone(), format!("{root}/{service}")]).collect()
    }
}

/// A worker's socket.
#[derive(Debug, Clone)]
pub(crate) struct Address {
    folder: std::sync::Arc<Folder>,
    entry: String,
}

impl Address {
    /// Connects to it; at once or not at all.
    pub(crate) fn connect(&self) -> std::result::Result<Socket, Errno> {
        let socket = Socket::new()?;
        socket.connect(&self.folder.address(&self.entry))?;
        Ok(socket)
    }
}

/// A listening socket under a name that clients find.
#[derive(Debug)]
pub(crate) struct Published {
    folder: Folder,
    entry: String,
    identity: Identity,
    refuses_descriptors: bool,
}

impl Published {
    /// Makes a listening socket for a worker of `service`, and removes what dead ones have left.
    ///
    /// # Errors
    /// `PermissionDenied`, `ForeignObject`, `NoSpace`, `System`.
    pub(crate) fn new(place: &Place, service: &ChannelName) -> Result<(Self, Socket)> {
        // Somebody may be removing the directory; not for ever.
        for _ in 0..100 {
            let folder = place.make(service)?;
            remove_dead(&folder);
            match publish(folder, place) {
                Ok(published) => return Ok(published),
                Err(errno) if errno.is_absence() || errno.is_presence() => {}
                Err(errno) => return Err(errno.on("make a socket for service", service.as_str())),
            }
        }
        Err(Errno::ABSENT.on("make a socket for service", service.as_str()))
    }

    /// Whether the kernel has kept descriptors out of every connection to it.
    pub(crate) fn refuses_descriptors(&self) -> bool {
        self.refuses_descriptors
    }

    /// Whether clients find this very socket; an error if that cannot be found out at this moment.
    pub(crate) fn is_named(&self) -> std::result::Result<bool, Errno> {
        // By the path: the directory may have been replaced.
        let sockets = Folder::open(self.folder.path()).and_then(|folder| folder.sockets());
        let is_own = |socket: &sys::SocketEntry| {
            socket.identity == self.identity && socket.name == self.entry
        };
        match sockets {
            Ok(sockets) => Ok(sockets.iter().any(is_own)),
            Err(errno) if errno.is_absence() => Ok(false),
            Err(errno) => Err(errno),
        }
    }

    /// Removes the socket's name. The directory stays: a container may have it mounted.
    pub(crate) fn remove(&self) {
        let _ = self.folder.unlink(&self.entry);
    }
}

fn publish(folder: Folder, place: &Place) -> std::result::Result<(Published, Socket), Errno> {
    let id = format!("{:016x}", sys::random()?);
    let (hidden, entry) = (format!(".{id}.new"), format!("{id}.sock"));
    let socket = Socket::new()?;
    // Before anybody can connect: connections inherit it.
    let refuses_descriptors = socket.refuse_descriptors();
    socket.bind(&folder.address(&hidden))?;
    failpoint!("publish.bound");
    let finish = || {
        // The umask has taken bits away.
        folder.set_mode(&hidden, if place.group.is_some() { 0o660 } else { 0o600 })?;
        socket.listen()?;
        let sockets = folder.sockets()?;
        let own = sockets.iter().find(|socket| socket.name == hidden);
        let identity = own.ok_or(Errno::ABSENT)?.identity;
        failpoint!("publish.listening");
        folder.rename(&hidden, &entry)?;
        failpoint!("publish.named");
        Ok(identity)
    };
    match finish() {
        Ok(identity) => Ok((Published { folder, entry, identity, refuses_descriptors }, socket)),
        Err(errno) => {
            let _ = folder.unlink(&hidden);
            Err(errno)
        }
    }
}

/// Removes the sockets of workers that died. Only what refuses, looks like a worker's, and is where a
/// socket that refuses is a dead one.
fn remove_dead(folder: &Folder) {
    if !folder.is_local() {
        return;
    }
    for socket in folder.sockets().unwrap_or_default() {
        let is_id =
            |id: &str| id.len() == 16 && id.bytes().all(|c| matches!(c, b'0'..=b'9' | b'a'..=b'f'));
        let ready = socket.name.strip_suffix(".sock").is_some_and(is_id);
        let unready = socket.name.strip_prefix('.').and_then(|name| name.strip_suffix(".new"));
        let abandoned = unready.is_some_and(is_id) && socket.age > UNREADY;
        let refuses = || {
            let refused = Socket::new().and_then(|own| own.connect(&folder.address(&socket.name)));
            refused.is_err_and(Errno::is_refusal)
        };
        if (ready || abandoned) && refuses() {
            let _ = folder.unlink(&socket.name);
        }
    }
}

#[cfg(all(test, not(zerobuffer_unsupported)))]
mod tests {
    use super::*;
    use crate::error::ErrorKind;
    use std::os::unix::fs::PermissionsExt;
    use std::os::unix::net::UnixListener;

    /// A runtime directory of a test's own, removed at its end.
    struct Root(String);

    impl Root {
        fn new(what: &str) -> Self {
            Self(format!("/tmp/zb-directory-{what}-{}", std::process::id()))
        }

        fn place(&self) -> Place {
            Place { directory: Some(self.0.clone()), ..Place::default() }
        }
    }

    impl Drop for Root {
        fn drop(&mut self) {
            let _ = std::fs::remove_dir_all(&self.0);
        }
    }

    fn service() -> ChannelName {
        ChannelName::new("images").unwrap()
    }

    #[test]
    fn a_published_socket_is_found_and_gone_when_it_is_removed() {
        let root = Root::new("publish");
        let place = root.place();
        assert!(place.find(&service()).unwrap().is_empty());
        let (published, listener) = Published::new(&place, &service()).unwrap();
        let (other, _listening) = Published::new(&place, &service()).unwrap();
        let found = place.find(&service()).unwrap();
        assert_eq!(found.len(), 2);
        for address in &found {
            address.connect().unwrap();
        }
        listener.accept().unwrap();
        assert_eq!(published.is_named(), Ok(true));
        published.remove();
        assert_eq!([published.is_named(), other.is_named()], [Ok(false), Ok(true)]);
        assert_eq!(place.find(&service()).unwrap().len(), 1);
        other.remove();
        let directory = format!("{}/images", root.0);
        assert_eq!(std::fs::read_dir(&directory).unwrap().count(), 0, "and the directory stays");
        let mode = std::fs::metadata(&directory).unwrap().permissions().mode();
        assert_eq!(mode & 0o7777, 0o700);
    }

    #[test]
    fn a_starting_worker_removes_dead_sockets_and_nothing_else() {
        let root = Root::new("dead");
        let place = root.place();
        let (live, _listening) = Published::new(&place, &service()).unwrap();
        let path = |name: &str| format!("{}/images/{name}", root.0);
        // A socket refuses once its listener is closed.
        for name in ["0123456789abcdef.sock", "activated.sock", ".0123456789abcdef.new"] {
            drop(UnixListener::bind(path(name)).unwrap());
        }
        std::fs::write(path("fedcba9876543210.sock"), "a file").unwrap();
        let (last, _) = Published::new(&place, &service()).unwrap();
        last.remove();
        live.remove();
        let left = std::fs::read_dir(path("")).unwrap().flatten();
        let mut left: Vec<_> = left.map(|entry| entry.file_name().into_string().unwrap()).collect();
        left.sort();
        assert_eq!(left, [".0123456789abcdef.new", "activated.sock", "fedcba9876543210.sock"]);
    }

    #[test]
    fn a_clean_removes_dead_sockets_and_an_empty_directory_and_nothing_else() {
        let root = Root::new("clean");
        let place = root.place();
        let path = |name: &str| format!("{}/images/{name}", root.0);
        assert!(place.clean(&service()).unwrap(), "there is nothing");
        let (live, _listening) = Published::new(&place, &service()).unwrap();
        drop(UnixListener::bind(path("0123456789abcdef.sock")).unwrap());
        assert!(!place.clean(&service()).unwrap(), "a server listens");
        assert_eq!(std::fs::read_dir(path("")).unwrap().count(), 1);
        place.find(&service()).unwrap()[0].connect().unwrap();
        live.remove();
        std::fs::write(path("fedcba9876543210.sock"), "a file").unwrap();
        assert!(!place.clean(&service()).unwrap(), "a file is not a server's");
        std::fs::remove_file(path("fedcba9876543210.sock")).unwrap();
        drop(UnixListener::bind(path("0123456789abcdef.sock")).unwrap());
        assert!(place.clean(&service()).unwrap());
        assert!(!std::path::Path::new(&path("")).exists());
        let (again, _listening) = Published::new(&place, &service()).unwrap();
        again.remove();
    }

    #[test]
    fn a_directory_that_others_can_write_in_is_refused() {
        let root = Root::new("foreign");
        let place = root.place();
        std::fs::create_dir(&root.0).unwrap();
        for mode in [0o770, 0o707] {
            std::fs::set_permissions(&root.0, PermissionsExt::from_mode(mode)).unwrap();
            let worker = Published::new(&place, &service()).unwrap_err();
            let client = place.find(&service()).unwrap_err();
            for error in [worker, client] {
                assert_eq!(error.kind(), ErrorKind::ForeignObject, "{error}");
            }
        }
        std::fs::set_permissions(&root.0, PermissionsExt::from_mode(0o700)).unwrap();
        std::os::unix::fs::symlink("/tmp", format!("{}/images", root.0)).unwrap();
        let error = place.find(&service()).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::ForeignObject, "{error}");
    }

    #[test]
    fn names_as_long_as_they_may_be_work_in_a_long_directory() {
        let root = Root::new(&"long".repeat(40));
        let place = root.place();
        let service = ChannelName::new(&"n".repeat(200)).unwrap();
        let (published, _listening) = Published::new(&place, &service).unwrap();
        place.find(&service).unwrap()[0].connect().unwrap();
        published.remove();
    }

    #[test]
    fn a_group_may_be_let_in_but_not_write() {
        let root = Root::new("group");
        let place = Place { group: Some(0), ..root.place() };
        let (published, _listening) = Published::new(&place, &service()).unwrap();
        let mode = |path: String| std::fs::metadata(path).unwrap().permissions().mode() & 0o7777;
        assert_eq!(mode(format!("{}/images", root.0)), 0o750);
        assert_eq!(mode(format!("{}/images/{}", root.0, published.entry)), 0o660);
        published.remove();
    }
}
