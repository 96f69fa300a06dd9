//! One segment with its two semaphores: what the creating and the attaching side have in common.

use super::layout::{Geometry, OIEB, SIZE_AND_VERSION, oieb};
use super::words::{Headers, Oieb};
use crate::error::{Error, Result};
use crate::memory::{MemoryProvider, SharedMemory, SharedMemoryView};
use crate::name::BufferName;
use crate::object::{self, Owner};
use crate::sys::{self, Semaphore};

/// Where the segment's bytes come from.
#[derive(Debug)]
pub(super) enum Home {
    /// A shared-memory object of the buffer's name.
    Named(SharedMemory),
    /// Memory that the user supplied; peers that look for the name do not find it.
    Supplied(SharedMemoryView),
}

impl Home {
    fn map(&self, offset: u64, size: u64) -> Result<SharedMemoryView> {
        match self {
            Self::Named(memory) => memory.map(offset as usize, size as usize),
            Self::Supplied(view) => view.map(offset as usize, size as usize),
        }
    }
}

/// A semaphore and its name.
#[derive(Debug)]
pub(super) struct NamedSemaphore {
    object: String,
    pub(super) semaphore: Semaphore,
}

impl NamedSemaphore {
    /// Creates it with value 0. A leftover of the name is replaced, never used again: its tokens
    /// would stand for frames of another life (rule L5).
    pub(super) fn create(object: String, mode: u32) -> Result<Self> {
        object::unlink_semaphore(&object)?;
        let semaphore = object::create_semaphore(&object, mode)?;
        Ok(Self { object, semaphore })
    }

    /// Opens one that exists; `None` if there is none.
    pub(super) fn open(object: String, owner: Owner) -> Result<Option<Self>> {
        let opened = object::open_semaphore(&object, owner)?;
        Ok(opened.map(|semaphore| Self { object, semaphore }))
    }

    /// Whether the name still stands for this semaphore.
    pub(super) fn is_named(&self) -> bool {
        self.semaphore.is_named(&self.object).unwrap_or(false)
    }

    /// Removes the name, unless it stands for something else by now.
    pub(super) fn unlink(&self) {
        if self.is_named() {
            let _ = Semaphore::unlink(&self.object);
        }
    }
}

/// A mapped segment in which this process has a role.
#[derive(Debug)]
pub(super) struct Segment {
    pub(super) name: BufferName,
    pub(super) geometry: Geometry,
    pub(super) control: Oieb,
    /// The ring, as bytes and as frame headers.
    pub(super) payload: SharedMemoryView,
    pub(super) headers: Headers,
    metadata: SharedMemoryView,
    pub(super) data_ready: NamedSemaphore,
    pub(super) space_freed: NamedSemaphore,
    home: Home,
    fork_generation: u32,
}

impl Segment {
    /// The views of `home`, all of which is mapped, as `geometry` divides it.
    pub(super) fn new(
        name: &BufferName,
        home: Home,
        geometry: Geometry,
        data_ready: NamedSemaphore,
        space_freed: NamedSemaphore,
    ) -> Result<Self> {
        let payload = home.map(geometry.payload_offset(), geometry.payload_size)?;
        Ok(Self {
            name: name.clone(),
            geometry,
            control: Oieb::new(home.map(0, OIEB)?),
            headers: Headers::new(payload.clone()),
            payload,
            metadata: home.map(OIEB, geometry.metadata_size)?,
            data_ready,
            space_freed,
            home,
            fork_generation: sys::fork_generation(),
        })
    }

    /// # Errors
    /// `WrongProcess` in a forked child, which has no mapping.
    #[inline]
    pub(super) fn check_process(&self) -> Result<()> {
        if self.is_this_process() { Ok(()) } else { Err(Error::WrongProcess) }
    }

    #[inline]
    pub(super) fn is_this_process(&self) -> bool {
        self.fork_generation == sys::fork_generation()
    }

    pub(super) fn writer_pid(&self) -> u64 {
        self.control.load(oieb::WRITER_PID)
    }

    pub(super) fn reader_pid(&self) -> u64 {
        self.control.load(oieb::READER_PID)
    }

    /// Whether the buffer's name stands for another segment by now (rule P4). A name that no longer exists
    /// proves nothing. Supplied memory has no name.
    pub(super) fn is_replaced(&self) -> bool {
        match &self.home {
            Home::Named(memory) => {
                let found = sys::stat_object(memory.object()).ok().flatten();
                found.is_some_and(|found| {
                    memory.stat().is_ok_and(|own| own.identity != found.identity)
                })
            }
            Home::Supplied(_) => false,
        }
    }

    /// Whether all names stand for these objects.
    pub(super) fn is_named(&self) -> bool {
        let segment = match &self.home {
            Home::Named(memory) => memory.is_named().unwrap_or(false),
            Home::Supplied(_) => true,
        };
        segment && self.data_ready.is_named() && self.space_freed.is_named()
    }

    /// Whether the words that the reader writes once are as it wrote them. It never reads them again, but
    /// no writer can attach when they are not.
    ///
    /// # Errors
    /// `ProtocolViolation` with the first one that is not.
    pub(super) fn check_fixed_words(&self) -> Result<()> {
        let Geometry { metadata_size, payload_size } = self.geometry;
        let fixed = [
            ("oieb.oieb_size and version", oieb::SIZE_AND_VERSION, SIZE_AND_VERSION),
            ("oieb.metadata_size", oieb::METADATA_SIZE, metadata_size),
            ("oieb.payload_size", oieb::PAYLOAD_SIZE, payload_size),
            ("oieb.reader_pid", oieb::READER_PID, u64::from(sys::process_id())),
        ];
        for (field, offset, allowed) in fixed {
            let observed = self.control.load(offset);
            if observed != allowed {
                return Err(Error::ProtocolViolation { field, observed, allowed });
            }
        }
        Ok(())
    }

    /// Whether a writer will find the words that only the reader writes, and semaphores with values.
    pub(super) fn is_sound(&self) -> bool {
        let holds_value =
            |semaphore: &NamedSemaphore| semaphore.semaphore.value().is_some_and(|v| v < i32::MAX);
        self.check_fixed_words().is_ok()
            && holds_value(&self.data_ready)
            && holds_value(&self.space_freed)
    }

    /// Gives a hidden segment its name; false if the name is taken.
    pub(super) fn publish(&self) -> Result<bool> {
        let Home::Named(memory) = &self.home else { return Ok(true) };
        object::publish(memory, self.geometry.total())
    }

    /// Removes the names, the segment's first, those that still are this segment's.
    pub(super) fn unlink(&self) {
        if let Home::Named(memory) = &self.home {
            let _ = memory.unlink();
        }
        self.data_ready.unlink();
        self.space_freed.unlink();
    }

    /// Writes the metadata; in the order of existing v1 programs, so that a reader that sees the count sees the
    /// bytes.
    ///
    /// # Errors
    /// `MetadataAlreadyWritten`; `EmptyFrame` for no bytes, which C++ and Python readers fail on;
    /// `TooLarge`.
    pub(super) fn write_metadata(&self, bytes: &[u8]) -> Result<()> {
        let max = self.geometry.metadata_size.saturating_sub(8);
        if self.control.load(oieb::METADATA_WRITTEN_BYTES) > 0 {
            return Err(Error::MetadataAlreadyWritten);
        }
        if bytes.is_empty() {
            return Err(Error::EmptyFrame);
        }
        if bytes.len() as u64 > max {
            return Err(Error::TooLarge { what: "metadata", asked: bytes.len() as u64, max });
        }
        let written = 8 + bytes.len() as u64;
        self.metadata.write_block(0, &(bytes.len() as u64).to_le_bytes());
        self.metadata.write_block(8, bytes);
        self.control.store(oieb::METADATA_WRITTEN_BYTES, written);
        self.control.store(oieb::METADATA_FREE_BYTES, self.geometry.metadata_size - written);
        Ok(())
    }

    /// A copy of the metadata; `None` if none was written.
    ///
    /// # Errors
    /// `ProtocolViolation` for lengths that do not fit the block; `NoSpace` if there is no memory for
    /// the copy.
    pub(super) fn read_metadata(&self) -> Result<Option<Vec<u8>>> {
        let written = self.control.load(oieb::METADATA_WRITTEN_BYTES);
        if written == 0 {
            return Ok(None);
        }
        let violation =
            |field, observed, allowed| Err(Error::ProtocolViolation { field, observed, allowed });
        let size = self.geometry.metadata_size;
        if !(8..=size).contains(&written) {
            return violation("oieb.metadata_written_bytes", written, size);
        }
        let prefix = self.metadata.read_block(0, 8)?;
        let len = u64::from_le_bytes(prefix.try_into().expect("eight bytes"));
        if len > written - 8 {
            return violation("metadata length", len, written - 8);
        }
        self.metadata.read_block(8, len).map(Some)
    }
}

/// The header of a buffer that was opened, and is long enough for one.
pub(super) fn map_header(memory: &mut SharedMemory) -> Result<Oieb> {
    memory.map_file(OIEB as usize)?;
    Ok(Oieb::new(memory.map(0, OIEB as usize)?))
}
