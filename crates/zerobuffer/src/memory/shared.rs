//! Named shared memory.

use super::view::Backing;
use super::{MemoryProvider, SharedMemoryView};
use crate::debug::debug_line;
use crate::error::{Error, Result};
use crate::name::ChannelName;
use crate::sys::{self, Errno, Identity, Mapping, ObjectStat, Pages, Place, ShmFile};
use crate::tenure::Wanted;
use std::sync::Arc;

/// A named POSIX shared-memory segment.
///
/// ```
/// use zerobuffer::memory::{MemoryProvider, SharedMemory};
///
/// let name = format!("zerobuffer-doc-{}", std::process::id());
/// let mut owner = SharedMemory::create(&name, 0o600)?;
/// owner.allocate(8192)?;
/// let other = SharedMemory::open(&name)?;
/// assert_eq!(other.map(4096, 4096)?.len(), 4096);
/// owner.unlink()?;
/// # Ok::<(), zerobuffer::Error>(())
/// ```
pub struct SharedMemory {
    object: String,
    file: ShmFile,
    identity: Identity,
    pages: Pages,
    view: Option<SharedMemoryView>,
}

debug_line!(SharedMemory, "SharedMemory", |memory|
    object: memory.object,
    len: memory.view.as_ref().map_or(0, |view| view.len())
);

impl SharedMemory {
    /// Creates an empty segment `/{name}` with the permission bits `mode`. Nothing is reserved before
    /// [`allocate`](MemoryProvider::allocate). The name stays until [`unlink`](Self::unlink).
    ///
    /// # Errors
    /// [`Error::BadName`]; [`Error::PermissionDenied`]; [`Error::NoSpace`]; [`Error::System`] with
    /// `EEXIST` if the name is taken.
    pub fn create(name: &str, mode: u32) -> Result<Self> {
        let object = format!("/{}", ChannelName::new(name)?);
        let create = || {
            let memory = Self::create_hidden(&object, mode)?;
            memory.publish().map(|()| memory)
        };
        create().map_err(|errno: Errno| errno.making("create", &object, 0, Place::SharedMemory))
    }

    /// Opens and maps the segment `/{name}`, at the length that it has now.
    ///
    /// # Errors
    /// [`Error::BadName`]; [`Error::PermissionDenied`]; [`Error::System`] with `ENOENT` if there is no
    /// such segment.
    pub fn open(name: &str) -> Result<Self> {
        let object = format!("/{}", ChannelName::new(name)?);
        let mut memory = Self::open_object(&object).map_err(|errno| errno.on("open", &object))?;
        let size = memory.stat()?.size;
        memory.map_file(size as usize)?;
        Ok(memory)
    }

    /// Removes the name, if it still stands for this segment. Processes that have it mapped keep it.
    ///
    /// # Errors
    /// [`Error::System`] if the operating system refuses.
    pub fn unlink(&self) -> Result<()> {
        if !self.is_named()? {
            return Ok(());
        }
        let removed = sys::if_there(sys::unlink_object(&self.object));
        removed.map(drop).map_err(|errno| errno.on("unlink", &self.object))
    }

    /// A segment that nobody can find before [`publish`](Self::publish).
    pub(crate) fn create_hidden(object: &str, mode: u32) -> std::result::Result<Self, Errno> {
        Self::from_file(object, ShmFile::create_hidden(mode)?)
    }

    /// Gives a hidden segment its name; fails with EEXIST if the name is taken.
    pub(crate) fn publish(&self) -> std::result::Result<(), Errno> {
        self.file.publish(&self.object)
    }

    /// As [`open`](Self::open), by the object's full name, and nothing is mapped yet.
    pub(crate) fn open_object(object: &str) -> std::result::Result<Self, Errno> {
        Self::from_file(object, ShmFile::open(object)?)
    }

    /// An object without a name that was opened before; `label` is what errors call it.
    pub(crate) fn of_unnamed(label: &str, file: ShmFile) -> std::result::Result<Self, Errno> {
        Self::from_file(label, file)
    }

    fn from_file(object: &str, file: ShmFile) -> std::result::Result<Self, Errno> {
        let identity = file.stat()?.identity;
        Ok(Self { object: object.to_owned(), file, identity, pages: Pages::default(), view: None })
    }

    /// Maps the first `size` bytes of the file, which must have them.
    pub(crate) fn map_file(&mut self, size: usize) -> Result<()> {
        let mapping = Mapping::new(&self.file, size, self.pages)
            .map_err(|errno| errno.on("map", &self.object))?;
        self.view = Some(SharedMemoryView::new(Arc::new(Backing::Mapping(mapping))));
        Ok(())
    }

    /// When the pages of later mappings are faulted in.
    pub(crate) fn set_pages(&mut self, pages: Pages) {
        self.pages = pages;
    }

    /// Makes the pages of the mapping be there, as [`set_pages`](Self::set_pages) said, for as long as
    /// that is wanted.
    ///
    /// # Errors
    /// `ProtocolViolation` if they are not reserved: they would be this side's to pay for, without end.
    pub(crate) fn fault_in(&self, wanted: Wanted<'_>) -> Result<()> {
        let len = self.view.as_ref().map_or(0, SharedMemoryView::len) as u64;
        let reserved = if self.pages == Pages::OnDemand { len } else { self.stat()?.reserved };
        if reserved < len {
            let field = "reserved bytes of the segment";
            return Err(Error::ProtocolViolation { field, observed: reserved, allowed: len });
        }
        let mapping = self.view.as_ref().and_then(SharedMemoryView::mapping);
        mapping
            .map_or(Ok(()), |mapping| mapping.fault_in(self.pages, wanted))
            .map_err(|errno| errno.on("fault in the pages of", &self.object))
    }

    /// The object's full name, with its slash.
    pub(crate) fn object(&self) -> &str {
        &self.object
    }

    /// The open file, which holds this side's role lock.
    pub(crate) fn file(&self) -> &ShmFile {
        &self.file
    }

    pub(crate) fn stat(&self) -> Result<ObjectStat> {
        self.file.stat().map_err(|errno| errno.on("examine", &self.object))
    }

    /// Whether the name still stands for this very segment.
    pub(crate) fn is_named(&self) -> Result<bool> {
        let found =
            sys::stat_object(&self.object).map_err(|errno| errno.on("find", &self.object))?;
        Ok(found.is_some_and(|stat| stat.identity == self.identity))
    }

    /// As [`allocate`](MemoryProvider::allocate), for as long as that is wanted.
    pub(crate) fn allocate_while(&mut self, size: usize, wanted: Wanted<'_>) -> Result<()> {
        if self.view.is_some() {
            return Err(Error::InvalidState { reason: "this provider has allocated already" });
        }
        self.file.reserve(size as u64, wanted).map_err(|errno| {
            errno.making("reserve pages of", &self.object, size as u64, Place::SharedMemory)
        })?;
        self.map_file(size)
    }
}

impl MemoryProvider for SharedMemory {
    fn allocate(&mut self, size: usize) -> Result<()> {
        self.allocate_while(size, &|| true)
    }

    fn map(&self, offset: usize, size: usize) -> Result<SharedMemoryView> {
        match &self.view {
            Some(view) => view.map(offset, size),
            None => {
                Err(Error::InvalidState { reason: "nothing is allocated; call allocate first" })
            }
        }
    }

    fn unmap(&mut self) {
        self.view = None;
    }
}

#[cfg(all(test, not(zerobuffer_unsupported)))]
mod tests {
    use super::*;
    use std::cell::Cell;

    #[test]
    fn long_work_ends_before_its_next_piece_once_nobody_wants_it() {
        const SIZE: usize = 16 << 20;
        let name = format!("unit-wanted-{}", std::process::id());
        let mut memory = SharedMemory::create(&name, 0o600).unwrap();
        memory.unlink().unwrap();
        memory.set_pages(Pages::Prefaulted);
        let left = Cell::new(3_u32);
        let wanted = || left.replace(left.get().saturating_sub(1)) > 0;
        let error = memory.allocate_while(SIZE, &wanted).unwrap_err();
        assert!(matches!(error, Error::System { errno: libc::ECANCELED, .. }), "{error:?}");
        assert!((1..SIZE as u64 / 2).contains(&memory.stat().unwrap().size));
        memory.allocate(SIZE).unwrap();
        left.set(1);
        let error = memory.fault_in(&wanted).unwrap_err();
        assert!(matches!(error, Error::System { errno: libc::ECANCELED, .. }), "{error:?}");
        memory.fault_in(&|| true).unwrap();
    }
}
