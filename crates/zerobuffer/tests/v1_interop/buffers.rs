//! Frames, metadata, full rings and deaths: scenarios 1 to 4.

use crate::*;

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
    // Our buffer stays theirs: the second one stops after its ten seconds; it is not waited for.
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
    // And a reader that closes cleanly.
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
/// looked first; otherwise it fails, and continues to fail when the writer has ended.
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
