//! `zerobuffer demo`: pictures, edited by a second process in place, and by a third one over two
//! buffers, every answer checked.

mod channel;
mod expected;
mod table;

use crate::args::{Common, DemoArgs};
use crate::drawing;
use crate::failure::{Exit, Failure};
use crate::filters::{Chain, Filter};
use crate::interrupt::Interrupt;
use crate::picture::file::PictureFile;
use crate::report::{Progress, Report};
use channel::{Channel, Job, save};
use expected::Expected;
use zerobuffer::ChannelName;

/// What the servers do with each frame.
const FILTERS: [Filter; 2] = [Filter::Blur, Filter::Redact];
/// Size of a metadata block: the picture's shape takes 24 bytes.
const METADATA: usize = 64;

/// Runs the demo.
pub(crate) fn run(args: &DemoArgs, common: &Common, report: &Report) -> Result<Exit, Failure> {
    let interrupt = Interrupt::listen()?;
    std::fs::create_dir_all(&args.out).map_err(|error| Failure::file("make", &args.out, error))?;
    let picture = match &args.image {
        Some(path) => {
            let file = PictureFile::open(path)?;
            report.notes(&file.notes);
            file.decode(args.size)?
        }
        None => {
            let (width, height) = args.size.unwrap_or((1280, 720));
            drawing::draw(width, height)
        }
    };
    let chain = Chain::new(&FILTERS, None, &args.image_options).map_err(Failure::usage)?;
    let expected = Expected::compute(&picture, &chain, args.frames, &interrupt)?;
    let job = Job { picture: &picture, expected: &expected, args, interrupt: &interrupt };

    let name = ChannelName::new(&format!("zerobuffer-demo-{}", std::process::id()))?;
    let mut in_place = Channel::open(&name, false, &job, common)?;
    let mut two_buffers = Channel::open(&name, true, &job, common)?;
    let mut progress = Progress::new("frames", args.frames);
    for number in 0..args.frames {
        // In turns, so that whatever else the machine does meets both, and so does the advantage of
        // coming second, when the picture is in the processor's cache.
        for two_buffers_turn in [number % 2 == 1, number % 2 == 0] {
            if two_buffers_turn {
                two_buffers.send(number, &job, |_| Ok(()))?;
            } else {
                in_place.send(number, &job, |answer| match number {
                    0 => save(&job, answer),
                    _ => Ok(()),
                })?;
            }
        }
        progress.step();
    }
    drop(progress);

    let record = table::record(&job, &in_place, &two_buffers);
    let done = [in_place.close(), two_buffers.close()];
    report.result(&record, || {
        table::table(&record, picture.shape, done.each_ref(), &expected.latencies)
    })?;
    Ok(if record.ok { Exit::Done } else { Exit::WrongAnswer })
}
