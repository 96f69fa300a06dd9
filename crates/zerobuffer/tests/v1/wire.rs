//! The wire, statement by statement: what stands in the files at each step, and what an existing peer may
//! put there. `Section` means `docs/protocol-v1.md`.

use crate::clients::connect;
use crate::support::{
    LONG, Peer, StopAtEnd, Unique, VARIABLE, field, peek, poke, ring, semaphore_path, tokens, until,
};
use std::os::fd::AsRawFd;
use std::os::unix::fs::FileExt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use zerobuffer::v1::{DuplexServer, Reader, ReaderConfig, Reply, RequestView, Writer};
use zerobuffer::{BufferConfig, Error, ErrorKind, WaitStrategy};
use zerobuffer_test_support::{Sleeper, again};

fn pair(name: &str, metadata: usize, payload: usize) -> (Reader, Writer) {
    let reader = Reader::create(name, BufferConfig::new(metadata, payload)).unwrap();
    let writer = Writer::connect(name, LONG).unwrap();
    (reader, writer)
}

fn header(name: &str) -> [u64; 16] {
    std::array::from_fn(|word| peek(name, word as u64 * 8))
}

fn is_locked(path: &str) -> bool {
    let file = std::fs::File::open(path).unwrap();
    // SAFETY: the descriptor is open.
    unsafe { libc::flock(file.as_raw_fd(), libc::LOCK_EX | libc::LOCK_NB) != 0 }
}

/// Section 2 "Objects": five objects; one family of peers locks under /tmp whatever TMPDIR says, the
/// other one in TMPDIR. Both lock files are empty, and their folders are made.
#[test]
fn the_objects_have_the_names_that_peers_look_for() {
    let name = Unique::new("objects");
    let temporary = std::env::temp_dir().join(format!("{}-temporary", &*name));
    let mut command = again(VARIABLE, &format!("reader\n{}\n4096", &*name));
    std::fs::create_dir(&temporary).unwrap();
    let mut reader = Peer::spawn(command.env("TMPDIR", &temporary));
    reader.expect("ready");
    let locks = [
        format!("/tmp/zerobuffer/{}.lock", &*name),
        format!("{}/zerobuffer/locks/{}.lock", temporary.display(), &*name),
    ];
    for lock in &locks {
        assert!(is_locked(lock), "{lock}");
        assert_eq!(std::fs::metadata(lock).unwrap().len(), 0, "{lock}");
    }
    for (object, size) in [(&*name, 128 + 64 + 4096), (&format!("sem.sem-w-{}", &*name), 32)] {
        assert_eq!(std::fs::metadata(format!("/dev/shm/{object}")).unwrap().len(), size);
    }
    assert_eq!(std::fs::metadata(semaphore_path(&name, 'r')).unwrap().len(), 32);
    assert_eq!(name.traces().len(), 4, "and the one in TMPDIR: {:?}", name.traces());
    reader.finish();
    assert!(locks.iter().all(|lock| !std::fs::exists(lock).unwrap()));
    std::fs::remove_dir_all(temporary).unwrap();
}

/// Section 3 "Segment": size, version, both sizes, the reader's id and the reserved words never change.
#[test]
fn what_nobody_changes_stays_as_it_was_created() {
    let name = Unique::new("fixed");
    let (reader, mut writer) = pair(&name, 100, 1000);
    let fixed = || {
        let words = header(&name);
        [0, 1, 4, 11, 12, 13, 14, 15].map(|word| words[word])
    };
    let created = fixed();
    let pid = u64::from(std::process::id());
    assert_eq!(created, [128 | 1 << 32, 128, 1024, pid, 0, 0, 0, 0]);
    writer.set_metadata(b"text").unwrap();
    for len in [1008].into_iter().chain([300, 200, 400, 1, 100].into_iter().cycle().take(100)) {
        writer.write_frame(&vec![0xff; len]).unwrap();
        drop(reader.read_frame(LONG).unwrap());
        assert_eq!(fixed(), created);
    }
    assert!(reader.statistics().wraps > 10);
    drop(writer);
    drop(Writer::connect(&name, LONG).unwrap());
    assert_eq!(fixed(), created);
}

/// Section 3 "Segment", section 5 "Frames and ring" and section 6.3 "Close": attaching and closing
/// change the writer's id and nothing else, and post nothing. A dead writer's id is replaced, a live
/// one's is not.
#[test]
fn a_writer_comes_and_goes_by_its_id_alone() {
    let name = Unique::new("writer-id");
    let reader = Reader::create(&name, BufferConfig::new(64, 1024)).unwrap();
    let (before, pid) = (header(&name), u64::from(std::process::id()));
    let mut attached = before;
    attached[10] = pid;
    for former in [0, 1 << 30] {
        poke(&name, field::WRITER_PID, former);
        let writer = Writer::connect(&name, Duration::ZERO).unwrap();
        assert_eq!(header(&name), attached);
        drop(writer);
        assert_eq!(header(&name), before);
    }
    poke(&name, field::WRITER_PID, 1);
    let error = Writer::connect(&name, Duration::ZERO).unwrap_err();
    assert_eq!((error.kind(), peek(&name, field::WRITER_PID)), (ErrorKind::Busy, 1));
    assert_eq!((tokens(&name, 'w'), tokens(&name, 'r')), (0, 0));
    drop(reader);
}

/// Section 4 "Metadata": the length, then the bytes, at 128; what they take is counted with the length;
/// they may fill the block; nothing is signalled.
#[test]
fn metadata_lie_behind_their_length() {
    let name = Unique::new("metadata-bytes");
    let (reader, mut writer) = pair(&name, 128, 1024);
    writer.set_metadata(&[7; 120]).unwrap();
    assert_eq!(peek(&name, 128), 120);
    let mut bytes = [0; 120];
    let file = std::fs::File::open(format!("/dev/shm/{}", &*name)).unwrap();
    file.read_exact_at(&mut bytes, 136).unwrap();
    assert_eq!(bytes, [7; 120]);
    let counts = [field::METADATA_WRITTEN, field::METADATA_FREE].map(|field| peek(&name, field));
    assert_eq!((counts, tokens(&name, 'w')), ([128, 0], 0));
    assert_eq!(reader.metadata().unwrap().unwrap(), [7; 120]);
}

/// Section 4 "Metadata": length and bytes are there before the count is.
#[test]
fn who_sees_the_metadatas_count_sees_their_bytes() {
    let name = Unique::new("metadata-order");
    let text = vec![b'm'; 4000];
    let (reader, stop) =
        (Reader::create(&name, BufferConfig::new(4096, 64)).unwrap(), AtomicBool::new(false));
    std::thread::scope(|scope| {
        let watcher = scope.spawn(|| {
            let mut seen = 0;
            while !stop.load(Ordering::Relaxed) {
                if let Some(metadata) = reader.metadata().unwrap() {
                    assert!(metadata == text, "{} bytes, not all of them right", metadata.len());
                    seen += 1;
                    // As good as a new buffer: count, length and bytes.
                    poke(&name, field::METADATA_WRITTEN, 0);
                }
            }
            seen
        });
        let stopping = StopAtEnd(&stop);
        let mut writer = Writer::connect(&name, LONG).unwrap();
        let file =
            std::fs::File::options().write(true).open(format!("/dev/shm/{}", &*name)).unwrap();
        for _ in 0..500 {
            while peek(&name, field::METADATA_WRITTEN) > 0 && !watcher.is_finished() {
                std::thread::yield_now();
            }
            file.write_all_at(&[0; 4008], 128).unwrap();
            if watcher.is_finished() {
                break;
            }
            writer.set_metadata(&text).unwrap();
        }
        until("the last one", || {
            peek(&name, field::METADATA_WRITTEN) == 0 || watcher.is_finished()
        });
        drop(stopping);
        assert_eq!(watcher.join().unwrap(), 500);
    });
}

/// Section 5 "Frames and ring": one token for a frame, none for the marker before it; the positions and
/// counts move when it is read, its space comes back, with one token, when it is released.
#[test]
fn a_frame_moves_the_account_step_by_step() {
    let name = Unique::new("steps");
    let (reader, mut writer) = pair(&name, 0, 1024);
    let account = || {
        let fields = [
            field::FREE,
            field::WRITE_POS,
            field::READ_POS,
            field::WRITTEN_COUNT,
            field::READ_COUNT,
        ];
        (fields.map(|field| peek(&name, field)), tokens(&name, 'w'), tokens(&name, 'r'))
    };
    assert_eq!(account(), ([1024, 0, 0, 0, 0], 0, 0));
    assert_eq!(writer.write_frame(&[1; 908]).unwrap(), 1);
    assert_eq!(account(), ([100, 924, 0, 1, 0], 1, 0));
    let frame = reader.read_frame(LONG).unwrap();
    assert_eq!(account(), ([100, 924, 924, 1, 1], 0, 0));
    drop(frame);
    assert_eq!(account(), ([1024, 924, 924, 1, 1], 0, 1));
    // With a marker: it counts, wastes 100 bytes, takes the token for freed space, and posts none.
    assert_eq!(writer.write_frame(&[2; 200]).unwrap(), 2);
    assert_eq!(account(), ([1024 - 316, 216, 924, 3, 1], 1, 0));
    let frame = reader.read_frame(LONG).unwrap();
    assert_eq!(account(), ([1024 - 216, 216, 216, 3, 3], 0, 0));
    drop(frame);
    assert_eq!(account(), ([1024, 216, 216, 3, 3], 0, 1));
    // What a wrap has wasted behind a frame that is held comes back with that frame, and without a token.
    writer.write_frame(&[3; 584]).unwrap();
    drop(reader.read_frame(LONG).unwrap());
    writer.write_frame(&[4; 84]).unwrap();
    let before = reader.read_frame(LONG).unwrap();
    writer.write_frame(&[5; 184]).unwrap();
    let behind = reader.read_frame(LONG).unwrap();
    assert_eq!(account(), ([1024 - 408, 200, 200, 7, 7], 0, 0));
    drop(before);
    assert_eq!(account(), ([1024 - 200, 200, 200, 7, 7], 0, 1));
    drop(behind);
    assert_eq!(account(), ([1024, 200, 200, 7, 7], 0, 2));
}

/// Section 5.3 "What we write": a wrap needs room for what it wastes as well.
#[test]
fn a_wrap_waits_for_its_waste_too() {
    let name = Unique::new("waste");
    let (reader, mut writer) = pair(&name, 0, 1024);
    writer.set_write_timeout(Duration::ZERO);
    writer.write_frame(&[1; 500]).unwrap();
    writer.write_frame(&[1; 392]).unwrap();
    let first = reader.read_frame(LONG).unwrap();
    drop(reader.read_frame(LONG).unwrap());
    // 100 bytes to the end and 216 for the frame. Peers of old releases looked for 216 only.
    poke(&name, field::FREE, 315);
    let error = writer.write_frame(&[2; 200]).unwrap_err();
    assert!(matches!(error, Error::Full { needed: 316, free: 315, .. }), "{error}");
    poke(&name, field::FREE, 316);
    writer.write_frame(&[2; 200]).unwrap();
    assert_eq!(peek(&name, field::FREE), 0);
    drop(first);
}

/// Section 5.3 "What we write": header, marker and account are written at the commit and not before.
#[test]
fn a_claim_shows_nothing_before_its_commit() {
    let name = Unique::new("claim");
    let (reader, mut writer) = pair(&name, 0, 1024);
    writer.write_frame(&[1; 908]).unwrap();
    drop(reader.read_frame(LONG).unwrap());
    // Where the marker will be stands something else.
    (924..940).step_by(8).for_each(|at| poke(&name, 128 + at, u64::MAX));
    let seen = || (header(&name), ring(&name, 924, 16), ring(&name, 0, 16), tokens(&name, 'w'));
    let before = seen();
    let mut buffer = writer.acquire(200).unwrap();
    buffer.data_mut().fill(2);
    assert_eq!(seen(), before);
    buffer.commit().unwrap();
    assert_eq!(ring(&name, 924, 16), [0; 16]);
    assert_ne!(seen(), before);
}

/// Section 6.1 "Create (reader)": what a writer sees while a C++ reader creates its buffer, and what
/// the writer does about it.
#[test]
fn a_writer_waits_through_all_steps_of_an_existing_readers_creation() {
    let name = Unique::new("half-made");
    let segment = format!("/dev/shm/{}", &*name);
    let sleeper = &Sleeper::default();
    std::thread::scope(|scope| {
        let writer = scope.spawn(|| {
            sleeper.enters();
            Writer::connect(&name, LONG).unwrap()
        });
        let step = || {
            // It has looked, and waits to look again.
            sleeper.expect_naps(3);
            assert!(!writer.is_finished(), "attached to half a buffer, or timed out");
        };
        step();
        let file = std::fs::File::create_new(&segment).unwrap();
        step();
        file.set_len(128 + 64 + 1024).unwrap();
        step();
        // Field by field, the reader's id last.
        let fields = [
            (field::SIZE_AND_VERSION, 128 | 1 << 32),
            (field::METADATA_SIZE, 64),
            (field::METADATA_FREE, 64),
            (field::PAYLOAD_SIZE, 1024),
            (field::FREE, 1024),
            (field::READER_PID, u64::from(std::process::id())),
        ];
        for (field, value) in fields {
            poke(&name, field, value);
            step();
        }
        let mut semaphore = [0; 32];
        semaphore[8] = 0x80;
        for which in ['w', 'r'] {
            assert_eq!(peek(&name, field::WRITER_PID), 0, "claimed before all was there");
            std::fs::write(semaphore_path(&name, which), semaphore).unwrap();
            if which == 'w' {
                step();
            }
        }
        let mut writer = writer.join().unwrap();
        assert_eq!(writer.write_frame(b"first").unwrap(), 1);
        assert_eq!(tokens(&name, 'w'), 1);
    });
    name.traces().iter().for_each(|path| std::fs::remove_file(path).unwrap());
}

/// Section 6.2 "Attach (writer)": only the major number of the version counts.
#[test]
fn other_minor_versions_are_attached_to() {
    let name = Unique::new("minor");
    let reader = Reader::create(&name, BufferConfig::new(64, 1024)).unwrap();
    for version in [[1, 1, 0, 0], [1, 255, 255, 255]] {
        let word = 128 | u64::from(u32::from_le_bytes(version)) << 32;
        poke(&name, field::SIZE_AND_VERSION, word);
        drop(Writer::connect(&name, Duration::ZERO).unwrap());
    }
    for major in [0, 2, 255] {
        poke(&name, field::SIZE_AND_VERSION, 128 | major << 32);
        let error = Writer::connect(&name, Duration::ZERO).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Incompatible);
    }
    drop(reader);
}

/// Section 2 "Objects": who sleeps is counted at 4, so that a peer of any language knows whom to wake.
#[test]
fn a_sleeper_stands_in_the_semaphores_file() {
    let name = Unique::new("sleeper");
    let config = ReaderConfig::new(BufferConfig::new(0, 1024)).wait(WaitStrategy::Park);
    let reader = Reader::create(&name, config).unwrap();
    let mut writer = Writer::connect(&name, LONG).unwrap();
    let words = || {
        let bytes = std::fs::read(semaphore_path(&name, 'w')).unwrap();
        let word = |at: usize| u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap());
        [0, 4, 8].map(word)
    };
    std::thread::scope(|scope| {
        let read = scope.spawn(|| reader.read_frame(LONG).unwrap().len());
        until("the sleeper", || words() == [0, 1, 0x80]);
        writer.write_frame(b"wake up").unwrap();
        assert_eq!(read.join().unwrap(), 7);
    });
    assert_eq!(words(), [0, 0, 0x80]);
}

/// Section 7 "Duplex channels": a response bears its writer's own count, from 1 for each client, and
/// its bytes are the handler's, with nothing before them; a request is released after its handler.
#[test]
fn requests_and_responses_lie_in_their_rings_as_written() {
    let name = Unique::new("duplex-bytes");
    let (request, response) = (format!("{}_request", &*name), format!("{}_response", &*name));
    let mut server = DuplexServer::create(&name, BufferConfig::new(0, 4096)).unwrap();
    let watched = request.clone();
    server
        .start_immutable(move |request: &RequestView<'_>, reply: &mut Reply<'_>| {
            let free = peek(&watched, field::FREE);
            assert_eq!(free, 4096 - 16 - request.len() as u64, "held while it is handled");
            reply.write(b"response")
        })
        .unwrap();
    for round in 0..3_u64 {
        let mut client = connect(&name, LONG).unwrap();
        for call in 1..=2 {
            let answer = client.call(b"request", LONG).unwrap();
            assert_eq!((answer.data(), answer.sequence()), (&b"response"[..], call));
            let (position, bytes) = ((call - 1) * 24, ring(&response, (call - 1) * 24, 24));
            assert_eq!(bytes[..8], 8_u64.to_le_bytes(), "at {position}");
            assert_eq!(bytes[8..16], call.to_le_bytes(), "at {position}");
            assert_eq!(bytes[16..], *b"response", "at {position}");
            until("the request's space", || peek(&request, field::FREE) == 4096);
        }
        let (position, count) = (round * 2 * 23, round * 2 + 1);
        let bytes = ring(&request, position, 23);
        assert_eq!(
            (&bytes[..8], &bytes[8..16]),
            (&7_u64.to_le_bytes()[..], &count.to_le_bytes()[..])
        );
        assert_eq!(bytes[16..], *b"request");
    }
}
