//! What lies in shared memory, and the rules that no scenario shows: scenarios 4 to 12.

use crate::*;

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
