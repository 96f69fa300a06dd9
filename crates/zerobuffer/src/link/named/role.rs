//! Who is alive: role locks on a segment's file (protocol v2, section 8.1 "Role locks").
//!
//! Each side holds an open-file-description lock on one byte of the segment's file for life. The
//! kernel releases it when the process ends, however it ends. That works in every pid namespace, after a pid
//! was used again, and for a zombie, which counts as dead.

use crate::error::{ErrorKind, Result};
use crate::memory::SharedMemory;
use crate::name::ChannelName;
use crate::object::{self, Owner};
use crate::v2::layout::{CLIENT_LOCK, SERVER_LOCK};

/// One of the two sides of a channel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Role {
    Server,
    Client,
}

impl Role {
    fn byte(self) -> u64 {
        match self {
            Self::Server => SERVER_LOCK,
            Self::Client => CLIENT_LOCK,
        }
    }

    /// Takes the role on `memory`, for as long as its file is open. False: somebody has it.
    pub(crate) fn claim(self, memory: &SharedMemory) -> Result<bool> {
        memory.file().try_lock(self.byte()).map_err(|errno| errno.on("lock", memory.object()))
    }

    /// Releases the role.
    pub(crate) fn resign(self, memory: &SharedMemory) -> Result<()> {
        memory.file().unlock(self.byte()).map_err(|errno| errno.on("unlock", memory.object()))
    }

    /// Whether somebody else, on another open file, has the role.
    pub(crate) fn is_held(self, memory: &SharedMemory) -> Result<bool> {
        memory
            .file()
            .is_locked_elsewhere(self.byte())
            .map_err(|errno| errno.on("examine the locks of", memory.object()))
    }
}

/// Whether a server of this user's has the channel `name`. Clients of this user find no other one.
pub(crate) fn has_server(name: &ChannelName) -> Result<bool> {
    match object::open_segment(&name.segment(), Owner::Own) {
        Ok(Some((memory, _))) => Role::Server.is_held(&memory),
        Ok(None) => Ok(false),
        Err(error) => match error.kind() {
            ErrorKind::ForeignObject | ErrorKind::PermissionDenied => Ok(false),
            _ => Err(error),
        },
    }
}

#[cfg(all(test, not(loom), not(zerobuffer_unsupported)))]
mod tests {
    use super::*;

    #[test]
    fn a_role_is_one_sides_until_it_is_released_or_its_file_is_closed() {
        let name = format!("unit-roles-{}", std::process::id());
        let owner = SharedMemory::create(&name, 0o600).unwrap();
        let object = format!("/{name}");
        let [second, third] = [(); 2].map(|()| SharedMemory::open_object(&object).unwrap());
        owner.unlink().unwrap();
        for role in [Role::Server, Role::Client] {
            assert!(!role.is_held(&second).unwrap());
            assert!(role.claim(&owner).unwrap());
            assert!(!role.claim(&second).unwrap() && role.is_held(&second).unwrap());
            assert!(!role.is_held(&owner).unwrap(), "by somebody else");
        }
        Role::Server.resign(&owner).unwrap();
        assert!(!Role::Server.is_held(&second).unwrap());
        assert!(Role::Client.is_held(&second).unwrap(), "the roles are apart");
        assert!(Role::Server.claim(&third).unwrap() && Role::Server.is_held(&owner).unwrap());
        drop(owner);
        assert!(Role::Client.claim(&second).unwrap());
    }

    /// Other implementations lock the same bytes.
    #[test]
    fn the_roles_are_the_first_bytes_of_the_two_blocks() {
        assert_eq!([Role::Server, Role::Client].map(Role::byte), [0, 88]);
    }
}
