//! `zerobuffer demo`: pictures, edited by a second process in place, and by a third one over two
//! buffers, every response checked; once with a filter that takes its time, and once with one that touches little.

mod channel;
mod expected;
mod table;

use crate::args::{Common, DemoArgs};
use crate::drawing;
use crate::failure::{Exit, Failure};
use crate::filters::{Chain, Filter};
use crate::interrupt::Interrupt;
use crate::picture::Picture;
use crate::picture::file::PictureFile;
use crate::report::{Progress, Report};
use channel::{Channel, Job, save};
use expected::Expected;
use table::Pair;
use zerobuffer::ChannelName;

/// Takes about as long as the copies of a channel over two buffers, or longer.
const BLUR: [Filter; 2] = [Filter::Blur, Filter::Redact];
/// Touches a small part of the frame, so that copies are most of what another channel does.
const REDACTION: [Filter; 1] = [Filter::Redact];

/// Runs the demo.
pub(crate) fn run(args: &DemoArgs, common: &Common, report: &Report) -> Result<Exit, Failure> {
    std::fs::create_dir_all(&args.out).map_err(|error| Failure::file("make", &args.out, error))?;
    let mut notes = vec![];
    let picture = match &args.image {
        Some(path) => {
            let file = PictureFile::open(path)?;
            notes.clone_from(&file.notes);
            file.decode(args.size)?
        }
        None => {
            let (width, height) = args.size.unwrap_or((1280, 720));
            drawing::draw(width, height)
        }
    };
    report.notes(&notes);
    // Not before the picture is there: a signal has to end the wait for a pipe that nobody writes to.
    let interrupt = Interrupt::listen()?;
    let blur = compare(&BLUR, &picture, args, &interrupt, common)?;
    let redaction = compare(&REDACTION, &picture, args, &interrupt, common)?;
    let record = table::record(args, &picture, notes, &blur, &redaction);
    report.result(&record, || table::table(&record, args, &picture, &blur, &redaction))?;
    Ok(if record.ok { Exit::Done } else { Exit::WrongAnswer })
}

/// Sends all frames through both channels, whose servers do the same with them.
fn compare(
    filters: &[Filter],
    picture: &Picture,
    args: &DemoArgs,
    interrupt: &Interrupt,
    common: &Common,
) -> Result<Pair, Failure> {
    let chain = Chain::new(filters, None, &args.image_options).map_err(Failure::usage)?;
    let expected = Expected::compute(picture, &chain, args.frames, interrupt)?;
    let job = Job { picture, filters, expected: &expected, args, interrupt };
    let name = ChannelName::new(&format!("zerobuffer-demo-{}", std::process::id()))?;
    let mut in_place = Channel::open(&name, false, &job, common)?;
    let mut two_buffers = Channel::open(&name, true, &job, common)?;
    let mut progress = Progress::new("frames", args.frames);
    let mut ratios = Vec::new();
    for number in 0..args.frames {
        // In turn, so that whatever else the machine does meets both; and each one first for half of the frames, because
        // who comes second finds the picture in the processor's cache.
        let (one, two) = if number.is_multiple_of(2) {
            let one = send_in_place(&mut in_place, number, &job)?;
            (one, two_buffers.send(number, &job, |_| Ok(()))?)
        } else {
            let two = two_buffers.send(number, &job, |_| Ok(()))?;
            (send_in_place(&mut in_place, number, &job)?, two)
        };
        ratios.push(two.as_secs_f64() / one.as_secs_f64());
        progress.step();
    }
    ratios.sort_by(f64::total_cmp);
    let (in_place, two_buffers) = (in_place.close(), two_buffers.close());
    Ok(Pair { in_place, two_buffers, ratios, alone: expected.latencies })
}

/// The pictures are those of the first frame, blurred.
fn send_in_place(
    channel: &mut Channel,
    number: u64,
    job: &Job<'_>,
) -> Result<std::time::Duration, Failure> {
    channel.send(number, job, |answer| match number == 0 && job.filters == BLUR {
        true => save(job, answer),
        false => Ok(()),
    })
}
