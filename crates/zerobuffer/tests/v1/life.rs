//! How buffers come and go, and whose they are.

use crate::buffer::{pair, poll};
use crate::support::{LONG, Unique, field, peek, poke, tokens};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::time::Duration;
use zerobuffer::memory::{HeapMemory, MemoryProvider, SharedMemory};
use zerobuffer::v1::{self, Liveness, Reader, ReaderConfig, Writer, WriterConfig};
use zerobuffer::{BufferConfig, Error, ErrorKind};
use zerobuffer_test_support::lock_folders;

/// Rule L5: what a Python reader has left is replaced, whatever its value.
#[test]
fn l5_semaphores_of_another_life_are_never_used_again() {
    let name = Unique::new("old-semaphores");
    drop(Reader::create(&name, BufferConfig::default()).unwrap());
    for which in ['w', 'r'] {
        let mut bytes = [0; 32];
        bytes[0] = 7;
        bytes[8] = 0x80;
        std::fs::write(crate::support::semaphore_path(&name, which), bytes).unwrap();
    }
    let reader = Reader::create(&name, BufferConfig::default()).unwrap();
    assert_eq!((tokens(&name, 'w'), tokens(&name, 'r')), (0, 0));
    drop(reader);
}

/// Rule L4: the names go before the pid, the lock last; and nobody else's are touched.
#[test]
fn l4_closing_touches_only_what_is_ours() {
    let name = Unique::new("close");
    let reader = Reader::create(&name, BufferConfig::default()).unwrap();
    // Somebody replaces the segment, and a semaphore, under a live reader.
    let segment = format!("/dev/shm/{}", &*name);
    std::fs::remove_file(&segment).unwrap();
    std::fs::write(&segment, "foreign").unwrap();
    let semaphore = crate::support::semaphore_path(&name, 'r');
    std::fs::remove_file(&semaphore).unwrap();
    std::fs::write(&semaphore, "foreign").unwrap();
    assert!(!reader.is_in_place());
    drop(reader);
    let mut traces = name.traces();
    traces.sort();
    assert_eq!(traces, [semaphore.clone(), segment.clone()]);
    std::fs::remove_file(segment).unwrap();
    std::fs::remove_file(semaphore).unwrap();
}

/// Rule L12: a try that fails leaves no claim behind.
#[test]
fn l12_a_failed_attach_leaves_no_claim() {
    let name = Unique::new("no-claim");
    let reader = Reader::create(&name, BufferConfig::default()).unwrap();
    for which in ['w', 'r'] {
        let path = crate::support::semaphore_path(&name, which);
        let aside = format!("{path}.aside");
        std::fs::rename(&path, &aside).unwrap();
        let error = Writer::connect(&name, Duration::ZERO).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::NotRunning);
        assert_eq!(peek(&name, field::WRITER_PID), 0);
        std::fs::rename(&aside, &path).unwrap();
    }
    assert!(Writer::connect(&name, Duration::ZERO).is_ok());
    drop(reader);
}

/// Rule L13, scenario 2.4: one writer; and one that was replaced does not go on writing.
#[test]
fn l13_one_writer_at_a_time() {
    let name = Unique::new("one-writer");
    let (reader, mut writer) = pair(&name, 0, 1024);
    let error = Writer::connect(&name, Duration::from_millis(20)).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Busy);
    writer.write_frame(b"mine").unwrap();
    poke(&name, field::WRITER_PID, 1);
    assert_eq!(writer.write_frame(b"no more").unwrap_err().kind(), ErrorKind::Busy);
    drop(writer);
    // Rule P6: the other writer's claim stays.
    assert_eq!(peek(&name, field::WRITER_PID), 1);
    assert_eq!(poll(&reader), b"mine");
    assert_eq!(tokens(&name, 'w'), 0, "rule R10: nothing is posted on closing");
}

/// Rule P6 for the reader.
#[test]
fn p6_a_reader_clears_only_its_own_pid() {
    let name = Unique::new("own-pid");
    let config = BufferConfig::new(0, 1024);
    let mut memory = HeapMemory::new();
    memory.allocate(v1::segment_size(&config).unwrap()).unwrap();
    // SAFETY: the memory is this buffer's alone.
    let reader = unsafe { Reader::create_in(&name, &memory, config.clone()) }.unwrap();
    let view = memory.map(0x58, 8).unwrap();
    // SAFETY: the word lies in memory that is ours, and is aligned.
    let pid = unsafe { std::sync::atomic::AtomicU64::from_ptr(view.as_ptr().cast()) };
    pid.store(1, std::sync::atomic::Ordering::SeqCst);
    drop(reader);
    assert_eq!(pid.load(std::sync::atomic::Ordering::SeqCst), 1);
    // SAFETY: as above; the first reader has ended.
    let reader = unsafe { Reader::create_in(&name, &memory, config) }.unwrap();
    drop(reader);
    assert_eq!(pid.load(std::sync::atomic::Ordering::SeqCst), 0);
}

/// Rule L14: the mode is what was asked for, whatever the umask, and the umask is not touched.
#[test]
fn l14_modes_are_explicit_and_the_umask_is_left_alone() {
    let umask = || {
        let status = std::fs::read_to_string("/proc/self/status").unwrap();
        status.lines().find(|line| line.starts_with("Umask")).map(str::to_owned)
    };
    let before = umask();
    for mode in [0o600, 0o666] {
        let name = Unique::new("mode");
        let config = ReaderConfig::new(BufferConfig::default()).mode(mode);
        let reader = Reader::create(&name, config).unwrap();
        let traces = name.traces();
        assert_eq!(traces.len(), 5, "{traces:?}");
        for path in traces {
            let found = std::fs::metadata(&path).unwrap().permissions().mode() & 0o777;
            assert_eq!(found, mode, "{path}");
        }
        drop(reader);
    }
    assert_eq!(umask(), before);
}

/// Rules L2, L9, L11 and L16, scenario 11.1: at any moment there is no buffer, or all of it.
#[test]
fn l11_a_buffer_appears_whole_a_thousand_times() {
    let name = Unique::new("whole");
    let stop = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        let watcher = scope.spawn(|| {
            let (mut seen, mut without_pid) = (0, 0);
            while !stop.load(std::sync::atomic::Ordering::Relaxed) {
                let Ok(file) = std::fs::File::open(format!("/dev/shm/{}", &*name)) else {
                    continue;
                };
                let mut header = [0; 128];
                std::os::unix::fs::FileExt::read_exact_at(&file, &mut header, 0).unwrap();
                let word = |at: usize| u64::from_le_bytes(header[at..at + 8].try_into().unwrap());
                if word(0x58) == 0 {
                    // Rule L9: a segment without any pid has no name any more.
                    let named = std::fs::metadata(format!("/dev/shm/{}", &*name));
                    let own = file.metadata().unwrap().ino();
                    assert!(named.map_or(true, |named| named.ino() != own));
                    without_pid += 1;
                }
                assert_eq!(word(0), 128 | 1 << 32);
                assert_eq!((word(0x20), word(0x28)), (1024, 1024));
                let metadata = file.metadata().unwrap();
                assert_eq!((metadata.len(), metadata.blocks() > 0), (128 + 64 + 1024, true));
                seen += 1;
            }
            println!("seen {seen} times, {without_pid} times after its end");
            seen
        });
        let stopping = crate::support::StopAtEnd(&stop);
        for _ in 0..1000 {
            let reader = Reader::create(&name, BufferConfig::new(64, 1024)).unwrap();
            assert!(reader.is_in_place());
            let writer = Writer::connect(&name, Duration::ZERO).unwrap();
            drop((writer, reader));
            assert!(name.traces().is_empty());
        }
        drop(stopping);
        assert!(watcher.join().unwrap() > 0);
    });
}

/// Scenario 11.5 and rule L12: a writer that keeps trying meets only "not there" and "busy".
#[test]
fn a_writer_that_keeps_connecting_never_sees_a_half_made_buffer() {
    let name = Unique::new("keeps-trying");
    let stop = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        let connector = scope.spawn(|| {
            let mut connected = 0;
            while !stop.load(std::sync::atomic::Ordering::Relaxed) {
                match Writer::connect(&name, Duration::ZERO) {
                    Ok(mut writer) => {
                        connected += 1;
                        match writer.write_frame(b"frame") {
                            Ok(_) | Err(Error::PeerClosed { .. }) => {}
                            Err(error) => panic!("{error}"),
                        }
                    }
                    Err(error) => assert_eq!(error.kind(), ErrorKind::NotRunning, "{error}"),
                }
            }
            connected
        });
        let stopping = crate::support::StopAtEnd(&stop);
        for _ in 0..300 {
            let reader = Reader::create(&name, BufferConfig::new(64, 1024)).unwrap();
            std::thread::sleep(Duration::from_micros(300));
            drop(reader);
        }
        drop(stopping);
        assert!(connector.join().unwrap() > 0);
    });
}

/// Scenario 4.11 and rule L1: of readers that race for a name exactly one wins.
#[test]
fn one_of_four_racing_readers_wins_each_time() {
    for _ in 0..20 {
        let name = Unique::new("race");
        let barrier = std::sync::Barrier::new(4);
        let winners: Vec<Option<Reader>> = std::thread::scope(|scope| {
            let racers: Vec<_> = (0..4)
                .map(|_| {
                    scope.spawn(|| {
                        barrier.wait();
                        match Reader::create(&name, BufferConfig::new(64, 1024)) {
                            Ok(reader) => Some(reader),
                            Err(Error::AlreadyRunning { .. }) => None,
                            Err(error) => panic!("{error}"),
                        }
                    })
                })
                .collect();
            racers.into_iter().map(|racer| racer.join().unwrap()).collect()
        });
        let winners: Vec<Reader> = winners.into_iter().flatten().collect();
        assert_eq!(winners.len(), 1);
        assert!(winners[0].is_in_place());
        assert!(Writer::connect(&name, Duration::ZERO).is_ok());
    }
}

/// Rule P2: by its lock, a reader is alive although its pid means nothing here.
#[test]
fn p2_a_reader_of_another_pid_namespace_is_known_by_its_lock() {
    let name = Unique::new("namespace");
    let reader = Reader::create(&name, BufferConfig::new(64, 1024)).unwrap();
    let nobody = 1 << 30;
    poke(&name, field::READER_PID, nobody);
    let error = Writer::connect(&name, Duration::ZERO).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotRunning);
    for liveness in [Liveness::Lock, Liveness::None] {
        let config = WriterConfig::new().liveness(liveness);
        let mut writer = Writer::connect_with(&name, Duration::ZERO, config).unwrap();
        writer.write_frame(b"over the wall").unwrap();
        assert!(writer.is_reader_connected());
        assert_eq!(poll(&reader), b"over the wall");
    }
    let config = WriterConfig::new().liveness(Liveness::Lock);
    let writer = Writer::connect_with(&name, Duration::ZERO, config).unwrap();
    // The reader's death frees its locks; its names stay.
    let segment = format!("/dev/shm/{}", &*name);
    std::fs::hard_link(&segment, format!("{segment}.kept")).unwrap();
    drop(reader);
    std::fs::rename(format!("{segment}.kept"), &segment).unwrap();
    poke(&name, field::READER_PID, nobody);
    std::thread::sleep(Duration::from_millis(1100));
    assert!(!writer.is_reader_connected(), "its locks are free");
    drop(writer);
    std::fs::remove_file(segment).unwrap();
}

/// Rule P4: a writer whose buffer was replaced under it stops within a slice.
#[test]
fn p4_a_replaced_buffer_is_noticed() {
    let name = Unique::new("replaced");
    let (reader, mut writer) = pair(&name, 0, 1 << 20);
    writer.write_frame(b"fine").unwrap();
    let segment = format!("/dev/shm/{}", &*name);
    let aside = format!("{segment}.aside");
    std::fs::rename(&segment, &aside).unwrap();
    writer.write_frame(b"a missing name proves nothing").unwrap();
    std::fs::write(&segment, [0; 128]).unwrap();
    assert!(!writer.is_reader_connected());
    crate::support::until("the notice", || {
        matches!(writer.write_frame(b"x"), Err(Error::PeerDied { .. }))
    });
    std::fs::rename(aside, segment).unwrap();
    drop(reader);
}

/// Leftovers, garbage and squatters: what is surely a dead buffer's is removed, all else is left alone.
#[test]
fn only_what_was_a_buffer_is_taken_over() {
    let refused = |name: &Unique| {
        let error = Reader::create(name, BufferConfig::default()).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::ForeignObject, "{error}");
        assert_eq!(name.traces().len(), 1, "{:?}", name.traces());
    };
    let path = |name: &Unique| format!("/dev/shm/{}", &**name);
    // Somebody's file, and a version 2 segment: not ours to remove.
    for content in [&b"somebody's"[..], &[88; 4096]] {
        let name = Unique::new("garbage");
        std::fs::write(path(&name), content).unwrap();
        refused(&name);
        assert_eq!(std::fs::read(path(&name)).unwrap(), content);
        // With the traces of a buffer of that name it is a broken buffer.
        std::fs::write(crate::support::semaphore_path(&name, 'w'), [0; 32]).unwrap();
        drop(Reader::create(&name, BufferConfig::default()).unwrap());
    }
    let name = Unique::new("symlink");
    std::os::unix::fs::symlink("/etc/hostname", path(&name)).unwrap();
    refused(&name);
    std::fs::remove_file(path(&name)).unwrap();
    // What an existing reader leaves when it dies while creating: no bytes, or only zeros.
    for content in [&b""[..], &[0; 4096]] {
        let name = Unique::new("half-made");
        std::fs::write(path(&name), content).unwrap();
        drop(Reader::create(&name, BufferConfig::default()).unwrap());
    }
    // A closed reader's (pid 0), and a dead one's, also with another size and version.
    for (version, pid) in [(1_u64, 0_u64), (1, 1 << 30), (0, 1 << 30)] {
        let name = Unique::new("dead");
        let mut header = [0; 1280];
        header[..8].copy_from_slice(&(128 | version << 32).to_le_bytes());
        header[0x58..0x60].copy_from_slice(&pid.to_le_bytes());
        std::fs::write(path(&name), header).unwrap();
        drop(Reader::create(&name, BufferConfig::default()).unwrap());
    }
    // A live one without locks (rule L1 seen from the other side): never.
    let name = Unique::new("alive");
    let mut header = [0; 1280];
    header[..8].copy_from_slice(&(128_u64 | 1 << 32).to_le_bytes());
    header[0x58..0x60].copy_from_slice(&1_u64.to_le_bytes());
    std::fs::write(path(&name), header).unwrap();
    let error = Reader::create(&name, BufferConfig::default()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::AlreadyRunning);
    assert_eq!(v1::remove_leftovers(&name).unwrap_err().kind(), ErrorKind::AlreadyRunning);
    assert_eq!(name.traces(), [path(&name)]);
    std::fs::remove_file(path(&name)).unwrap();
}

/// A semaphore that is none does not kill a writer by SIGBUS.
#[test]
fn a_squatted_semaphore_is_refused() {
    let name = Unique::new("bad-semaphore");
    let reader = Reader::create(&name, BufferConfig::default()).unwrap();
    let semaphore = crate::support::semaphore_path(&name, 'w');
    std::fs::rename(&semaphore, format!("{semaphore}.aside")).unwrap();
    std::fs::write(&semaphore, "").unwrap();
    let error = Writer::connect(&name, Duration::ZERO).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ForeignObject);
    assert_eq!(peek(&name, field::WRITER_PID), 0);
    std::fs::rename(format!("{semaphore}.aside"), &semaphore).unwrap();
    drop(reader);
}

/// Rule L6: leftovers are removed by name, on demand, and only if both sides are dead.
#[test]
fn l6_leftovers_are_removed_only_when_both_sides_are_dead() {
    let name = Unique::new("leftovers");
    let path = format!("/dev/shm/{}", &*name);
    let leave = |writer_pid: u64| {
        let mut header = [0; 1280];
        header[..8].copy_from_slice(&(128_u64 | 1 << 32).to_le_bytes());
        header[0x50..0x58].copy_from_slice(&writer_pid.to_le_bytes());
        header[0x58..0x60].copy_from_slice(&(1_u64 << 30).to_le_bytes());
        std::fs::write(&path, header).unwrap();
        std::fs::write(crate::support::semaphore_path(&name, 'w'), [0; 32]).unwrap();
        std::fs::create_dir_all("/tmp/zerobuffer").unwrap();
        std::fs::write(format!("/tmp/zerobuffer/{}.lock", &*name), "").unwrap();
    };
    leave(1);
    assert_eq!(v1::remove_leftovers(&name).unwrap_err().kind(), ErrorKind::Busy);
    assert_eq!(name.traces_in_shm().len(), 2, "all left as found, for who comes later");
    leave(1 << 30);
    assert!(v1::remove_leftovers(&name).unwrap());
    assert!(name.traces().is_empty());
    assert!(!v1::remove_leftovers(&name).unwrap());
    let reader = Reader::create(&name, BufferConfig::default()).unwrap();
    assert_eq!(v1::remove_leftovers(&name).unwrap_err().kind(), ErrorKind::AlreadyRunning);
    assert!(reader.is_in_place());
}

/// Rule L1: a C# reader's lock, and a C++ or Python reader's, each keep ours out.
#[test]
fn l1_readers_of_all_languages_exclude_ours() {
    for folder in lock_folders() {
        let name = Unique::new("foreign-lock");
        std::fs::create_dir_all(&folder).unwrap();
        let path = format!("{folder}/{}.lock", &*name);
        let file = std::fs::File::create(&path).unwrap();
        let fd = std::os::fd::AsRawFd::as_raw_fd(&file);
        // SAFETY: the descriptor is open.
        assert_eq!(unsafe { libc::flock(fd, libc::LOCK_EX | libc::LOCK_NB) }, 0);
        let error = Reader::create(&name, BufferConfig::default()).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::AlreadyRunning);
        assert_eq!(name.traces(), std::slice::from_ref(&path));
        std::fs::remove_file(path).unwrap();
    }
}

/// The proposal's external memory: heap, a shared segment of another name, a window in the middle.
#[test]
fn reader_and_writer_run_over_supplied_memory() {
    let config = BufferConfig::new(64, 4096);
    let size = v1::segment_size(&config).unwrap();
    let name = Unique::new("supplied");
    let exchange = |memory: &dyn MemoryProvider| {
        // SAFETY: the memory is this buffer's alone; nothing uses what was in it before.
        let reader = unsafe { Reader::create_in(&name, memory, config.clone()) }.unwrap();
        let missing = !std::fs::exists(format!("/dev/shm/{}", &*name)).unwrap();
        assert!(missing && reader.is_in_place());
        // SAFETY: it is the reader's memory.
        let mut writer = unsafe { Writer::connect_in(&name, memory, Duration::ZERO) }.unwrap();
        writer.set_metadata(b"m").unwrap();
        for round in 0..200_u32 {
            writer.write_frame(&round.to_le_bytes().repeat(300)).unwrap();
            let frame = reader.read_frame(Duration::ZERO).unwrap();
            assert_eq!(frame.data(), round.to_le_bytes().repeat(300));
        }
        assert_eq!(reader.metadata().unwrap().unwrap(), b"m");
        drop(reader);
        assert_eq!(writer.write_frame(b"x").unwrap_err().kind(), ErrorKind::PeerClosed);
    };
    let mut heap = HeapMemory::new();
    heap.allocate(size + 640).unwrap();
    exchange(&heap);
    exchange(&heap.map(640, size).unwrap());
    let shared_name = Unique::new("supplied-elsewhere");
    let mut shared = SharedMemory::create(&shared_name, 0o600).unwrap();
    shared.allocate(size).unwrap();
    exchange(&shared);
    shared.unlink().unwrap();
    // Too small, at an odd address, not there yet, and by the configuration.
    let small = heap.map(0, size - 1).unwrap();
    let odd = heap.map(4, size).unwrap();
    let refused: [(&dyn MemoryProvider, _); 3] = [
        (&small, ErrorKind::TooLarge),
        (&odd, ErrorKind::BadConfig),
        (&HeapMemory::new(), ErrorKind::InvalidState),
    ];
    for (memory, kind) in refused {
        // SAFETY: the memory is this buffer's alone.
        let created = unsafe { Reader::create_in(&name, memory, config.clone()) };
        assert_eq!(created.unwrap_err().kind(), kind);
    }
    let over = BufferConfig::over(64, heap.map(0, size).unwrap());
    assert_eq!(Reader::create(&name, over).unwrap_err().kind(), ErrorKind::Unsupported);
}

/// Scenarios 8.1, 8.3, 12.3 and 12.4: names of every kind, their objects, and their end.
#[test]
fn names_of_every_kind_make_the_five_objects() {
    let unique = Unique::new("names");
    let long = format!("{}{}", &*unique, "x".repeat(245 - unique.len()));
    let names = [
        format!("{}.dotted.lock", &*unique),
        format!("{} spaced ü", &*unique),
        format!("{}-a5e0c1d2-0f7f-4a57-8a53-8a0e0d6f1c2b", &*unique),
        long,
    ];
    for name in names {
        let (reader, mut writer) = pair(&name, 0, 1024);
        writer.write_frame(b"x").unwrap();
        assert_eq!(poll(&reader), b"x");
        assert_eq!(unique.traces().len(), 5, "{:?}", unique.traces());
        drop((reader, writer));
        assert!(unique.traces().is_empty());
    }
    for name in ["", ".", "..", "a/b", &"x".repeat(246)] {
        let error = Reader::create(name, BufferConfig::default()).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::BadName);
    }
}

/// Scenario 4.12: a writer before its reader fails cleanly, or waits.
#[test]
fn a_writer_waits_for_its_reader_as_long_as_it_is_told() {
    let name = Unique::new("early");
    let error = Writer::connect(&name, Duration::from_millis(20)).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotRunning);
    std::thread::scope(|scope| {
        let writer = scope.spawn(|| Writer::connect(&name, LONG).unwrap());
        std::thread::sleep(Duration::from_millis(50));
        let reader = Reader::create(&name, BufferConfig::default()).unwrap();
        drop(writer.join().unwrap());
        drop(reader);
    });
}

/// Step 6 of section 5.3 "What we write": equal positions stand in an empty ring and in a full one.
#[test]
fn a_writer_is_drained_when_all_is_taken_even_if_it_is_held_and_never_while_the_ring_is_full() {
    let name = Unique::new("drain");
    let (reader, mut writer) = pair(&name, 0, 1024);
    writer.drain(Duration::ZERO).unwrap();
    for len in [1008, 100, 600, 400] {
        writer.write_frame(&vec![7; len]).unwrap();
        let error = writer.drain(Duration::from_millis(1)).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Timeout, "{len}");
        let frame = reader.read_frame(Duration::ZERO).unwrap();
        let fills_the_ring = len == 1008;
        assert_eq!(writer.drain(Duration::ZERO).is_err(), fills_the_ring, "{len}");
        drop(frame);
        writer.drain(Duration::ZERO).unwrap();
    }
    writer.write_frame(&[1]).unwrap();
    std::thread::scope(|scope| {
        scope.spawn(|| drop(reader.read_frame(LONG).unwrap()));
        writer.drain(LONG).unwrap();
    });
    writer.write_frame(&[1]).unwrap();
    drop(reader);
    assert_eq!(writer.drain(LONG).unwrap_err().kind(), ErrorKind::PeerClosed);
}
