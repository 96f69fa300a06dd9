//! A service's segment: an object without a name, sealed, of one connection (docs/protocol-service.md,
//! section 4 "The segment").

use crate::atomics::{AtomicU32, Ordering};
use crate::error::{Error, Result};
use crate::failpoint::failpoint;
use crate::link::segment::{Block, Segment};
use crate::memory::{MemoryProvider, SharedMemory, SharedMemoryView};
use crate::name::ChannelName;
use crate::sys::{self, Errno, Pages, Place, ShmFile};
use crate::v2::layout::{
    Geometry, METADATA, REQUEST, RESPONSE, SIZE_AND_VERSION, UNIT, align_up, oieb,
};
use crate::v2::words::Words;

/// The page of the flags, behind the ring.
const DOORBELL: u64 = 4096;
const SERVER_SLEEPS: usize = 0x000;
const CLIENT_SLEEPS: usize = 0x040;

/// The geometry of a segment of these sizes, rounded up; `None` if there is no such segment.
pub(crate) fn geometry(
    metadata_request: u64,
    metadata_response: u64,
    ring: u64,
) -> Option<Geometry> {
    let whole = |size: u64| size.checked_next_multiple_of(UNIT);
    let geometry =
        Geometry::new(whole(metadata_request)?, whole(metadata_response)?, whole(ring)?)?;
    // So that the doorbell page fits behind any ring.
    isize::try_from(geometry.total()).ok()?.checked_add(2 * DOORBELL as isize)?;
    Some(geometry)
}

/// Where the doorbell page lies.
fn doorbell(geometry: &Geometry) -> u64 {
    align_up(geometry.total(), DOORBELL)
}

/// Bytes of the segment's file, exactly.
pub(crate) fn file_size(geometry: &Geometry) -> u64 {
    doorbell(geometry) + DOORBELL
}

/// The two flags of the doorbell page.
#[derive(Debug)]
pub(crate) struct Flags {
    words: Words,
}

impl Flags {
    /// Not 0 while the server may sleep.
    pub(super) fn server_sleeps(&self) -> &AtomicU32 {
        self.words.half(SERVER_SLEEPS)
    }

    /// Not 0 while the client may sleep.
    pub(super) fn client_sleeps(&self) -> &AtomicU32 {
        self.words.half(CLIENT_SLEEPS)
    }
}

/// A segment that is being made, a piece at a time.
#[derive(Debug)]
pub(crate) struct Growing {
    file: ShmFile,
    geometry: Geometry,
    reserved: u64,
}

impl Growing {
    /// # Errors
    /// `NoSpace` and `System` for what there is not enough of.
    pub(crate) fn begin(name: &ChannelName, geometry: Geometry) -> Result<Self> {
        let size = file_size(&geometry);
        let file = ShmFile::create_memory(&format!("zerobuffer-{name}"))
            .map_err(|errno| making(errno, name, size))?;
        file.check_room(size).map_err(|errno| making(errno, name, size))?;
        failpoint!("segment.begun");
        Ok(Self { file, geometry, reserved: 0 })
    }

    /// Reserves one piece more, of 1 MiB at the most. True once all is reserved.
    ///
    /// # Errors
    /// As [`Growing::begin`].
    pub(crate) fn step(&mut self, name: &ChannelName) -> Result<bool> {
        let size = file_size(&self.geometry);
        self.reserved = self
            .file
            .reserve_step(self.reserved, size)
            .map_err(|errno| making(errno, name, size))?;
        failpoint!("segment.reserved");
        Ok(self.reserved >= size)
    }

    /// Maps it, writes the initial values and seals it. What is returned beside the segment is to be sent
    /// to the client, and may be closed then.
    ///
    /// # Errors
    /// `TooLarge` if `metadata` do not fit; `System`.
    pub(crate) fn finish(
        self,
        name: &ChannelName,
        metadata: &[u8],
    ) -> Result<(Segment, Flags, ShmFile)> {
        let Self { file, geometry, .. } = self;
        let object = format!("a segment of service {name}");
        let (segment, flags) = map(name, &file, &object, geometry, Pages::OnDemand)?;
        write_initial_values(&segment, &flags, metadata)?;
        failpoint!("segment.written");
        file.seal_size().map_err(|errno| errno.on("seal", &object))?;
        failpoint!("segment.sealed");
        Ok((segment, flags, file))
    }
}

fn making(errno: Errno, name: &ChannelName, size: u64) -> Error {
    let object = format!("a segment of service {name}");
    errno.making("create", &object, size, Place::Anonymous)
}

/// As protocol v2 says in section 9.1 "Server: create", steps 8, 10 and 11; and the server sleeps until the first bell.
fn write_initial_values(segment: &Segment, flags: &Flags, metadata: &[u8]) -> Result<()> {
    let geometry = &segment.geometry;
    for (block, size) in
        [(REQUEST, geometry.metadata_request), (RESPONSE, geometry.metadata_response)]
    {
        segment.store(block + oieb::METADATA_FREE_BYTES, size);
        segment.store(block + oieb::PAYLOAD_FREE_BYTES, geometry.payload_size);
    }
    flags.server_sleeps().store(1, Ordering::Relaxed);
    let [sizes_and_pids @ .., response_ready, request_ready] = segment.server_words();
    for (offset, value) in sizes_and_pids {
        segment.store(offset, value);
    }
    segment.write_metadata(Block::Response, metadata)?;
    for (offset, value) in [response_ready, request_ready] {
        segment.store(offset, value);
    }
    Ok(())
}

/// Opens what a worker has sent: `size` is what it says of the file's length.
///
/// # Errors
/// `ProtocolViolation` for anything that a segment of this protocol does not have; `System`.
pub(crate) fn open(
    name: &ChannelName,
    file: ShmFile,
    size: u64,
    pages: Pages,
    wanted: &dyn Fn() -> bool,
) -> Result<(Segment, Flags)> {
    let object = format!("a segment of service {name}");
    let violation =
        |field, observed, allowed| Error::ProtocolViolation { field, observed, allowed };
    let stat = file.stat().map_err(|errno| errno.on("look at", &object))?;
    // The seals first: what is checked after them cannot change any more.
    let is_sealed = file.is_size_sealed().map_err(|errno| errno.on("look at", &object))?;
    if !stat.regular || !is_sealed {
        return Err(violation("seals of the segment", 0, 1));
    }
    let stat = file.stat().map_err(|errno| errno.on("look at", &object))?;
    if stat.size != size || size < METADATA as u64 || isize::try_from(size).is_err() {
        return Err(violation("size of the segment", stat.size, size));
    }
    // What is not reserved would be this side's to pay for.
    if stat.reserved < size {
        return Err(violation("reserved bytes of the segment", stat.reserved, size));
    }
    let mut memory =
        SharedMemory::of_unnamed(&object, file).map_err(|errno| errno.on("look at", &object))?;
    memory.set_pages(pages);
    memory.map_file(size as usize)?;
    let geometry = read_geometry(&Words::new(memory.map(0, METADATA)?))?;
    if file_size(&geometry) != size {
        return Err(violation("size of the segment", size, file_size(&geometry)));
    }
    memory.fault_in(wanted)?;
    failpoint!("connect.mapped");
    // The views keep the mapping; the descriptor ends here.
    divide(name, &memory, geometry)
}

fn map(
    name: &ChannelName,
    file: &ShmFile,
    object: &str,
    geometry: Geometry,
    pages: Pages,
) -> Result<(Segment, Flags)> {
    let size = file_size(&geometry) as usize;
    let view =
        SharedMemoryView::of_file(file, size, pages).map_err(|errno| errno.on("map", object))?;
    divide(name, &view, geometry)
}

/// The views of all of the memory, as `geometry` divides it.
fn divide(
    name: &ChannelName,
    memory: &impl MemoryProvider,
    geometry: Geometry,
) -> Result<(Segment, Flags)> {
    let page = memory.map(doorbell(&geometry) as usize, DOORBELL as usize)?;
    Ok((Segment::new(name, memory, geometry)?, Flags { words: Words::new(page) }))
}

/// The sizes in the segment, each read once.
fn read_geometry(words: &Words) -> Result<Geometry> {
    let read = |offset: usize| words.at(offset).load(Ordering::Acquire);
    let violation =
        |field, observed, allowed| Error::ProtocolViolation { field, observed, allowed };
    for block in [REQUEST, RESPONSE] {
        let first = read(block + oieb::SIZE_AND_VERSION);
        // Minor, patch and the reserved byte may be anything.
        if first & 0xff_ffff_ffff != SIZE_AND_VERSION & 0xff_ffff_ffff {
            return Err(violation("OIEB size and version", first, SIZE_AND_VERSION));
        }
    }
    let payload = read(REQUEST + oieb::PAYLOAD_SIZE);
    let same = read(RESPONSE + oieb::PAYLOAD_SIZE);
    if same != payload {
        return Err(violation("OIEB_Response.payload_size", same, payload));
    }
    let request = read(REQUEST + oieb::METADATA_SIZE);
    let response = read(RESPONSE + oieb::METADATA_SIZE);
    // Rounded sizes are none of this protocol's.
    Geometry::new(request, response, payload)
        .filter(|found| geometry(request, response, payload) == Some(*found))
        .ok_or_else(|| violation("sizes of the segment", payload, isize::MAX as u64))
}

/// The client's pids and metadata, once the segment is its own.
///
/// # Errors
/// `TooLarge` if the worker's block does not hold the metadata.
pub(crate) fn announce_client(segment: &Segment, metadata: &[u8]) -> Result<()> {
    let pid = u64::from(sys::process_id());
    segment.store(RESPONSE + oieb::READER_PID, pid);
    failpoint!("connect.one_pid");
    segment.store(REQUEST + oieb::WRITER_PID, pid);
    segment.write_metadata(Block::Request, metadata)
}

#[cfg(all(test, not(zerobuffer_unsupported)))]
mod tests {
    use super::*;
    use crate::error::ErrorKind;

    fn name() -> ChannelName {
        ChannelName::new("unit").unwrap()
    }

    fn made(ring: u64) -> (Segment, Flags, ShmFile, u64) {
        let geometry = geometry(100, 64, ring).unwrap();
        let mut growing = Growing::begin(&name(), geometry).unwrap();
        while !growing.step(&name()).unwrap() {}
        let (segment, flags, file) = growing.finish(&name(), b"server").unwrap();
        (segment, flags, file, file_size(&geometry))
    }

    #[test]
    fn the_doorbell_page_lies_behind_the_ring_at_a_page_of_its_own() {
        let geometry = geometry(4096, 4096, 1 << 20).unwrap();
        assert_eq!(doorbell(&geometry), 12288 + (1 << 20));
        assert_eq!(file_size(&geometry), 12288 + (1 << 20) + 4096);
        let odd = super::geometry(0, 0, 64).unwrap();
        assert_eq!((doorbell(&odd), file_size(&odd)), (8192, 12288));
        assert_eq!(super::geometry(0, 0, 0), None);
        assert_eq!(super::geometry(0, 0, u64::MAX - 63), None);
    }

    #[test]
    fn a_client_opens_what_a_worker_has_made() {
        let (server, flags, file, size) = made(3 << 20);
        let (client, seen) = open(&name(), file, size, Pages::OnDemand, &|| true).unwrap();
        assert_eq!(client.geometry, server.geometry);
        assert_eq!(client.geometry.metadata_request, 128, "rounded up");
        assert_eq!(client.read_metadata(Block::Response).unwrap(), b"server");
        assert_eq!(seen.server_sleeps().load(Ordering::Relaxed), 1);
        seen.client_sleeps().store(7, Ordering::Relaxed);
        assert_eq!(flags.client_sleeps().load(Ordering::Relaxed), 7);
        announce_client(&client, b"client").unwrap();
        assert_eq!(server.read_metadata(Block::Request).unwrap(), b"client");
        assert_eq!(server.load(REQUEST + oieb::WRITER_PID), u64::from(std::process::id()));
        let error = announce_client(&client, &[0; 128]).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::TooLarge);
    }

    #[test]
    fn what_is_not_sealed_or_of_another_size_is_refused() {
        let open = |file, size| open(&name(), file, size, Pages::OnDemand, &|| true);
        let refused = |file, size| {
            let error = open(file, size).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::ProtocolViolation, "{error}");
            error.to_string()
        };
        let unsealed = ShmFile::create_memory("unit").unwrap();
        unsealed.reserve(1 << 20, &|| true).unwrap();
        assert!(refused(unsealed, 1 << 20).contains("seals"));
        let (_, _, file, size) = made(1 << 20);
        assert!(refused(file, size + 4096).contains("size"));
        let empty = ShmFile::create_memory("unit").unwrap();
        empty.reserve(1 << 20, &|| true).unwrap();
        empty.seal_size().unwrap();
        assert!(refused(empty, 1 << 20).contains("OIEB"));
        for (offset, value, says) in [
            (REQUEST + oieb::PAYLOAD_SIZE, 64, "payload_size"),
            (REQUEST + oieb::METADATA_SIZE, 1, "sizes"),
            (RESPONSE + oieb::METADATA_SIZE, u64::MAX - 63, "sizes"),
        ] {
            let (segment, _, file, size) = made(1 << 20);
            segment.store(offset, value);
            let said = refused(file, size);
            assert!(said.contains(says), "{offset:x}: {said}");
        }
    }
}
