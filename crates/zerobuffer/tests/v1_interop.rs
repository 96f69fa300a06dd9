//! Version 1 against the deployed peer: `zerobuffer-ipc` 1.3.0 from PyPI, as a process of its own.
//!
//! The names begin with the scenario, by its number among the deployed peers' own, or with the rule of
//! `docs/protocol-v1.md`. Faults of the peer are asserted as such, so that a release that mends one is
//! noticed. The Python that has the package is named by `ZEROBUFFER_V1_PYTHON`; `cargo xtask test` makes
//! it and sets the variable.
#![allow(clippy::disallowed_methods)]

#[path = "v1/support.rs"]
mod support;

use std::sync::{RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::time::{Duration, Instant};
use support::{LONG, Peer, Unique, field, peek, poke, ring, set_tokens, tokens, until};
use zerobuffer::v1::{Draft, DuplexServer, DuplexServerConfig, Reader, Reply, Request, Writer};
use zerobuffer::{BufferConfig, ChannelKind, Client, ClientConfig, Error, ErrorKind};

/// A Python reader deletes every lock file that nobody holds, and what it takes for orphaned (section
/// 6.4 "Stale scan of the peers"): tests that look at leftovers run alone, all others together.
static SCAN: RwLock<()> = RwLock::new(());

/// A client of two buffers.
fn connect(name: &str) -> zerobuffer::Result<Client> {
    connect_for(name, LONG)
}

fn connect_for(name: &str, timeout: Duration) -> zerobuffer::Result<Client> {
    let config = ClientConfig::new().channel(ChannelKind::TwoBuffers);
    Client::connect_with(name, timeout, config)
}

fn together() -> RwLockReadGuard<'static, ()> {
    SCAN.read().unwrap_or_else(|poison| poison.into_inner())
}

fn alone() -> RwLockWriteGuard<'static, ()> {
    SCAN.write().unwrap_or_else(|poison| poison.into_inner())
}

fn python(role: &str, arguments: &[&str]) -> Peer {
    let interpreter = std::env::var("ZEROBUFFER_V1_PYTHON").expect(
        "ZEROBUFFER_V1_PYTHON does not name a Python with the version 1 peer: run `cargo xtask test`",
    );
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/python/v1_peer.py");
    let mut peer =
        Peer::spawn(std::process::Command::new(interpreter).arg(script).arg(role).args(arguments));
    peer.expect("ready");
    peer
}

fn their_writer(name: &str) -> Peer {
    let mut peer = python("writer", &[name]);
    assert_eq!(peer.reply("connect"), "ok");
    peer
}

fn their_reader(name: &str, metadata: usize, payload: usize) -> Peer {
    let mut peer = python("reader", &[name, &metadata.to_string(), &payload.to_string()]);
    assert_eq!(peer.reply("create"), "ok");
    peer
}

/// Closes their reader; it leaves its two semaphores and nothing else (rule L5, a fault of the peer).
fn close_reader(mut peer: Peer, name: &Unique) {
    assert_eq!(peer.reply("close"), "ok");
    assert_eq!(name.traces().len(), 2, "{:?}", name.traces());
    assert_eq!(name.remove_python_semaphores(), 2);
}

fn our_reader(name: &str, metadata: usize, payload: usize) -> Reader {
    Reader::create(name, BufferConfig::new(metadata, payload)).unwrap()
}

fn our_writer(name: &str) -> Writer {
    Writer::connect(name, LONG).unwrap()
}

/// Byte i of frame `number` is (number + i) mod 256, as the deployed tools have it.
fn pattern(number: u64, size: usize) -> Vec<u8> {
    (0..size as u64).map(|index| (number + index) as u8).collect()
}

fn write(writer: &mut Writer, size: usize) -> zerobuffer::Result<u64> {
    writer.write_frame(&pattern(writer.next_sequence(), size))
}

/// Reads a frame, and checks every byte.
fn read(reader: &Reader) -> (u64, usize) {
    let frame = reader.read_frame(LONG).unwrap();
    assert!(frame.data() == pattern(frame.sequence(), frame.len()), "frame {}", frame.sequence());
    (frame.sequence(), frame.len())
}

#[test]
fn s1_1_metadata_and_a_frame_our_writer_their_reader() {
    let _scan = together();
    let name = Unique::new("s1-1a");
    let mut reader = their_reader(&name, 1024, 10240);
    let mut writer = our_writer(&name);
    assert_eq!(reader.reply("metadata"), "none");
    writer.set_metadata(&[b'm'; 100]).unwrap();
    write(&mut writer, 1024).unwrap();
    assert_eq!(reader.reply("read"), "1 1024 good");
    assert_eq!(reader.reply("metadata"), "m".repeat(100));
    drop(writer);
    close_reader(reader, &name);
}

#[test]
fn s1_1_metadata_and_a_frame_their_writer_our_reader() {
    let _scan = together();
    let name = Unique::new("s1-1b");
    let reader = our_reader(&name, 1024, 10240);
    let mut writer = their_writer(&name);
    assert_eq!(writer.reply(&format!("metadata {}", "m".repeat(100))), "ok");
    assert_eq!(writer.reply("write 1024"), "1");
    assert_eq!(read(&reader), (1, 1024));
    assert_eq!(reader.metadata().unwrap().unwrap(), [b'm'; 100]);
    assert_eq!(writer.reply("close"), "ok");
    assert_eq!(reader.read_frame(LONG).unwrap_err().kind(), ErrorKind::PeerClosed);
}

#[test]
fn s1_2_s1_5_frames_of_several_sizes_our_writer_their_reader() {
    let _scan = together();
    let name = Unique::new("s1-5a");
    let mut reader = their_reader(&name, 64, 64 << 10);
    let mut writer = our_writer(&name);
    for (index, size) in [100, 1024, 10240, 1].into_iter().enumerate() {
        assert_eq!(write(&mut writer, size).unwrap(), index as u64 + 1);
    }
    assert_eq!(tokens(&name, 'w'), 4, "scenario 4.2");
    for (index, size) in [100, 1024, 10240, 1].into_iter().enumerate() {
        assert_eq!(reader.reply("read"), format!("{} {size} good", index + 1));
    }
    drop(writer);
    close_reader(reader, &name);
}

#[test]
fn s1_2_s1_5_frames_of_several_sizes_their_writer_our_reader() {
    let _scan = together();
    let name = Unique::new("s1-5b");
    let reader = our_reader(&name, 64, 64 << 10);
    let mut writer = their_writer(&name);
    for size in [100, 1024, 10240, 1] {
        writer.reply(&format!("write {size}"));
    }
    assert_eq!(tokens(&name, 'w'), 4, "scenario 4.2");
    for (index, size) in [100, 1024, 10240, 1].into_iter().enumerate() {
        assert_eq!(read(&reader), (index as u64 + 1, size));
    }
}

#[test]
fn s1_3_s4_10_a_full_ring_our_writer_their_reader() {
    let _scan = together();
    let name = Unique::new("s1-3a");
    let mut reader = their_reader(&name, 64, 10240);
    let mut writer = our_writer(&name);
    writer.set_write_timeout(Duration::from_millis(100));
    while write(&mut writer, 1008).is_ok() {}
    assert_eq!(writer.statistics().frames, 10);
    assert_eq!(write(&mut writer, 1008).unwrap_err().kind(), ErrorKind::Full);
    let error = Writer::connect(&name, Duration::ZERO).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Busy);
    assert_eq!(reader.reply("read"), "1 1008 good");
    assert_eq!(write(&mut writer, 1008).unwrap(), 11);
    drop(writer);
    close_reader(reader, &name);
}

#[test]
fn s1_3_s4_10_a_full_ring_their_writer_our_reader() {
    let _scan = together();
    let name = Unique::new("s1-3b");
    let reader = our_reader(&name, 64, 10240);
    let mut writer = their_writer(&name);
    writer.reply("timeout 0.1");
    assert_eq!(writer.reply("fill 1008"), "10 BufferFullException");
    let mut second = python("writer", &[&name]);
    // Our buffer stays theirs: the second one gives up after its ten seconds; it is not waited for.
    second.say("connect");
    assert_eq!(read(&reader), (1, 1008));
    assert_eq!(writer.reply("write 1008"), "11");
    assert_eq!(peek(&name, field::WRITER_PID), writer.pid() as u64);
}

#[test]
fn s1_4_a_frame_written_in_place_our_writer_their_reader() {
    let _scan = together();
    let name = Unique::new("s1-4a");
    let mut reader = their_reader(&name, 64, 10240);
    let mut writer = our_writer(&name);
    // Rule R14: one that is dropped leaves no gap that their reader would fail on.
    writer.acquire(5000).unwrap().data_mut().fill(0xff);
    let mut buffer = writer.acquire(4096).unwrap();
    buffer.data_mut().copy_from_slice(&pattern(1, 4096));
    buffer.commit().unwrap();
    assert_eq!(reader.reply("read"), "1 4096 good");
    drop(writer);
    close_reader(reader, &name);
}

#[test]
fn s1_4_a_frame_written_in_place_their_writer_our_reader() {
    let _scan = together();
    let name = Unique::new("s1-4b");
    let reader = our_reader(&name, 64, 10240);
    let mut writer = their_writer(&name);
    assert_eq!(writer.reply("acquire 4096"), "1");
    assert_eq!(read(&reader), (1, 4096));
}

#[test]
fn s1_6_s4_5_a_slow_reader_our_writer_their_reader() {
    let _scan = together();
    let name = Unique::new("s1-6a");
    let mut reader = their_reader(&name, 64, 1024);
    let mut writer = our_writer(&name);
    std::thread::scope(|scope| {
        scope.spawn(move || (0..100).for_each(|_| assert!(write(&mut writer, 400).is_ok())));
        for sequence in 1..=100 {
            assert_eq!(reader.reply("read"), format!("{sequence} 400 good"));
            std::thread::sleep(Duration::from_millis(5));
        }
    });
    close_reader(reader, &name);
}

#[test]
fn s1_6_s4_5_a_slow_reader_their_writer_our_reader() {
    let _scan = together();
    let name = Unique::new("s1-6b");
    let reader = our_reader(&name, 64, 1024);
    let mut writer = their_writer(&name);
    writer.say("many 100 400");
    for sequence in 1..=100 {
        assert_eq!(read(&reader), (sequence, 400));
        std::thread::sleep(Duration::from_millis(5));
    }
    assert!(writer.hear().parse::<f64>().is_ok());
}

#[test]
fn s1_7_five_thousand_frames_our_writer_their_reader() {
    let _scan = together();
    let name = Unique::new("s1-7a");
    let mut reader = their_reader(&name, 64, 10240);
    let mut writer = our_writer(&name);
    reader.say("many 5000");
    for _ in 0..5000 {
        write(&mut writer, 1024).unwrap();
    }
    assert!(reader.hear().parse::<f64>().is_ok());
    assert_eq!(peek(&name, field::FREE), 10240);
    assert_eq!(peek(&name, field::READ_COUNT), peek(&name, field::WRITTEN_COUNT), "rule R9");
    assert!(tokens(&name, 'r') <= 10, "rule R12: their reader's tokens are kept few");
    drop(writer);
    close_reader(reader, &name);
}

#[test]
fn s1_7_five_thousand_frames_their_writer_our_reader() {
    let _scan = together();
    let name = Unique::new("s1-7b");
    let reader = our_reader(&name, 64, 10240);
    let mut writer = their_writer(&name);
    writer.say("many 5000 1024");
    for sequence in 1..=5000 {
        assert_eq!(read(&reader), (sequence, 1024));
    }
    assert!(writer.hear().parse::<f64>().is_ok());
    assert_eq!(peek(&name, field::FREE), 10240);
    // A writer that loses its CPU between account and token makes one of each.
    let statistics = reader.statistics();
    assert_eq!(statistics.spurious_tokens, statistics.missing_tokens);
}

#[test]
fn s4_9_ten_thousand_frames_our_writer_their_reader() {
    let _scan = together();
    let name = Unique::new("s4-9a");
    let mut reader = their_reader(&name, 64, 1 << 20);
    let mut writer = our_writer(&name);
    reader.say("many 10000");
    for _ in 0..10000 {
        write(&mut writer, 1024).unwrap();
    }
    assert!(reader.hear().parse::<f64>().is_ok());
    drop(writer);
    close_reader(reader, &name);
}

#[test]
fn s4_9_ten_thousand_frames_their_writer_our_reader() {
    let _scan = together();
    let name = Unique::new("s4-9b");
    let reader = our_reader(&name, 64, 1 << 20);
    let mut writer = their_writer(&name);
    writer.say("many 10000 1024");
    for sequence in 1..=10000 {
        assert_eq!(read(&reader), (sequence, 1024));
    }
    assert!(writer.hear().parse::<f64>().is_ok());
}

#[test]
fn s2_1_s10_4_a_killed_writer_our_writer_their_reader() {
    let _scan = alone();
    let name = Unique::new("s2-1a");
    let mut reader = their_reader(&name, 64, 10240);
    let mut writer = our_writer(&name);
    write(&mut writer, 100).unwrap();
    // What a kill leaves: a dead process's id.
    poke(&name, field::WRITER_PID, 1 << 30);
    drop(writer);
    assert_eq!(reader.reply("read"), "1 100 good");
    assert_eq!(reader.reply("read 0.2").split(' ').next(), Some("!WriterDeadException"));
    close_reader(reader, &name);
}

#[test]
fn s2_1_s10_4_a_killed_writer_their_writer_our_reader() {
    let _scan = alone();
    let name = Unique::new("s2-1b");
    let reader = our_reader(&name, 64, 10240);
    let mut writer = their_writer(&name);
    writer.reply("write 100");
    writer.kill_unburied();
    assert_eq!(read(&reader), (1, 100));
    let start = Instant::now();
    assert_eq!(reader.read_frame(LONG).unwrap_err().kind(), ErrorKind::PeerDied);
    assert!(start.elapsed() < Duration::from_secs(1), "a Python reader takes its whole timeout");
    assert_eq!(peek(&name, field::WRITER_PID), 0, "rule L8");
}

#[test]
fn s2_2_s10_3_a_killed_reader_with_a_full_ring_our_writer_their_reader() {
    let _scan = alone();
    let name = Unique::new("s2-2a");
    let mut reader = their_reader(&name, 64, 10240);
    let mut writer = our_writer(&name);
    writer.set_write_timeout(LONG);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            until("a full ring", || peek(&name, field::FREE) == 0);
            reader.kill_unburied();
        });
        let error = loop {
            if let Err(error) = write(&mut writer, 1008) {
                break error;
            }
        };
        assert_eq!(error.kind(), ErrorKind::PeerDied);
    });
    drop(writer);
    assert!(zerobuffer::v1::remove_leftovers(&name).unwrap());
}

#[test]
fn s2_2_s10_3_a_killed_reader_with_a_full_ring_their_writer_our_reader() {
    let _scan = alone();
    let name = Unique::new("s2-2b");
    let reader = our_reader(&name, 64, 10240);
    let mut writer = their_writer(&name);
    writer.reply("timeout 0.3");
    assert_eq!(writer.reply("fill 1008"), "10 BufferFullException");
    poke(&name, field::READER_PID, 1 << 30);
    assert!(writer.reply("write 1008").starts_with("!ReaderDeadException"));
    drop(reader);
    // And a reader that closes in good order.
    let reader = our_reader(&name, 64, 10240);
    let mut writer = their_writer(&name);
    writer.reply("write 100");
    drop(reader);
    assert!(writer.reply("write 100").starts_with("!ReaderDeadException"));
}

/// Their reader crashes with their writer attached; ours replaces it, and their writer reconnects.
#[test]
fn s2_3_s8_4_our_replacement_of_their_crashed_reader() {
    let _scan = alone();
    let name = Unique::new("s2-3a");
    let mut reader = their_reader(&name, 64, 10240);
    let mut writer = their_writer(&name);
    writer.reply("write 100");
    assert_eq!(reader.reply("read"), "1 100 good");
    reader.kill_unburied();
    let replacement = our_reader(&name, 64, 10240);
    // Their writer does not notice that it writes to nobody.
    assert_eq!(writer.reply("write 100"), "2");
    assert!(replacement.read_frame(Duration::from_millis(50)).is_err());
    writer.reply("close");
    assert_eq!(writer.reply("connect"), "ok");
    assert_eq!(writer.reply("write 100"), "1");
    assert_eq!(read(&replacement), (1, 100));
}

/// The same with our writer, which notices (rule P4).
#[test]
fn s2_3_our_writer_notices_a_replaced_reader() {
    let _scan = alone();
    let name = Unique::new("s2-3b");
    let mut reader = their_reader(&name, 64, 10240);
    let mut writer = our_writer(&name);
    write(&mut writer, 100).unwrap();
    reader.kill_unburied();
    let replacement = our_reader(&name, 64, 10240);
    let start = Instant::now();
    until("the notice", || matches!(write(&mut writer, 100), Err(Error::PeerDied { .. })));
    assert!(start.elapsed() < Duration::from_secs(1));
    drop(writer);
    let mut writer = our_writer(&name);
    write(&mut writer, 100).unwrap();
    assert_eq!(read(&replacement), (1, 100));
}

/// Rule L10, a fault of the peer: a Python reader replaces ours only if no writer was there when it
/// looked first; otherwise it fails, and goes on failing when the writer has gone.
#[test]
fn l10_their_replacement_of_our_crashed_reader() {
    let _scan = alone();
    for writer_stays in [false, true] {
        let name = Unique::new("l10");
        let segment = format!("/dev/shm/{}", &*name);
        let kept = format!("{segment}.kept");
        let reader = our_reader(&name, 64, 10240);
        let writer = writer_stays.then(|| our_writer(&name));
        // What a kill leaves: the segment with a dead id, the semaphores, and unlocked lock files.
        std::fs::hard_link(&segment, &kept).unwrap();
        drop(reader);
        std::fs::rename(&kept, &segment).unwrap();
        poke(&name, field::READER_PID, 1 << 30);
        std::fs::write(format!("/tmp/zerobuffer/{}.lock", &*name), "").unwrap();
        let mut replacement = python("reader", &[&name, "64", "10240"]);
        if writer_stays {
            assert!(replacement.reply("create").contains("already exists"));
            drop(writer);
            assert!(replacement.reply("create").contains("already exists"));
            // Ours does not mind.
            drop(our_reader(&name, 64, 10240));
            assert!(name.traces().is_empty());
        } else {
            assert_eq!(replacement.reply("create"), "ok");
            close_reader(replacement, &name);
        }
    }
}

#[test]
fn s2_4_a_second_writer_is_refused_both_ways() {
    let _scan = together();
    let name = Unique::new("s2-4");
    let reader = our_reader(&name, 64, 10240);
    let mut theirs = their_writer(&name);
    assert_eq!(Writer::connect(&name, Duration::ZERO).unwrap_err().kind(), ErrorKind::Busy);
    theirs.reply("close");
    let ours = our_writer(&name);
    theirs.say("connect");
    std::thread::sleep(Duration::from_millis(100));
    assert_eq!(peek(&name, field::WRITER_PID), u64::from(std::process::id()));
    drop(ours);
    theirs.expect("ok");
    drop(reader);
}

#[test]
fn s3_metadata_rules_our_writer_their_reader() {
    let _scan = together();
    let name = Unique::new("s3a");
    let mut reader = their_reader(&name, 100, 10240);
    let mut writer = our_writer(&name);
    // 3.2, with the block's aligned size.
    assert!(matches!(writer.set_metadata(&[1; 121]), Err(Error::TooLarge { max: 120, .. })));
    // 3.3: none of no bytes, on which their reader fails.
    assert_eq!(writer.set_metadata(&[]).unwrap_err().kind(), ErrorKind::EmptyFrame);
    writer.set_metadata(b"once").unwrap();
    // 3.1, by this writer and by the next one of either kind.
    assert_eq!(writer.set_metadata(b"x").unwrap_err().kind(), ErrorKind::MetadataAlreadyWritten);
    assert_eq!(reader.reply("metadata"), "once");
    drop(writer);
    let mut theirs = their_writer(&name);
    assert!(theirs.reply("metadata x").starts_with("!MetadataAlreadyWrittenException"));
    theirs.reply("close");
    close_reader(reader, &name);
}

#[test]
fn s3_metadata_rules_their_writer_our_reader() {
    let _scan = together();
    let name = Unique::new("s3b");
    let reader = our_reader(&name, 100, 10240);
    let mut writer = their_writer(&name);
    assert!(writer.reply(&format!("metadata {}", "m".repeat(121))).starts_with("!ZeroBuffer"));
    assert_eq!(writer.reply("metadata once"), "ok");
    assert!(writer.reply("metadata x").starts_with("!MetadataAlreadyWrittenException"));
    assert_eq!(reader.metadata().unwrap().unwrap(), b"once");
    writer.reply("close");
    let mut ours = our_writer(&name);
    assert_eq!(ours.set_metadata(b"x").unwrap_err().kind(), ErrorKind::MetadataAlreadyWritten);
    drop((ours, reader));
    // 3.3: they accept no bytes; our reader returns none.
    let reader = our_reader(&name, 100, 10240);
    assert_eq!(writer.reply("connect"), "ok");
    assert_eq!(writer.reply("metadata"), "ok");
    assert_eq!(reader.metadata().unwrap().unwrap(), b"");
}

#[test]
fn s4_1_large_small_large_both_ways() {
    let _scan = together();
    let name = Unique::new("s4-1a");
    let sizes = [9216 - 16, 1, 9216 - 16];
    let mut reader = their_reader(&name, 64, 10240);
    let mut writer = our_writer(&name);
    for (index, size) in sizes.into_iter().enumerate() {
        write(&mut writer, size).unwrap();
        assert_eq!(reader.reply("read"), format!("{} {size} good", index + 1));
    }
    drop(writer);
    close_reader(reader, &name);

    let name = Unique::new("s4-1b");
    let reader = our_reader(&name, 64, 10240);
    let mut writer = their_writer(&name);
    for (index, size) in sizes.into_iter().enumerate() {
        writer.reply(&format!("write {size}"));
        assert_eq!(read(&reader), (index as u64 + 1, size));
    }
}

/// 4.3: their writer on our buffer without metadata. Their own configuration refuses size 0.
#[test]
fn s4_3_no_metadata_block_their_writer_our_reader() {
    let _scan = together();
    let name = Unique::new("s4-3");
    let reader = our_reader(&name, 0, 10240);
    let mut writer = their_writer(&name);
    assert!(writer.reply("metadata x").starts_with("!ZeroBufferException"));
    assert_eq!(writer.reply("write 100"), "1");
    assert_eq!(read(&reader), (1, 100));
}

#[test]
fn s4_4_s4_7_a_minimal_ring_both_ways() {
    let _scan = together();
    let name = Unique::new("s4-4a");
    let mut reader = their_reader(&name, 64, 64);
    let mut writer = our_writer(&name);
    write(&mut writer, 1).unwrap();
    assert_eq!(peek(&name, field::FREE), 64 - 17);
    assert!(matches!(write(&mut writer, 49), Err(Error::TooLarge { max: 48, .. })));
    assert_eq!(writer.write_frame(&[]).unwrap_err().kind(), ErrorKind::EmptyFrame);
    assert_eq!(reader.reply("read"), "1 1 good");
    drop(writer);
    close_reader(reader, &name);

    let name = Unique::new("s4-4b");
    let reader = our_reader(&name, 64, 64);
    let mut writer = their_writer(&name);
    assert_eq!(writer.reply("write 1"), "1");
    assert!(writer.reply("write 49").starts_with("!FrameTooLargeException"));
    assert!(writer.reply("write 0").starts_with("!InvalidFrameSizeException"));
    assert_eq!(read(&reader), (1, 1));
}

/// 4.6: an exact fit, again and again.
#[test]
fn s4_6_exact_fit_our_writer_their_reader() {
    let _scan = together();
    let name = Unique::new("s4-6a");
    let mut reader = their_reader(&name, 64, 10240);
    let mut writer = our_writer(&name);
    for sequence in 1..=5 {
        write(&mut writer, 10224).unwrap();
        assert_eq!(peek(&name, field::WRITE_POS), 0, "rule R3");
        assert_eq!(reader.reply("read"), format!("{sequence} 10224 good"));
    }
    drop(writer);
    // A Python writer that comes after ours finds a position that it can work with.
    let mut theirs = their_writer(&name);
    assert_eq!(theirs.reply("write 100"), "1");
    theirs.reply("close");
    // Its sequence starts at 1 again, on which their reader fails (rule R13, a fault of the peer).
    assert!(reader.reply("read").starts_with("!SequenceError"));
    close_reader(reader, &name);
}

/// Rule R3, a fault of the peer: after an exact fit and a drained ring their `write_frame` fails for
/// good; their `commit_frame` does not.
#[test]
fn s4_6_r3_exact_fit_their_writer_our_reader() {
    let _scan = together();
    let name = Unique::new("s4-6b");
    let reader = our_reader(&name, 64, 10240);
    let mut writer = their_writer(&name);
    for sequence in 1..=3 {
        assert_eq!(writer.reply("acquire 10224"), sequence.to_string());
        assert_eq!(read(&reader), (sequence, 10224));
    }
    assert_eq!(writer.reply("write 10224"), "4");
    assert_eq!(peek(&name, field::WRITE_POS), 10240);
    assert_eq!(read(&reader), (4, 10224));
    for _ in 0..2 {
        assert!(writer.reply("write 100").starts_with("!ValueError Invalid write range"));
    }
    writer.reply("close");
    // Rule R4: our writer takes their position at the end for the beginning, and goes on.
    let mut ours = our_writer(&name);
    assert_eq!(write(&mut ours, 100).unwrap(), 5);
    assert_eq!(read(&reader), (5, 100));
}

/// 4.8 (rule R2): theirs waits in vain, ours says so at once.
#[test]
fn s4_8_r2_a_frame_that_never_fits_both_ways() {
    let _scan = together();
    let name = Unique::new("s4-8");
    let reader = our_reader(&name, 64, 10240);
    let mut writer = their_writer(&name);
    writer.reply("timeout 0.2");
    writer.reply("write 6144");
    assert_eq!(read(&reader), (1, 6144));
    // One stale token, and then its timeout.
    assert!(writer.reply("write 7168").starts_with("!BufferFullException"));
    writer.reply("close");
    let mut ours = our_writer(&name);
    let error = write(&mut ours, 7168).unwrap_err();
    assert!(matches!(error, Error::WouldNeverFit { asked: 7168, max: 6144 }), "{error}");
    assert_eq!(write(&mut ours, 6144).unwrap(), 2);
    assert_eq!(read(&reader), (2, 6144));
}

/// 4.11 (rule L1): theirs and ours keep each other out.
#[test]
fn s4_11_two_readers_for_one_name() {
    let _scan = together();
    let name = Unique::new("s4-11");
    let theirs = their_reader(&name, 64, 10240);
    let error = Reader::create(&name, BufferConfig::new(64, 10240)).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::AlreadyRunning);
    close_reader(theirs, &name);
    let ours = our_reader(&name, 64, 10240);
    let mut theirs = python("reader", &[&name, "64", "10240"]);
    assert!(theirs.reply("create").starts_with("!ZeroBufferException"));
    assert!(ours.is_in_place(), "their try has not touched ours");
    let mut writer = our_writer(&name);
    write(&mut writer, 10).unwrap();
    assert_eq!(read(&ours), (1, 10));
}

#[test]
fn s4_12_a_writer_before_its_reader_both_ways() {
    let _scan = together();
    let name = Unique::new("s4-12");
    let error = Writer::connect(&name, Duration::ZERO).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotRunning);
    let mut theirs = python("writer", &[&name]);
    theirs.say("connect");
    std::thread::sleep(Duration::from_millis(200));
    let reader = our_reader(&name, 64, 10240);
    theirs.expect("ok");
    theirs.reply("close");
    drop(reader);
    std::thread::scope(|scope| {
        let ours = scope.spawn(|| our_writer(&name));
        let reader = their_reader(&name, 64, 10240);
        drop(ours.join().unwrap());
        close_reader(reader, &name);
    });
}

/// 5.1: a corrupted size field makes both kinds of writers refuse, and neither leaves a claim.
#[test]
fn s5_1_a_corrupted_header_is_refused() {
    let _scan = together();
    let name = Unique::new("s5-1");
    let reader = our_reader(&name, 64, 10240);
    let good = peek(&name, field::SIZE_AND_VERSION);
    poke(&name, field::SIZE_AND_VERSION, 64 | 1 << 32);
    assert_eq!(Writer::connect(&name, Duration::ZERO).unwrap_err().kind(), ErrorKind::Incompatible);
    let mut theirs = python("writer", &[&name]);
    theirs.say("connect");
    std::thread::sleep(Duration::from_millis(200));
    assert_eq!(peek(&name, field::WRITER_PID), 0);
    poke(&name, field::SIZE_AND_VERSION, good);
    theirs.expect("ok");
    drop(reader);
}

/// 5.5: a wrap on the wire, theirs and ours alike.
#[test]
fn s5_5_a_wrap_lies_alike_in_shared_memory() {
    let _scan = together();
    let name = Unique::new("s5-5");
    let account = |name: &str| {
        [field::WRITE_POS, field::FREE, field::WRITTEN_COUNT].map(|field| peek(name, field))
    };
    let reader = our_reader(&name, 64, 1024);
    let mut theirs = their_writer(&name);
    theirs.reply("write 908");
    assert_eq!(read(&reader), (1, 908));
    theirs.reply("write 200");
    let (marker, header) = (ring(&name, 924, 16), ring(&name, 0, 16));
    let found = account(&name);
    assert_eq!(read(&reader), (2, 200));
    assert_eq!(peek(&name, field::FREE), 1024);
    drop(reader);

    let reader = our_reader(&name, 64, 1024);
    let mut ours = our_writer(&name);
    write(&mut ours, 908).unwrap();
    assert_eq!(read(&reader), (1, 908));
    write(&mut ours, 200).unwrap();
    assert_eq!((ring(&name, 924, 16), ring(&name, 0, 16)), (marker, header));
    assert_eq!(account(&name), found);
    assert_eq!(found, [216, 1024 - 100 - 216, 3]);
}

/// 5.7: the longest frame of a ring of 100 MiB; one byte more is refused.
#[test]
fn s5_7_the_longest_frame_of_a_large_ring_both_ways() {
    let _scan = together();
    let size = 100 << 20;
    let name = Unique::new("s5-7");
    let mut reader = their_reader(&name, 64, size);
    let mut writer = our_writer(&name);
    assert_eq!(writer.max_frame_size(), size - 16);
    assert_eq!(write(&mut writer, size - 15).unwrap_err().kind(), ErrorKind::TooLarge);
    write(&mut writer, size - 16).unwrap();
    assert_eq!(reader.reply("read"), format!("1 {} good", size - 16));
    drop(writer);
    close_reader(reader, &name);
    let reader = our_reader(&name, 64, size);
    let mut writer = their_writer(&name);
    assert!(writer.reply(&format!("write {}", size - 15)).starts_with("!FrameTooLarge"));
    assert_eq!(writer.reply(&format!("write {}", size - 16)), "1");
    assert_eq!(read(&reader), (1, size - 16));
}

/// 6.1: a gap in the sequence is found by both readers.
#[test]
fn s6_1_a_sequence_gap_is_detected_both_ways() {
    let _scan = together();
    let name = Unique::new("s6-1a");
    let reader = our_reader(&name, 64, 10240);
    let mut writer = their_writer(&name);
    writer.reply("write 100");
    poke(&name, 192 + 8, 4);
    let error = reader.read_frame(LONG).unwrap_err();
    assert!(matches!(error, Error::SequenceGap { expected: 1, found: 4 }), "{error}");
    drop(reader);
    let name = Unique::new("s6-1b");
    let mut reader = their_reader(&name, 64, 10240);
    let mut writer = our_writer(&name);
    write(&mut writer, 100).unwrap();
    poke(&name, 192 + 8, 4);
    assert!(reader.reply("read").starts_with("!SequenceError"));
    drop(writer);
    close_reader(reader, &name);
}

#[test]
fn s6_2_s6_4_a_burst_before_the_reader_wakes_both_ways() {
    let _scan = together();
    let name = Unique::new("s6-2a");
    let mut reader = their_reader(&name, 64, 64 << 10);
    let mut writer = our_writer(&name);
    for _ in 0..50 {
        write(&mut writer, 1024).unwrap();
    }
    assert_eq!(tokens(&name, 'w'), 50);
    assert!(reader.reply("many 50").parse::<f64>().is_ok());
    drop(writer);
    close_reader(reader, &name);
    let name = Unique::new("s6-2b");
    let reader = our_reader(&name, 64, 64 << 10);
    let mut writer = their_writer(&name);
    writer.reply("many 50 1024");
    writer.reply("close");
    for sequence in 1..=50 {
        assert_eq!(read(&reader), (sequence, 1024));
    }
    assert_eq!(reader.read_frame(LONG).unwrap_err().kind(), ErrorKind::PeerClosed);
}

#[test]
fn s7_4_sizes_from_one_byte_to_ten_mebibytes_both_ways() {
    let _scan = together();
    let sizes = [1, 17, 100, 4096, 65_537, 1 << 20, 10 << 20];
    let name = Unique::new("s7-4a");
    let mut reader = their_reader(&name, 64, 32 << 20);
    let mut writer = our_writer(&name);
    for size in sizes {
        let sequence = write(&mut writer, size).unwrap();
        assert_eq!(reader.reply("read"), format!("{sequence} {size} good"));
    }
    drop(writer);
    close_reader(reader, &name);
    let name = Unique::new("s7-4b");
    let reader = our_reader(&name, 64, 32 << 20);
    let mut writer = their_writer(&name);
    for (index, size) in sizes.into_iter().enumerate() {
        writer.reply(&format!("write {size}"));
        assert_eq!(read(&reader), (index as u64 + 1, size));
    }
}

/// 8.1 and 12.3: the names that a buffer has, and which of them go.
#[test]
fn s8_1_s12_3_objects_appear_and_vanish() {
    let _scan = alone();
    let name = Unique::new("s8-1");
    let reader = our_reader(&name, 64, 10240);
    assert_eq!(name.traces().len(), 5);
    drop(reader);
    assert!(name.traces().is_empty());
    let reader = their_reader(&name, 64, 10240);
    assert_eq!(name.traces().len(), 4, "they lock in one folder only (rule L1)");
    close_reader(reader, &name);
}

/// Scenario 8.4, section 6.4 "Stale scan of the peers": their scan at start leaves our live
/// buffers alone, also while ours come and go.
#[test]
fn s8_4_their_scan_leaves_our_live_buffers_alone() {
    let _scan = alone();
    let names: Vec<Unique> = (0..5).map(|_| Unique::new("s8-4")).collect();
    let readers: Vec<Reader> = names.iter().map(|name| our_reader(name, 64, 4096)).collect();
    let theirs = Unique::new("s8-4-theirs");
    let mut scanner = python("reader", &[&theirs, "64", "4096"]);
    let busy = Unique::new("s8-4-busy");
    let stop = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !stop.load(std::sync::atomic::Ordering::Relaxed) {
                let reader = our_reader(&busy, 64, 4096);
                let mut writer = our_writer(&busy);
                write(&mut writer, 10).unwrap();
                assert_eq!(read(&reader), (1, 10));
            }
        });
        let stopping = crate::support::StopAtEnd(&stop);
        for _ in 0..200 {
            assert_eq!(scanner.reply("create"), "ok");
            assert_eq!(scanner.reply("close"), "ok");
        }
        drop(stopping);
    });
    assert!(readers.iter().all(Reader::is_in_place));
    assert_eq!(theirs.remove_python_semaphores(), 2);
}

/// Rules L11 and L12, scenario 11.5: their writer, which claims before it opens the semaphores and
/// does not undo, never meets a half-made buffer of ours.
#[test]
fn s11_5_their_writer_keeps_connecting_while_our_readers_come_and_go() {
    let _scan = together();
    let name = Unique::new("s11-5");
    let mut writer = python("writer", &[&name]);
    writer.say("keep_connecting 1.5");
    let start = Instant::now();
    while start.elapsed() < Duration::from_millis(1600) {
        let reader = our_reader(&name, 64, 4096);
        std::thread::sleep(Duration::from_millis(1));
        drop(reader);
    }
    let heard = writer.hear();
    assert!(heard.parse::<u32>().is_ok_and(|connected| connected > 0), "{heard}");
}

/// 11.1: many buffers one after the other leave nothing.
#[test]
fn s11_1_create_and_destroy_with_their_writer() {
    let _scan = together();
    let name = Unique::new("s11-1");
    let mut writer = python("writer", &[&name]);
    for _ in 0..200 {
        let reader = our_reader(&name, 64, 4096);
        assert_eq!(writer.reply("connect"), "ok");
        writer.reply("write 10");
        assert_eq!(read(&reader), (1, 10));
        writer.reply("close");
        drop(reader);
        assert!(name.traces().is_empty());
    }
}

/// 12.1 and 12.2: the header after each step, ours and theirs alike.
#[test]
fn s12_1_s12_2_header_fields_are_alike() {
    let _scan = together();
    let words = |name: &str| -> Vec<u64> {
        // All but the pids.
        (0..16).filter(|word| *word != 10 && *word != 11).map(|word| peek(name, word * 8)).collect()
    };
    let name = Unique::new("s12-1");
    let mut theirs = Vec::new();
    let mut reader = their_reader(&name, 100, 1000);
    theirs.push(words(&name));
    let mut writer = their_writer(&name);
    writer.reply("metadata hello");
    theirs.push(words(&name));
    writer.reply("write 100");
    theirs.push(words(&name));
    reader.reply("read");
    theirs.push(words(&name));
    writer.reply("close");
    close_reader(reader, &name);

    let mut ours = Vec::new();
    let reader = our_reader(&name, 100, 1000);
    ours.push(words(&name));
    let mut writer = our_writer(&name);
    writer.set_metadata(b"hello").unwrap();
    ours.push(words(&name));
    write(&mut writer, 100).unwrap();
    ours.push(words(&name));
    read(&reader);
    ours.push(words(&name));
    assert_eq!(ours, theirs);
}

/// 12.4 and 8.3: names that are long, dotted, spaced.
#[test]
fn s12_4_s8_3_names_of_every_kind_both_ways() {
    let _scan = together();
    let unique = Unique::new("s12-4");
    let long = format!("{}-{}", &*unique, "x".repeat(244 - unique.len()));
    let uuid = format!("{}-a5e0c1d2-0f7f-4a57-8a53-8a0e0d6f1c2b", &*unique);
    for name in [long, uuid, format!("{}.dotted.name", &*unique)] {
        let reader = our_reader(&name, 64, 1024);
        let mut writer = their_writer(&name);
        writer.reply("write 10");
        assert_eq!(read(&reader), (1, 10));
        drop((reader, writer));
        let mut reader = their_reader(&name, 64, 1024);
        let mut writer = our_writer(&name);
        write(&mut writer, 10).unwrap();
        assert_eq!(reader.reply("read"), "1 10 good");
        drop(writer);
        reader.reply("close");
        assert_eq!(unique.remove_python_semaphores(), 2);
    }
}

/// Rule R1 against their reader: whatever lengths come, our writer leaves no tail that it fails on.
#[test]
fn r1_short_tails_are_avoided_our_writer_their_reader() {
    let _scan = together();
    let name = Unique::new("r1a");
    let mut reader = their_reader(&name, 64, 1024);
    let mut writer = our_writer(&name);
    let (mut count, mut wraps) = (0, 0);
    for rest in 1..16 {
        // A frame that would end `rest` bytes before the end of the ring.
        let to_end = 1024 - peek(&name, field::WRITE_POS) as usize;
        if to_end > 16 + rest && write(&mut writer, to_end - 16 - rest).is_ok() {
            count += 1;
            assert!(reader.reply("read").ends_with("good"), "rest {rest}");
            let left = 1024 - peek(&name, field::WRITE_POS);
            assert!(left >= 16, "rest {rest} left {left}");
            wraps += u64::from(writer.statistics().wraps > wraps);
        }
        write(&mut writer, 300).unwrap();
        count += 1;
        assert!(reader.reply("read").ends_with("good"));
    }
    assert!(count > 15);
    drop(writer);
    close_reader(reader, &name);
}

/// Rule R1 against their writer: it leaves such tails, skips them without a word, and our reader goes
/// with it; a reader of theirs would fail.
#[test]
fn r1_short_tails_are_passed_their_writer_our_reader() {
    let _scan = together();
    for rest in [1, 8, 15] {
        let name = Unique::new("r1b");
        let reader = our_reader(&name, 64, 1024);
        let mut writer = their_writer(&name);
        for lap in 0..3 {
            writer.reply("write 100");
            assert_eq!(read(&reader).1, 100);
            writer.reply(&format!("tail {rest}"));
            assert_eq!(1024 - peek(&name, field::WRITE_POS), rest, "lap {lap}");
            read(&reader);
        }
        writer.reply("write 50");
        read(&reader);
        assert_eq!(peek(&name, field::FREE), 1024);
        // Rule R9, a fault of the peer: it counts a marker that it has not written.
        assert_eq!(peek(&name, field::WRITTEN_COUNT) - peek(&name, field::READ_COUNT), 3);
    }
    let name = Unique::new("r1c");
    let mut reader = their_reader(&name, 64, 1024);
    let mut writer = their_writer(&name);
    writer.reply("tail 8");
    assert!(reader.reply("read").ends_with("good"));
    writer.reply("write 50");
    assert!(reader.reply("read").starts_with('!'), "a fault of the peer");
    writer.reply("close");
    close_reader(reader, &name);
}

/// T > P/2 mixed, and everything between, at random: what theirs and ours can carry arrives.
#[test]
fn mixed_sizes_around_half_of_the_ring_both_ways() {
    let _scan = together();
    let sizes: Vec<usize> = (0..300_u64).map(|n| 1 + (n * 7919 % 2024) as usize).collect();
    let name = Unique::new("mixed-a");
    let mut reader = their_reader(&name, 64, 4096);
    let mut writer = our_writer(&name);
    for size in &sizes {
        let sequence = write(&mut writer, *size).unwrap();
        assert_eq!(reader.reply("read"), format!("{sequence} {size} good"));
    }
    drop(writer);
    close_reader(reader, &name);
    let name = Unique::new("mixed-b");
    let reader = our_reader(&name, 64, 4096);
    let mut writer = their_writer(&name);
    for (index, size) in sizes.iter().enumerate() {
        let heard = writer.reply(&format!("write {size}"));
        // An exact fit that meets a drained ring would end it (rule R3); none is among these.
        assert_eq!(heard, (index + 1).to_string());
        assert_eq!(read(&reader), (index as u64 + 1, *size));
    }
}

/// Rule R12: a crowd of tokens near the overflow hurts neither side.
#[test]
fn r12_a_crowd_of_space_tokens_both_ways() {
    let _scan = together();
    let name = Unique::new("r12a");
    let reader = our_reader(&name, 64, 10240);
    let mut writer = their_writer(&name);
    set_tokens(&name, 'r', i32::MAX as u32);
    writer.reply("many 5 100");
    (1..=5).for_each(|sequence| assert_eq!(read(&reader), (sequence, 100)));
    assert_eq!(tokens(&name, 'r'), i32::MAX as u32, "our reader adds nothing");
    drop(reader);
    let name = Unique::new("r12b");
    let mut reader = their_reader(&name, 64, 10240);
    let mut writer = our_writer(&name);
    set_tokens(&name, 'r', i32::MAX as u32);
    for sequence in 1..=50 {
        write(&mut writer, 1000).unwrap();
        assert_eq!(reader.reply("read"), format!("{sequence} 1000 good"));
    }
    drop(writer);
    close_reader(reader, &name);
}

/// Rule L5: leftovers of theirs do not disturb ours, and ours theirs.
#[test]
fn l5_leftover_semaphores_with_tokens_are_replaced() {
    let _scan = together();
    let name = Unique::new("l5");
    let mut reader = their_reader(&name, 64, 10240);
    let mut writer = our_writer(&name);
    for _ in 0..3 {
        write(&mut writer, 10).unwrap();
    }
    drop(writer);
    reader.reply("close");
    assert_eq!(tokens(&name, 'w'), 3, "their tokens outlive their buffer");
    let ours = our_reader(&name, 64, 10240);
    assert_eq!((tokens(&name, 'w'), tokens(&name, 'r')), (0, 0));
    let error = ours.read_frame(Duration::ZERO).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotConnectedYet);
    drop(ours);
    assert!(name.traces().is_empty(), "ours removes what theirs has left");
    assert_eq!(reader.reply("create"), "ok");
    close_reader(reader, &name);
}

/// Rule R6: frames held out of order by our reader stay whole under their writer.
#[test]
fn r6_frames_held_out_of_order_their_writer_our_reader() {
    let _scan = together();
    let name = Unique::new("r6a");
    let reader = our_reader(&name, 64, 1024);
    let mut writer = their_writer(&name);
    writer.reply("timeout 0.1");
    // Not by `write`, whose exact fits are the end of it (rule R3).
    writer.reply("acquire 496");
    writer.reply("acquire 496");
    let first = reader.read_frame(LONG).unwrap();
    drop(reader.read_frame(LONG).unwrap());
    assert!(writer.reply("acquire 496").starts_with("!BufferFullException"));
    assert!(first.data() == pattern(1, 496));
    drop(first);
    assert_eq!(writer.reply("acquire 496"), "3");
    assert_eq!(read(&reader), (3, 496));
}

/// Rule R7, a fault of the peer: a second frame read before the first is released leaks the first
/// one's space, which our writer can only see as a full ring.
#[test]
fn r7_their_reader_leaks_the_space_of_a_held_frame() {
    let _scan = together();
    let name = Unique::new("r7");
    let mut reader = their_reader(&name, 64, 1024);
    let mut writer = our_writer(&name);
    writer.set_write_timeout(Duration::from_millis(100));
    write(&mut writer, 496).unwrap();
    write(&mut writer, 496).unwrap();
    reader.reply("hold");
    reader.reply("hold");
    reader.reply("release 0");
    reader.reply("release 0");
    assert_eq!(peek(&name, field::FREE), 512);
    assert_eq!(write(&mut writer, 496).unwrap(), 3);
    assert_eq!(write(&mut writer, 496).unwrap_err().kind(), ErrorKind::Full);
    drop(writer);
    close_reader(reader, &name);
}

/// Rule R13: our second writer goes on with the sequence, so that their reader stays content; their
/// second writer starts at 1 again, which our reader accepts and reports.
#[test]
fn r13_a_writer_after_a_writer_both_ways() {
    let _scan = together();
    let name = Unique::new("r13a");
    let mut reader = their_reader(&name, 64, 1024);
    for round in 0..10_u64 {
        let mut writer = our_writer(&name);
        for index in 1..=3 {
            assert_eq!(write(&mut writer, 100).unwrap(), round * 3 + index);
        }
        drop(writer);
        // In turn: two stay unread for the next writer to find, and all are read.
        let reads = if round % 2 == 0 { 1 } else { 5 };
        for _ in 0..reads {
            assert!(reader.reply("read").ends_with("good"), "round {round}");
        }
    }
    close_reader(reader, &name);
    let name = Unique::new("r13b");
    let reader = our_reader(&name, 64, 1024);
    let mut writer = their_writer(&name);
    for round in 0..5 {
        if round > 0 {
            assert_eq!(writer.reply("connect"), "ok");
        }
        writer.reply("many 3 100");
        writer.reply("close");
        for sequence in 1..=3 {
            let frame = reader.read_frame(LONG).unwrap();
            assert_eq!((frame.sequence(), frame.is_first()), (sequence, sequence == 1));
        }
    }
    assert_eq!(reader.statistics().restarts, 4);
}

/// Rule T5, a fault of the peer: their reader takes a writer that never came for a dead one; ours
/// tells the two apart.
#[test]
fn t5_no_writer_yet_is_told_apart() {
    let _scan = together();
    let name = Unique::new("t5");
    let mut theirs = their_reader(&name, 64, 1024);
    assert!(theirs.reply("read 0.05").starts_with("!WriterDeadException"));
    close_reader(theirs, &name);
    let ours = our_reader(&name, 64, 1024);
    let error = ours.read_frame(Duration::from_millis(50)).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotConnectedYet);
}

// ---- duplex ----

fn our_server(channel: &str) -> DuplexServer {
    let mut server = DuplexServer::create(channel, BufferConfig::new(4096, 1 << 20)).unwrap();
    server
        .start_immutable(|request: &Request, reply: &mut Reply| reply.write(request.data()))
        .unwrap();
    server
}

fn their_client(channel: &str) -> Peer {
    let mut peer = python("client", &[channel]);
    assert_eq!(peer.reply("connect"), "ok");
    peer
}

/// Their client closes: its response buffer's semaphores stay (rule L5).
fn close_client(mut peer: Peer, channel: &Unique) {
    assert_eq!(peer.reply("close"), "ok");
    assert_eq!(channel.remove_response_semaphores(), 2);
}

impl Unique {
    fn remove_response_semaphores(&self) -> usize {
        let traces = self.traces().into_iter();
        let left = traces.filter(|path| path.contains("/sem.") && path.ends_with("_response"));
        left.map(|path| std::fs::remove_file(path).unwrap()).count()
    }
}

fn stop_server(mut peer: Peer, channel: &Unique) {
    assert_eq!(peer.reply("stop"), "ok");
    assert_eq!(channel.remove_python_semaphores(), 2);
}

#[test]
fn s13_1_s13_7_echoes_and_zero_copy_their_client_our_server() {
    let _scan = together();
    let name = Unique::new("s13-1a");
    let mut server = our_server(&name);
    let mut client = their_client(&name);
    until("the connection", || client.reply("connected") == "True");
    for size in [1, 1024, 102_400] {
        assert_eq!(client.reply(&format!("echo {size}")), "good");
    }
    assert_eq!(client.reply("zero_copy in-place"), "4 in-place");
    close_client(client, &name);
    server.stop().unwrap();
}

#[test]
fn s13_1_s13_7_echoes_and_zero_copy_our_client_their_server() {
    let _scan = together();
    let name = Unique::new("s13-1b");
    let server = python("server", &[&name, "echo"]);
    let mut client = connect(&name).unwrap();
    assert!(client.is_server_connected());
    for size in [1, 1024, 102_400] {
        let bytes = pattern(size as u64, size);
        assert!(client.call(&bytes, LONG).unwrap().data() == bytes);
    }
    let mut buffer = client.acquire_request_buffer(8).unwrap();
    buffer.data_mut().copy_from_slice(b"in-place");
    assert_eq!(buffer.commit().unwrap(), 4);
    let response = client.receive_response(LONG).unwrap();
    assert_eq!((response.sequence(), response.data()), (4, &b"in-place"[..]));
    drop(response);
    drop(client);
    stop_server(server, &name);
}

#[test]
fn s13_2_s13_3_requests_in_flight_keep_their_order_both_ways() {
    let _scan = together();
    let name = Unique::new("s13-2a");
    let server = our_server(&name);
    let mut client = their_client(&name);
    for _ in 0..20 {
        assert_eq!(client.reply("pipeline 20"), "in order");
    }
    close_client(client, &name);
    drop(server);
    let name = Unique::new("s13-2b");
    let server = python("server", &[&name, "echo"]);
    let client = connect(&name).unwrap();
    for round in 0..20_u64 {
        let sent: Vec<u64> = (0..20)
            .map(|index| client.send_request(&(round * 20 + index).to_le_bytes()).unwrap())
            .collect();
        for (index, sequence) in sent.into_iter().enumerate() {
            let response = client.receive_response(LONG).unwrap();
            assert_eq!(response.sequence(), sequence);
            assert_eq!(response.data(), (round * 20 + index as u64).to_le_bytes());
        }
    }
    drop(client);
    stop_server(server, &name);
}

#[test]
fn s13_4_a_slow_handler_both_ways() {
    let _scan = together();
    let name = Unique::new("s13-4a");
    let mut server = DuplexServer::create(&name, BufferConfig::default()).unwrap();
    server.start_mutable(|_: &mut Draft| std::thread::sleep(Duration::from_millis(100))).unwrap();
    let mut client = their_client(&name);
    let start = Instant::now();
    for sequence in 1..=3 {
        assert_eq!(client.reply("call slow"), format!("{sequence} slow"));
    }
    assert!(start.elapsed() >= Duration::from_millis(300));
    close_client(client, &name);
    drop(server);
    let name = Unique::new("s13-4b");
    let server = python("server", &[&name, "slow"]);
    let mut client = connect(&name).unwrap();
    let start = Instant::now();
    for _ in 0..3 {
        assert_eq!(client.call(b"slow", LONG).unwrap().data(), b"slow");
    }
    assert!(start.elapsed() >= Duration::from_millis(300));
    drop(client);
    stop_server(server, &name);
}

#[test]
fn s13_5_a_server_that_dies_in_its_handler_our_client_their_server() {
    let _scan = alone();
    let name = Unique::new("s13-5");
    let server = python("server", &[&name, "echo"]);
    let mut client = connect(&name).unwrap();
    assert_eq!(client.call(b"live", LONG).unwrap().data(), b"live");
    let start = Instant::now();
    let error = client.call(b"die", LONG).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::PeerDied);
    assert_eq!(error.lost_request().unwrap().sequence, 2);
    assert!(start.elapsed() < Duration::from_secs(2));
    assert!(!client.is_server_connected());
    drop(server);
    drop(client);
    assert!(zerobuffer::v1::remove_leftovers(&format!("{}_request", &*name)).unwrap());
}

/// 13.5 the other way: our server stops; their client sees it on the next call.
#[test]
fn s13_5_s13_10_our_server_stops_their_client_notices() {
    let _scan = together();
    let name = Unique::new("s13-10");
    let mut server = our_server(&name);
    let mut client = their_client(&name);
    assert_eq!(client.reply("call one"), "1 one");
    server.stop().unwrap();
    assert_eq!(client.reply("connected"), "False");
    assert!(client.reply("send two").starts_with("!ReaderDeadException"));
    assert!(client.reply("receive 100").starts_with("!WriterDeadException"));
    close_client(client, &name);
    // The name is free again.
    let server = our_server(&name);
    let mut client = their_client(&name);
    assert_eq!(client.reply("call again"), "1 again");
    close_client(client, &name);
    drop(server);
}

#[test]
fn s13_8_xor_both_ways() {
    let _scan = together();
    let name = Unique::new("s13-8a");
    let mut server = DuplexServer::create(&name, BufferConfig::default()).unwrap();
    server
        .start_mutable(|draft: &mut Draft| draft.data_mut().iter_mut().for_each(|byte| *byte ^= 1))
        .unwrap();
    let mut client = their_client(&name);
    assert_eq!(client.reply("call abc"), "1 `cb");
    close_client(client, &name);
    drop(server);
    let name = Unique::new("s13-8b");
    let server = python("server", &[&name, "xor"]);
    let mut client = connect(&name).unwrap();
    let expected: Vec<u8> = pattern(0, 5000).iter().map(|byte| byte ^ 0x55).collect();
    assert!(client.call(&pattern(0, 5000), LONG).unwrap().data() == expected);
    drop(client);
    stop_server(server, &name);
}

/// 13.9: their client dies; our server goes on, and serves the next one, ours or theirs.
#[test]
fn s13_9_x4_clients_die_and_close_on_our_server() {
    let _scan = alone();
    let name = Unique::new("s13-9");
    let server = our_server(&name);
    let mut client = their_client(&name);
    assert_eq!(client.reply("call one"), "1 one");
    client.reply("send left-behind");
    client.kill_and_bury();
    // Its response buffer stays, with its lock unlocked; their next client replaces it once our server
    // has let go of it (rule L10), which takes milliseconds.
    until("the notice", || !server.is_client_connected());
    let mut client = their_client(&name);
    assert_eq!(client.reply("call two"), "1 two");
    close_client(client, &name);
    let mut ours = connect(&name).unwrap();
    assert_eq!(ours.call(b"three", LONG).unwrap().data(), b"three");
    drop(ours);
    let mut client = their_client(&name);
    for count in 1..=100 {
        assert_eq!(client.reply("call four"), format!("{count} four"));
    }
    close_client(client, &name);
    assert!(server.is_running());
    assert_eq!(server.statistics().clients, 4);
}

/// Rule X4, a fault of the peer: one client per start of a Python server. The second one's requests
/// arrive, since ours goes on with the sequence, but the server stays with the first one's response
/// buffer, and soon ends. Our client is told that nobody answers.
#[test]
fn x4_a_second_client_on_their_server() {
    let _scan = alone();
    let name = Unique::new("x4");
    let mut server = python("server", &[&name, "echo", "1"]);
    let mut client = connect(&name).unwrap();
    assert_eq!(client.call(b"first", LONG).unwrap().data(), b"first");
    drop(client);
    let error = connect_for(&name, Duration::from_millis(300)).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotRunning);
    // It ends by itself when its read times out without a client.
    until("the end of their server", || server.reply("running") == "False");
    assert_eq!(server.reply("stop"), "ok");
    assert_eq!(name.remove_python_semaphores(), 2);
    assert!(name.traces().is_empty());
}

/// Rule X1, a fault of the peer: a failing handler sends nothing, and all later responses shift.
/// Pipelined, nobody can tell; one by one, our client delivers nothing wrong and shows it.
#[test]
fn x1_a_failing_handler_of_their_server() {
    let _scan = together();
    let name = Unique::new("x1a");
    let server = python("server", &[&name, "fail-second"]);
    let mut client = connect(&name).unwrap();
    assert_eq!(client.call(b"one", LONG).unwrap().data(), b"one");
    let error = client.call(b"two", Duration::from_millis(200)).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Timeout);
    assert!(client.is_desynchronised());
    // The response to the third is swallowed as the second one's: a timeout, never a wrong answer.
    let error = client.call(b"three", Duration::from_millis(200)).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Timeout);
    assert!(client.is_desynchronised());
    drop(client);
    stop_server(server, &name);
}

/// Rule X1: a handler of theirs that responds twice ends the pairing, and our client says so.
#[test]
fn x1_two_responses_of_their_server() {
    let _scan = together();
    let name = Unique::new("x1b");
    let server = python("server", &[&name, "twice"]);
    let mut client = connect(&name).unwrap();
    assert_eq!(client.call(b"one", LONG).unwrap().data(), b"one");
    until("the second response", || tokens(&format!("{}_response", &*name), 'w') > 0);
    let error = client.send_request(b"two").unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Desynchronised);
    drop(client);
    stop_server(server, &name);
}

/// Rule X1 for our server with their client: a failing handler sends what was configured, and the
/// pairs stay; without that the channel closes, and their client sees it.
#[test]
fn x1_a_failing_handler_of_our_server() {
    let _scan = together();
    let name = Unique::new("x1c");
    let handler = |request: &Request<'_>, reply: &mut Reply<'_>| match request.data() {
        b"fail" => Err("it said so".to_owned()),
        data => reply.write(data).map_err(|error| error.to_string()),
    };
    let config = DuplexServerConfig::new(BufferConfig::default())
        .failure_response(|message| format!("ERROR {message}").into_bytes());
    let mut server = DuplexServer::create(&name, config).unwrap();
    server.start_immutable(handler).unwrap();
    let mut client = their_client(&name);
    assert_eq!(client.reply("call one"), "1 one");
    assert_eq!(client.reply("call fail"), "2 ERROR it said so");
    assert_eq!(client.reply("call three"), "3 three");
    close_client(client, &name);
    drop(server);
    let mut server = DuplexServer::create(&name, BufferConfig::default()).unwrap();
    server.start_immutable(handler).unwrap();
    let mut client = their_client(&name);
    assert_eq!(client.reply("call one"), "1 one");
    assert!(client.reply("call fail").starts_with("!WriterDeadException"));
    assert!(client.reply("call three").starts_with("!ReaderDeadException"));
    close_client(client, &name);
    let mut client = their_client(&name);
    assert_eq!(client.reply("call again"), "1 again");
    close_client(client, &name);
    drop(server);
}

// ---- throughput ----

/// Our pair and theirs, on this machine, in this run: ours is at least as fast.
#[test]
fn twenty_thousand_frames_between_all_pairs_and_their_rates() {
    let _scan = alone();
    const FRAMES: u64 = 20_000;
    const SIZE: usize = 1024;
    const RING: usize = 1 << 20;
    let rate = |seconds: f64| FRAMES as f64 / seconds;

    let name = Unique::new("rate-theirs");
    let mut reader = their_reader(&name, 64, RING);
    let mut writer = their_writer(&name);
    reader.say(&format!("many {FRAMES}"));
    writer.reply(&format!("many {FRAMES} {SIZE}"));
    let theirs = rate(reader.hear().parse().unwrap());
    writer.reply("close");
    close_reader(reader, &name);

    let name = Unique::new("rate-mixed");
    let reader = our_reader(&name, 64, RING);
    let mut writer = their_writer(&name);
    let start = Instant::now();
    writer.say(&format!("many {FRAMES} {SIZE}"));
    (0..FRAMES).for_each(|_| drop(reader.read_frame(LONG).unwrap()));
    let mixed = rate(start.elapsed().as_secs_f64());
    drop((reader, writer));

    let name = Unique::new("rate-ours");
    let reader = our_reader(&name, 64, RING);
    let count = FRAMES.to_string();
    let writer = support::peer("writer", &[&name, &count, &SIZE.to_string()]);
    reader.wait_for_writer(LONG).unwrap();
    let start = Instant::now();
    for sequence in 1..=FRAMES {
        let frame = reader.read_frame(LONG).unwrap();
        assert_eq!((frame.sequence(), frame.len()), (sequence, SIZE));
    }
    let ours = rate(start.elapsed().as_secs_f64());
    writer.finish();
    println!(
        "v1 throughput, frames of {SIZE} B: Python to Python {theirs:.0}/s, Python to us \
         {mixed:.0}/s, us to us {ours:.0}/s ({:.1} times)",
        ours / theirs
    );
}

/// The same for request and response.
#[test]
fn three_thousand_round_trips_of_both_pairs_and_their_rates() {
    let _scan = alone();
    const ROUNDS: u64 = 3000;
    let rate = |seconds: f64| ROUNDS as f64 / seconds;
    let name = Unique::new("trips-theirs");
    let server = python("server", &[&name, "echo"]);
    until("their server", || zerobuffer::v1::is_duplex_server_running(&name).unwrap());
    let mut client = their_client(&name);
    client.reply("call warm-up");
    let theirs = rate(client.reply(&format!("rounds {ROUNDS} 1024")).parse().unwrap());
    client.reply("close");
    drop(server);
    name.remove_python_semaphores();
    let _ = zerobuffer::v1::remove_leftovers(&format!("{}_request", &*name));

    let name = Unique::new("trips-ours");
    let server = our_server(&name);
    let mut client = connect(&name).unwrap();
    let start = Instant::now();
    for _ in 0..ROUNDS {
        assert_eq!(client.call(&[7; 1024], LONG).unwrap().len(), 1024);
    }
    let ours = rate(start.elapsed().as_secs_f64());
    drop((client, server));
    println!(
        "v1 round trips of 1024 B: Python with Python {theirs:.0}/s, us with us {ours:.0}/s \
         ({:.1} times)",
        ours / theirs
    );
}

zerobuffer_test_support::entry!(support::VARIABLE, our_writer_process);

/// Our writer as a process of its own.
fn our_writer_process(description: &str) {
    let words: Vec<&str> = description.lines().collect();
    let [_, name, frames, size] = words.as_slice() else { panic!("{description:?}") };
    let mut writer = our_writer(name);
    let bytes = vec![3; size.parse().unwrap()];
    for _ in 0..frames.parse::<u64>().unwrap() {
        writer.write_frame(&bytes).unwrap();
    }
}
