//! How fast pairs of all kinds are, as they say it.

use crate::duplex::{our_server, their_client};
use crate::*;

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
