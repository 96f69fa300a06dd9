//! A mapped segment of protocol 2, however it was found: its two blocks, its metadata and its ring.

use crate::atomics::Ordering;
use crate::error::{Error, Result};
use crate::failpoint::failpoint;
use crate::memory::{MemoryProvider, SharedMemoryView};
use crate::name::ChannelName;
use crate::sys;
use crate::v2::layout::{
    Geometry, MAX_METADATA, METADATA, REQUEST, RESPONSE, SIZE_AND_VERSION, oieb,
};
use crate::v2::ring::Violation;
use crate::v2::words::Words;

/// Whose metadata block.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Block {
    /// Written by the client.
    Request,
    /// Written by the server.
    Response,
}

/// A mapped segment, or rather views of it: clones share the memory.
#[derive(Debug, Clone)]
pub(crate) struct Segment {
    pub(crate) name: ChannelName,
    pub(crate) geometry: Geometry,
    /// OIEBs and the metadata lengths as words.
    pub(crate) control: Words,
    /// The same part as bytes, for the metadata.
    metadata: SharedMemoryView,
    /// The ring, which the request side and the response side share.
    pub(crate) payload: SharedMemoryView,
    fork_generation: u32,
}

impl Segment {
    /// The views of `memory`, all of which is mapped, as `geometry` divides it.
    pub(crate) fn new(
        name: &ChannelName,
        memory: &impl MemoryProvider,
        geometry: Geometry,
    ) -> Result<Self> {
        let payload_offset = geometry.payload_offset as usize;
        Ok(Self {
            name: name.clone(),
            control: Words::new(memory.map(0, payload_offset)?),
            metadata: memory.map(0, payload_offset)?,
            payload: memory.map(payload_offset, geometry.payload_size as usize)?,
            geometry,
            fork_generation: sys::fork_generation(),
        })
    }

    /// The ring's words.
    pub(crate) fn payload_words(&self) -> Words {
        Words::new(self.payload.clone())
    }

    /// # Errors
    /// `WrongProcess` in a forked child, which has neither the mapping nor the lock.
    #[inline]
    pub(crate) fn check_process(&self) -> Result<()> {
        if self.is_this_process() { Ok(()) } else { Err(Error::WrongProcess) }
    }

    #[inline]
    pub(crate) fn is_this_process(&self) -> bool {
        self.fork_generation == sys::fork_generation()
    }

    #[inline]
    pub(crate) fn load(&self, offset: usize) -> u64 {
        // Acquire: pairs with the Release of the side that wrote the word last.
        self.control.at(offset).load(Ordering::Acquire)
    }

    pub(crate) fn store(&self, offset: usize, value: u64) {
        // Release: everything before is visible to who sees the value.
        self.control.at(offset).store(value, Ordering::Release);
    }

    /// The words that the server writes when it makes the segment and no more until it ends, in their
    /// order: the sizes, its pids, and what says that the segment is there.
    pub(crate) fn server_words(&self) -> [(usize, u64); 8] {
        let geometry = &self.geometry;
        let pid = u64::from(sys::process_id());
        [
            (REQUEST + oieb::METADATA_SIZE, geometry.metadata_request),
            (RESPONSE + oieb::METADATA_SIZE, geometry.metadata_response),
            (REQUEST + oieb::PAYLOAD_SIZE, geometry.payload_size),
            (RESPONSE + oieb::PAYLOAD_SIZE, geometry.payload_size),
            (REQUEST + oieb::READER_PID, pid),
            (RESPONSE + oieb::WRITER_PID, pid),
            (RESPONSE + oieb::SIZE_AND_VERSION, SIZE_AND_VERSION),
            (REQUEST + oieb::SIZE_AND_VERSION, SIZE_AND_VERSION),
        ]
    }

    /// Whether a client has said that it is there, and not that it is closed.
    pub(crate) fn has_client_pid(&self) -> bool {
        self.load(REQUEST + oieb::WRITER_PID) != 0
    }

    /// Writes the metadata of the side that owns `block`, which is this one; called once, before the other side may look.
    ///
    /// # Errors
    /// `TooLarge` if the block does not hold the length and the bytes.
    pub(crate) fn write_metadata(&self, block: Block, bytes: &[u8]) -> Result<()> {
        if bytes.is_empty() {
            return Ok(());
        }
        let (block, start, size) = self.block(block);
        let written = 8 + bytes.len() as u64;
        if written > size {
            return Err(Error::TooLarge {
                what: "metadata",
                asked: bytes.len() as u64,
                max: size.saturating_sub(8),
            });
        }
        self.control.at(start as usize).store(bytes.len() as u64, Ordering::Relaxed);
        self.metadata.write_block(start + 8, bytes);
        failpoint!("metadata.written");
        self.store(block + oieb::METADATA_FREE_BYTES, size - written);
        self.store(block + oieb::METADATA_WRITTEN_BYTES, written);
        Ok(())
    }

    /// A copy of what the side that owns `block` has written; empty if it has written nothing.
    ///
    /// # Errors
    /// `ProtocolViolation` for lengths that do not fit the block, or are beyond what a block may take;
    /// `NoSpace` if there is no memory for the copy.
    pub(crate) fn read_metadata(&self, block: Block) -> Result<Vec<u8>> {
        let (block, start, size) = self.block(block);
        let written = self.load(block + oieb::METADATA_WRITTEN_BYTES);
        if written == 0 {
            return Ok(Vec::new());
        }
        let check = |field, observed, allowed| {
            if observed <= allowed { Ok(()) } else { Err(Violation { field, observed, allowed }) }
        };
        check("oieb.metadata_written_bytes", written, size.min(MAX_METADATA))?;
        let room = written.checked_sub(8).ok_or(Violation {
            field: "oieb.metadata_written_bytes",
            observed: written,
            allowed: size,
        })?;
        let len = self.control.at(start as usize).load(Ordering::Relaxed);
        check("metadata length", len, room)?;
        self.metadata.read_block(start + 8, len)
    }

    /// The OIEB, the offset and the size of a metadata block.
    pub(crate) fn block(&self, block: Block) -> (usize, u64, u64) {
        match block {
            Block::Request => (REQUEST, METADATA as u64, self.geometry.metadata_request),
            Block::Response => {
                let start = self.geometry.metadata_response_offset();
                (RESPONSE, start, self.geometry.metadata_response)
            }
        }
    }
}
