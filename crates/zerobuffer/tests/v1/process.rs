//! Two real processes: the stress, kills at any moment, forks, signals.

use crate::clients::connect;
use crate::support::{LONG, Pattern, SOON, Unique, field, peek, peer, poke, until};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::channel;
use std::time::{Duration, Instant};
use zerobuffer::v1::{Draft, DuplexServer, Reader, Writer};
use zerobuffer::{BufferConfig, Closer, Error, ErrorKind};
use zerobuffer_test_support::{Rng, commands, say, with_mount};

/// The other process of the tests below, when they start this program again.
pub(crate) fn child(description: &str) {
    let (role, arguments) = description.split_once('\n').unwrap();
    let arguments: Vec<&str> = arguments.lines().collect();
    match (role, arguments.as_slice()) {
        ("stress-writer", [name, seed, frames]) => {
            stress_writer(name, seed.parse().unwrap(), frames.parse().unwrap());
        }
        ("writer", [name]) => writer_by_order(name),
        ("reader", [name, payload]) => reader_by_order(name, payload.parse().unwrap()),
        ("restless-writer", [name]) => restless_writer(name),
        ("restless-reader", [name]) => restless_reader(name),
        ("forking-reader", [name]) => forking_reader(name),
        ("forking-tester", [name]) => forking_tester(name),
        ("forking-looker", [name]) => forking_looker(name),
        ("signalled-reader", [name]) => signalled_reader(name),
        ("short-of-space", [name]) => short_of_space(name),
        ("idle-pair", [name]) => idle_pair(name),
        ("duplex-server", [name]) => duplex_server(name),
        ("duplex-client", [name]) => duplex_client(name),
        _ => panic!("no role {role} {arguments:?}"),
    }
}

const STRESS_RING: usize = 10240;
const STRESS_SEED: u64 = 0x5eed;

/// Lengths from 1 byte to half of the ring, the same in both processes.
fn stress_len(random: &mut Rng) -> usize {
    1 + random.below(STRESS_RING / 2 - 24)
}

fn stress_writer(name: &str, seed: u64, frames: u64) {
    let pattern = Pattern::new(STRESS_RING);
    let mut random = Rng(seed);
    let mut writer = Writer::connect(name, LONG).unwrap();
    for sequence in 1..=frames {
        let len = stress_len(&mut random);
        assert_eq!(writer.write_frame(pattern.frame(sequence, len)).unwrap(), sequence);
    }
}

/// A million frames of random lengths, every byte compared.
#[test]
fn a_million_frames_of_random_sizes_lose_nothing() {
    let frames: u64 = 1_000_000;
    let name = Unique::new("stress");
    let reader = Reader::create(&name, BufferConfig::new(0, STRESS_RING)).unwrap();
    let seed = STRESS_SEED.to_string();
    let peer = peer("stress-writer", &[&name, &seed, &frames.to_string()]);
    let pattern = Pattern::new(STRESS_RING);
    let mut random = Rng(STRESS_SEED);
    reader.wait_for_writer(LONG).unwrap();
    let start = Instant::now();
    for sequence in 1..=frames {
        let frame = reader.read_frame(LONG).unwrap();
        let len = stress_len(&mut random);
        assert_eq!((frame.sequence(), frame.len()), (sequence, len));
        assert!(frame.data() == pattern.frame(sequence, len), "frame {sequence} is damaged");
    }
    let took = start.elapsed().as_secs_f64();
    let statistics = reader.statistics();
    println!(
        "v1 stress: {frames} frames, {:.0} frames/s, {:.0} MiB/s, {} wraps",
        frames as f64 / took,
        statistics.bytes as f64 / took / 1048576.0,
        statistics.wraps,
    );
    // A writer that loses its CPU between account and token makes one of each.
    assert_eq!(statistics.spurious_tokens, statistics.missing_tokens);
    peer.finish();
    assert_eq!(reader.read_frame(LONG).unwrap_err().kind(), ErrorKind::PeerClosed);
    assert_eq!(peek(&name, field::FREE), STRESS_RING as u64);
    assert_eq!(peek(&name, field::READ_COUNT), peek(&name, field::WRITTEN_COUNT));
}

/// Scenarios 1.6, 4.5 and 6.3 in short: a slow reader holds its writer back, and nothing is lost.
#[test]
fn a_slow_reader_loses_nothing() {
    let name = Unique::new("slow");
    let reader = Reader::create(&name, BufferConfig::new(0, STRESS_RING)).unwrap();
    let peer = peer("stress-writer", &[&name, "77", "100"]);
    let pattern = Pattern::new(STRESS_RING);
    let mut random = Rng(77);
    for sequence in 1..=100 {
        let frame = reader.read_frame(LONG).unwrap();
        assert!(frame.data() == pattern.frame(sequence, stress_len(&mut random)));
        std::thread::sleep(Duration::from_millis(3));
    }
    peer.finish();
}

fn writer_by_order(name: &str) {
    let mut writer = Writer::connect(name, LONG).unwrap();
    say("ready");
    for order in commands() {
        match order.split_once(' ') {
            Some(("write", len)) => {
                let result = writer.write_frame(&vec![5; len.parse().unwrap()]);
                say(&result.map_or_else(|e| format!("{:?}", e.kind()), |n| n.to_string()));
            }
            // Fills the ring and stays in the call that waits for room.
            Some(("fill", len)) => {
                say("filling");
                writer.set_write_timeout(Duration::MAX);
                let bytes = vec![5; len.parse().unwrap()];
                let error = loop {
                    if let Err(error) = writer.write_frame(&bytes) {
                        break error;
                    }
                };
                say(&format!("{:?}", error.kind()));
            }
            _ => panic!("{order}"),
        }
    }
}

fn reader_by_order(name: &str, payload: usize) {
    let reader = Reader::create(name, BufferConfig::new(64, payload)).unwrap();
    say("ready");
    for order in commands() {
        match order.as_str() {
            "read" => match reader.read_frame(LONG) {
                Ok(frame) => say(&frame.sequence().to_string()),
                Err(error) => say(&format!("{:?}", error.kind())),
            },
            _ => panic!("{order}"),
        }
    }
}

/// Rules P1, T6 and L8, scenarios 2.1 and 10.4: a killed writer is noticed within slices, though it
/// lies there as a zombie; what it wrote is read first; its pid is cleared; the next one goes on.
#[test]
fn t6_a_killed_writer_is_noticed_and_its_frames_are_read_first() {
    let name = Unique::new("killed-writer");
    let reader = Reader::create(&name, BufferConfig::new(0, 10240)).unwrap();
    let mut peer = peer("writer", &[&name]);
    peer.expect("ready");
    assert_eq!(peer.reply("write 100"), "1");
    assert_eq!(peer.reply("write 200"), "2");
    peer.kill_unburied();
    assert_eq!(reader.read_frame(LONG).unwrap().len(), 100);
    assert_eq!(reader.read_frame(LONG).unwrap().len(), 200);
    let start = Instant::now();
    assert_eq!(reader.read_frame(LONG).unwrap_err().kind(), ErrorKind::PeerDied);
    assert!(start.elapsed() < SOON, "{:?}", start.elapsed());
    assert_eq!(peek(&name, field::WRITER_PID), 0, "rule L8");
    assert_eq!(reader.read_frame(Duration::ZERO).unwrap_err().kind(), ErrorKind::PeerDied);
    let mut writer = Writer::connect(&name, LONG).unwrap();
    assert_eq!(writer.write_frame(b"successor").unwrap(), 3);
    assert_eq!(reader.read_frame(LONG).unwrap().data(), b"successor");
}

/// Rule T6 for who polls: the end is noticed although no call waits.
#[test]
fn t6_a_polling_reader_notices_a_killed_writer() {
    let name = Unique::new("polling");
    let reader = Reader::create(&name, BufferConfig::new(0, 10240)).unwrap();
    let mut peer = peer("writer", &[&name]);
    peer.expect("ready");
    peer.kill_unburied();
    let start = Instant::now();
    until("the notice", || {
        reader.read_frame(Duration::ZERO).unwrap_err().kind() == ErrorKind::PeerDied
    });
    assert!(start.elapsed() < SOON);
}

/// Scenarios 2.2 and 10.3, rule L10: a reader that is killed while its ring is full.
#[test]
fn a_killed_reader_ends_a_blocked_write() {
    let name = Unique::new("killed-reader");
    let mut reader = peer("reader", &[&name, "10240"]);
    reader.expect("ready");
    let mut writer = peer("writer", &[&name]);
    writer.expect("ready");
    writer.say("fill 1000");
    writer.expect("filling");
    until("a full ring", || peek(&name, field::FREE) < 1016);
    reader.kill_unburied();
    let start = Instant::now();
    writer.expect("PeerDied");
    assert!(start.elapsed() < SOON);
    // An existing reader that starts elsewhere at this moment may sweep up the unlocked lock file.
    assert_eq!(name.traces_in_shm().len(), 3, "a kill leaves all of it");
    drop(writer);
    assert!(zerobuffer::v1::remove_leftovers(&name).unwrap());
}

/// Scenarios 2.3 and 8.4: a replacement takes over, and the writer's old handle says so.
#[test]
fn a_replacement_reader_takes_over_and_the_old_writer_learns_of_it() {
    let name = Unique::new("replacement");
    let mut first = peer("reader", &[&name, "10240"]);
    first.expect("ready");
    let mut writer = Writer::connect(&name, LONG).unwrap();
    writer.write_frame(b"one").unwrap();
    assert_eq!(first.reply("read"), "1");
    first.kill_unburied();
    let mut second = peer("reader", &[&name, "10240"]);
    second.expect("ready");
    let start = Instant::now();
    until("the notice", || matches!(writer.write_frame(b"x"), Err(Error::PeerDied { .. })));
    assert!(start.elapsed() < SOON);
    drop(writer);
    let mut writer = Writer::connect(&name, LONG).unwrap();
    assert_eq!(writer.write_frame(b"fresh").unwrap(), 1);
    assert_eq!(second.reply("read"), "1");
    drop(writer);
    second.finish();
}

fn restless_writer(name: &str) {
    let mut random = Rng(u64::from(std::process::id()));
    let mut writer = Writer::connect(name, LONG).unwrap();
    say("ready");
    let pattern = Pattern::new(4096);
    loop {
        let len = 1 + random.below(400);
        let sequence = writer.next_sequence();
        writer.write_frame(pattern.frame(sequence, len)).unwrap();
    }
}

/// Kills writers at random moments. Whatever the moment, the reader gets whole frames in order, learns
/// of the end, and the next writer goes on, unless the kill fell between two words of the account, or
/// into a wrap whose claim had overwritten the frames that tell the last sequence (rule R13): then the
/// next writer is refused, and says why.
#[test]
fn writers_killed_at_any_moment_leave_whole_frames() {
    let pattern = Pattern::new(4096);
    for round in 0..40 {
        let name = Unique::new("kill-writers");
        let reader = Reader::create(&name, BufferConfig::new(0, 2048)).unwrap();
        let mut expected = 1;
        for _ in 0..2 {
            let mut peer = peer("restless-writer", &[&name]);
            peer.expect("ready");
            let deadline = Instant::now() + Duration::from_micros(round * 150);
            let mut killed = false;
            let error = loop {
                match reader.read_frame(LONG) {
                    Ok(frame) => {
                        assert_eq!(frame.sequence(), expected);
                        assert!(frame.data() == pattern.frame(expected, frame.len()));
                        expected += 1;
                    }
                    Err(error) => break error,
                }
                if !killed && Instant::now() > deadline {
                    peer.kill_unburied();
                    killed = true;
                }
            };
            assert_eq!(error.kind(), ErrorKind::PeerDied, "{error}");
            match Writer::connect(&name, Duration::ZERO) {
                Ok(writer) => assert_eq!(writer.next_sequence(), expected),
                Err(Error::ProtocolViolation { .. } | Error::SequenceUnknown { .. }) => break,
                Err(error) => panic!("{error}"),
            }
        }
    }
}

fn restless_reader(name: &str) {
    say("ready");
    loop {
        match Reader::create(name, BufferConfig::new(64, 4096)) {
            Ok(reader) => drop(reader.read_frame(Duration::from_micros(200))),
            Err(Error::AlreadyRunning { .. }) => {}
            Err(error) => panic!("{error}"),
        }
    }
}

/// Kills readers that come and go at random moments: creating, living, closing. The next one always
/// starts without cleaning by hand, and rule L9: no segment without any pid stays.
#[test]
fn readers_killed_at_any_moment_need_no_cleaning() {
    for round in 0..60 {
        let name = Unique::new("kill-readers");
        let mut peer = peer("restless-reader", &[&name]);
        peer.expect("ready");
        std::thread::sleep(Duration::from_micros(500 + round * 97));
        peer.kill_unburied();
        if std::fs::exists(format!("/dev/shm/{}", &*name)).unwrap() {
            assert_eq!(peek(&name, field::READER_PID), peer.pid() as u64);
        }
        let reader = Reader::create(&name, BufferConfig::new(64, 4096)).unwrap();
        let mut writer = Writer::connect(&name, Duration::ZERO).unwrap();
        writer.write_frame(b"alive").unwrap();
        assert_eq!(reader.read_frame(Duration::ZERO).unwrap().data(), b"alive");
    }
}

/// Forks a child that only sleeps, before anything else runs in it.
fn fork_sleeper() -> i32 {
    // SAFETY: the child calls pause only, which is async-signal-safe.
    match unsafe { libc::fork() } {
        0 => loop {
            // SAFETY: as above.
            unsafe { libc::pause() };
        },
        child => child,
    }
}

fn forking_reader(name: &str) {
    let _reader = Reader::create(name, BufferConfig::new(64, 4096)).unwrap();
    say(&fork_sleeper().to_string());
    commands().for_each(drop);
}

/// Rules L15 and P5: a forked child that lives on keeps neither the lock nor the buffer alive.
#[test]
fn l15_a_forked_child_does_not_keep_the_buffer_alive() {
    let name = Unique::new("forked");
    let mut parent = peer("forking-reader", &[&name]);
    let sleeper: i32 = parent.hear().parse().unwrap();
    let mut writer = Writer::connect(&name, LONG).unwrap();
    parent.kill_unburied();
    until("the notice", || matches!(writer.write_frame(b"x"), Err(Error::PeerDied { .. })));
    drop(writer);
    let reader = Reader::create(&name, BufferConfig::new(64, 4096)).unwrap();
    assert!(reader.is_in_place());
    // SAFETY: the sleeper is the child of our child, and its id was told by it.
    unsafe { libc::kill(sleeper, libc::SIGKILL) };
}

/// Handles are used and dropped in a forked child.
fn forking_tester(name: &str) {
    let reader = Reader::create(name, BufferConfig::new(64, 4096)).unwrap();
    let mut writer = Writer::connect(name, LONG).unwrap();
    writer.write_frame(b"one").unwrap();
    writer.write_frame(b"two").unwrap();
    let frame = reader.read_frame(LONG).unwrap();
    // SAFETY: the child uses only what is checked here, and ends by _exit.
    let child = unsafe { libc::fork() };
    if child == 0 {
        let kinds = (
            reader.read_frame(Duration::ZERO).map(drop).unwrap_err().kind(),
            writer.write_frame(b"x").unwrap_err().kind(),
            reader.metadata().unwrap_err().kind(),
        );
        let wrong = ErrorKind::WrongProcess;
        let good = kinds == (wrong, wrong, wrong)
            && frame.data().is_empty()
            && !reader.is_writer_connected()
            && !writer.is_reader_connected()
            && !reader.is_in_place()
            && closes_nothing(&[reader.closer(), writer.closer()]);
        drop(frame);
        drop(writer);
        drop(reader);
        // SAFETY: ends the child at once.
        unsafe { libc::_exit(i32::from(!good)) };
    }
    let mut status = -1;
    // SAFETY: the child is ours.
    unsafe { libc::waitpid(child, &mut status, 0) };
    assert_eq!(status, 0, "the child found something else");
    assert_eq!(frame.data(), b"one");
    assert!(reader.is_in_place());
    assert_eq!(reader.read_frame(LONG).unwrap().data(), b"two");
    writer.write_frame(b"three").unwrap();
    say("good");
}

/// Closers that were made in the child.
fn closes_nothing(closers: &[Closer]) -> bool {
    let are_closed = || closers.iter().all(Closer::is_closed);
    let were_closed = are_closed();
    closers.iter().for_each(Closer::close);
    were_closed && are_closed()
}

/// Rule P5: in a forked child every handle says so, and its drop touches nothing.
#[test]
fn p5_handles_in_a_forked_child_touch_nothing() {
    let name = Unique::new("fork-tester");
    let mut peer = peer("forking-tester", &[&name]);
    peer.expect("good");
    peer.finish();
}

/// Forks while another thread looks after the buffer all the time.
fn forking_looker(name: &str) {
    let reader = Reader::create(name, BufferConfig::new(64, 4096)).unwrap();
    let over = AtomicBool::new(false);
    let stuck = std::thread::scope(|scope| {
        scope.spawn(|| {
            while !over.load(Ordering::Relaxed) {
                assert!(reader.is_in_place());
            }
        });
        let stuck = (0..100).find(|_| fork_and_drop(&reader) != 0);
        over.store(true, Ordering::Relaxed);
        stuck
    });
    assert_eq!(stuck, None, "the child of this fork waited for a thread that it has not");
    say("good");
}

/// How a forked child ends that drops the reader: by SIGALRM if it has to wait.
fn fork_and_drop(reader: &Reader) -> i32 {
    // SAFETY: the child uses only the reader, which it has for itself there, and ends by _exit.
    let child = unsafe { libc::fork() };
    if child == 0 {
        // SAFETY: as above.
        unsafe {
            libc::alarm(30);
            let good = !reader.is_in_place();
            drop(std::ptr::read(reader));
            libc::_exit(i32::from(!good));
        }
    }
    let mut status = -1;
    // SAFETY: the child is ours.
    unsafe { libc::waitpid(child, &mut status, 0) };
    status
}

/// Rule P5, whatever lock another thread had at the moment of the fork.
#[test]
fn p5_a_forked_child_waits_for_no_lock_of_its_parent() {
    let name = Unique::new("fork-looker");
    let mut peer = peer("forking-looker", &[&name]);
    peer.expect("good");
    peer.finish();
}

extern "C" fn ignore(_: libc::c_int) {}

/// Under a signal each millisecond that interrupts every system call.
fn signalled_reader(name: &str) {
    // SAFETY: the handler does nothing; sigaction and setitimer get valid structures.
    unsafe {
        let mut action: libc::sigaction = std::mem::zeroed();
        action.sa_sigaction = ignore as *const () as usize;
        libc::sigaction(libc::SIGALRM, &action, std::ptr::null_mut());
        let every = libc::timeval { tv_sec: 0, tv_usec: 1000 };
        let timer = libc::itimerval { it_interval: every, it_value: every };
        libc::syscall(libc::SYS_setitimer, libc::ITIMER_REAL, &timer, 0);
    }
    let reader = Reader::create(name, BufferConfig::new(64, 8 << 20)).unwrap();
    let mut writer = Writer::connect(name, LONG).unwrap();
    let start = Instant::now();
    let error = reader.read_frame(Duration::from_millis(300)).unwrap_err();
    let took = start.elapsed();
    assert_eq!(error.kind(), ErrorKind::Timeout);
    assert!(took >= Duration::from_millis(300) && took < SOON, "{took:?}");
    writer.set_write_timeout(Duration::from_millis(300));
    writer.write_frame(&vec![1; 4 << 20]).unwrap();
    let start = Instant::now();
    assert_eq!(writer.write_frame(&vec![1; 4 << 20]).unwrap_err().kind(), ErrorKind::Full);
    let took = start.elapsed();
    assert!(took >= Duration::from_millis(300) && took < SOON, "{took:?}");
    say("good");
}

/// Rule T2: an interrupted wait is no timeout.
#[test]
fn t2_signals_are_not_taken_for_timeouts() {
    let name = Unique::new("signals");
    let mut peer = peer("signalled-reader", &[&name]);
    peer.expect("good");
    peer.finish();
}

/// With a limit on the size of files, which is what a full /dev/shm looks like to fallocate.
fn short_of_space(name: &str) {
    // SAFETY: valid structures; the signal is only ignored.
    unsafe {
        libc::signal(libc::SIGXFSZ, libc::SIG_IGN);
        let limit = libc::rlimit { rlim_cur: 1 << 20, rlim_max: 1 << 20 };
        libc::setrlimit(libc::RLIMIT_FSIZE, &limit);
    }
    let error = Reader::create(name, BufferConfig::new(64, 4 << 20)).unwrap_err();
    let whole = (4 << 20) + 192;
    assert!(matches!(error, Error::NoSpace { needed, .. } if needed == whole), "{error}");
    drop(Reader::create(name, BufferConfig::new(64, 1 << 16)).unwrap());
    say("good");
}

/// Rule L16 and scenario 7.1: too little memory is an error, at once, with nothing left behind.
#[test]
fn l16_too_little_memory_is_an_error_and_no_signal() {
    let name = Unique::new("no-space");
    let mut peer = peer("short-of-space", &[&name]);
    peer.expect("good");
    assert!(name.traces().is_empty());
    peer.finish();
}

/// Rule L16 on a small file system, where one may be mounted: the same, by ENOSPC.
#[test]
fn l16_a_full_dev_shm_is_an_error_and_no_signal() {
    with_mount("a full /dev/shm of version 1", "/dev/shm", "size=1m", || {
        let name = Unique::new("small-shm");
        let error = Reader::create(&name, BufferConfig::new(64, 4 << 20)).unwrap_err();
        assert!(matches!(error, Error::NoSpace { .. }), "{error}");
        assert_eq!(std::fs::read_dir("/dev/shm").unwrap().count(), 0);
        drop(Reader::create(&name, BufferConfig::new(64, 1 << 16)).unwrap());
        assert_eq!(std::fs::read_dir("/dev/shm").unwrap().count(), 0);
    });
}

fn duplex_server(name: &str) {
    let mut server = DuplexServer::create(name, BufferConfig::new(64, 1 << 16)).unwrap();
    server
        .start_mutable(|draft: &mut Draft| {
            if draft.data() == b"abort" {
                std::process::abort();
            }
            draft.data_mut().iter_mut().for_each(|byte| *byte ^= 0xff);
        })
        .unwrap();
    say("ready");
    commands().for_each(drop);
}

fn duplex_client(name: &str) {
    let mut client = connect(name, LONG).unwrap();
    say("ready");
    for order in commands() {
        match order.as_str() {
            "call" => {
                let response = client.call(b"abc", LONG).unwrap();
                assert_eq!(response.data(), [b'a' ^ 0xff, b'b' ^ 0xff, b'c' ^ 0xff]);
                say(&response.sequence().to_string());
            }
            "send" => say(&client.send_request(b"left behind").unwrap().to_string()),
            _ => panic!("{order}"),
        }
    }
}

/// Scenarios 13.2, 13.5 and 13.10 across processes: calls, a server that dies in its handler, and the
/// next server under the same name.
#[test]
fn a_server_that_dies_in_its_handler_is_noticed_and_replaced() {
    let name = Unique::new("duplex-kill");
    let mut server = peer("duplex-server", &[&name]);
    server.expect("ready");
    let mut client = connect(&name, LONG).unwrap();
    for round in 0..1000_u32 {
        let request = round.to_le_bytes();
        let response = client.call(&request, LONG).unwrap();
        assert_eq!(response.sequence(), u64::from(round) + 1);
        assert_eq!(response.data(), request.map(|byte| !byte));
    }
    let start = Instant::now();
    let error = client.call(b"abort", LONG).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::PeerDied);
    assert_eq!(error.lost_request().map(|lost| lost.sequence), Some(1001));
    // Well before the call would have timed out.
    assert!(start.elapsed() < SOON);
    assert!(!client.is_server_connected());
    server.kill_unburied();
    drop(client);
    let mut server = peer("duplex-server", &[&name]);
    server.expect("ready");
    let mut client = connect(&name, LONG).unwrap();
    assert_eq!(client.call(b"x", LONG).unwrap().data(), [!b'x']);
    drop(client);
    server.finish();
}

/// Rule X4 and scenario 13.9: clients come, are killed, and leave requests behind; each next one gets
/// the answers to its own requests.
#[test]
fn x4_clients_that_are_killed_do_not_disturb_the_next() {
    let name = Unique::new("duplex-clients");
    let mut server = peer("duplex-server", &[&name]);
    server.expect("ready");
    for round in 0..5 {
        let mut client = peer("duplex-client", &[&name]);
        client.expect("ready");
        client.reply("call");
        client.reply("call");
        if round % 2 == 0 {
            client.reply("send");
        }
        client.kill_unburied();
    }
    // One killed with its requests unread: the server is in a handler.
    let mut client = connect(&name, LONG).unwrap();
    assert_eq!(client.call(b"z", LONG).unwrap().data(), [!b'z']);
    drop(client);
    server.finish();
}

#[test]
fn a_handler_notices_that_its_client_was_killed() {
    let name = Unique::new("duplex-cancelled");
    let mut server = DuplexServer::create(&name, BufferConfig::new(64, 1 << 16)).unwrap();
    let ((began, begun), (ended, end)) = (channel(), channel());
    let handler = move |draft: &mut Draft| {
        assert!(!draft.cancelled(), "its client waits");
        began.send(()).unwrap();
        while !draft.cancelled() {
            std::thread::yield_now();
        }
        ended.send(()).unwrap();
    };
    server.start_mutable(handler).unwrap();
    for _ in 0..3 {
        let mut client = peer("duplex-client", &[&name]);
        client.expect("ready");
        client.reply("send");
        begun.recv_timeout(LONG).unwrap();
        client.kill_and_bury();
        end.recv_timeout(LONG).unwrap();
    }
    // Takes over the response buffer that the last one has left.
    drop(connect(&name, LONG).unwrap());
    server.stop().unwrap();
}

fn idle_pair(name: &str) {
    let server = || {
        let mut server = DuplexServer::create(name, BufferConfig::new(64, 1 << 16)).unwrap();
        server.start_mutable(|_: &mut Draft| {}).unwrap();
        server
    };
    let sleeps = || {
        // SAFETY: an all-zero rusage is valid, and the call fills it.
        unsafe {
            let mut usage: libc::rusage = std::mem::zeroed();
            libc::getrusage(libc::RUSAGE_SELF, &mut usage);
            usage.ru_nvcsw
        }
    };
    let idle = |what: &str| {
        let before = sleeps();
        std::thread::sleep(Duration::from_secs(1));
        say(&format!("{what} {}", sleeps() - before));
    };
    let server = server();
    idle("alone");
    let mut client = connect(name, LONG).unwrap();
    client.call(b"x", LONG).unwrap();
    idle("connected");
    drop(client);
    idle("left");
    drop(server);
}

/// Scenario 9.1: a server that has nothing to do sleeps, with no client, an idle one, and one that left.
#[test]
fn an_idle_server_sleeps_nearly_all_the_time() {
    let name = Unique::new("idle");
    let mut peer = peer("idle-pair", &[&name]);
    for state in ["alone", "connected", "left"] {
        let heard = peer.hear();
        let (what, sleeps) = heard.split_once(' ').unwrap();
        assert_eq!(what, state);
        // It looks a hundred times a second at the most. One that spins never sleeps, and one that waits for somebody looks
        // every millisecond.
        assert!((1..300).contains(&sleeps.parse::<u64>().unwrap()), "{heard}");
    }
    peer.finish();
}

/// Rule X4 at its narrowest: a client sends its first request and goes, and the next one comes, both
/// before the server looks. The next one gets the answer to its own request.
#[test]
fn x4_a_first_request_that_was_left_behind_is_not_answered_to_the_next_client() {
    let name = Unique::new("duplex-stopped");
    let mut server = peer("duplex-server", &[&name]);
    server.expect("ready");
    for _ in 0..3 {
        let first = connect(&name, LONG).unwrap();
        server.freeze();
        first.send_request(b"left behind").unwrap();
        drop(first);
        std::thread::scope(|scope| {
            let next = scope.spawn(|| connect(&name, LONG).unwrap());
            std::thread::sleep(Duration::from_millis(50));
            server.go_on();
            let mut next = next.join().unwrap();
            assert_eq!(next.call(b"mine", LONG).unwrap().data(), b"mine".map(|byte| !byte));
        });
    }
    server.finish();
}

/// Rule P1 once more, for leftovers: a reader killed and unburied is dead to its successor.
#[test]
fn p1_a_zombie_does_not_keep_its_name() {
    let name = Unique::new("zombie");
    let mut peer = peer("reader", &[&name, "4096"]);
    peer.expect("ready");
    peer.kill_unburied();
    let reader = Reader::create(&name, BufferConfig::new(64, 4096)).unwrap();
    assert!(reader.is_in_place());
    // A leftover that bears our own id is from an earlier life, as in a restarted container.
    let segment = format!("/dev/shm/{}", &*name);
    std::fs::hard_link(&segment, format!("{segment}.kept")).unwrap();
    drop(reader);
    std::fs::rename(format!("{segment}.kept"), &segment).unwrap();
    poke(&name, field::READER_PID, u64::from(std::process::id()));
    drop(Reader::create(&name, BufferConfig::new(64, 4096)).unwrap());
}
