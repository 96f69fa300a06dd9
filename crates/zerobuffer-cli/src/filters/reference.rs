//! What each filter must do, written as plainly as its description in `docs/command.md`, for tests only: slow, and
//! without a word of the code that it is compared with.

/// A picture's width and height in pixels, and its channels.
pub(crate) type Sides = [usize; 3];

/// Each pixel becomes the weighted mean of its neighbours up to `radius` away, first along its row, then along its
/// column; a neighbour at distance d weighs radius + 1 - d, and beyond the border the border's pixel is repeated.
pub(crate) fn blurred(data: &[u8], sides: Sides, radius: usize) -> Vec<u8> {
    mean_along(&mean_along(data, sides, radius, (1, 0)), sides, radius, (0, 1))
}

fn mean_along(data: &[u8], sides: Sides, radius: usize, step: (i64, i64)) -> Vec<u8> {
    let inside = |at: i64, side: usize| at.clamp(0, side as i64 - 1) as usize;
    each_byte(data, sides, |column, row, channel| {
        let sum: u64 = (-(radius as i64)..=radius as i64)
            .map(|distance| {
                let column = inside(column as i64 + distance * step.0, sides[0]);
                let row = inside(row as i64 + distance * step.1, sides[1]);
                let weight = radius as u64 + 1 - distance.unsigned_abs();
                u64::from(data[at(sides, column, row, channel)]) * weight
            })
            .sum();
        (sum / (radius as u64 + 1).pow(2)) as u8
    })
}

/// Red, green and blue become the luma of Rec. 709; alpha stays, and so does a picture of one channel.
pub(crate) fn grayed(data: &[u8], sides: Sides) -> Vec<u8> {
    each_byte(data, sides, |column, row, channel| {
        if sides[2] == 1 || channel == 3 {
            return data[at(sides, column, row, channel)];
        }
        let weighted = [2126, 7152, 722]
            .iter()
            .enumerate()
            .map(|(colour, weight)| weight * u32::from(data[at(sides, column, row, colour)]));
        (weighted.sum::<u32>() / 10_000) as u8
    })
}

/// Black and opaque from column `x` and row `y` on, `width` by `height`.
pub(crate) fn redacted(data: &[u8], sides: Sides, area: [usize; 4]) -> Vec<u8> {
    let [x, y, width, height] = area;
    each_byte(data, sides, |column, row, channel| {
        let inside = (x..x + width).contains(&column) && (y..y + height).contains(&row);
        match (inside, channel) {
            (false, _) => data[at(sides, column, row, channel)],
            (true, 3) => 255,
            (true, _) => 0,
        }
    })
}

fn each_byte(data: &[u8], sides: Sides, byte: impl Fn(usize, usize, usize) -> u8) -> Vec<u8> {
    let [width, height, channels] = sides;
    assert_eq!(data.len(), width * height * channels);
    let mut result = Vec::with_capacity(data.len());
    for row in 0..height {
        for column in 0..width {
            result.extend((0..channels).map(|channel| byte(column, row, channel)));
        }
    }
    result
}

fn at([width, _, channels]: Sides, column: usize, row: usize, channel: usize) -> usize {
    (row * width + column) * channels + channel
}
