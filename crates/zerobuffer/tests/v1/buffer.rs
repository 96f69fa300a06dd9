//! Readers and writers in one process, and what they leave in the file system.
//!
//! Rules and sections are those of `docs/protocol-v1.md`; scenarios bear the numbers that they have among
//! the existing programs' own.

use crate::support::{LONG, SOON, StopAtEnd, Unique, field, peek, poke, ring, set_tokens, tokens};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use zerobuffer::v1::{Reader, Writer, WriterConfig};
use zerobuffer::{BufferConfig, Error, ErrorKind};

pub(crate) fn pair(name: &str, metadata: usize, payload: usize) -> (Reader, Writer) {
    let reader = Reader::create(name, BufferConfig::new(metadata, payload)).unwrap();
    let writer = Writer::connect(name, LONG).unwrap();
    (reader, writer)
}

pub(crate) fn poll(reader: &Reader) -> Vec<u8> {
    reader.read_frame(Duration::ZERO).unwrap().data().to_vec()
}

/// Section 3 "Segment" and scenario 12.2: sizes, offsets and initial values on the wire.
#[test]
fn a_new_buffer_has_the_header_that_existing_writers_expect() {
    let name = Unique::new("header");
    let reader = Reader::create(&name, BufferConfig::new(100, 1000)).unwrap();
    assert_eq!(std::fs::metadata(format!("/dev/shm/{}", &*name)).unwrap().len(), 1280);
    let words: Vec<u64> = (0..16).map(|word| peek(&name, word * 8)).collect();
    let pid = u64::from(std::process::id());
    assert_eq!(words[..6], [128 | 1 << 32, 128, 128, 0, 1024, 1024]);
    assert_eq!(words[6..], [0, 0, 0, 0, 0, pid, 0, 0, 0, 0]);
    // Section 2 "Objects": value and waiters, then 0x80 for shared, in 32 bytes.
    let semaphore = std::fs::read(crate::support::semaphore_path(&name, 'w')).unwrap();
    let mut expected = [0; 32];
    expected[8] = 0x80;
    assert_eq!(semaphore, expected);
    assert_eq!((tokens(&name, 'w'), tokens(&name, 'r')), (0, 0));
    assert!(reader.is_in_place());
}

/// Section 4 "Metadata", and scenarios 1.1 and 3.1 to 3.3.
#[test]
fn metadata_is_written_once_and_read_whole() {
    let name = Unique::new("metadata");
    let (reader, mut writer) = pair(&name, 100, 1024);
    assert_eq!(reader.metadata().unwrap(), None);
    assert_eq!(writer.set_metadata(&[]).unwrap_err().kind(), ErrorKind::EmptyFrame);
    let error = writer.set_metadata(&[0; 121]).unwrap_err();
    assert!(matches!(error, Error::TooLarge { what: "metadata", asked: 121, max: 120 }));
    writer.set_metadata(b"hello").unwrap();
    assert_eq!(
        (peek(&name, field::METADATA_WRITTEN), peek(&name, field::METADATA_FREE)),
        (13, 115)
    );
    assert_eq!(reader.metadata().unwrap().unwrap(), b"hello");
    assert_eq!(writer.set_metadata(b"x").unwrap_err().kind(), ErrorKind::MetadataAlreadyWritten);
    drop(writer);
    let mut second = Writer::connect(&name, LONG).unwrap();
    assert_eq!(second.set_metadata(b"x").unwrap_err().kind(), ErrorKind::MetadataAlreadyWritten);
}

/// Scenario 4.3.
#[test]
fn a_buffer_without_metadata_carries_frames() {
    let name = Unique::new("no-metadata");
    let (reader, mut writer) = pair(&name, 0, 1024);
    assert_eq!(writer.set_metadata(b"x").unwrap_err().kind(), ErrorKind::TooLarge);
    writer.write_frame(b"frame").unwrap();
    assert_eq!(poll(&reader), b"frame");
}

/// Metadata lengths that a peer has made up.
#[test]
fn metadata_that_does_not_fit_its_block_is_a_violation() {
    let name = Unique::new("bad-metadata");
    let (reader, mut writer) = pair(&name, 64, 1024);
    writer.set_metadata(b"x").unwrap();
    for written in [1, 7, 65, u64::MAX] {
        poke(&name, field::METADATA_WRITTEN, written);
        assert_eq!(reader.metadata().unwrap_err().kind(), ErrorKind::ProtocolViolation);
    }
    poke(&name, field::METADATA_WRITTEN, 64);
    poke(&name, 128, 57);
    assert_eq!(reader.metadata().unwrap_err().kind(), ErrorKind::ProtocolViolation);
    // A length of 0 is what C# readers return as an empty span.
    poke(&name, 128, 0);
    assert_eq!(reader.metadata().unwrap().unwrap(), b"");
}

/// Scenarios 1.2, 1.4, 1.5, 4.1, 6.4 and 7.4 in one process.
#[test]
fn frames_of_all_sizes_arrive_in_order() {
    let name = Unique::new("sizes");
    let (reader, mut writer) = pair(&name, 0, 64 << 20);
    for (index, size) in [100, 1024, 10240, 1, 4096, 1 << 20, 10 << 20].into_iter().enumerate() {
        let mut buffer = writer.acquire(size).unwrap();
        assert_eq!(buffer.len(), size);
        buffer.data_mut().fill(index as u8 + 1);
        assert_eq!(buffer.commit().unwrap(), index as u64 + 1);
    }
    assert_eq!(tokens(&name, 'w'), 7, "scenario 4.2: one token for each frame");
    for (index, size) in [100, 1024, 10240, 1, 4096, 1 << 20, 10 << 20].into_iter().enumerate() {
        let frame = reader.read_frame(Duration::ZERO).unwrap();
        assert_eq!((frame.sequence(), frame.len()), (index as u64 + 1, size));
        assert!(frame.data().iter().all(|byte| *byte == index as u8 + 1));
    }
    let statistics = (reader.statistics(), writer.statistics());
    assert_eq!((statistics.0.frames, statistics.1.frames), (7, 7));
    assert_eq!(statistics.0.bytes, statistics.1.bytes);
}

/// Scenarios 1.3 and 4.10: a full ring, and one read makes room.
#[test]
fn a_full_ring_is_an_error_with_numbers_and_one_read_makes_room() {
    let name = Unique::new("full");
    let (reader, mut writer) = pair(&name, 0, 10240);
    writer.set_write_timeout(Duration::from_millis(50));
    while writer.write_frame(&[1; 1008]).is_ok() {}
    assert_eq!(writer.statistics().frames, 10);
    let start = Instant::now();
    let error = writer.write_frame(&[1; 1008]).unwrap_err();
    assert!(matches!(error, Error::Full { needed: 1024, free: 0, in_flight: 10, .. }), "{error}");
    assert!(start.elapsed() >= Duration::from_millis(50));
    poll(&reader);
    writer.write_frame(&[1; 1008]).unwrap();
}

/// Scenarios 4.4, 4.6, 4.7 and 5.7.
#[test]
fn the_longest_frames_fit_exactly_and_again() {
    let name = Unique::new("exact");
    let (reader, mut writer) = pair(&name, 0, 10240);
    assert_eq!(writer.max_frame_size(), 10224);
    for _ in 0..3 {
        writer.write_frame(&[7; 10224]).unwrap();
        assert_eq!(peek(&name, field::WRITE_POS), 0);
        assert_eq!(poll(&reader), [7; 10224]);
    }
    assert!(matches!(writer.write_frame(&[7; 10225]), Err(Error::TooLarge { max: 10224, .. })));
    assert_eq!(writer.write_frame(&[]).unwrap_err().kind(), ErrorKind::EmptyFrame);
    drop((reader, writer));

    let (reader, mut writer) = pair(&name, 0, 64);
    writer.write_frame(b"x").unwrap();
    assert_eq!(peek(&name, field::FREE), 64 - 17);
    poll(&reader);
    assert!(matches!(writer.write_frame(&[7; 49]), Err(Error::TooLarge { max: 48, .. })));
}

/// Scenario 5.5, by a look at the shared bytes: marker, account, jump.
#[test]
fn a_wrap_lies_in_shared_memory_as_existing_readers_expect() {
    let name = Unique::new("wrap");
    let (reader, mut writer) = pair(&name, 64, 1024);
    writer.write_frame(&[1; 908]).unwrap();
    poll(&reader);
    writer.write_frame(&[2; 200]).unwrap();
    assert_eq!(ring(&name, 924, 16), [0; 16]);
    assert_eq!(ring(&name, 0, 16), [200, 0, 0, 0, 0, 0, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0]);
    let account = [field::WRITE_POS, field::WRITTEN_COUNT, field::FREE].map(|f| peek(&name, f));
    assert_eq!(account, [216, 3, 1024 - 100 - 216]);
    assert_eq!(poll(&reader), [2; 200]);
    assert_eq!([field::READ_POS, field::READ_COUNT].map(|f| peek(&name, f)), [216, 3]);
}

/// Rule R6 through the guards: held frames stay whole, in any order of drops, and beyond the reader.
#[test]
fn r6_held_frames_stay_whole_and_may_outlive_the_reader() {
    let name = Unique::new("held");
    let (reader, mut writer) = pair(&name, 0, 1024);
    writer.set_write_timeout(Duration::ZERO);
    writer.write_frame(&[1; 496]).unwrap();
    writer.write_frame(&[2; 496]).unwrap();
    let first = reader.read_frame(Duration::ZERO).unwrap();
    let second = reader.read_frame(Duration::ZERO).unwrap();
    drop(second);
    assert_eq!(writer.write_frame(&[3; 496]).unwrap_err().kind(), ErrorKind::Full);
    let first = first.into_owned();
    drop(reader);
    assert_eq!(first.data(), [1; 496]);
    assert_eq!(writer.write_frame(&[3; 496]).unwrap_err().kind(), ErrorKind::PeerClosed);
    drop(first);
    assert!(name.traces().is_empty());
}

/// Rule R12: the writer keeps the tokens for freed space few, and the reader stops adding to a crowd.
#[test]
fn r12_space_tokens_neither_pile_up_nor_overflow() {
    let name = Unique::new("overflow");
    let (reader, mut writer) = pair(&name, 0, 10240);
    for _ in 0..500 {
        writer.write_frame(&[1; 100]).unwrap();
        poll(&reader);
    }
    assert!(tokens(&name, 'r') <= 1, "an existing pair would be at 500");
    set_tokens(&name, 'r', i32::MAX as u32);
    for _ in 0..3 {
        writer.write_frame(&[1; 100]).unwrap();
        poll(&reader);
    }
    assert_eq!(tokens(&name, 'r'), i32::MAX as u32 - 3);
    // A writer that has to wait spends the crowd, and sees the space all the same.
    set_tokens(&name, 'r', 1000);
    while peek(&name, field::FREE) >= 1024 {
        writer.write_frame(&[1; 1008]).unwrap();
    }
    poll(&reader);
    writer.write_frame(&[1; 1008]).unwrap();
}

/// Rule R13: a second writer goes on with the first one's sequence.
#[test]
fn r13_a_new_writer_continues_the_sequence() {
    let name = Unique::new("continue");
    let (reader, mut writer) = pair(&name, 0, 1024);
    for sequence in 1..=5 {
        assert_eq!(writer.write_frame(&[1; 90]).unwrap(), sequence);
    }
    drop(writer);
    poll(&reader);
    // With unread frames, and without.
    let mut writer = Writer::connect(&name, LONG).unwrap();
    assert_eq!(writer.write_frame(&[2; 90]).unwrap(), 6);
    drop(writer);
    (0..5).for_each(|_| assert!(!poll(&reader).is_empty()));
    let mut writer = Writer::connect(&name, LONG).unwrap();
    assert_eq!((writer.next_sequence(), writer.write_frame(&[3; 90]).unwrap()), (7, 7));
    assert_eq!(poll(&reader), [3; 90]);
    assert_eq!(reader.statistics().restarts, 0);
    drop(writer);
    // Bytes that lead nowhere: only by an explicit choice.
    let file =
        std::fs::OpenOptions::new().write(true).open(format!("/dev/shm/{}", &*name)).unwrap();
    std::os::unix::fs::FileExt::write_all_at(&file, &[0xee; 1024], 128).unwrap();
    let error = Writer::connect(&name, Duration::ZERO).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::SequenceUnknown);
    assert_eq!(peek(&name, field::WRITER_PID), 0, "the claim was undone");
    let config = WriterConfig::new().restart_sequence(true);
    let mut writer = Writer::connect_with(&name, Duration::ZERO, config).unwrap();
    assert_eq!(writer.write_frame(&[4; 90]).unwrap(), 1);
    let frame = reader.read_frame(Duration::ZERO).unwrap();
    assert!(frame.is_first() && reader.statistics().restarts == 1);
}

/// Rule R14, and section 5.3 "What we write": an abandoned buffer costs neither space nor a sequence
/// number.
#[test]
fn r14_a_dropped_buffer_sends_nothing() {
    let name = Unique::new("abandoned");
    let (reader, mut writer) = pair(&name, 0, 1024);
    let mut buffer = writer.acquire(500).unwrap();
    buffer.data_mut().fill(0xff);
    // Not committed.
    let _ = buffer;
    assert_eq!(writer.write_frame(b"first").unwrap(), 1);
    assert_eq!(poll(&reader), b"first");
    assert_eq!(peek(&name, field::FREE), 1024);
}

/// Rule R15: the first bad frame makes every later call fail with the same error.
#[test]
fn r15_a_broken_frame_poisons_the_reader_with_its_reason() {
    let name = Unique::new("poison");
    let (reader, mut writer) = pair(&name, 0, 1024);
    writer.write_frame(&[1; 10]).unwrap();
    // A sequence gap, written into the frame before it is read (scenario 6.1).
    poke(&name, 128 + 8, 5);
    for _ in 0..2 {
        let error = reader.read_frame(Duration::ZERO).unwrap_err();
        assert!(matches!(error, Error::SequenceGap { expected: 1, found: 5 }), "{error}");
    }
    poke(&name, 128 + 8, 1);
    assert_eq!(reader.read_frame(Duration::ZERO).unwrap_err().kind(), ErrorKind::SequenceGap);
}

/// Rule R10 with real semaphores: surplus tokens are dropped, also by the thousand, within the time.
#[test]
fn r10_a_flood_of_surplus_tokens_does_not_hold_a_reader_up() {
    let name = Unique::new("flood");
    let (reader, mut writer) = pair(&name, 0, 1024);
    set_tokens(&name, 'w', 2000);
    let start = Instant::now();
    let error = reader.read_frame(Duration::from_millis(50)).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Timeout);
    assert!(start.elapsed() < SOON);
    assert_eq!(reader.statistics().spurious_tokens, 2000);
    set_tokens(&name, 'w', i32::MAX as u32);
    let start = Instant::now();
    let error = reader.read_frame(Duration::from_millis(50)).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Timeout);
    assert!(start.elapsed() < SOON);
    set_tokens(&name, 'w', 0);
    writer.write_frame(b"still fine").unwrap();
    assert_eq!(poll(&reader), b"still fine");
}

/// Rule R11: a frame whose token was lost comes at the end of a slice, and its late token is dropped.
#[test]
fn r11_a_frame_without_a_token_is_found() {
    let name = Unique::new("lost-token");
    let (reader, mut writer) = pair(&name, 0, 1024);
    writer.write_frame(b"quiet").unwrap();
    set_tokens(&name, 'w', 0);
    assert_eq!(reader.read_frame(LONG).unwrap().data(), b"quiet");
    assert_eq!(reader.statistics().missing_tokens, 1);
    set_tokens(&name, 'w', 1);
    assert_eq!(reader.read_frame(Duration::ZERO).unwrap_err().kind(), ErrorKind::Timeout);
    // And at once when its writer has ended.
    writer.write_frame(b"last").unwrap();
    set_tokens(&name, 'w', 0);
    drop(writer);
    assert_eq!(poll(&reader), b"last");
    assert_eq!(reader.read_frame(Duration::ZERO).unwrap_err().kind(), ErrorKind::PeerClosed);
}

/// Rule R4: a write position at the very end, as C++ and Python writers leave it.
#[test]
fn r4_a_write_position_at_the_end_is_taken_as_the_beginning() {
    let name = Unique::new("at-end");
    let (reader, mut writer) = pair(&name, 0, 1024);
    writer.write_frame(&[1; 1008]).unwrap();
    drop(writer);
    poll(&reader);
    poke(&name, field::WRITE_POS, 1024);
    let mut writer = Writer::connect(&name, LONG).unwrap();
    assert_eq!(writer.write_frame(b"next").unwrap(), 2);
    assert_eq!(poll(&reader), b"next");
}

/// Rules R8 and R17, scenario 5.1: headers that cannot be are refused.
#[test]
fn r8_r17_a_writer_believes_no_header_without_checking() {
    let name = Unique::new("bad-header");
    let reader = Reader::create(&name, BufferConfig::new(64, 1024)).unwrap();
    let try_with = |field, value| {
        let before = peek(&name, field);
        poke(&name, field, value);
        let error = Writer::connect(&name, Duration::ZERO).unwrap_err();
        poke(&name, field, before);
        assert_eq!(peek(&name, field::WRITER_PID), 0);
        error.kind()
    };
    for (field, value) in [
        (field::SIZE_AND_VERSION, 64 | 1 << 32),
        (field::SIZE_AND_VERSION, 128 | 2 << 32),
        // Rule X7: releases before 1.1.
        (field::SIZE_AND_VERSION, 128),
        (field::METADATA_SIZE, 65),
        (field::PAYLOAD_SIZE, 1088),
        (field::PAYLOAD_SIZE, u64::MAX - 63),
    ] {
        assert_eq!(try_with(field, value), ErrorKind::Incompatible, "{field} {value}");
    }
    for field in [field::FREE, field::WRITE_POS, field::READ_POS] {
        assert_eq!(try_with(field, 1025), ErrorKind::ProtocolViolation);
    }
    assert_eq!(try_with(field::SIZE_AND_VERSION, 0), ErrorKind::NotRunning);
    assert_eq!(try_with(field::READER_PID, 0), ErrorKind::NotRunning);
    // A writer that died between its position and the account.
    assert_eq!(try_with(field::WRITE_POS, 100), ErrorKind::ProtocolViolation);
    assert!(Writer::connect(&name, Duration::ZERO).is_ok());
    drop(reader);
}

/// Rule T3: one deadline, although tokens keep coming.
#[test]
fn t3_a_write_keeps_its_deadline_while_tokens_trickle_in() {
    let name = Unique::new("deadline");
    let (reader, mut writer) = pair(&name, 0, 10240);
    writer.set_write_timeout(Duration::from_millis(300));
    (0..10).for_each(|_| assert!(writer.write_frame(&[1; 1008]).is_ok()));
    let held = reader.read_frame(Duration::ZERO).unwrap();
    let (start, done) = (Instant::now(), AtomicBool::new(false));
    std::thread::scope(|scope| {
        let _end = StopAtEnd(&done);
        scope.spawn(|| {
            while !done.load(Ordering::Relaxed) && start.elapsed() < LONG {
                std::thread::sleep(Duration::from_millis(60));
                set_tokens(&name, 'r', 1);
            }
        });
        assert_eq!(writer.write_frame(&[1; 1008]).unwrap_err().kind(), ErrorKind::Full);
        let took = start.elapsed();
        assert!(took >= Duration::from_millis(300) && took < SOON, "{took:?}");
    });
    drop(held);
}

/// Rule T4: zero looks once, and a frame that is there comes; no timeout waits for ever.
#[test]
fn t4_zero_polls_and_none_waits() {
    let name = Unique::new("poll");
    let (reader, mut writer) = pair(&name, 0, 1024);
    let start = Instant::now();
    assert_eq!(reader.read_frame(Duration::ZERO).unwrap_err().kind(), ErrorKind::Timeout);
    assert!(start.elapsed() < SOON);
    writer.write_frame(b"there").unwrap();
    assert_eq!(poll(&reader), b"there");
    std::thread::scope(|scope| {
        scope.spawn(|| {
            std::thread::sleep(Duration::from_millis(250));
            writer.write_frame(b"late").unwrap();
        });
        assert_eq!(reader.read_frame(None).unwrap().data(), b"late");
    });
    // The longest timeout that there is does not overflow.
    writer.write_frame(b"max").unwrap();
    assert_eq!(reader.read_frame(Duration::MAX).unwrap().data(), b"max");
}

/// Rules T5 and R11: not connected yet, timeout, closed; frames before the end; and a next writer.
#[test]
fn t5_the_outcomes_of_a_read_are_told_apart() {
    let name = Unique::new("outcomes");
    let reader = Reader::create(&name, BufferConfig::new(64, 1024)).unwrap();
    let kind = |timeout| reader.read_frame(Duration::from_millis(timeout)).unwrap_err().kind();
    assert_eq!((kind(0), kind(20)), (ErrorKind::NotConnectedYet, ErrorKind::NotConnectedYet));
    let error = reader.wait_for_writer(Duration::from_millis(20)).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotConnectedYet);
    let mut writer = Writer::connect(&name, LONG).unwrap();
    assert!(reader.is_writer_connected() && reader.wait_for_writer(Duration::ZERO).is_ok());
    assert_eq!((kind(0), kind(20)), (ErrorKind::Timeout, ErrorKind::Timeout));
    writer.write_frame(b"last words").unwrap();
    drop(writer);
    assert_eq!(poll(&reader), b"last words");
    let start = Instant::now();
    assert_eq!((kind(10_000), kind(0)), (ErrorKind::PeerClosed, ErrorKind::PeerClosed));
    assert!(start.elapsed() < SOON, "the end is told at once");
    assert!(!reader.is_writer_connected());
    let mut writer = Writer::connect(&name, LONG).unwrap();
    assert_eq!(kind(0), ErrorKind::Timeout);
    writer.write_frame(b"again").unwrap();
    assert_eq!(poll(&reader), b"again");
    assert!(writer.is_reader_connected());
    drop(reader);
    assert!(!writer.is_reader_connected());
    assert_eq!(writer.write_frame(b"x").unwrap_err().kind(), ErrorKind::PeerClosed);
}
